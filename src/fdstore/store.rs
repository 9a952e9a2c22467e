//! What a service has PID 1 hold.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::books::{Books, Way};
use super::bounds::Bounds;
use super::canary::Turn;
use super::poll::may_watch;
use super::sender::Shared;
use super::{Refused, StashError, Stashed};
use crate::activation::{Inherited, Kind, Role, check_name, is_reserved};
use crate::notify::{Gated, Message, Notifier, Passage};
use crate::sys::kind;
use crate::sys::scm::MAX_FDS;

/// The longest wait for PID 1, which reads nothing while it reloads its units.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a service has PID 1 hold over restart, crash and kill -9; see the [chapter](super).
///
/// Its clones speak of one store. The futures need a tokio runtime with I/O and time; dropped before
/// their end, they have stored it or not, and the accounts are right in both cases.
#[derive(Debug, Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// A hand-over that is being tried: nothing is sent while this exists. Dropping it is to give up the
/// hand-over.
#[derive(Debug)]
#[must_use = "dropping it has this process speak again"]
pub(crate) struct Pause {
    store: Store,
}

impl Store {
    /// The store of the service that this process is, of which `inherited` came; it is told apart from
    /// the sockets of `.socket` units by its kind. To be called before the program raises its own
    /// RLIMIT_NOFILE, and on the runtime on which the store is to work.
    ///
    /// # Errors
    /// [`StashError::Notify`] for a NOTIFY_SOCKET that leads nowhere. Without any, everything that is
    /// stashed is refused with [`StashError::NoManager`].
    pub fn from_env(inherited: &Inherited) -> Result<Self, StashError> {
        let notifier = Notifier::from_env()?;
        let kernel = |source| StashError::Kind { name: "RLIMIT_NOFILE".to_owned(), source: Arc::new(source) };
        let (bounds, stored) = Bounds::of(inherited).map_err(kernel)?;
        let store = Self::new(notifier, bounds);
        stored.into_iter().for_each(|name| store.holds(name));
        Ok(store)
    }

    /// A store that is told through `notifier`, within `bounds`.
    pub(crate) fn new(notifier: Notifier, bounds: Bounds) -> Self {
        Self { shared: Arc::new(Shared::new(Gated::new(notifier), Books::new(bounds), DEADLINE)) }
    }

    /// Takes into the accounts that PID 1 holds something under this name already.
    pub(crate) fn holds(&self, name: &str) {
        self.shared.books().enter(name, 1);
    }

    /// Takes over something that PID 1 holds under this name already: it came out of the store.
    pub fn adopt<T: AsFd>(&self, name: &str, thing: T) -> Stashed<T> {
        let number = {
            let mut books = self.shared.books();
            books.number(name).unwrap_or_else(|| books.enter(name, 1))
        };
        Stashed::new(Arc::clone(&self.shared), name.to_owned(), number, thing)
    }

    /// Sends PID 1 a copy of `thing` to hold under `name`, which no other may have. It is not known to
    /// be held until [`confirm`](Self::confirm).
    ///
    /// PID 1 drops a TCP connection that was reset by itself, and nothing else: what it is, and whether
    /// it gets reports on what it sent (SO_ZEROCOPY, SO_TIMESTAMPING), is looked at here.
    ///
    /// # Errors
    /// [`StashError`], with the thing back.
    pub async fn stash<T: AsFd>(&self, name: &str, thing: T) -> Result<Stashed<T>, Refused<T>> {
        match not_reserved(name) {
            Ok(()) => self.stash_own(name, thing).await,
            Err(error) => Err(Refused { error, thing }),
        }
    }

    /// As [`Store::stash`], under a name of handover's own.
    pub(crate) async fn stash_own<T: AsFd>(&self, name: &str, thing: T) -> Result<Stashed<T>, Refused<T>> {
        match self.put(name, &[thing.as_fd()]).await {
            Ok(number) => Ok(Stashed::new(Arc::clone(&self.shared), name.to_owned(), number, thing)),
            Err(error) => Err(Refused { error, thing }),
        }
    }

    /// Sends PID 1 copies of `fds` to hold all under `name`: they come back in any order, and can only
    /// be [forgotten](Self::forget) together.
    ///
    /// # Errors
    /// [`StashError`]; none of them stays stored.
    pub async fn stash_all(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<(), StashError> {
        not_reserved(name)?;
        if !fds.is_empty() {
            self.put(name, fds).await?;
        }
        Ok(())
    }

    /// Returns when PID 1 is known to hold everything that was stashed before this was called. However
    /// many ask at once, PID 1 is asked once or twice.
    ///
    /// # Errors
    /// [`StashError::NotKept`] if it does not hold all, and which of it is unknown; else what kept this
    /// process from finding out.
    pub async fn confirm(&self) -> Result<(), StashError> {
        let asked = self.shared.rounds.load(Ordering::SeqCst);
        let wanted = self.shared.books().sent;
        loop {
            // It hears of every turn that ends from here on: none is missed between the look and the wait.
            let over = self.shared.turn_over.notified();
            if let Some(known) = self.shared.books().known(wanted, asked) {
                return known;
            }
            match Turn::try_take(&self.shared) {
                Some(mut turn) => return turn.proving.confirm(&self.shared).await,
                None => over.await,
            }
        }
    }

    /// Has PID 1 close what it holds under `name`; nothing, if it holds nothing. Connections of this
    /// process go on, but are stored no more.
    ///
    /// # Errors
    /// [`StashError`]; it was not sent.
    pub async fn forget(&self, name: &str) -> Result<(), StashError> {
        not_reserved(name)?;
        self.forget_own(name).await
    }

    /// As [`Store::forget`], under a name of handover's own.
    pub(crate) async fn forget_own(&self, name: &str) -> Result<(), StashError> {
        check_name(name)?;
        let mut sending = self.shared.sending.lock().await;
        self.shared.send(&mut sending, &Message::unstore(name), &[]).await?;
        self.shared.books().strike(name);
        Ok(())
    }

    /// The names under which PID 1 holds something, as far as this process knows, in order; without
    /// handover's own.
    pub fn list(&self) -> Vec<String> {
        self.shared.books().names().into_iter().filter(|name| !is_reserved(name)).collect()
    }

    /// How many the store takes, if that is known.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.shared.books().bounds.limit
    }

    /// Has PID 1 close what it holds under `name`, of which nobody here has a handle. Never waits.
    pub(crate) fn release(&self, name: &str) {
        let mut books = self.shared.books();
        let number = books.number(name).unwrap_or_else(|| books.enter(name, 1));
        books.end(name, number);
        drop(books);
        self.shared.settle();
    }

    /// How many more can be stashed; `None` where the service manager does not say how many it takes:
    /// before systemd 254, and where the store is disabled. `Environment=FDSTORE=` in the unit, with the
    /// value of FileDescriptorStoreMax=, says it in its place.
    pub fn free(&self) -> Option<usize> {
        self.shared.books().free()
    }

    /// Has nothing be sent for as long as a hand-over is being tried: what is returned tells how that
    /// ends. When this returns, all that was sent is in PID 1's queue, before what the caller sends
    /// next.
    pub(crate) fn pause(&self) -> Pause {
        self.shared.line.set(Passage::Paused);
        Pause { store: self.clone() }
    }

    /// This process ends, and what PID 1 holds stays: from here on dropping a [`Stashed`] ends nothing.
    pub(crate) fn leave(&self) {
        self.shared.leaving.store(true, Ordering::SeqCst);
    }

    /// Waits for names of what ended here after the hand-over: the successor is to forget them.
    /// Dropped before its end, it has taken none.
    pub(crate) async fn ended(&self) -> Vec<String> {
        loop {
            let ended = std::mem::take(&mut self.shared.books().ended);
            if !ended.is_empty() {
                return ended;
            }
            self.shared.ended.notified().await;
        }
    }

    /// Sends `fds` to be held under `name` if they fit; returns the number of the entry.
    async fn put(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<u64, StashError> {
        check_name(name)?;
        let watched = watched(name, fds)?;
        let shared = &self.shared;
        {
            let mut sending = shared.sending.lock().await;
            shared.flush(&mut sending).await?;
            let way = shared.books().way(name, fds.len())?;
            if way == Way::Direct {
                return self.send(&mut sending, name, fds, watched).await;
            }
        }
        let mut turn = Turn::take(shared).await;
        let mut sending = shared.sending.lock().await;
        shared.flush(&mut sending).await?;
        // Somebody may have made room, or taken it, in between.
        let way = shared.books().way(name, fds.len())?;
        if way == Way::InPlaceOfCanaries {
            turn.proving.vacate(shared, &mut sending, fds.len()).await?;
        }
        self.send(&mut sending, name, fds, watched).await
    }

    /// Sends `fds`, for which there is room.
    async fn send(
        &self,
        sending: &mut usize,
        name: &str,
        fds: &[BorrowedFd<'_>],
        watched: bool,
    ) -> Result<u64, StashError> {
        let message = Message::store(name, watched);
        let number = self.shared.books().enter(name, fds.len());
        let mut entered = Entered { shared: &self.shared, name, number, outcome: Outcome::NotSent };
        for fds in fds.chunks(MAX_FDS) {
            self.shared.send(sending, &message, fds).await?;
            entered.outcome = Outcome::Part;
        }
        entered.outcome = Outcome::Sent;
        self.shared.books().sent += 1;
        Ok(number)
    }
}

impl Pause {
    /// The hand-over has happened, and this process never speaks again: what ends from now on its
    /// successor learns by [`Store::ended`].
    pub(crate) fn handed_over(self) {
        self.store.shared.line.set(Passage::Shut);
        self.store.shared.settle();
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.store.shared.line.set(Passage::Open);
        self.store.shared.settle();
    }
}

/// An entry in the accounts that is being sent, by a future that may be dropped.
struct Entered<'a> {
    shared: &'a Arc<Shared>,
    name: &'a str,
    number: u64,
    outcome: Outcome,
}

/// How far that got.
enum Outcome {
    NotSent,
    Part,
    Sent,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        match self.outcome {
            Outcome::NotSent => self.shared.books().strike(self.name),
            Outcome::Part => {
                self.shared.books().end(self.name, self.number);
                self.shared.settle();
            }
            Outcome::Sent => {}
        }
    }
}

/// Whether PID 1 may drop all of `fds` by itself. Errors: one of them listens.
fn watched(name: &str, fds: &[BorrowedFd<'_>]) -> Result<bool, StashError> {
    let unknown = |source: io::Error| StashError::Kind { name: name.to_owned(), source: Arc::new(source) };
    let mut all = true;
    for fd in fds {
        let kind = kind::kind(*fd).map_err(unknown)?;
        if matches!(kind, Kind::Socket(_, Role::Listening)) {
            return Err(StashError::Listening { name: name.to_owned(), kind });
        }
        all &= may_watch(kind, kind::may_report_on_sent(*fd));
    }
    Ok(all)
}

/// Refuses a name of handover's own.
fn not_reserved(name: &str) -> Result<(), StashError> {
    match is_reserved(name) {
        true => Err(StashError::Reserved { name: name.to_owned() }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
