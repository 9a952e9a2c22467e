//! A descriptor that tokio's reactor waits for: epoll(7) without a way to pull the descriptor away.
//!
//! tokio's own `AsyncFd` is unsafe to make, because it lets its owner swap what it watches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor of ours that is waited for until it is readable. It is never given away again.
#[derive(Debug)]
pub(crate) struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Hands `fd` to the reactor of the runtime this runs on.
    ///
    /// Errors: EPERM for what epoll(7) cannot watch (files, directories); ENOSPC for too many.
    /// Panics outside a tokio runtime with I/O, as everything of tokio's does.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` names one open descriptor for as long as it lives; it lives in here,
        // private and never borrowed mutably, until the `AsyncFd` lets go of it.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(watched.map_err(io::Error::from)?))
    }

    /// Waits until it is readable; a pidfd is when its process has exited. Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }

    /// Does `attempt` as soon as it would not block. Polled by one task at a time: only the last one
    /// that asked is woken.
    pub(crate) fn poll_try<T>(
        &self,
        context: &mut Context<'_>,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut readable = ready!(self.0.poll_read_ready(context))?;
            match attempt(readable.get_inner().as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readable.clear_ready(),
                done => return Poll::Ready(done),
            }
        }
    }

    /// Does `attempt` as soon as it would not block. Cancel safe if `attempt` is.
    pub(crate) async fn try_when_readable<T>(
        &self,
        mut attempt: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        std::future::poll_fn(|context| self.poll_try(context, &mut attempt)).await
    }
}

/// A file of the kernel's that tells of changes as poll(2) has it: POLLPRI until it is read again, as
/// `cgroup.events` of cgroups(7).
#[cfg(feature = "cli")]
#[derive(Debug)]
pub(crate) struct Told(AsyncFd<OwnedFd>);

#[cfg(feature = "cli")]
impl Told {
    /// Hands `file` to the reactor of the runtime this runs on.
    ///
    /// Errors: EPERM for a file that tells nothing.
    pub(crate) fn new(file: OwnedFd) -> io::Result<Self> {
        // SAFETY: as in `Watched::new`.
        let told = unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) };
        Ok(Self(told.map_err(io::Error::from)?))
    }

    /// Waits until `is_so` of what the file says, now or later. Cancel safe.
    pub(crate) async fn until(&self, is_so: impl Fn(&str) -> bool) -> io::Result<()> {
        loop {
            let mut bytes = [0; 256];
            let len = nix::sys::uio::pread(self.0.get_ref(), &mut bytes, 0)?;
            if is_so(&String::from_utf8_lossy(&bytes[..len])) {
                return Ok(());
            }
            // What changes from here on is told: the kernel counts from the last reading.
            self.0.ready(Interest::PRIORITY).await?.clear_ready();
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn a_pidfd_is_readable_when_its_process_has_exited_and_not_before() {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let watched =
            Watched::new(crate::sys::pidfd::Pidfd::open(cat.id().cast_signed()).unwrap().into()).unwrap();
        let early = tokio::time::timeout(std::time::Duration::ZERO, watched.readable()).await;
        assert!(early.is_err());
        drop(cat.stdin.take());
        watched.readable().await.unwrap();
        assert!(cat.try_wait().unwrap().is_some());
    }
}
