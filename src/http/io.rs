//! What hyper reads from and writes to.
//!
//! The first bytes of a client tell whether it speaks HTTP/2. They are kept back until that is known, so that
//! they can still be somebody else's. It never ends a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::preface::{Protocol, by_its_first};
use super::wire::Wire;

/// What hyper is given as the connection. After an upgrade it is its service's.
#[derive(Debug)]
pub(super) struct Io {
    wire: Arc<Wire>,
    /// What was read before, and is to be read again.
    read: Bytes,
    /// It may turn out to be HTTP/2, of which HTTP/1 is to see nothing.
    undecided: bool,
}

impl Io {
    /// One that HTTP/1 reads, until it turns out to be HTTP/2 if it may.
    pub(super) fn new(wire: Arc<Wire>, undecided: bool) -> Self {
        Self { wire, read: Bytes::new(), undecided }
    }

    /// What HTTP/1 has not seen.
    pub(super) fn take_back(&mut self) -> Bytes {
        std::mem::take(&mut self.read)
    }

    /// It is HTTP/2's: all of it is read.
    pub(super) fn decided(&mut self) {
        self.undecided = false;
    }

    /// Reads the first bytes, and shows nobody any as long as they can be those of HTTP/2.
    fn poll_first(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        if buffer.remaining() <= self.read.len() {
            // hyper has room for more than a preface.
            return Poll::Pending;
        }
        buffer.put_slice(&self.read);
        let read = loop {
            let known = buffer.filled().len();
            match by_its_first(&buffer.filled()[start..]) {
                Some(Protocol::Http1) => break Some(Ok(())),
                Some(Protocol::Http2) => {
                    self.wire.is_http2_from_here();
                    break None;
                }
                None => {}
            }
            match self.wire.poll_read(context, buffer) {
                Poll::Pending => break None,
                // What ends before it is known is HTTP/1's to end.
                Poll::Ready(read) if read.is_err() || buffer.filled().len() == known => break Some(read),
                Poll::Ready(_) => {}
            }
        };
        match read {
            Some(_) => (self.undecided, self.read) = (false, Bytes::new()),
            None => {
                self.read = Bytes::copy_from_slice(&buffer.filled()[start..]);
                buffer.set_filled(start);
            }
        }
        self.wire.is_ahead(!self.read.is_empty() || buffer.filled().len() > start);
        read.map_or(Poll::Pending, Poll::Ready)
    }

    /// Puts back what was read.
    pub(super) fn put_back(&mut self, read: Bytes) {
        self.undecided &= by_its_first(&read) != Some(Protocol::Http1);
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
        if this.undecided && !this.wire.is_dry() {
            return this.poll_first(context, buffer);
        }
        if this.read.is_empty() || this.undecided {
            if this.wire.is_dry() {
                return Poll::Pending;
            }
            return this.wire.poll_read(context, buffer);
        }
        let again = this.read.split_to(this.read.len().min(buffer.remaining()));
        buffer.put_slice(&again);
        this.wire.is_ahead(true);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.is_flushed(false);
        // Only who is in the middle of a request writes: it is engaged.
        self.wire.live.stream().poll_write_shared(context, bytes)
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.wire.is_flushed(false);
        self.wire.live.stream().poll_write_vectored_shared(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.is_flushed(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.wire.live.stream().end_sending())
    }
}
