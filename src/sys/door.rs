//! A TCP socket that listens, and lets nobody in for a while: socket(7), SO_ATTACH_FILTER.
//!
//! The kernel drops what the filter does not pass before it sees a connection in it. So the client's own kernel
//! tries again after a second, and again: nobody is refused, and who waits long enough gets in once the door
//! is open. No privilege is needed. Connections that are there already stay, accepted or not.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{BPF_K, BPF_RET, sock_filter, sock_fprog};
use nix::errno::Errno;

use super::steer::{end_with, from, statement};

/// As much of a packet as there is.
const ALL: u32 = u32::MAX;

/// Lets nobody in until [`open`], but who comes from the address of `guest`, and from the port if there is one.
///
/// Errors: what setsockopt(2) says of something else.
pub(crate) fn shut(listener: BorrowedFd<'_>, guest: Option<(IpAddr, Option<u16>)>) -> io::Result<()> {
    let mut code = program(guest);
    let len = u16::try_from(code.len()).map_err(|_| Errno::EINVAL)?;
    let program = sock_fprog { len, filter: code.as_mut_ptr() };
    // SAFETY: `program` describes `code`, both live locals; the kernel copies what it needs.
    let done = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as libc::socklen_t,
        )
    };
    Errno::result(done)?;
    Ok(())
}

/// Lets everybody in; one that is open stays so.
///
/// Errors: what setsockopt(2) says of something else.
pub(crate) fn open(listener: BorrowedFd<'_>) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: the kernel reads no more than the live local that it is told of.
    let done = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const unused).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match Errno::result(done) {
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn program(guest: Option<(IpAddr, Option<u16>)>) -> Vec<sock_filter> {
    let mut program = Vec::new();
    if let Some((address, port)) = guest {
        program = from(address, port);
        end_with(&mut program, ALL);
    }
    program.push(statement(BPF_RET | BPF_K, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};
    use std::time::Duration;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};

    #[test]
    fn who_comes_to_a_door_that_is_shut_gets_in_once_it_is_open() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        shut(listener.as_fd(), None).unwrap();
        let nobody = TcpStream::connect_timeout(&address, Duration::from_millis(200)).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::TimedOut);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| TcpStream::connect(address).unwrap().write_all(b"x").unwrap());
            open(listener.as_fd()).unwrap();
            open(listener.as_fd()).unwrap();
            listener.accept().unwrap().0.read_exact(&mut [0]).unwrap();
            client.join().unwrap();
        });
        assert!(shut(std::io::stdin().as_fd(), None).is_err());
    }

    #[test]
    fn a_guest_gets_in_and_is_heard_and_nobody_else_is() {
        for (any, with_port) in [("127.0.0.1:0", true), ("127.0.0.1:0", false), ("[::1]:0", true)] {
            let listener = TcpListener::bind(any).unwrap();
            let address = listener.local_addr().unwrap();
            let guest = bound(any.parse().unwrap());
            let source = TcpListener::from(guest.try_clone().unwrap()).local_addr().unwrap();
            shut(listener.as_fd(), Some((source.ip(), with_port.then_some(source.port())))).unwrap();
            nix::sys::socket::connect(guest.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
            TcpStream::from(guest).write_all(b"x").unwrap();
            listener.accept().unwrap().0.read_exact(&mut [0]).unwrap();
            let stranger = TcpStream::connect_timeout(&address, Duration::from_millis(200));
            assert_eq!(stranger.is_err(), with_port, "{any}");
        }
    }

    fn bound(source: std::net::SocketAddr) -> OwnedFd {
        let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let made = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(made.as_raw_fd(), &SockaddrStorage::from(source)).unwrap();
        made
    }
}
