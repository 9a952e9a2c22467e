//! Descriptors that are watched where they are: one epoll(7) for many, without a copy of any.
//!
//! Of what is stored, that it hung up or failed: EPOLLHUP and EPOLLERR and nothing else, as PID 1 has it.
//! Of sockets, that there is traffic. What epoll cannot watch (files, memory) never hangs up.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::sys::watch::Watched;

/// Most that are told at once.
const AT_ONCE: usize = 64;

/// Stands for one watched descriptor; none comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// The watcher.
#[derive(Debug)]
pub(crate) struct Watches {
    epoll: Epoll,
    flags: EpollFlags,
    watched: Watched,
    next: Cell<u64>,
}

impl Watches {
    /// For hang-ups and errors alone. Needs a tokio runtime with I/O.
    pub(crate) fn hangups() -> io::Result<Self> {
        Self::new(EpollFlags::empty())
    }

    /// For traffic. Needs a tokio runtime with I/O.
    pub(crate) fn traffic() -> io::Result<Self> {
        Self::new(EpollFlags::EPOLLIN)
    }

    fn new(flags: EpollFlags) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let watched = Watched::new(epoll.0.try_clone()?)?;
        Ok(Self { epoll, flags, watched, next: Cell::new(0) })
    }

    /// Watches a descriptor; `None` for one that cannot hang up.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>) -> io::Result<Option<Ticket>> {
        let ticket = self.next.get();
        match self.epoll.add(fd, EpollEvent::new(self.flags, ticket)) {
            Ok(()) => {
                self.next.set(ticket + 1);
                Ok(Some(Ticket(ticket)))
            }
            Err(Errno::EPERM) => Ok(None),
            Err(failed) => Err(failed.into()),
        }
    }

    /// Watches it no more. Closing it alone would not do: others may have the same open file.
    pub(crate) fn forget(&self, fd: BorrowedFd<'_>) {
        // It was added, or there is nothing to forget.
        let _ = self.epoll.delete(fd);
    }

    /// The next ones on which it happened. Whoever gets them forgets them, or is told again. Cancel safe.
    pub(crate) async fn next(&self) -> Vec<Ticket> {
        let asked = self.watched.try_when_readable(|_| {
            let mut events = [EpollEvent::empty(); AT_ONCE];
            match self.epoll.wait(&mut events, EpollTimeout::ZERO)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                found => Ok(events[..found].iter().map(|event| Ticket(event.data())).collect()),
            }
        });
        match asked.await {
            Ok(tickets) => tickets,
            // An epoll of ours that cannot be asked stays silent: nothing is removed by mistake.
            Err(_) => std::future::pending().await,
        }
    }
}
