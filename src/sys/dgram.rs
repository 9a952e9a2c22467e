//! Sockets that carry one message to somebody: AF_UNIX datagrams and AF_VSOCK, see unix(7), vsock(7).
//!
//! Everything is close-on-exec and non-blocking. The one function that blocks is [`wait`], and it
//! takes a limit; [`ready`] is the same for tokio.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Shutdown, SockFlag, SockType, UnixAddr, VsockAddr, bind, connect, getsockopt, setsockopt,
    shutdown, socket, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes that a datagram socket may have on the way, if the kernel grants them.
const SEND_BUFFER_BYTES: usize = 8 << 20;

/// The highest port that only a privileged process may bind: vsock(7).
const HIGHEST_PRIVILEGED_PORT: u32 = 1023;

/// The socket types that AF_VSOCK may have; which ones work is the hypervisor's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VsockKind {
    /// SOCK_DGRAM: no connection.
    Datagram,
    /// SOCK_SEQPACKET: a connection that keeps messages whole.
    SeqPacket,
    /// SOCK_STREAM: a connection of bytes.
    Stream,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Bytes, or the end, can be read.
    Readable,
    /// A message can be sent. For a connected unix datagram socket that includes room at its peer.
    Writable,
}

/// A unix datagram socket, not yet connected, with as big a send buffer as the kernel grants.
pub(crate) fn unix() -> io::Result<OwnedFd> {
    let made = open(AddressFamily::Unix, SockType::Datagram)?;
    enlarge(&made);
    Ok(made)
}

/// Connects `socket` to the socket bound at `path`; on a connected datagram socket this replaces the
/// peer. Errors: ENOENT, ECONNREFUSED when nobody is there.
pub(crate) fn connect_path(socket: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?)
}

/// Connects `socket` to the abstract `name` (without its leading NUL), as [`connect_path`] does.
pub(crate) fn connect_abstract(socket: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name)?)?)
}

/// A vsock socket, bound to a privileged port if this process may have one: that is how a receiver
/// tells the system's messages from anybody's.
///
/// Errors: EAFNOSUPPORT without vsock in this kernel; ENODEV, ESOCKTNOSUPPORT, EPROTONOSUPPORT or
/// EOPNOTSUPP for a type that the hypervisor does not carry.
pub(crate) fn vsock(kind: VsockKind) -> io::Result<OwnedFd> {
    let made = open(
        AddressFamily::Vsock,
        match kind {
            VsockKind::Datagram => SockType::Datagram,
            VsockKind::SeqPacket => SockType::SeqPacket,
            VsockKind::Stream => SockType::Stream,
        },
    )?;
    for port in (1..=HIGHEST_PRIVILEGED_PORT).rev() {
        let here = VsockAddr::new(libc::VMADDR_CID_ANY, port);
        if bind(made.as_raw_fd(), &here) != Err(Errno::EADDRINUSE) {
            break;
        }
    }
    enlarge(&made);
    Ok(made)
}

/// Connects a vsock socket, or asks how far that is: `true` when it is done. Until then, wait for it
/// to become writable, ask [`pending_error`] and call this again.
pub(crate) fn connect_vsock(socket: BorrowedFd<'_>, cid: u32, port: u32) -> io::Result<bool> {
    match connect(socket.as_raw_fd(), &VsockAddr::new(cid, port)) {
        Ok(()) | Err(Errno::EISCONN) => Ok(true),
        Err(Errno::EINPROGRESS | Errno::EALREADY | Errno::EINTR) => Ok(false),
        Err(failed) => Err(failed.into()),
    }
}

/// Takes the error that a socket has kept for us: SO_ERROR, see socket(7).
pub(crate) fn pending_error(socket: BorrowedFd<'_>) -> io::Result<()> {
    match getsockopt(&socket, sockopt::SocketError)? {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Says that nothing more will be sent on `socket`: shutdown(2) of its writing half.
pub(crate) fn end_sending(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(shutdown(socket.as_raw_fd(), Shutdown::Write)?)
}

/// Ends a connection for good, in both directions and in every process that has it: its peer sees the
/// end. What is no connection (any more) says so and is as it was: ENOTSOCK, ENOTCONN.
pub(crate) fn end(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(shutdown(socket.as_raw_fd(), Shutdown::Both)?)
}

/// A pipe, (reading end, writing end), whose reading end reports when the last writing end is closed.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// Whether the other side has closed `fd`. Bytes that come instead mean nothing here and are dropped.
pub(crate) fn at_end(fd: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        match nix::unistd::read(fd, &mut [0; 64]) {
            Ok(0) => return Ok(true),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(false),
            Err(failed) => return Err(failed.into()),
        }
    }
}

/// Blocks until `fd` is ready or has failed, or for `limit`, or until a signal; the caller looks
/// again in every case.
pub(crate) fn wait(fd: BorrowedFd<'_>, readiness: Readiness, limit: Duration) -> io::Result<()> {
    let events = match readiness {
        Readiness::Readable => PollFlags::POLLIN,
        Readiness::Writable => PollFlags::POLLOUT,
    };
    // Rounded up: a wait for the last half millisecond must not become a busy loop.
    let limit_ms = limit.as_micros().div_ceil(1000);
    let limit = PollTimeout::try_from(limit_ms).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, events)], limit) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(failed) => Err(failed.into()),
    }
}

/// Waits until `fd` is ready or has failed, and lets the runtime do other things meanwhile. Needs a
/// tokio runtime with I/O. Two waits may not register one descriptor, so each takes a copy.
pub(crate) async fn ready(fd: BorrowedFd<'_>, readiness: Readiness) -> io::Result<()> {
    let interest = match readiness {
        Readiness::Readable => Interest::READABLE,
        Readiness::Writable => Interest::WRITABLE,
    };
    // SAFETY: the copy is an open descriptor that the `AsyncFd` owns, alone, until it is dropped.
    let watched = unsafe { AsyncFd::register_with_interest(fd.try_clone_to_owned()?, interest) }?;
    watched.ready(interest).await.map(drop)
}

/// A socket with the flags that every socket in here has.
fn open(family: AddressFamily, kind: SockType) -> io::Result<OwnedFd> {
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
}

/// Asks for a big send buffer. A refusal only means that the queue is full sooner.
fn enlarge(socket: &OwnedFd) {
    let _ = setsockopt(&socket.as_fd(), sockopt::SndBuf, &SEND_BUFFER_BYTES);
    let _ = setsockopt(&socket.as_fd(), sockopt::SndBufForce, &SEND_BUFFER_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_at_its_end_when_its_writer_is_closed_and_not_before() {
        let (reader, writer) = pipe().unwrap();
        assert!(!at_end(reader.as_fd()).unwrap());
        nix::unistd::write(&writer, b"noise").unwrap();
        assert!(!at_end(reader.as_fd()).unwrap());
        drop(writer);
        wait(reader.as_fd(), Readiness::Readable, Duration::from_secs(10)).unwrap();
        assert!(at_end(reader.as_fd()).unwrap());
    }

    #[test]
    fn a_limit_too_long_for_poll_is_only_cut() {
        let (_reader, writer) = pipe().unwrap();
        wait(writer.as_fd(), Readiness::Writable, Duration::MAX).unwrap();
    }

    #[test]
    fn a_unix_socket_neither_blocks_nor_survives_exec() {
        let made = unix().unwrap();
        let flags = nix::fcntl::fcntl(&made, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        let flags = nix::fcntl::fcntl(&made, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK, libc::O_NONBLOCK);
    }
}
