//! A process that cannot be mistaken for another: pidfd_open(2).
//!
//! This file never reaps: only a parent can, and the processes watched here are our siblings.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::kind;

/// A pid together with the descriptor that makes it unmistakable. Readable once the process is gone.
#[derive(Debug)]
pub(crate) struct Pidfd {
    pid: i32,
    fd: OwnedFd,
}

impl Pidfd {
    /// Pairs a pid with its pidfd; the caller knows that they belong together.
    pub(crate) fn new(pid: i32, fd: OwnedFd) -> Self {
        Self { pid, fd }
    }

    /// Opens a process that exists now.
    ///
    /// Errors: ESRCH when there is none, EINVAL for a pid that is not positive.
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        let fd = RawFd::try_from(fd).map_err(|_| Errno::EOVERFLOW)?;
        // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
        Ok(Self::new(pid, unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The pid, as it was when the pidfd was made.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The number that no other process will have until the next boot: the inode of the pidfd.
    /// `None` on kernels without pidfs, where all pidfds share one inode.
    pub(crate) fn id(&self) -> Option<u64> {
        inode(self.as_fd())
    }

    /// Sends a signal; to a process that is gone already it is ESRCH.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) -> io::Result<()> {
        self.signal_number(signal as libc::c_int)
    }

    /// The same with the number of a signal, which may be a real-time one.
    pub(crate) fn signal_number(&self, number: libc::c_int) -> io::Result<()> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: a null siginfo and no flags: the kernel reads nothing of ours.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, number, 0, 0) };
        Errno::result(sent)?;
        Ok(())
    }

    /// Whether the process has ended (it may not have been reaped yet).
    pub(crate) fn is_gone(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
    }

    /// Blocks until the process has ended.
    #[cfg(test)]
    pub(crate) fn wait_until_gone(&self) -> io::Result<()> {
        poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        Ok(())
    }
}

/// See [`Pidfd::id`], of any pidfd.
pub(crate) fn inode(pidfd: BorrowedFd<'_>) -> Option<u64> {
    let stat = kind::is_on_pidfs(pidfd).then(|| nix::sys::stat::fstat(pidfd))?;
    Some(stat.ok()?.st_ino)
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Pidfd> for OwnedFd {
    fn from(pidfd: Pidfd) -> Self {
        pidfd.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_seen_to_end_and_is_not_found_afterwards() {
        let mut child =
            std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pidfd = Pidfd::open(child.id().cast_signed()).unwrap();
        assert!(!pidfd.is_gone().unwrap());
        pidfd.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        pidfd.wait_until_gone().unwrap();
        assert!(pidfd.is_gone().unwrap());
        child.wait().unwrap();
        let gone = pidfd.signal(nix::sys::signal::Signal::SIGKILL).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn two_pidfds_of_one_process_have_one_id() {
        let me = std::process::id().cast_signed();
        assert_eq!(Pidfd::open(me).unwrap().id(), Pidfd::open(me).unwrap().id());
    }
}
