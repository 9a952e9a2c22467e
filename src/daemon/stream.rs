//! A connection over TCP or a unix socket, and who is at its other end.
//!
//! It can be used from a shared reference, and looked into without taking anything out of the kernel's
//! buffer. It never buffers: what was not taken is the kernel's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream, unix};
use tokio::task::coop;

use crate::sys::stream::receive;
use crate::upgrade::moves::Family;

/// How much is taken out of the kernel's buffer at a time.
const GULP: usize = 4096;

/// A connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// Who connected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Peer {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A unix socket, seldom with a name. Boxed, for it is four times the other and every connection
    /// carries room for both.
    Unix(Box<unix::SocketAddr>),
}

/// Does the same for both kinds.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
        }
    };
}

impl Stream {
    /// A connected stream socket of this family, that came from another process; and who is at its
    /// other end.
    ///
    /// Errors: ENOTCONN when the peer has reset it meanwhile.
    pub(super) fn arrived(family: Family, socket: OwnedFd) -> io::Result<(Self, Peer)> {
        match family {
            Family::Tcp => {
                let socket = std::net::TcpStream::from(socket);
                socket.set_nonblocking(true)?;
                let stream = TcpStream::from_std(socket)?;
                let peer = Peer::Tcp(stream.peer_addr()?);
                Ok((Self::Tcp(stream), peer))
            }
            Family::Unix => {
                let socket = std::os::unix::net::UnixStream::from(socket);
                socket.set_nonblocking(true)?;
                let stream = UnixStream::from_std(socket)?;
                let peer = Peer::Unix(Box::new(stream.peer_addr()?));
                Ok((Self::Unix(stream), peer))
            }
        }
    }

    pub(super) fn family(&self) -> Family {
        match self {
            Self::Tcp(_) => Family::Tcp,
            Self::Unix(_) => Family::Unix,
        }
    }

    /// Does `attempt` as soon as there may be something to read.
    pub(super) async fn when_readable<T>(&self, attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        each!(self, stream => stream.async_io(Interest::READABLE, attempt).await)
    }

    /// What can be read, if that is more than `known` bytes, and without taking it; see
    /// [`Live::peek`](super::Live::peek).
    ///
    /// Errors: `WouldBlock` if it is not, else what recv(2) says.
    pub(super) fn look(&self, buffer: &mut [u8], known: usize) -> io::Result<usize> {
        let socket = self.as_fd();
        let seen = recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
        // 0 is the end. The end behind bytes that are known looks like nothing new.
        if seen > known || seen == 0 || has_ended(socket)? {
            Ok(seen)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    /// See [`Live::consume`](super::Live::consume).
    pub(super) fn consume(&self, bytes: usize) -> io::Result<()> {
        let (mut left, mut bin) = (bytes, [0; GULP]);
        while left > 0 {
            let gulp = &mut bin[..left.min(GULP)];
            match recv(self.as_fd().as_raw_fd(), gulp, MsgFlags::MSG_DONTWAIT)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                taken => left -= taken,
            }
        }
        Ok(())
    }

    /// Ready when there may be something to read.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read_ready(context))
    }

    /// Reads what is there.
    ///
    /// Errors: `WouldBlock` if nothing is, else what recv(2) says.
    pub(super) fn read_now(&self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let (room, mut short) = (buffer.remaining(), false);
        let attempt = || {
            let read = receive(self.as_fd(), buffer)?;
            // epoll(7): who got less than asked for has emptied the kernel's buffer. To say so saves the call
            // that finds nothing.
            short = 0 < read && read < room;
            if short { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        };
        let read = each!(self, stream => stream.try_io(Interest::READABLE, attempt));
        if short { Ok(()) } else { read }
    }

    /// As [`AsyncWrite::poll_write`], from a shared reference.
    #[inline]
    pub(crate) fn poll_write_shared(
        &self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // As a rule there is room, and nobody need be woken: the runtime's share of turns is all to ask for.
        let turn = ready!(coop::poll_proceed(context));
        loop {
            match each!(self, stream => stream.try_write(bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    turn.made_progress();
                    return Poll::Ready(written);
                }
            }
            ready!(each!(self, stream => stream.poll_write_ready(context)))?;
        }
    }

    /// As [`AsyncWrite::poll_write_vectored`], from a shared reference.
    #[inline]
    pub(crate) fn poll_write_vectored_shared(
        &self,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // As a rule there is room, and nobody need be woken: the runtime's share of turns is all to ask for.
        let turn = ready!(coop::poll_proceed(context));
        loop {
            match each!(self, stream => stream.try_write_vectored(parts)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    turn.made_progress();
                    return Poll::Ready(written);
                }
            }
            ready!(each!(self, stream => stream.poll_write_ready(context)))?;
        }
    }

    /// Ends it for everybody who has a copy of the socket: shutdown(2).
    pub(crate) fn end(&self) {
        // An error says that it has ended.
        let _ = shutdown(self.as_fd().as_raw_fd(), Shutdown::Both);
    }

    /// Ends our half of the conversation: shutdown(2), SHUT_WR.
    pub(crate) fn end_sending(&self) -> io::Result<()> {
        Ok(shutdown(self.as_fd().as_raw_fd(), Shutdown::Write)?)
    }
}

/// Whether the peer will send nothing more: poll(2), POLLRDHUP.
fn has_ended(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let hangup = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut question = [PollFd::new(socket, hangup)];
    poll(&mut question, PollTimeout::ZERO)?;
    let ends = hangup | PollFlags::POLLHUP | PollFlags::POLLERR;
    Ok(question[0].revents().is_some_and(|events| events.intersects(ends)))
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, stream => stream.as_fd())
    }
}

// Inlined, because every read and write of a service goes through here.

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(context, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(context, parts))
    }

    #[inline]
    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(context))
    }

    #[inline]
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(context))
    }
}
