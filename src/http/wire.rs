//! What hyper reads from and writes to, and what can be seen there of how far it is.
//!
//! hyper tells nobody that a connection is between two requests. It shows: before it waits for the head of
//! a request it sets a timer for it, and then it neither has a request that is not answered nor a response
//! that is not whole. Such a timer is all that [`Heads`] is; it never goes off. What hyper has read ahead
//! shows by how it reads: unless it waits for a head, it reads only when it has nothing left. And whatever
//! it writes, it flushes when all of it is out.
//!
//! It never ends a connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::connection::Connection;
use super::luggage;
use crate::daemon::Live;
use crate::fdstore::StateError;

/// A connection, and what is known of its conversation. One task at a time writes any of it.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) live: Live,
    pub(super) connection: Connection,
    /// hyper waits for the head of a request.
    awaits_head: AtomicBool,
    /// hyper may have bytes that belong to no request yet.
    ahead: AtomicBool,
    /// There was nothing to read, a moment ago.
    dry: AtomicBool,
    /// Nothing that was written waits to be flushed.
    flushed: AtomicBool,
    /// There was a request.
    spoken: AtomicBool,
    /// PID 1 holds it, too.
    kept: AtomicBool,
    /// What was saved for it: one of the three.
    saved: AtomicU8,
    /// Told when the [`Io`] is dropped.
    pub(super) dropped: Notify,
}

/// Between two requests.
const IDLE: u8 = 0;
/// Between two requests, with part of the next one.
const BEGUN: u8 = 1;
/// In the middle of a request.
const BUSY: u8 = 2;

/// What a connection is at, when there is nothing to do for it at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stance {
    /// In the middle of a request.
    Busy,
    /// Between two requests, but part of the next one may have been read.
    Ahead,
    /// Between two requests.
    Idle,
}

impl Wire {
    /// One that nobody has talked over here; with its luggage, if it had any.
    pub(super) fn new(live: Live, connection: Connection, had_luggage: bool) -> Self {
        let no = || AtomicBool::new(false);
        Self {
            awaits_head: no(),
            ahead: no(),
            dry: no(),
            flushed: AtomicBool::new(true),
            spoken: no(),
            kept: AtomicBool::new(live.is_stashed()),
            // Part of a request may be in it: what is saved next counts.
            saved: AtomicU8::new(if had_luggage { BEGUN } else { IDLE }),
            dropped: Notify::new(),
            live,
            connection,
        }
    }

    /// hyper is about to be polled: who knows what there is to read now.
    pub(super) fn look_again(&self) {
        self.dry.store(false, Relaxed);
    }

    /// hyper has the head of a request.
    #[inline]
    pub(super) fn has_head(&self) {
        self.awaits_head.store(false, Relaxed);
        self.spoken.store(true, Relaxed);
        if self.must_save_busy() {
            self.save_busy();
        }
    }

    /// Whether there was a request.
    pub(super) fn has_spoken(&self) -> bool {
        self.spoken.load(Relaxed)
    }

    /// Whether the client is to leave after its next response: it cannot stay, and the connection cannot
    /// move.
    #[inline]
    pub(super) fn stays(&self) -> bool {
        self.connection.is_leaving() && self.live.stays()
    }

    /// Whether the connection goes elsewhere as soon as it is between two requests. If it turns out that
    /// it does not, whoever awaits the end of its rest is woken.
    #[inline]
    fn goes(&self) -> bool {
        self.connection.is_leaving() && !self.live.stays()
    }

    /// PID 1 holds the connection from here on.
    pub(super) fn is_kept(&self) {
        self.kept.store(true, Relaxed);
    }

    /// What the connection is at, when hyper has nothing to do for it.
    #[inline]
    pub(super) fn stance(&self) -> Stance {
        if !self.awaits_head.load(Relaxed) || !self.flushed.load(Relaxed) {
            Stance::Busy
        } else if self.ahead.load(Relaxed) {
            Stance::Ahead
        } else {
            Stance::Idle
        }
    }

    /// Saves that it is between two requests, with `read` of the next one, if that is not what was saved
    /// last.
    ///
    /// Errors: there is no room for so much.
    #[inline]
    pub(super) fn save_idle(&self, read: &[u8]) -> Result<(), StateError> {
        match self.connection.has_news() || !read.is_empty() || self.saved.load(Relaxed) != IDLE {
            true => self.save_idle_now(read),
            false => Ok(()),
        }
    }

    fn save_idle_now(&self, read: &[u8]) -> Result<(), StateError> {
        self.connection.forget_news();
        self.connection.with_attachment(|bytes| self.live.save(&luggage::pack(false, bytes, read)))?;
        self.saved.store(if read.is_empty() { IDLE } else { BEGUN }, Relaxed);
        Ok(())
    }

    /// Whether it may be repeated after a crash what was read.
    #[inline]
    fn must_save_busy(&self) -> bool {
        self.kept.load(Relaxed) && self.saved.load(Relaxed) != BUSY
    }

    /// Saves that it is in the middle of a request: who finds it after a crash must end it. There is always
    /// room for that.
    fn save_busy(&self) {
        let save = |bytes: &[u8]| self.live.save(&luggage::pack(true, bytes, b""));
        match self.connection.with_attachment(save) {
            Ok(()) => self.saved.store(BUSY, Relaxed),
            Err(error) => tracing::warn!(%error, "a crash may repeat a request"),
        }
    }

    /// Whether there was nothing to read a moment ago, when hyper asked for another reason.
    #[inline]
    fn is_dry(&self) -> bool {
        self.awaits_head.load(Relaxed) && self.dry.load(Relaxed)
    }

    fn poll_read(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.goes() && self.awaits_head.load(Relaxed) && !self.ahead.load(Relaxed) {
            // What the client sends next is for the one who serves now, however soon it comes.
            self.dry.store(true, Relaxed);
            return Poll::Pending;
        }
        if self.must_save_busy() {
            // Before a byte leaves the kernel, and only then.
            ready!(self.live.stream().poll_readable(context))?;
            self.save_busy();
        }
        let before = buffer.filled().len();
        let read = self.live.poll_read_shared(context, buffer);
        if read.is_pending() {
            self.dry.store(true, Relaxed);
            if !self.awaits_head.load(Relaxed) {
                self.ahead.store(false, Relaxed);
            }
        } else if buffer.filled().len() > before {
            self.ahead.store(true, Relaxed);
        }
        read
    }
}

/// What hyper is given as the connection. After an upgrade it is its service's.
#[derive(Debug)]
pub(super) struct Io {
    wire: Arc<Wire>,
    /// What was read before, and is to be read again.
    read: Bytes,
}

impl Io {
    pub(super) fn new(wire: Arc<Wire>, read: Bytes) -> Self {
        Self { wire, read }
    }

    /// Puts back what was read.
    pub(super) fn put_back(&mut self, read: Bytes) {
        self.read = read;
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        self.wire.dropped.notify_one();
    }
}

impl AsyncRead for Io {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            if this.wire.is_dry() {
                return Poll::Pending;
            }
            return this.wire.poll_read(context, buffer);
        }
        let again = this.read.split_to(this.read.len().min(buffer.remaining()));
        buffer.put_slice(&again);
        this.wire.ahead.store(true, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.flushed.store(false, Relaxed);
        // Only who is in the middle of a request writes: it is engaged.
        self.wire.live.stream().poll_write_shared(context, bytes)
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.flushed.store(false, Relaxed);
        self.wire.live.stream().poll_write_vectored_shared(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.flushed.store(true, Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.wire.live.stream().end_sending())
    }
}

/// The timer by which hyper shows that it waits for the head of a request.
#[derive(Debug)]
pub(super) struct Heads {
    wire: Arc<Wire>,
    /// Any time will do.
    now: Instant,
}

impl Heads {
    /// How long hyper is told to wait for a head; it never learns that the time is over.
    pub(super) const PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn new(wire: Arc<Wire>) -> Self {
        Self { wire, now: Instant::now() }
    }
}

impl Timer for Heads {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now)
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.wire.awaits_head.store(true, Relaxed);
        // It has no size: nothing is allocated.
        Box::pin(Never)
    }

    fn now(&self) -> Instant {
        self.now
    }
}

/// A time that never comes.
struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Sleep for Never {}
