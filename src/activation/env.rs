//! The LISTEN_* variables, both directions: what a speaker writes and what its program reads.
//!
//! The speakers are PID 1, systemd-socket-activate, systemfd, and of our own the process that hands
//! over to its successor, `handover run` and `handover pid1`; all say the same, so there is one reader.
//! This file is pure: strings in, a decision out; no descriptor, no environment, no clock.

/// The first descriptor that is passed: SD_LISTEN_FDS_START of sd_listen_fds(3).
pub(crate) const FIRST_FD: i32 = 3;

/// Most bytes of one name: `fdname_is_valid()` of systemd.
pub(crate) const MAX_NAME: usize = 255;

/// Most bytes of all names with the colons between them. The kernel takes no string of more than
/// 131072 bytes (MAX_ARG_STRLEN) into a new process: with `LISTEN_FDNAMES=` and the zero at its end.
pub(crate) const MAX_NAMES: usize = 131_072 - "LISTEN_FDNAMES=".len() - 1;

/// The name sd_listen_fds_with_names(3) gives when the speaker gave none.
pub(crate) const UNKNOWN: &str = "unknown";

/// What the environment says, as it was found; `None` is a variable that is not set.
#[derive(Debug, Default, Clone)]
pub(crate) struct Variables {
    /// LISTEN_PID: whom the descriptors are for.
    pub(crate) pid: Option<String>,
    /// LISTEN_PIDFDID: the same, by an identity that does not come back (systemd 259).
    pub(crate) pidfd_id: Option<String>,
    /// LISTEN_FDS: how many.
    pub(crate) fds: Option<String>,
    /// LISTEN_FDNAMES: one name each, with colons between them.
    pub(crate) names: Option<String>,
    /// LISTEN_FDS_FIRST_FD: where they start; systemfd's own.
    pub(crate) first_fd: Option<String>,
}

/// What the variables mean for one process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// LISTEN_FDS is not set.
    Nothing,
    /// They are meant for another process.
    ForAnother {
        /// The variable that says so.
        variable: &'static str,
        /// Whom it names.
        value: String,
    },
    /// They are for this process.
    Take {
        /// The number of the first.
        first: i32,
        /// How many; 1 or more. Nobody has checked whether there are so many.
        count: usize,
        /// As many names as descriptors; `None` when the speaker gave none.
        names: Option<Vec<String>>,
        /// LISTEN_PID named this process, and the speaker is not systemfd.
        by_manager: bool,
    },
}

/// Variables that contradict themselves: a fault of the speaker.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvError {
    /// A number was expected.
    #[error("{variable}={value:?} should be a number of at least {least}")]
    NotANumber {
        /// The variable.
        variable: &'static str,
        /// What it holds; cut to its first 40 characters.
        value: String,
        /// The smallest number that would have been right.
        least: u64,
    },
    /// There are more or fewer names than descriptors.
    #[error("LISTEN_FDS={fds} and the {names} names in LISTEN_FDNAMES disagree: there must be one name each")]
    Names {
        /// How many descriptors were announced.
        fds: usize,
        /// How many names were given.
        names: usize,
    },
}

/// Reads the variables for the process `pid`, whose pidfd has the inode `pidfd_id` if the kernel has such.
///
/// LISTEN_PID and LISTEN_PIDFDID that are set, and not empty, must name this process. An empty
/// LISTEN_PID, or none, is what `systemfd --no-pid` leaves for a program whose pid it cannot know.
pub(crate) fn read(found: &Variables, pid: u32, pidfd_id: Option<u64>) -> Result<Decision, EnvError> {
    let Some(fds) = &found.fds else { return Ok(Decision::Nothing) };
    let whom = [
        ("LISTEN_PID", &found.pid, Some(u64::from(pid))),
        // A kernel without pidfs cannot tell: then the pid alone decides, as in sd_listen_fds(3).
        ("LISTEN_PIDFDID", &found.pidfd_id, pidfd_id),
    ];
    for (variable, value, own) in whom {
        let Some(value) = value.as_ref().filter(|value| !value.is_empty()) else { continue };
        let meant = number(variable, value, 1)?;
        if own.is_some_and(|own| own != meant) {
            return Ok(Decision::ForAnother { variable, value: meant.to_string() });
        }
    }
    let count = within(number("LISTEN_FDS", fds, 1)?, "LISTEN_FDS", fds, 1)?;
    let first = match &found.first_fd {
        Some(first) => {
            let least = FIRST_FD.unsigned_abs().into();
            within(number("LISTEN_FDS_FIRST_FD", first, least)?, "LISTEN_FDS_FIRST_FD", first, least)?
        }
        None => FIRST_FD,
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    Ok(Decision::Take {
        first,
        count,
        names: found.names.as_ref().map(|names| split(names, count)).transpose()?,
        by_manager: found.pid.as_ref().is_some_and(|pid| !pid.is_empty()) && found.first_fd.is_none(),
    })
}

/// One name each. The text is split as PID 1 joined it: it escapes nothing, so a backslash is a
/// backslash here, although sd_listen_fds_with_names(3) eats it.
fn split(names: &str, count: usize) -> Result<Vec<String>, EnvError> {
    let found = names.split(':').count();
    if found != count {
        return Err(EnvError::Names { fds: count, names: found });
    }
    Ok(names.split(':').map(str::to_string).collect())
}

/// A decimal number of at least `least`, without sign or space.
fn number(variable: &'static str, value: &str, least: u64) -> Result<u64, EnvError> {
    Some(value)
        .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|value| value.parse().ok())
        .filter(|number| *number >= least)
        .ok_or_else(|| not_a_number(variable, value, least))
}

/// The number as an `int` of C, which LISTEN_FDS and descriptors are.
fn within(number: u64, variable: &'static str, value: &str, least: u64) -> Result<i32, EnvError> {
    i32::try_from(number).map_err(|_| not_a_number(variable, value, least))
}

/// The error of [`number`] and [`within`]; a value is shown, but not at any length.
fn not_a_number(variable: &'static str, value: &str, least: u64) -> EnvError {
    EnvError::NotANumber { variable, value: value.chars().take(40).collect(), least }
}

/// Why names cannot be passed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// PID 1 would not take this name, or the reader would not find it again.
    #[error("{name:?} cannot name a descriptor: at most {MAX_NAME} printable ASCII characters, no colon")]
    Invalid {
        /// The name; cut to its first 40 characters.
        name: String,
    },
    /// All names together are longer than the kernel takes.
    #[error(
        "{count} names make {bytes} bytes, and the kernel takes {MAX_NAMES}: pass fewer, or shorten the names"
    )]
    TooLong {
        /// How many names.
        count: usize,
        /// How many bytes they have, with the colons between them.
        bytes: usize,
    },
}

/// Whether PID 1 takes `name`: at most 255 bytes of 0x20..=0x7e, no colon; empty is allowed.
///
/// Prefer `[A-Za-z0-9._-]` and at most 32 bytes: C programs lose backslashes, people lose quotes.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let fits = name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b':');
    if fits && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(NameError::Invalid { name: name.chars().take(40).collect() })
}

/// The variables a speaker sets for a program that gets one descriptor for each of `names`, from
/// [`FIRST_FD`] on; none at all for no names, as PID 1 does.
///
/// LISTEN_PID and LISTEN_PIDFDID are not among them: only the new process knows its own, so whoever
/// starts it must set or remove both.
pub(crate) fn write<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<(&'static str, String)>, NameError> {
    let (mut count, mut joined) = (0, String::new());
    for name in names {
        check_name(name)?;
        if count > 0 {
            joined.push(':');
        }
        joined.push_str(name);
        count += 1;
    }
    if joined.len() > MAX_NAMES {
        return Err(NameError::TooLong { count, bytes: joined.len() });
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    Ok(vec![("LISTEN_FDS", count.to_string()), ("LISTEN_FDNAMES", joined)])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PID: u32 = 4711;

    fn of(pid: &str, fds: &str, names: Option<&str>) -> Variables {
        Variables {
            pid: Some(pid.into()),
            fds: Some(fds.into()),
            names: names.map(str::to_string),
            ..Variables::default()
        }
    }

    fn taken(first: i32, names: &[&str], by_manager: bool) -> Decision {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        Decision::Take { first, count: names.len(), names: Some(names), by_manager }
    }

    #[test]
    fn names_may_repeat_be_empty_and_hold_a_backslash() {
        let read = |names: &str, fds: &str| read(&of("4711", fds, Some(names)), PID, None).unwrap();
        assert_eq!(read("web:web:stored", "3"), taken(3, &["web", "web", "stored"], true));
        assert_eq!(read("", "1"), taken(3, &[""], true));
        assert_eq!(read("a::b", "3"), taken(3, &["a", "", "b"], true));
        assert_eq!(read(r"a\b", "1"), taken(3, &[r"a\b"], true));
    }

    // sd_listen_fds_with_names(3): "If $LISTEN_FDNAMES is not set, an array of strings "unknown" is returned".
    #[test]
    fn no_names_are_not_the_same_as_wrong_ones() {
        let none = read(&of("4711", "2", None), PID, None).unwrap();
        assert_eq!(none, Decision::Take { first: 3, count: 2, names: None, by_manager: true });
        for (names, count) in [("web", 1), ("a:b:c", 3), ("", 1)] {
            let wrong = read(&of("4711", "2", Some(names)), PID, None).unwrap_err();
            assert_eq!(wrong, EnvError::Names { fds: 2, names: count });
        }
    }

    #[test]
    fn what_names_another_process_is_left_alone_whatever_else_it_says() {
        let another = read(&of("4712", "nonsense", Some("a:b")), PID, None).unwrap();
        assert_eq!(another, Decision::ForAnother { variable: "LISTEN_PID", value: "4712".into() });
        let recycled = Variables { pidfd_id: Some("17".into()), ..of("4711", "1", None) };
        let another = read(&recycled, PID, Some(18)).unwrap();
        assert_eq!(another, Decision::ForAnother { variable: "LISTEN_PIDFDID", value: "17".into() });
        for own in [Some(17), None] {
            assert!(matches!(read(&recycled, PID, own).unwrap(), Decision::Take { .. }));
        }
    }

    #[test]
    fn without_a_pid_it_is_the_development_protocol_and_may_start_elsewhere() {
        let mut found = Variables { first_fd: Some("7".into()), ..of("", "1", Some("web")) };
        assert_eq!(read(&found, PID, Some(1)).unwrap(), taken(7, &["web"], false));
        found.pid = None;
        assert_eq!(read(&found, PID, Some(1)).unwrap(), taken(7, &["web"], false));
        // systemfd says where they start also when it knows the pid.
        found.pid = Some("4711".into());
        assert_eq!(read(&found, PID, Some(1)).unwrap(), taken(7, &["web"], false));
        found.fds = None;
        assert_eq!(read(&found, PID, Some(1)).unwrap(), Decision::Nothing);
    }

    #[test]
    fn what_is_no_number_is_an_error_that_names_the_variable() {
        for bad in ["", "0", "-1", "+1", " 1", "1 ", "0x1", "2147483648", "99999999999999999999", "one"] {
            let error = read(&of("4711", bad, None), PID, None).unwrap_err();
            assert!(error.to_string().starts_with("LISTEN_FDS="), "{error}");
        }
        assert!(read(&of("me", "1", None), PID, None).is_err());
        let stdin = Variables { first_fd: Some("0".into()), ..of("", "1", None) };
        assert!(read(&stdin, PID, None).unwrap_err().to_string().contains("at least 3"));
    }

    #[test]
    fn a_huge_count_is_passed_on_without_being_believed() {
        let huge = read(&of("4711", "2147483647", None), PID, None).unwrap();
        assert!(matches!(huge, Decision::Take { count: 2_147_483_647, names: None, .. }));
        assert!(read(&of("4711", "2147483647", Some("a")), PID, None).is_err());
    }

    #[test]
    fn nobody_can_write_a_name_that_would_be_read_as_another() {
        for bad in ["a:b", "a\nb", "\u{e4}", "\u{7f}", &"x".repeat(256)] {
            assert!(matches!(write([bad]), Err(NameError::Invalid { .. })), "{bad:?}");
        }
        assert!(write(["", "with space", &"x".repeat(255)]).is_ok());
        assert_eq!(write([]), Ok(Vec::new()));
    }

    #[test]
    fn names_stop_where_the_kernel_would_refuse_to_start_the_program() {
        let name = "x".repeat(255);
        let full = vec![name.as_str(); 512];
        assert!(matches!(write(full), Err(NameError::TooLong { count: 512, bytes: 131_071 })));
        assert!(write(vec![name.as_str(); 511]).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(names in proptest::collection::vec("[ -9;-~]{0,255}", 1..40)) {
            let mut found = Variables { pid: Some(PID.to_string()), ..Variables::default() };
            for (variable, value) in write(names.iter().map(String::as_str)).unwrap() {
                match variable {
                    "LISTEN_FDS" => found.fds = Some(value),
                    _ => found.names = Some(value),
                }
            }
            let read = read(&found, PID, None).unwrap();
            let count = names.len();
            prop_assert_eq!(read, Decision::Take { first: 3, count, names: Some(names), by_manager: true });
        }

        #[test]
        fn whatever_the_variables_hold_reading_ends(
            pid in proptest::option::of("(4711|[0-9]{0,22}|.*)"), pidfd_id in proptest::option::of(".*"),
            fds in proptest::option::of("([0-9]{0,22}|.*)"), names in proptest::option::of("(.|:)*"),
            first_fd in proptest::option::of("([0-9]{0,12}|.*)"),
        ) {
            let _ = read(&Variables { pid, pidfd_id, fds, names, first_fd }, PID, Some(1));
        }
    }
}
