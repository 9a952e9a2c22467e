//! A connection as its service sees it: who is there, what belongs to it, when to say goodbye.
//!
//! It never reads or writes, and holding it keeps no connection open.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::unix::UCred;

use super::luggage;
use crate::daemon::{Live, Origin, Peer, Stream};
use crate::drain::Drain;
use crate::fdstore::StateError;

/// A connection as its service sees it. Clones are the same connection.
#[derive(Clone)]
pub struct Connection(Arc<Card>);

/// What is known of it.
struct Card {
    peer: Peer,
    credentials: Option<UCred>,
    origin: Origin,
    drain: Drain,
    attachment: Mutex<Vec<u8>>,
    /// The attachment is not what was saved last.
    changed: AtomicBool,
    /// Most bytes of an attachment.
    room: usize,
}

impl Connection {
    /// That of `live`, with what was attached to it, in a process whose work is `drain`.
    pub(super) fn new(live: &Live, attachment: Vec<u8>, drain: Drain) -> Self {
        let credentials = match live.stream() {
            // A socket that was moved still tells who connected it.
            Stream::Unix(stream) => stream.peer_cred().ok(),
            Stream::Tcp(_) => None,
        };
        let (peer, origin) = (live.peer().clone(), live.origin());
        let room = live.most_state().saturating_sub(luggage::HEAD);
        let (attachment, changed) = (Mutex::new(attachment), AtomicBool::new(false));
        Self(Arc::new(Card { peer, credentials, origin, drain, attachment, changed, room }))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// Which process connected: that of a unix socket alone has one (unix(7), SO_PEERCRED).
    pub fn credentials(&self) -> Option<UCred> {
        self.0.credentials
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// The bytes that were attached to it last, by this process or one before it; empty at first.
    pub fn attached(&self) -> Vec<u8> {
        self.attachment().clone()
    }

    /// Attaches bytes to it, in place of those before: who is logged in, say. They go where it goes.
    /// [`Options::state_version`](crate::daemon::Options::state_version) is their version, too.
    ///
    /// Attach them before the response to the request that brought them: what is attached between two
    /// requests stays here if the connection moves before its next one.
    ///
    /// # Errors
    /// [`StateError::TooLarge`] if [`Options::state_bytes`](crate::daemon::Options::state_bytes) has no room
    /// for them; what was attached before is still there.
    pub fn attach(&self, bytes: &[u8]) -> Result<(), StateError> {
        if bytes.len() > self.0.room {
            let (bytes, most) = (bytes.len(), self.0.room);
            return Err(StateError::TooLarge { bytes, most, option: "state_bytes" });
        }
        let mut attachment = self.attachment();
        attachment.clear();
        attachment.extend_from_slice(bytes);
        self.0.changed.store(true, Relaxed);
        Ok(())
    }

    /// Whether this process ends, or serves no longer: see [`leaving`](Self::leaving).
    pub fn is_leaving(&self) -> bool {
        self.0.drain.ending()
    }

    /// Resolves when this process begins to drain, because another one serves or the service stops. What
    /// is no request and cannot move, as a WebSocket, says goodbye then; what is left at the drain deadline
    /// is cut. Cancel safe.
    pub async fn leaving(&self) {
        self.0.drain.asked_to_end().await;
    }

    /// Whether something was attached since it was [forgotten](Self::forget_news) last.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.0.changed.load(Relaxed)
    }

    /// What is attached is about to be saved.
    pub(super) fn forget_news(&self) {
        self.0.changed.store(false, Relaxed);
    }

    /// Does something with what is attached to it.
    pub(super) fn with_attachment<T>(&self, work: impl FnOnce(&[u8]) -> T) -> T {
        work(&self.attachment())
    }

    fn attachment(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.attachment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.0.peer).field("origin", &self.0.origin).finish()
    }
}
