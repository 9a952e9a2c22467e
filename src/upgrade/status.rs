//! How a failed upgrade is told in STATUS=, both directions: what the old process writes, and what
//! `handover upgrade` reads.
//!
//! ```text
//! upgrade failed: exec-failed: /usr/bin/web: No such file or directory (os error 2) | serving
//!                 `-- name     `-- detail                                             `-- the rest
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
        fn nothing_makes_the_reader_panic(status in ".{0,60}") {
            let _ = (read(&status), read(&format!("{FAILED}{status}")));
        }
    }
}
