//! Something that PID 1 holds too.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use scopeguard::ScopeGuard;

use super::sender::Shared;

/// Something that PID 1 holds too, under a name: a connection as a rule.
///
/// To close(2) a descriptor that somebody else holds as well ends nothing: the peer of a connection
/// would wait for ever. So dropping this ends it, here and in PID 1: a connection by shutdown(2), which
/// its peer sees at once, and all by FDSTOREREMOVE=1. That never blocks; if PID 1 has no room for the
/// message, a task on the runtime on which the store was made sends it, and without one, whoever speaks
/// through the store next. [`leave`](Self::leave) leaves it with PID 1 instead.
///
/// After a hand-over the successor is told of what ended; in a process that leaves, dropping this
/// ends nothing.
///
/// Do not swap two of the things that are in here: each name stays with its place.
#[must_use = "dropping it ends it: use leave to have PID 1 hold it"]
pub struct Stashed<T: AsFd>(ScopeGuard<Held<T>, fn(Held<T>)>);

/// What is ended on drop.
struct Held<T> {
    thing: T,
    shared: Arc<Shared>,
    name: String,
    /// Its number in the accounts.
    number: u64,
}

impl<T: AsFd> Stashed<T> {
    /// What PID 1 holds as entry `number` called `name`.
    pub(super) fn new(shared: Arc<Shared>, name: String, number: u64, thing: T) -> Self {
        Self(scopeguard::guard(Held { thing, shared, name, number }, |held| {
            held.shared.dropped(&held.name, held.number, held.thing.as_fd());
        }))
    }

    /// The name under which PID 1 holds it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Ends it, as dropping does; also in a process that leaves.
    pub fn end(self) {
        let Held { thing, shared, name, number } = ScopeGuard::into_inner(self.0);
        shared.end(&name, number, thing.as_fd());
    }

    /// Gives back the thing; PID 1 goes on holding it, and passes it to the next start of the service.
    /// Closing it here ends nothing.
    pub fn leave(self) -> T {
        ScopeGuard::into_inner(self.0).thing
    }
}

impl<T: AsFd> Deref for Stashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.thing
    }
}

impl<T: AsFd> DerefMut for Stashed<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0.thing
    }
}

impl<T: AsFd> AsFd for Stashed<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.thing.as_fd()
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for Stashed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stashed").field("name", &self.0.name).field("thing", &self.0.thing).finish()
    }
}
