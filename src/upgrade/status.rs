//! How a failed upgrade is told in STATUS=, both directions: what the old process writes, and what
//! `handover upgrade` reads. And which generation of its program serves under `handover run`, whose main
//! process never changes.
//!
//! ```text
//! upgrade failed: exec-failed: /usr/bin/web: No such file or directory (os error 2) | serving
//!                 `-- name     `-- detail                                             `-- the rest
//! generation 7 (process 4711) serves
//! ```
//!
//! This file is pure; it never asks whether the failure is one that this version knows.

const FAILED: &str = "upgrade failed: ";
const REST: &str = " | ";

/// The text for a failure, in front of whatever else the status says.
pub(crate) fn write(failure: &super::Failure, rest: &str) -> String {
    format!("{FAILED}{}: {}{REST}{rest}", failure.reason, failure.detail.replace(REST, " / "))
}

/// The name and the detail of the failure that a StatusText tells, if it tells one. The name may be one
/// of a newer handover, see [`Reason::name`](super::Reason::name).
pub fn read(status: &str) -> Option<(&str, &str)> {
    let (name, text) = status.strip_prefix(FAILED)?.split_once(':')?;
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let detail = text.split_once(REST).map_or(text, |(detail, _)| detail);
    (!name.is_empty() && name.chars().all(word)).then_some((name, detail.trim()))
}

/// The text for a generation that serves, and its main process.
#[cfg(feature = "cli")]
pub(crate) fn write_generation(number: u64, pid: i32) -> String {
    format!("generation {number} (process {pid}) serves")
}

/// The generation and the process in such a text, wherever it is in `status`.
#[cfg(feature = "cli")]
pub(crate) fn read_generation(status: &str) -> Option<(u64, u32)> {
    let after = status.rsplit_once(REST).map_or(status, |(_, rest)| rest);
    let (number, rest) = after.strip_prefix("generation ")?.split_once(" (process ")?;
    let (pid, rest) = rest.split_once(')')?;
    rest.starts_with(" serves").then_some(())?;
    Some((number.parse().ok()?, pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::{Failure, Reason};
    use proptest::prelude::*;

    #[test]
    fn a_status_that_tells_no_failure_is_none() {
        for status in
            ["", "serving", "upgrade failed", "upgrade failed: not a name: x", "upgrade failed: : x"]
        {
            assert_eq!(read(status), None, "{status:?}");
        }
        assert_eq!(read("upgrade failed: of-tomorrow: because"), Some(("of-tomorrow", "because")));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            reason in prop::sample::select(Reason::ALL), detail in "[^|]{0,40}", rest in ".{0,40}",
        ) {
            let status = write(&Failure::new(reason, detail.clone()), &rest);
            prop_assert_eq!(read(&status), Some((reason.name(), detail.trim())));
        }

        #[test]
        #[cfg(feature = "cli")]
        fn a_generation_that_is_written_is_read_also_behind_a_failure(number: u64, pid in 1..i32::MAX) {
            let text = write_generation(number, pid);
            let failure = Failure::new(Reason::Exec, "x | generation 1 (process 1) serves");
            prop_assert_eq!(read_generation(&text), Some((number, pid.unsigned_abs())));
            prop_assert_eq!(read_generation(&write(&failure, &text)), Some((number, pid.unsigned_abs())));
        }

        #[test]
        fn nothing_makes_the_reader_panic(status in ".{0,60}") {
            let _ = (read(&status), read(&format!("{FAILED}{status}")));
            #[cfg(feature = "cli")]
            let _ = read_generation(&format!("generation {status}"));
        }
    }
}
