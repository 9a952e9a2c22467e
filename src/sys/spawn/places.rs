//! Descriptors that a program finds at 3, 4, 5, ...: thousands of them are moved, none is copied.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use libc::c_int;
use nix::errno::Errno;

use super::{FIRST, duplicate};

/// Descriptors on their way to 3, 4, 5, ...
pub(super) struct Places {
    /// Their numbers now, in the order of their places.
    pub(super) numbers: Vec<RawFd>,
    /// Of each place, which of them has its number now.
    holders: Vec<Option<usize>>,
    /// Above all places.
    above: c_int,
    /// Those that were given more than once: each needs a number of its own.
    _copies: Vec<OwnedFd>,
}

impl Places {
    /// What is to be at 3, 4, 5, ..., all of it below `above`. Errors: EMFILE.
    pub(super) fn new(fds: &[BorrowedFd<'_>], above: c_int) -> Result<Self, Errno> {
        let (mut numbers, mut copies) = (Vec::with_capacity(fds.len()), Vec::new());
        let mut seen = HashSet::with_capacity(fds.len());
        for fd in fds {
            if seen.insert(fd.as_raw_fd()) {
                numbers.push(fd.as_raw_fd());
            } else {
                let copy = duplicate(*fd, above)?;
                numbers.push(copy.as_raw_fd());
                copies.push(copy);
            }
        }
        let mut holders = vec![None; fds.len()];
        for (index, number) in numbers.iter().enumerate() {
            let place = usize::try_from(number - FIRST).ok().and_then(|place| holders.get_mut(place));
            if let Some(holder) = place {
                *holder = Some(index);
            }
        }
        Ok(Self { numbers, holders, above, _copies: copies })
    }

    /// Moves each to its place, and whoever is still needed out of it first. Allocates nothing.
    pub(super) fn fill(&mut self) -> Result<(), Errno> {
        for index in 0..self.numbers.len() {
            let place = FIRST + index as c_int;
            if let Some(holder) = self.holders[index].filter(|holder| *holder > index) {
                // SAFETY: fcntl with this command takes a number; the table of descriptors is the child's own.
                let moved = unsafe { libc::fcntl(place, libc::F_DUPFD_CLOEXEC, self.above) };
                self.numbers[holder] = Errno::result(moved)?;
            }
            let number = self.numbers[index];
            // SAFETY: as above, of dup2 and F_SETFD.
            Errno::result(unsafe {
                if number == place { libc::fcntl(place, libc::F_SETFD, 0) } else { libc::dup2(number, place) }
            })?;
        }
        Ok(())
    }
}
