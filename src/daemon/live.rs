//! A connection that can outlive the process that accepted it.
//!
//! ```text
//!              stash()                    save()            rest()
//!   accepted ----------> with PID 1, too -------> ... --+------------> the next process
//!      |                     |                          |               (an upgrade: over the link;
//!      | dropped             | dropped: PID 1 lets go   | kill -9        a restart: through PID 1)
//!      v                     v                          v
//!   the peer sees the end of it                      PID 1 gives it to the next process
//! ```
//!
//! Requests are looked at with [`peek`](Live::peek), and taken out of the kernel's buffer with
//! [`consume`](Live::consume) when they are answered: a request that was not answered is still there
//! for the next process, whatever happened to this one. Between two requests it [rests](Live::rest), and
//! may go.
//!
//! Nothing in here reads for the service, and nothing ends a connection that somebody else serves.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use super::kept::Kept;
use super::stream::{Peer, Stream};
use super::vault::Vault;
use crate::fdstore::{StashError, StateError};
use crate::upgrade::moves::{Exchange, Left, Moved, Slot};

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
/// Dropping it ends the connection, and the peer sees that at once, also where PID 1 or another process
/// holds it, too; unless it lives on in the process that it was given to while it [rested](Self::rest).
/// Only while the service stops does PID 1 keep what it has, for the process that comes.
#[derive(Debug)]
pub struct Live {
    slot: Arc<Slot<Stream>>,
    peer: Peer,
    origin: Origin,
    /// Its place with PID 1.
    kept: OnceLock<Kept>,
    vault: Vault,
    /// It ends even if PID 1 is to keep what this process drops.
    ends: bool,
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

#[cfg(test)]
impl Live {
    /// One that `giver` may take, and no manager keeps.
    pub(crate) fn for_giver(
        socket: std::os::fd::OwnedFd,
        family: crate::upgrade::moves::Family,
        origin: Origin,
        state: &[u8],
        giver: &crate::upgrade::moves::Giver,
    ) -> Self {
        let ways = Ways { exchange: giver.exchange(), ..Ways::of_nobody() };
        let (stream, peer) = Stream::arrived(family, socket).unwrap();
        Self::new(stream, peer, origin, state.to_vec(), &ways)
    }
}

impl Live {
    pub(super) fn new(stream: Stream, peer: Peer, origin: Origin, state: Vec<u8>, ways: &Ways) -> Self {
        let slot = ways.exchange.enter(stream.family(), stream, state);
        Self { slot, peer, origin, kept: OnceLock::new(), vault: ways.vault.clone(), ends: false }
    }

    /// The same, held by PID 1 under the number `id` already.
    pub(super) fn adopt(self, id: u64) -> Self {
        if let Some(kept) = self.vault.adopt(id, &self.slot()) {
            let kept = self.kept.get_or_init(|| kept);
            self.slot.is_kept(id);
            // One who crashed in the middle of giving it away may have saved more than it gave.
            let _ = kept.state().map(|saved| self.slot.engage(|state| *state = saved));
        }
        self
    }

    /// Its place, for those who do not care what kind of socket it has.
    fn slot(&self) -> Arc<Slot> {
        Arc::<Slot<Stream>>::clone(&self.slot)
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The socket, to ask or set what it is like. Read and write through the connection itself, which else
    /// would not know that it does not rest.
    pub fn stream(&self) -> &Stream {
        self.slot.socket()
    }

    /// What was saved for it last, by this process or by one before it; empty at first.
    pub fn state(&self) -> Vec<u8> {
        self.slot.state()
    }

    /// Whether PID 1 holds it, too, so that it survives this process.
    pub fn is_stashed(&self) -> bool {
        self.kept.get().is_some()
    }

    /// Gives PID 1 a copy of the connection, with what was [saved](Self::save) for it, and waits until
    /// PID 1 is known to have it. From then on it survives this process. Nothing happens if PID 1 has
    /// it already. Not cancel safe: a stash that is given up half-way may or may not have happened.
    ///
    /// # Errors
    /// [`StashError`], which names the setting of the unit to change. The connection is as it was.
    /// [`StashError::Silent`] when another process has taken over meanwhile: let it [rest](Self::rest),
    /// and it goes there.
    pub async fn stash(&mut self) -> Result<(), StashError> {
        self.stash_shared().await
    }

    /// As [`stash`](Self::stash), from a shared reference: one task at a time.
    pub(crate) async fn stash_shared(&self) -> Result<(), StashError> {
        if !self.is_stashed() {
            let state = self.slot.engage(|state| state.clone()).map_err(|Moved| StashError::Silent)?;
            let kept = self.vault.stash(&self.slot(), &state).await?;
            self.slot.is_kept(kept.id());
            self.kept.get_or_init(|| kept);
        }
        Ok(())
    }

    /// Saves the state that belongs to the connection, in place of what was saved before. It goes where
    /// the connection goes; and if PID 1 holds the connection, it survives this process from the moment
    /// this returns: so save first, then answer. No system call, no waiting.
    ///
    /// # Errors
    /// [`StateError::TooLarge`] beyond [`Options::state_bytes`](super::Options::state_bytes),
    /// [`StateError::Moved`] when it lives on elsewhere; what was saved before is still there.
    pub fn save(&self, state: &[u8]) -> Result<(), StateError> {
        self.vault.check(state)?;
        let saved = self.slot.engage(|old| {
            if let Some(kept) = self.kept.get() {
                kept.save(state)?;
            }
            old.clear();
            old.extend_from_slice(state);
            Ok(())
        });
        saved.unwrap_or(Err(StateError::Moved))
    }

    /// Waits until more than `known` bytes can be read, and copies what fits into `buffer` without
    /// taking it out of the kernel's buffer (recv(2), MSG_PEEK). Returns how many those are; no more
    /// than `known`, and the peer will send nothing more. Cancel safe.
    ///
    /// # Errors
    /// What recv(2) says; `InvalidInput` if `buffer` has no room for more than `known` bytes;
    /// `NotConnected` when it lives on elsewhere and nobody waits to hear that from [`rest`](Self::rest).
    pub async fn peek(&self, buffer: &mut [u8], known: usize) -> io::Result<usize> {
        if buffer.len() <= known {
            let what = format!("{} bytes of buffer have no room for more than {known}", buffer.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.slot.is_here()?;
        let stream = self.slot.socket();
        loop {
            // What cannot be read here is no `WouldBlock`: a peer that has ended its half is readable for
            // ever, and this would look for ever.
            let look = || self.slot.read(|| stream.look(buffer, known)).transpose();
            match stream.when_readable(look).await? {
                Some(seen) => return Ok(seen),
                // Whoever awaits the end of its rest is woken, in this same task.
                None => until_woken().await,
            }
        }
    }

    /// Takes `bytes` that were [peeked](Self::peek) out of the kernel's buffer: they are answered.
    ///
    /// # Errors
    /// `WouldBlock` for more than is there; `NotConnected` when it lives on elsewhere; else what recv(2)
    /// says.
    pub fn consume(&self, bytes: usize) -> io::Result<()> {
        self.engage()?;
        self.slot.socket().consume(bytes)
    }

    /// Between two requests: while this is awaited, the connection may go to whoever serves next (an
    /// upgrade, a restart), with what was saved for it last. Resolves when it lives on elsewhere: drop the
    /// `Live` then; that ends nothing.
    ///
    /// Await it beside [`peek`](Self::peek) or a read, and nowhere else: as soon as there is something to
    /// read it rests no longer, and whoever reads serves it here. Cancel safe: cancelled, it is this
    /// process' again.
    ///
    /// ```no_run
    /// # async fn example(live: handover::daemon::Live, mut buffer: [u8; 512]) -> std::io::Result<()> {
    /// tokio::select! {
    ///     () = live.rest() => return Ok(()),
    ///     seen = live.peek(&mut buffer, 0) => println!("a request of {} bytes", seen?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rest(&self) {
        let _awake = scopeguard::guard(self, Self::cease_to_rest);
        std::future::poll_fn(|context| self.poll_rest(context)).await;
    }

    /// As [`rest`](Self::rest): it rests from the first poll until it is read from with success, written
    /// to, or [woken](Self::cease_to_rest). One task at a time.
    #[inline]
    pub(crate) fn poll_rest(&self, context: &mut Context<'_>) -> Poll<()> {
        self.slot.poll_rest(context)
    }

    /// It is this process' again, unless it lives on elsewhere: then [`poll_rest`](Self::poll_rest) is ready.
    pub(crate) fn cease_to_rest(&self) {
        self.slot.cease_to_rest();
    }

    /// It is this process' again.
    ///
    /// Errors: it lives on elsewhere.
    pub(crate) fn engage(&self) -> Result<(), Moved> {
        self.slot.engage(|_| ())
    }

    /// Whether nobody takes it, now that this process serves no longer.
    #[cfg(feature = "http")]
    pub(crate) fn stays(&self) -> bool {
        self.slot.stays()
    }

    /// Most bytes that can be saved for it.
    #[cfg(feature = "http")]
    pub(crate) fn most_state(&self) -> usize {
        self.vault.most_state()
    }

    /// As [`AsyncRead::poll_read`], from a shared reference, for who hears from [`poll_rest`](Self::poll_rest)
    /// that it lives on elsewhere.
    pub(crate) fn poll_read_shared(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.slot.socket();
        // Who comes here was woken as a rule, and need not be again: the runtime's turn is all to ask for.
        let turn = ready!(coop::poll_proceed(context));
        loop {
            match self.slot.read(|| stream.read_now(buffer)) {
                // Gone: whoever awaits the end of its rest is woken.
                None => return Poll::Pending,
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Some(read) => {
                    turn.made_progress();
                    return Poll::Ready(read);
                }
            }
            ready!(stream.poll_readable(context))?;
        }
    }

    /// As [`AsyncWrite::poll_write`], from a shared reference.
    pub(crate) fn poll_write_shared(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.engage()?;
        self.slot.socket().poll_write_shared(context, bytes)
    }

    /// As [`AsyncWrite::poll_write_vectored`], from a shared reference.
    pub(crate) fn poll_write_vectored_shared(
        &self,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.engage()?;
        self.slot.socket().poll_write_vectored_shared(context, parts)
    }

    /// Ends the connection; also while the service stops, when dropping it would leave it with PID 1.
    pub fn end(mut self) {
        self.ends = true;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        match (self.slot.leave(), self.kept.take()) {
            (Left::Elsewhere, kept) => kept.into_iter().for_each(Kept::leave),
            (_, Some(kept)) if self.ends => kept.end(),
            (_, Some(kept)) => drop(kept),
            // To close our copy would end nothing while another process has one.
            (Left::Lent, None) => self.slot.socket().end(),
            (Left::Here, None) => {}
        }
    }
}

/// Resolves when the task is polled again, for whatever reason.
async fn until_woken() {
    let mut woken = false;
    std::future::poll_fn(
        |_| if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending },
    )
    .await;
}

impl AsyncRead for Live {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.slot.is_here()?;
        self.poll_read_shared(context, buffer)
    }
}

impl AsyncWrite for Live {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_shared(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored_shared(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.engage()?;
        Poll::Ready(self.slot.socket().end_sending())
    }
}

#[cfg(test)]
mod tests;
