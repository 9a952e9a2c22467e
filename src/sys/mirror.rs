//! The options that a program set on a socket, carried over to one that takes its place: socket(7),
//! tcp(7), ip(7), ipv6(7).
//!
//! Only what differs from a fresh socket of the same kind is carried over, so that what somebody else
//! set on the other socket stays. An option that the kernel does not have here is passed over.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, c_int};
use nix::errno::Errno;

use super::adopt;

/// Most bytes of an option here.
const MOST: usize = 16;

/// Level and name of each option; what a connection inherits from the socket that accepted it, or a
/// datagram socket goes by.
const OPTIONS: [(c_int, c_int); 20] = [
    (SOL_SOCKET, libc::SO_KEEPALIVE),
    (SOL_SOCKET, libc::SO_LINGER),
    (SOL_SOCKET, libc::SO_PRIORITY),
    (SOL_SOCKET, libc::SO_RCVLOWAT),
    (SOL_SOCKET, libc::SO_RCVTIMEO),
    (SOL_SOCKET, libc::SO_SNDTIMEO),
    (SOL_SOCKET, libc::SO_OOBINLINE),
    (SOL_SOCKET, libc::SO_BROADCAST),
    (SOL_SOCKET, libc::SO_TIMESTAMP),
    (IPPROTO_TCP, libc::TCP_NODELAY),
    (IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (IPPROTO_TCP, libc::TCP_KEEPCNT),
    (IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (IPPROTO_TCP, libc::TCP_FASTOPEN),
    (IPPROTO_TCP, libc::TCP_CONGESTION),
    (IPPROTO_IP, libc::IP_TOS),
    (IPPROTO_IP, libc::IP_PKTINFO),
    (IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
];

/// Buffer sizes: the kernel doubles what it is told, and tells the double.
const BUFFERS: [c_int; 2] = [libc::SO_RCVBUF, libc::SO_SNDBUF];

/// Gives `to` the options of `from` that differ from those of a fresh socket, and its O_NONBLOCK.
pub(crate) fn carry_over(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let fresh = fresh(from)?;
    for (level, name) in OPTIONS {
        if let Some(set) = differs(from, fresh.as_fd(), level, name) {
            // A refusal leaves the option as it was, which a program must be able to live with.
            let _ = write(to, level, name, &set);
        }
    }
    for name in BUFFERS {
        if let Some(doubled) = differs(from, fresh.as_fd(), SOL_SOCKET, name)
            && let Ok(doubled) = <[u8; 4]>::try_from(doubled)
        {
            let _ = write(to, SOL_SOCKET, name, &(c_int::from_ne_bytes(doubled) / 2).to_ne_bytes());
        }
    }
    adopt::set_mode(to, adopt::is_nonblocking(from))
}

/// A socket of the same kind that nobody has touched.
fn fresh(like: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let ask = |name| -> io::Result<c_int> {
        let bytes = read(like, SOL_SOCKET, name).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        Ok(c_int::from_ne_bytes(bytes.ok_or(Errno::ENOTSOCK)?))
    };
    let (domain, kind, protocol) = (ask(libc::SO_DOMAIN)?, ask(libc::SO_TYPE)?, ask(libc::SO_PROTOCOL)?);
    // SAFETY: socket(2) takes three numbers.
    let number = Errno::result(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) })
}

/// The option of `socket`, if `fresh` has another one.
fn differs(socket: BorrowedFd<'_>, fresh: BorrowedFd<'_>, level: c_int, name: c_int) -> Option<Vec<u8>> {
    let set = read(socket, level, name)?;
    (read(fresh, level, name).as_ref() != Some(&set)).then_some(set)
}

fn read(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> Option<Vec<u8>> {
    let mut value = [MaybeUninit::<u8>::zeroed(); MOST];
    let mut len = MOST as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`, and says how many.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) };
    let len = Errno::result(done).ok().and_then(|_| usize::try_from(len).ok())?;
    // SAFETY: all of it was zeroed.
    Some(value.iter().take(len).map(|byte| unsafe { byte.assume_init() }).collect())
}

fn write(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: &[u8]) -> Result<(), Errno> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{getsockopt, setsockopt, sockopt};
    use std::net::TcpListener;

    #[test]
    fn what_was_set_is_carried_over_and_what_was_not_stays() {
        let (from, to) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        setsockopt(&from, sockopt::TcpKeepIdle, &77).unwrap();
        setsockopt(&from, sockopt::RcvBuf, &50_000).unwrap();
        setsockopt(&to, sockopt::TcpKeepInterval, &33).unwrap();
        from.set_nonblocking(true).unwrap();
        carry_over(from.as_fd(), to.as_fd()).unwrap();
        assert_eq!(getsockopt(&to, sockopt::TcpKeepIdle).unwrap(), 77);
        assert_eq!(getsockopt(&to, sockopt::TcpKeepInterval).unwrap(), 33);
        assert_eq!(getsockopt(&to, sockopt::RcvBuf).unwrap(), 100_000);
        assert_eq!(to.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);

        from.set_nonblocking(false).unwrap();
        carry_over(from.as_fd(), to.as_fd()).unwrap();
        assert!(!adopt::is_nonblocking(to.as_fd()));
    }

    #[test]
    fn what_is_no_socket_has_no_options() {
        let (file, socket) = (std::fs::File::open("/").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(carry_over(file.as_fd(), socket.as_fd()).is_err());
    }
}
