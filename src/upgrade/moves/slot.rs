//! The place of a connection, where it can be given away without waking its task.
//!
//! ```text
//!             rest            offer           seal            gone
//!    Busy ----------> Resting -----> Offered -----> Sealed ---------> Gone
//!     ^                | ^ ^          | |  ^          |
//!     |     engage     | | `-- back --' |  `- reopen -'
//!     |<---------------' |              |
//!     |<-- engage: withdrawn -----------'
//! ```
//!
//! The task of a connection rests and engages: it reads, writes, saves, or ceases to rest. All the other
//! steps are the giver's (see `giver`). Whoever engages a connection that is on offer withdraws it, and
//! serves it at once: the one that it was offered to learns of it when it is decided whose it is. Sealed
//! is that moment: the giver is in the middle of a function that waits for nothing, and whoever wants to
//! engage waits for the end of it. No other step waits.
//!
//! It never reads or writes the connection, and never ends it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::exchange::Exchange;
use super::luggage::{Family, Luggage};

/// A socket that can be given away.
pub(crate) trait Socket: AsFd + fmt::Debug + Send + Sync {}

impl<T: AsFd + fmt::Debug + Send + Sync> Socket for T {}

/// The place of a connection; the giver does not care what kind of socket it has.
#[derive(Debug)]
pub(crate) struct Slot<S: ?Sized = dyn Socket> {
    exchange: Exchange,
    /// Where the exchange has it.
    place: usize,
    family: Family,
    inner: Mutex<Inner>,
    socket: S,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Whoever awaits the end of its rest, until that is heard or not awaited any more.
    awaited: Option<Waker>,
    /// Whether the giver has been told that it rests, and has not looked yet.
    told: bool,
    /// Whether it was offered for good, and not taken.
    refused: bool,
    /// Whether another process may have a copy of the socket.
    lent: bool,
    /// The number of its entry with PID 1.
    id: Option<u64>,
    /// What was saved for it last.
    state: Vec<u8>,
}

/// See the picture above. An offer is known by its batch: one that was withdrawn is never valid again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Busy,
    Resting,
    Offered(u64),
    Sealed(u64),
    Gone,
}

/// What became of the wish to offer a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offering {
    Made,
    /// It does not rest.
    Busy,
    /// Its luggage does not fit any more.
    NoRoom,
}

/// How a connection is left by its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It is this process' alone.
    Here,
    /// So it is, but another process may have a copy of the socket.
    Lent,
    /// It lives on elsewhere.
    Elsewhere,
}

/// The connection lives on in another process.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection lives on in another process: drop it here")]
pub(crate) struct Moved;

impl From<Moved> for io::Error {
    fn from(moved: Moved) -> Self {
        Self::new(io::ErrorKind::NotConnected, moved)
    }
}

impl<S> Slot<S> {
    /// A connection that is busy, at `place` in the exchange.
    pub(super) fn new(exchange: Exchange, place: usize, family: Family, socket: S, state: Vec<u8>) -> Self {
        let inner = Inner {
            phase: Phase::Busy,
            awaited: None,
            told: false,
            refused: false,
            lent: false,
            id: None,
            state,
        };
        Self { exchange, place, family, inner: Mutex::new(inner), socket }
    }

    /// The socket.
    pub(crate) fn socket(&self) -> &S {
        &self.socket
    }

    /// The connection rests until it is engaged; ready when it lives on elsewhere. One task at a time.
    #[inline]
    pub(crate) fn poll_rest(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.decided();
        match inner.phase {
            Phase::Gone => {
                inner.awaited = None;
                return Poll::Ready(());
            }
            Phase::Busy => inner.phase = Phase::Resting,
            Phase::Resting | Phase::Offered(_) | Phase::Sealed(_) => {}
        }
        if !inner.awaited.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            inner.awaited = Some(context.waker().clone());
        }
        // Who was not taken once is not offered again and again.
        let tell = inner.phase == Phase::Resting && !inner.told && !inner.refused && self.exchange.follows();
        inner.told |= tell;
        drop(inner);
        if tell {
            self.exchange.tell(self.place);
        }
        Poll::Pending
    }

    /// Nobody awaits the end of its rest any more: it is this process' again, unless it is gone.
    pub(crate) fn cease_to_rest(&self) {
        let mut inner = self.decided();
        inner.awaited = None;
        if inner.phase != Phase::Gone {
            inner.phase = Phase::Busy;
        }
    }

    /// Engages it, and gives access to what was saved for it.
    ///
    /// Errors: it is gone.
    pub(crate) fn engage<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> Result<T, Moved> {
        let mut inner = self.decided();
        if inner.phase == Phase::Gone {
            return Err(Moved);
        }
        inner.phase = Phase::Busy;
        Ok(work(&mut inner.state))
    }

    /// Whether it is this process', or somebody will hear from [`poll_rest`](Self::poll_rest) that it is not.
    ///
    /// Errors: it is gone, and nobody will.
    pub(crate) fn is_here(&self) -> Result<(), Moved> {
        let inner = self.decided();
        if inner.phase == Phase::Gone && inner.awaited.is_none() { Err(Moved) } else { Ok(()) }
    }

    /// Tries to read, and engages it if there was anything. `None` if it is gone, or as good as gone, and
    /// somebody awaits the end of its rest, who is woken when that is or when it can be read again.
    ///
    /// Errors: [`Moved`] if nobody will; else what `attempt` says. It must not block.
    pub(crate) fn read<T>(&self, attempt: impl FnOnce() -> io::Result<T>) -> Option<io::Result<T>> {
        // Nobody offers it between the attempt and what is made of it.
        let mut inner = self.decided();
        if inner.phase == Phase::Gone {
            return inner.awaited.is_none().then(|| Err(Moved.into()));
        }
        // A client in a hurry would withdraw each offer, and stay with a process that is to go.
        let goes = matches!(inner.phase, Phase::Offered(_)) && !inner.refused && self.exchange.follows();
        if goes && inner.awaited.is_some() {
            return None;
        }
        let done = attempt();
        if !matches!(&done, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            inner.phase = Phase::Busy;
        }
        Some(done)
    }

    /// What was saved for it last.
    pub(crate) fn state(&self) -> Vec<u8> {
        lock(&self.inner).state.clone()
    }

    /// Whether nobody takes it any more, once it has been decided that this process serves no longer.
    #[cfg(feature = "http")]
    pub(crate) fn stays(&self) -> bool {
        !self.exchange.follows() || lock(&self.inner).refused
    }

    /// PID 1 holds it under this number, too.
    pub(crate) fn is_kept(&self, id: u64) {
        lock(&self.inner).id = Some(id);
    }

    /// Its task has done with it.
    pub(crate) fn leave(&self) -> Left {
        let mut inner = self.decided();
        let left = match (inner.phase, inner.lent) {
            (Phase::Gone, _) => Left::Elsewhere,
            (_, true) => Left::Lent,
            (_, false) => Left::Here,
        };
        if left != Left::Elsewhere {
            inner.phase = Phase::Busy;
        }
        drop(inner);
        self.exchange.remove(self.place);
        left
    }

    /// When it is not being decided whose it is.
    // Inlined, because every request goes through here, and hardly one has to wait.
    #[inline]
    fn decided(&self) -> MutexGuard<'_, Inner> {
        let inner = lock(&self.inner);
        if !matches!(inner.phase, Phase::Sealed(_)) {
            return inner;
        }
        drop(inner);
        self.decided_at_last()
    }

    #[cold]
    fn decided_at_last(&self) -> MutexGuard<'_, Inner> {
        loop {
            drop(self.exchange.decide());
            let inner = lock(&self.inner);
            if !matches!(inner.phase, Phase::Sealed(_)) {
                return inner;
            }
        }
    }
}

/// The steps of the giver.
impl<S: ?Sized> Slot<S> {
    /// Offers it with this batch if it rests, and packs what goes along behind what is there, up to
    /// `most` bytes in all; more only for the first.
    pub(super) fn offer(&self, batch: u64, packed: &mut Vec<u8>, most: usize) -> Offering {
        let mut inner = lock(&self.inner);
        if inner.phase != Phase::Resting {
            inner.told = false;
            return Offering::Busy;
        }
        let luggage = Luggage { family: self.family, id: inner.id, state: &inner.state };
        if !packed.is_empty() && packed.len() + luggage.len() > most {
            return Offering::NoRoom;
        }
        luggage.pack(packed);
        (inner.phase, inner.told, inner.lent) = (Phase::Offered(batch), false, true);
        Offering::Made
    }

    /// The offer is void: it rests as before, if it was not withdrawn. Where it was for good, its task is
    /// woken.
    pub(crate) fn back(&self, batch: u64) {
        let rests = self.step(Phase::Offered(batch), Phase::Resting);
        // One that was withdrawn will be offered when it rests again.
        if rests && self.exchange.follows() {
            lock(&self.inner).refused = true;
            self.wake();
        }
    }

    /// Wakes whoever awaits the end of its rest: it has not come, but neither will what it waited for.
    fn wake(&self) {
        let waker = lock(&self.inner).awaited.clone();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Nobody wants it at the moment; whoever does then has not refused it.
    pub(super) fn unwanted(&self) {
        lock(&self.inner).refused = false;
        self.wake();
    }

    /// From here on nobody engages it, until [`reopen`](Self::reopen) or [`gone`](Self::gone). `false` if
    /// it was withdrawn.
    pub(super) fn seal(&self, batch: u64) -> bool {
        self.step(Phase::Offered(batch), Phase::Sealed(batch))
    }

    /// It is not decided yet.
    pub(super) fn reopen(&self, batch: u64) {
        self.step(Phase::Sealed(batch), Phase::Offered(batch));
    }

    /// It lives on elsewhere, if it is sealed; whom to wake.
    pub(super) fn gone(&self, batch: u64) -> Option<Waker> {
        self.step(Phase::Sealed(batch), Phase::Gone).then(|| lock(&self.inner).awaited.clone())?
    }

    /// Seals it and lets it go in one step; `false` if it was withdrawn.
    pub(crate) fn give(&self, batch: u64) -> bool {
        let given = self.step(Phase::Offered(batch), Phase::Gone);
        let waker = given.then(|| lock(&self.inner).awaited.clone());
        waker.flatten().into_iter().for_each(Waker::wake);
        given
    }

    /// The number of its entry with PID 1, and what was saved for it last.
    pub(crate) fn luggage(&self) -> (Option<u64>, Vec<u8>) {
        let inner = lock(&self.inner);
        (inner.id, inner.state.clone())
    }

    fn step(&self, from: Phase, to: Phase) -> bool {
        let mut inner = lock(&self.inner);
        let fits = inner.phase == from;
        if fits {
            inner.phase = to;
        }
        fits
    }
}

impl<S: ?Sized + AsFd> AsFd for Slot<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A thread that panicked has left no step half done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
