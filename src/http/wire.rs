//! A connection under hyper, and what can be seen of how far hyper is from what it does with it.
//!
//! hyper tells nobody that a connection is between two requests. It shows: before it waits for the head of
//! a request it sets a timer for it, and then it neither has a request that is not answered nor a response
//! that is not whole. Such a timer is all that [`Heads`] is; it never goes off. What hyper has read ahead
//! shows by how it reads: unless it waits for a head, it reads only when it has nothing left. And whatever
//! it writes, it flushes when all of it is out.
//!
//! It never ends a connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::io::ReadBuf;
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
    /// All that there was has been read, a moment ago.
    emptied: AtomicBool,
    /// Nothing that was written waits to be flushed.
    flushed: AtomicBool,
    /// There was a request.
    spoken: AtomicBool,
    /// It has begun as HTTP/2 does.
    http2: AtomicBool,
    /// PID 1 holds it, too.
    kept: AtomicBool,
    /// What was saved for it: one of the three.
    saved: AtomicU8,
    /// Told when hyper, or the service, has done with it.
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
            emptied: no(),
            flushed: AtomicBool::new(true),
            spoken: no(),
            http2: no(),
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
        self.emptied.store(false, Relaxed);
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

    /// Whether it has begun as HTTP/2 does.
    pub(super) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// It has begun as HTTP/2 does.
    pub(super) fn is_http2_from_here(&self) {
        self.http2.store(true, Relaxed);
    }

    /// It is not HTTP/1's any more, which waits for no head from here on.
    pub(super) fn leave_to_http2(&self) {
        self.awaits_head.store(false, Relaxed);
    }

    /// PID 1 holds the connection from here on.
    pub(super) fn is_kept(&self) {
        self.kept.store(true, Relaxed);
    }

    /// Whether there are bytes that belong to no request yet.
    #[inline]
    pub(super) fn is_ahead(&self, is: bool) {
        self.ahead.store(is, Relaxed);
    }

    /// Whether nothing that was written waits to be flushed.
    #[inline]
    pub(super) fn is_flushed(&self, is: bool) {
        self.flushed.store(is, Relaxed);
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
    pub(super) fn is_dry(&self) -> bool {
        self.awaits_head.load(Relaxed) && self.dry.load(Relaxed)
    }

    /// As [`AsyncRead::poll_read`](tokio::io::AsyncRead::poll_read), for hyper.
    pub(super) fn poll_read(
        &self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.awaits_head.load(Relaxed) && !self.ahead.load(Relaxed) && self.goes() {
            // What the client sends next is for the one who serves now, however soon it comes.
            self.dry.store(true, Relaxed);
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = self.poll_read_now(context, buffer);
        if read.is_pending() {
            self.dry.store(true, Relaxed);
            if !self.awaits_head.load(Relaxed) {
                self.ahead.store(false, Relaxed);
            }
        } else if buffer.filled().len() > before {
            self.ahead.store(true, Relaxed);
            self.emptied.store(buffer.remaining() > 0, Relaxed);
        }
        read
    }

    #[inline]
    fn poll_read_now(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let busy = self.must_save_busy();
        if busy || self.emptied.load(Relaxed) {
            ready!(self.live.stream().poll_readable(context))?;
        }
        if busy {
            // Before a byte leaves the kernel, and only then.
            self.save_busy();
        }
        self.live.poll_read_shared(context, buffer)
    }
}

/// Any time will do: hyper is never told that one has come.
static SOME_TIME: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The timer by which hyper shows that it waits for the head of a request.
#[derive(Debug)]
pub(super) struct Heads {
    wire: Arc<Wire>,
}

impl Heads {
    /// How long hyper is told to wait for a head; it never learns that the time is over.
    pub(super) const PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn new(wire: Arc<Wire>) -> Self {
        Self { wire }
    }
}

impl Timer for Heads {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now())
    }

    fn sleep_until(&self, _: Instant) -> Pin<Box<dyn Sleep>> {
        self.wire.awaits_head.store(true, Relaxed);
        // It has no size: nothing is allocated.
        Box::pin(Never)
    }

    fn now(&self) -> Instant {
        *SOME_TIME
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
