//! SOCK_SEQPACKET sockets of the AF_UNIX family: connected like a stream, in whole messages, see unix(7).
//!
//! All of them are close-on-exec and never block. Nothing in here is bound to a path: names are in
//! the abstract namespace and go with their process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt,
    listen, recv, setsockopt, socket, socketpair, sockopt,
};

/// What every socket in here is.
fn flags() -> SockFlag {
    SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK
}

/// Who is at the other end, or was when it connected: SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its pid, as seen from our pid namespace.
    pub(crate) pid: i32,
    /// Its effective uid, as seen from our user namespace.
    pub(crate) uid: u32,
}

/// A pair of sockets connected to each other: the end of one is seen by the other.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags())?)
}

/// A socket that listens under an abstract name (given without the leading NUL).
///
/// Errors: EADDRINUSE; EAFNOSUPPORT where a seccomp filter forbids AF_UNIX.
pub(crate) fn listen_at(name: &[u8]) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags(), None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    listen(&socket, Backlog::MAXALLOWABLE)?;
    Ok(socket)
}

/// Connects to an abstract name, at once or not at all.
///
/// Errors: ECONNREFUSED when nobody listens, `WouldBlock` when the queue is full.
pub(crate) fn connect_to(name: &[u8]) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags(), None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    Ok(socket)
}

/// Takes the next connection; `WouldBlock` when there is none.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    loop {
        match accept4(listener.as_raw_fd(), flags()) {
            // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
            Ok(number) => return Ok(unsafe { OwnedFd::from_raw_fd(number) }),
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Who is at the other end.
pub(crate) fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = getsockopt(&socket, sockopt::PeerCredentials)?;
    Ok(Peer { pid: credentials.pid(), uid: credentials.uid() })
}

/// How long the next message is, which stays where it is; 0 at the end of the conversation.
///
/// Errors: `WouldBlock` when there is none, else what recv(2) says.
pub(crate) fn next_len(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    loop {
        match recv(socket.as_raw_fd(), &mut [], flags) {
            Err(Errno::EINTR) => {}
            asked => return Ok(asked?),
        }
    }
}

/// Asks the kernel to attach the sender's credentials to what this socket receives: SO_PASSCRED.
pub(crate) fn pass_credentials(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket.as_fd(), sockopt::PassCred, &true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_know_each_other() {
        let name = format!("handover test {}", std::process::id());
        let listener = listen_at(name.as_bytes()).unwrap();
        let caller = connect_to(name.as_bytes()).unwrap();
        let accepted = accept(listener.as_fd()).unwrap();
        let me = Peer { pid: std::process::id().cast_signed(), uid: nix::unistd::geteuid().as_raw() };
        assert_eq!((peer(caller.as_fd()).unwrap(), peer(accepted.as_fd()).unwrap()), (me, me));
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_message_is_measured_and_left_where_it_is() {
        let (ours, theirs) = pair().unwrap();
        assert_eq!(next_len(ours.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        crate::sys::scm::send(theirs.as_fd(), &[7; 5000], &[]).unwrap();
        drop(theirs);
        for _ in 0..2 {
            assert_eq!(next_len(ours.as_fd()).unwrap(), 5000);
        }
        crate::sys::scm::receive(ours.as_fd(), &mut [0; 5000]).unwrap();
        assert_eq!(next_len(ours.as_fd()).unwrap(), 0);
    }

    #[test]
    fn a_name_that_nobody_has_refuses_and_one_that_is_taken_is_not_taken_again() {
        let name = format!("handover test name {}", std::process::id());
        let refused = connect_to(name.as_bytes()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _listener = listen_at(name.as_bytes()).unwrap();
        assert_eq!(listen_at(name.as_bytes()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
