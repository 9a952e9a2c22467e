//! Whether two descriptors are one open file: kcmp(2), fcntl(2), F_DUPFD_QUERY.
//!
//! kcmp gives an order, too, by which one among thousands is found without asking for each.

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// KCMP_FILE of linux/kcmp.h.
const KCMP_FILE: libc::c_int = 0;
/// F_DUPFD_QUERY of linux/fcntl.h (Linux 6.10).
const F_DUPFD_QUERY: libc::c_int = 1024 + 3;

/// The kernel's order of open files; equal is one and the same.
///
/// Errors: ENOSYS or EPERM where kcmp(2) is not built in or not allowed.
pub(crate) fn order(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<Ordering> {
    let pid = nix::unistd::getpid().as_raw();
    // SAFETY: kcmp takes five numbers.
    let asked = unsafe { libc::syscall(libc::SYS_kcmp, pid, pid, KCMP_FILE, a.as_raw_fd(), b.as_raw_fd()) };
    match Errno::result(asked)? {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// Whether they are one open file. `None`: the kernel does not say.
pub(crate) fn is_same(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> Option<bool> {
    // SAFETY: fcntl with this command takes a number.
    let asked = unsafe { libc::fcntl(a.as_raw_fd(), F_DUPFD_QUERY, b.as_raw_fd()) };
    match asked {
        0 => Some(false),
        1 => Some(true),
        _ => order(a, b).ok().map(Ordering::is_eq),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_duplicate_is_the_same_and_a_second_opening_is_not() {
        let (one, two) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
        let copy = one.try_clone().unwrap();
        assert_eq!(is_same(one.as_fd(), copy.as_fd()), Some(true));
        assert_eq!(is_same(one.as_fd(), two.as_fd()), Some(false));
        if let Ok(order_of) = order(one.as_fd(), two.as_fd()) {
            assert_ne!(order_of, Ordering::Equal);
            assert_eq!(order(two.as_fd(), one.as_fd()).unwrap(), order_of.reverse());
            assert_eq!(order(one.as_fd(), copy.as_fd()).unwrap(), Ordering::Equal);
        }
    }
}
