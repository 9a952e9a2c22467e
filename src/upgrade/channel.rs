//! A SOCK_SEQPACKET socket that carries [`Message`]s and descriptors, see unix(7).
//!
//! Waits only as long as it is told to, and allocates what a message needs: no more than [`MAX_BYTES`]
//! whatever the other end sends. It never keeps a descriptor that came with a message it did not
//! understand.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::message::{Garbled, MAX_BYTES, Message};
use crate::sys::scm::{self, Received};
use crate::sys::seqpacket;
use crate::sys::watch::Watched;

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// A message, with what came along.
#[derive(Debug)]
pub(crate) struct Delivery<M> {
    /// What was said.
    pub(crate) message: M,
    /// The descriptors that were attached, in order.
    pub(crate) fds: Vec<OwnedFd>,
    /// Who said it, as the kernel vouches; only where SO_PASSCRED is set.
    pub(crate) from: Option<i32>,
    /// Some of the descriptors, from a place on, did not fit under this process' RLIMIT_NOFILE.
    pub(crate) fds_lost: bool,
}

/// Why nothing could be received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The other end is closed.
    #[error("the other end has gone")]
    Closed,
    /// It did not speak in time.
    #[error("the other end said nothing for {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// It said something that makes no sense.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// Some of the descriptors were lost.
    #[error("descriptors were lost on the way: raise LimitNOFILE=")]
    FdsLost,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Channel {
    /// Takes a connected, non-blocking SOCK_SEQPACKET socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Two ends, connected to each other. What the second sends arrives with its pid.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (ours, theirs) = seqpacket::pair()?;
        seqpacket::pass_credentials(ours.as_fd())?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Sends at once or not at all: a peer that lets its queue fill up has lost its claim to be waited for.
    ///
    /// Errors: EMSGSIZE for more than [`MAX_BYTES`], else what sendmsg(2) says.
    pub(crate) fn send(&self, message: &impl Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        give(self.as_fd(), message, fds)
    }

    /// Receives what is there; `WouldBlock` inside [`ReceiveError::Io`] when nothing is.
    pub(crate) fn receive_now<M: Message>(&self) -> Result<Delivery<M>, ReceiveError> {
        understand(take(self.as_fd())?)
    }

    /// Receives the next message, blocking this thread up to `patience`.
    pub(crate) fn receive_within<M: Message>(&self, patience: Duration) -> Result<Delivery<M>, ReceiveError> {
        let until = Instant::now() + patience;
        loop {
            match self.receive_now() {
                Ok(Delivery { fds_lost: true, .. }) => return Err(ReceiveError::FdsLost),
                Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ReceiveError::Silent(patience));
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

/// A message as it came, with the bytes it came in.
type Raw = (Received, Vec<u8>);

/// Puts a message on the socket, whole or not at all.
fn give(socket: BorrowedFd<'_>, message: &impl Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = message.encode();
    if bytes.len() > MAX_BYTES {
        return Err(nix::errno::Errno::EMSGSIZE.into());
    }
    scm::send(socket, &bytes, fds)?;
    Ok(())
}

/// Takes the next message off the socket, understood or not.
///
/// An other end that closed with something unread is an error, once, and comes before what it had said
/// until then (ECONNRESET, af_unix.c: unix_release_sock). That may be the word that decides: read on.
fn take(socket: BorrowedFd<'_>) -> io::Result<Raw> {
    match take_next(socket) {
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => take_next(socket),
        taken => taken,
    }
}

fn take_next(socket: BorrowedFd<'_>) -> io::Result<Raw> {
    let len = seqpacket::next_len(socket)?;
    let mut buffer = vec![0; len.min(MAX_BYTES)];
    Ok((scm::receive(socket, &mut buffer)?, buffer))
}

/// Makes sense of a message; its descriptors are closed if there is none.
fn understand<M: Message>((received, bytes): Raw) -> Result<Delivery<M>, ReceiveError> {
    if received.len == 0 {
        return Err(ReceiveError::Closed);
    }
    if received.truncated {
        return Err(Garbled::Long(1).into());
    }
    let Received { fds, pid: from, fds_lost, .. } = received;
    Ok(Delivery { message: M::decode(&bytes)?, fds, from, fds_lost })
}

/// A [`Channel`] on the tokio runtime.
#[derive(Debug)]
pub(crate) struct AsyncChannel(Watched);

impl AsyncChannel {
    /// Registers the channel; only on a tokio runtime with I/O enabled.
    pub(crate) fn new(channel: Channel) -> io::Result<Self> {
        Ok(Self(Watched::new(channel.0)?))
    }

    /// As [`Channel::send`].
    pub(crate) fn send(&self, message: &impl Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        give(self.as_fd(), message, fds)
    }

    /// As [`Channel::receive_now`].
    pub(crate) fn receive_now<M: Message>(&self) -> Result<Delivery<M>, ReceiveError> {
        understand(take(self.as_fd())?)
    }

    /// Waits for the next message. Cancel safe: nothing is taken before it is returned.
    pub(crate) async fn receive<M: Message>(&self) -> Result<Delivery<M>, ReceiveError> {
        understand(self.0.try_when_readable(take).await?)
    }

    /// The next message, if it is there; else the task is woken when one comes. One task at a time.
    pub(crate) fn poll_receive<M: Message>(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Delivery<M>, ReceiveError>> {
        let taken = ready!(self.0.poll_try(context, take));
        Poll::Ready(taken.map_err(ReceiveError::from).and_then(understand))
    }
}

/// The next message, of whoever is there; never, if nobody is.
pub(super) async fn hear<M: Message>(channel: Option<&AsyncChannel>) -> Result<Delivery<M>, ReceiveError> {
    match channel {
        Some(channel) => channel.receive().await,
        None => std::future::pending().await,
    }
}

impl AsFd for AsyncChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::message::{Order, Report};

    #[test]
    fn what_is_said_arrives_with_who_said_it() {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(&Report::Stopping, &[]).unwrap();
        let delivery = ours.receive_now::<Report>().unwrap();
        assert_eq!(
            (delivery.message, delivery.from),
            (Report::Stopping, Some(std::process::id().cast_signed()))
        );
    }

    #[test]
    fn silence_and_an_end_are_told_apart() {
        let (ours, theirs) = Channel::pair().unwrap();
        let silent = ours.receive_within::<Report>(Duration::ZERO).unwrap_err();
        assert!(matches!(silent, ReceiveError::Silent(_)));
        drop(theirs);
        assert!(matches!(ours.receive_now::<Report>().unwrap_err(), ReceiveError::Closed));
    }

    #[test]
    fn what_was_said_before_the_end_is_heard_also_from_one_who_did_not_listen() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(&Report::Taken { batch: 1 }, &[]).unwrap();
        theirs.send(&Order::Abort, &[]).unwrap();
        drop(theirs);
        assert_eq!(ours.receive_now::<Order>().unwrap().message, Order::Abort);
        assert!(matches!(ours.receive_now::<Order>().unwrap_err(), ReceiveError::Closed));
    }

    #[test]
    fn nonsense_is_an_error_and_its_descriptors_are_closed() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (end, other) = nix::unistd::pipe().unwrap();
        scm::send(theirs.as_fd(), b"\xff", &[other.as_fd()]).unwrap();
        drop(other);
        assert!(matches!(ours.receive_now::<Order>().unwrap_err(), ReceiveError::Garbled(_)));
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&end, &mut byte).unwrap(), 0, "nobody holds the other end");
    }
}
