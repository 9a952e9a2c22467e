//! Descriptors that came through execve(2): turned from numbers into owners, once.
//!
//! A number that some text names is no proof of anything. What arrived through execve(2) cannot be
//! close-on-exec, and what the standard library opens always is; so a descriptor that has the flag
//! belongs to somebody in this process and is refused, and adopting sets the flag, which makes a
//! second adoption impossible. Nothing in here opens, reads or closes anything.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The standard streams: the standard library holds them, nobody can own them.
const STANDARD_STREAMS: RawFd = 3;

/// Why descriptors could not be adopted. None of them was: an error owns nothing and closes nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptError {
    /// The number is not open here.
    #[error("descriptor {fd} should have been passed, but is not open in this process")]
    NotOpen {
        /// The number that was looked for.
        fd: RawFd,
    },
    /// The descriptor is close-on-exec, thus did not come through execve(2), or was adopted before.
    #[error("descriptor {fd} was not passed to this process: somebody in it opened it or took it before")]
    HasOwner {
        /// The number that was looked at.
        fd: RawFd,
    },
    /// The number is one of stdin, stdout and stderr, or none at all.
    #[error(
        "descriptor {fd} cannot be passed: numbers start at {STANDARD_STREAMS}, after the standard streams"
    )]
    NotAllowed {
        /// The number that was given.
        fd: i64,
    },
    /// A number was given twice.
    #[error("descriptor {fd} was named twice, and can have one owner only")]
    Twice {
        /// The number in question.
        fd: RawFd,
    },
    /// The kernel refused to set close-on-exec.
    #[error("cannot make descriptor {fd} close-on-exec")]
    Kernel {
        /// The number in question.
        fd: RawFd,
        /// What fcntl(2) said.
        source: io::Error,
    },
}

/// Adopts the `count` descriptors from `first` on; all of them become close-on-exec.
///
/// Everything is checked before the first is owned. A count that is a lie costs nothing: the first
/// number that is not open ends the search, so no more is looked at than this process has open.
pub(crate) fn adopt(first: RawFd, count: usize) -> Result<Vec<OwnedFd>, AdoptError> {
    let start = i64::from(first);
    let end = i64::try_from(count).map_or(i64::MAX, |count| start.saturating_add(count));
    let mut numbers = Vec::new();
    for wide in start..end {
        numbers.push(unowned(wide)?);
    }
    own(numbers)
}

/// Adopts the descriptors with these numbers, in this order; else as [`adopt`].
pub(crate) fn adopt_each(numbers: &[RawFd]) -> Result<Vec<OwnedFd>, AdoptError> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    if let Some(same) = sorted.windows(2).find(|two| two[0] == two[1]) {
        return Err(AdoptError::Twice { fd: same[0] });
    }
    own(numbers.iter().map(|&fd| unowned(i64::from(fd))).collect::<Result<_, _>>()?)
}

/// Sets O_NONBLOCK, as every event loop needs it.
///
/// The flag belongs to the open file: every process that holds a copy sees the change.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

/// Sets or clears O_NONBLOCK, as the program wants it that a descriptor is for; see [`set_nonblocking`].
#[cfg(feature = "cli")]
pub(crate) fn set_mode(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_NONBLOCK) != nonblocking {
        flags.set(OFlag::O_NONBLOCK, nonblocking);
        fcntl(fd, FcntlArg::F_SETFL(flags))?;
    }
    Ok(())
}

/// Whether O_NONBLOCK is set.
#[cfg(feature = "cli")]
pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(fd, FcntlArg::F_GETFL).is_ok_and(|flags| OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
}

/// The number as the kernel takes it, if it is open and nobody here owns it.
fn unowned(wide: i64) -> Result<RawFd, AdoptError> {
    let Some(fd) = RawFd::try_from(wide).ok().filter(|fd| *fd >= STANDARD_STREAMS) else {
        return Err(AdoptError::NotAllowed { fd: wide });
    };
    // SAFETY: F_GETFD reads one flag of a number; a number that is not open is an error, not a fault.
    match unsafe { libc::fcntl(fd, libc::F_GETFD) } {
        -1 => Err(AdoptError::NotOpen { fd }),
        flags if flags & libc::FD_CLOEXEC != 0 => Err(AdoptError::HasOwner { fd }),
        _ => Ok(fd),
    }
}

/// Owns what [`unowned`] has just found.
fn own(numbers: Vec<RawFd>) -> Result<Vec<OwnedFd>, AdoptError> {
    for &fd in &numbers {
        // SAFETY: F_SETFD changes one flag of a descriptor that nobody in this process owns.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            return Err(AdoptError::Kernel { fd, source: io::Error::last_os_error() });
        }
    }
    // SAFETY: each number was open with close-on-exec clear, so nothing of the standard library owned
    // it, and each occurs once; with the flag now set, no other adoption gets past `unowned`.
    Ok(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;

    /// A descriptor as it would arrive: open, owned by nobody, close-on-exec clear, and so high up
    /// that no test beside this one gets its neighbours.
    fn arrived(at_least: RawFd) -> RawFd {
        use nix::fcntl::{FcntlArg, fcntl};
        fcntl(File::open("/dev/null").unwrap(), FcntlArg::F_DUPFD(at_least)).unwrap()
    }

    fn is_cloexec(fd: &OwnedFd) -> bool {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC != 0
    }

    #[test]
    fn what_arrived_is_owned_once_in_order_and_close_on_exec() {
        let first = arrived(700);
        let second = arrived(first + 1);
        assert_eq!(second, first + 1);
        let owned = adopt(first, 2).unwrap();
        assert_eq!(owned.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), [first, second]);
        assert!(owned.iter().all(is_cloexec));
        assert!(matches!(adopt(first, 1), Err(AdoptError::HasOwner { fd }) if fd == first));
    }

    #[test]
    fn a_descriptor_that_this_process_opened_is_refused_and_stays_open() {
        let ours = File::open("/dev/null").unwrap();
        assert!(matches!(adopt(ours.as_raw_fd(), 1), Err(AdoptError::HasOwner { .. })));
        ours.metadata().unwrap();
    }

    #[test]
    fn an_error_owns_nothing_also_not_what_came_before_it() {
        let only = arrived(720);
        assert!(matches!(adopt(only, 2), Err(AdoptError::NotOpen { fd }) if fd == only + 1));
        assert_eq!(adopt(only, 1).unwrap().len(), 1);
    }

    #[test]
    fn a_count_that_is_a_lie_costs_nothing() {
        let only = arrived(740);
        assert!(matches!(adopt(only, 2_147_483_647), Err(AdoptError::NotOpen { .. })));
        assert!(matches!(adopt(only, usize::MAX), Err(AdoptError::NotOpen { .. })));
        assert!(matches!(adopt(RawFd::MAX, usize::MAX), Err(AdoptError::NotOpen { .. })));
        drop(adopt(only, 1).unwrap());
    }

    #[test]
    fn standard_streams_and_no_numbers_are_never_adopted() {
        for bad in [2, 0, -1, RawFd::MIN] {
            assert!(matches!(adopt(bad, 1), Err(AdoptError::NotAllowed { fd }) if fd == i64::from(bad)));
        }
        assert!(adopt(-1, 0).unwrap().is_empty());
    }

    #[test]
    fn a_number_named_twice_is_refused() {
        let one = arrived(760);
        assert!(matches!(adopt_each(&[one, one]), Err(AdoptError::Twice { fd }) if fd == one));
        drop(adopt_each(&[one]).unwrap());
    }

    #[test]
    fn non_blocking_is_added_to_the_flags_that_are_there() {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let file = File::options().append(true).open("/dev/null").unwrap();
        set_nonblocking(file.as_fd()).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK | OFlag::O_APPEND));
    }
}
