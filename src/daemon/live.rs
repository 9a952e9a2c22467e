//! A connection that can outlive the process that accepted it.
//!
//! ```text
//!              stash()                    save()           hand_on()
//!   accepted ----------> with PID 1, too -------> ... --+------------> the next process
//!      |                     |                          |               (an upgrade: over the link;
//!      | dropped             | dropped: PID 1 lets go   | kill -9        a restart: through PID 1)
//!      v                     v                          v
//!   the peer sees the end of it                      PID 1 gives it to the next process
//! ```
//!
//! Requests are looked at with [`peek`](Live::peek), and taken out of the kernel's buffer with
//! [`consume`](Live::consume) when they are answered: a request that was not answered is still there
//! for the next process, whatever happened to this one.
//!
//! Nothing in here reads for the service, and nothing ends a connection that somebody else serves.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use super::kept::Kept;
use super::stream::{Peer, Stream};
use super::vault::Vault;
use crate::fdstore::{StashError, StateError};
use crate::upgrade::moves::{Exchange, Luggage, Offered, Wanted};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// This process accepted it.
    Accepted,
    /// An older process gave it away, between two requests.
    Moved,
    /// PID 1 kept it while no process served: a restart, a crash.
    Restored,
}

/// A connection, the state that belongs to it, and its place with PID 1 once it has one.
///
/// Dropping it ends the connection, and the peer sees that at once, also where PID 1 holds it, too.
/// Only while the service stops does PID 1 keep what it has, for the process that comes.
#[derive(Debug)]
pub struct Live {
    stream: Arc<Stream>,
    peer: Peer,
    origin: Origin,
    /// What was saved last.
    state: Vec<u8>,
    /// Its place with PID 1.
    kept: Option<Kept>,
    ways: Ways,
    /// The last call that this connection has answered.
    answered: AtomicU64,
}

/// The ways out of this process.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    /// To the process that comes now.
    pub(super) exchange: Exchange,
    /// To PID 1.
    pub(super) vault: Vault,
}

#[cfg(test)]
impl Ways {
    /// Nobody wants connections, and no manager keeps them.
    pub(super) fn of_nobody() -> Self {
        use crate::fdstore::{Bounds, Store};
        let store = Store::new(crate::notify::Notifier::none(), Bounds::found([]).unwrap());
        let options = super::Options::default();
        let vault = Vault::new(store, super::memory::Memory::new(Vec::new()), options);
        Self { exchange: crate::upgrade::moves::Giver::new().exchange(), vault }
    }
}

impl Live {
    pub(super) fn new(stream: Stream, peer: Peer, origin: Origin, state: Vec<u8>, ways: Ways) -> Self {
        let stream = Arc::new(stream);
        Self { stream, peer, origin, state, kept: None, ways, answered: AtomicU64::new(0) }
    }

    /// The same, held by PID 1 under the number `id` already.
    pub(super) fn adopt(self, id: u64) -> Self {
        let kept = self.ways.vault.adopt(id, &self.stream);
        Self { kept, ..self }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The socket.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// What was saved for it last, by this process or by one before it; empty at first.
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// Whether PID 1 holds it, too, so that it survives this process.
    pub fn is_stashed(&self) -> bool {
        self.kept.is_some()
    }

    /// Gives PID 1 a copy of the connection, with what was [saved](Self::save) for it, and waits until
    /// PID 1 is known to have it. From then on it survives this process. Nothing happens if PID 1 has
    /// it already. Not cancel safe: a stash that is given up half-way may or may not have happened.
    ///
    /// # Errors
    /// [`StashError`], which names the setting of the unit to change. The connection is as it was.
    /// When another process has taken over meanwhile, it is [wanted](Self::wanted) there.
    pub async fn stash(&mut self) -> Result<(), StashError> {
        if self.kept.is_none() {
            self.kept = Some(self.ways.vault.stash(&self.stream, &self.state).await?);
        }
        Ok(())
    }

    /// Saves the state that belongs to the connection, in place of what was saved before. It goes where
    /// the connection goes; and if PID 1 holds the connection, it survives this process from the moment
    /// this returns: so save first, then answer. No system call, no waiting.
    ///
    /// # Errors
    /// [`StateError::TooLarge`] beyond [`Options::state_bytes`](super::Options::state_bytes); what was
    /// saved before is still there.
    pub fn save(&mut self, state: &[u8]) -> Result<(), StateError> {
        self.ways.vault.check(state)?;
        if let Some(kept) = &self.kept {
            kept.save(state)?;
        }
        self.state.clear();
        self.state.extend_from_slice(state);
        Ok(())
    }

    /// Waits until more than `known` bytes can be read, and copies what fits into `buffer` without
    /// taking it out of the kernel's buffer (recv(2), MSG_PEEK). Returns how many those are; no more
    /// than `known`, and the peer will send nothing more. Cancel safe.
    ///
    /// # Errors
    /// What recv(2) says; `InvalidInput` if `buffer` has no room for more than `known` bytes.
    pub async fn peek(&self, buffer: &mut [u8], known: usize) -> io::Result<usize> {
        self.stream.peek(buffer, known).await
    }

    /// Takes `bytes` that were [peeked](Self::peek) out of the kernel's buffer: they are answered.
    ///
    /// # Errors
    /// `WouldBlock` for more than is there; else what recv(2) says.
    pub fn consume(&self, bytes: usize) -> io::Result<()> {
        self.stream.consume(bytes)
    }

    /// Resolves when the connection should live on elsewhere, if it is between two requests: in the
    /// process that takes over, or with PID 1 while the service restarts. Wait for it beside the next
    /// request, and nowhere else. Cancel safe.
    pub async fn wanted(&self) -> Wanted {
        let mut answered = self.answered.load(Relaxed);
        let wanted = self.ways.exchange.wanted(&mut answered).await;
        self.answered.store(answered, Relaxed);
        wanted
    }

    /// Gives the connection to whoever wants it, with what was saved for it last. `Ok` when it lives on
    /// there; and what this process still had of it is gone.
    ///
    /// # Errors
    /// The connection, when it was not taken: go on with it here.
    pub async fn hand_on(self, wanted: Wanted) -> Result<(), Self> {
        let (reply, verdict) = oneshot::channel();
        let exchange = self.ways.exchange.clone();
        exchange.offer(wanted, Box::new(OnOffer { live: self, reply: Some(reply) }));
        match verdict.await {
            Ok(Some(back)) => Err(back.live),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Ends the connection; also while the service stops, when dropping it would leave it with PID 1.
    pub fn end(mut self) {
        if let Some(kept) = self.kept.take() {
            kept.end();
        }
    }

    /// Lets go of it without ending it: somebody else has it.
    fn release(self) {
        if let Some(kept) = self.kept {
            kept.leave();
        }
    }
}

/// A connection whose task waits to hear what becomes of it.
#[derive(Debug)]
struct OnOffer {
    live: Live,
    /// Until it is used. What comes back comes in its box: an answer needs no room for a connection.
    reply: Option<oneshot::Sender<Option<Box<Self>>>>,
}

impl Offered for OnOffer {
    fn fd(&self) -> BorrowedFd<'_> {
        self.live.stream.as_fd()
    }

    fn luggage(&self) -> Luggage<'_> {
        Luggage {
            family: self.live.stream.family(),
            id: self.live.kept.as_ref().map(Kept::id),
            state: Cow::Borrowed(&self.live.state),
        }
    }

    fn gone(self: Box<Self>) {
        let Self { live, reply } = *self;
        live.release();
        // A task that was cut does not want to know.
        let _ = reply.map(|reply| reply.send(None));
    }

    fn back(mut self: Box<Self>) {
        let reply = self.reply.take();
        let _ = reply.map(|reply| reply.send(Some(self)));
    }
}

impl AsyncRead for Live {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.poll_read_shared(context, buffer)
    }
}

impl AsyncWrite for Live {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_write_shared(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.end_sending())
    }
}
