//! One descriptor that was passed: its name, its kind, its owner; and the std type it becomes.

use std::fmt;
use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use super::{Kind, Role, Transport};
use crate::sys::{adopt, kind};

/// One descriptor that was passed to this process, owned.
///
/// Its [`Display`](fmt::Display) says all of it: `"web" (listening TCP socket on 0.0.0.0:80)`.
#[derive(Debug)]
pub struct Passed {
    name: String,
    fd: OwnedFd,
    kind: Kind,
}

impl Passed {
    /// Asks the kernel what `fd` is and calls it `name`.
    pub(crate) fn new(name: String, fd: OwnedFd) -> io::Result<Self> {
        let kind = kind::kind(fd.as_fd())?;
        Ok(Self { name, fd, kind })
    }

    /// The name its speaker gave it; `unknown` if it gave none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is, as the kernel said when it was claimed.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The address a socket has here, as people write it: `127.0.0.1:80`, `[::]:80`, `/run/x`, `@x`,
    /// `vsock:2:80`. `None` for what is no socket or has no address.
    pub fn address(&self) -> Option<String> {
        match self.kind {
            Kind::Socket(..) => kind::address(self.fd.as_fd()),
            _ => None,
        }
    }

    /// The name, the descriptor and its kind, for whatever has no method here. Its flags are as they
    /// came, but for close-on-exec, which is set.
    pub fn into_parts(self) -> (String, OwnedFd, Kind) {
        (self.name, self.fd, self.kind)
    }

    /// A TCP (or MPTCP) socket that listens; O_NONBLOCK is set, as `tokio::net::TcpListener::from_std` wants it.
    pub fn into_tcp_listener(self) -> Result<TcpListener, ConvertError> {
        self.into_std(TCP_LISTENER)
    }

    /// A TCP (or MPTCP) connection, non-blocking.
    pub fn into_tcp_stream(self) -> Result<TcpStream, ConvertError> {
        self.into_std(TCP_STREAM)
    }

    /// A UDP socket, non-blocking.
    pub fn into_udp_socket(self) -> Result<UdpSocket, ConvertError> {
        self.into_std(UDP_SOCKET)
    }

    /// A unix stream socket that listens, non-blocking.
    pub fn into_unix_listener(self) -> Result<UnixListener, ConvertError> {
        self.into_std(UNIX_LISTENER)
    }

    /// A unix stream connection, non-blocking.
    pub fn into_unix_stream(self) -> Result<UnixStream, ConvertError> {
        self.into_std(UNIX_STREAM)
    }

    /// A unix datagram socket, non-blocking.
    pub fn into_unix_datagram(self) -> Result<UnixDatagram, ConvertError> {
        self.into_std(UNIX_DATAGRAM)
    }

    /// The std type of a socket that is what is `wanted`, made non-blocking.
    pub(super) fn into_std<T: From<OwnedFd>>(self, wanted: Wanted) -> Result<T, ConvertError> {
        if !wanted.fits(self.kind) {
            return Err(ConvertError::WrongKind { passed: Box::new(self), wanted: wanted.words });
        }
        match adopt::set_nonblocking(self.fd.as_fd()) {
            Ok(()) => Ok(T::from(self.fd)),
            Err(source) => Err(ConvertError::Kernel { passed: Box::new(self), source }),
        }
    }
}

impl AsFd for Passed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}", self.name, self.kind)?;
        if let Some(address) = self.address() {
            write!(f, " on {address}")?;
        }
        f.write_str(")")
    }
}

/// A descriptor that did not become what was wanted; it is in here, unharmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// It is something else.
    #[error("{wanted} is wanted, but what was passed is {passed}: compare the unit with the program")]
    WrongKind {
        /// What was passed.
        passed: Box<Passed>,
        /// What was wanted, in words.
        wanted: &'static str,
    },
    /// O_NONBLOCK could not be set.
    #[error("cannot make {passed} non-blocking")]
    Kernel {
        /// What was passed.
        passed: Box<Passed>,
        /// What fcntl(2) said.
        source: io::Error,
    },
}

impl ConvertError {
    /// The descriptor, to do something else with it.
    pub fn into_passed(self) -> Passed {
        match self {
            Self::WrongKind { passed, .. } | Self::Kernel { passed, .. } => *passed,
        }
    }
}

/// What a caller wants: the words for it, and the kinds that will do.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    words: &'static str,
    transports: &'static [Transport],
    role: Option<Role>,
}

impl Wanted {
    /// Whether `kind` will do.
    pub(super) fn fits(self, kind: Kind) -> bool {
        let Kind::Socket(transport, role) = kind else { return false };
        self.transports.contains(&transport) && self.role.is_none_or(|wanted| wanted == role)
    }
}

/// What [`Passed::into_tcp_listener`] takes.
pub(super) const TCP_LISTENER: Wanted = Wanted {
    words: "a listening TCP socket",
    transports: &[Transport::Tcp, Transport::Mptcp],
    role: Some(Role::Listening),
};

/// What [`Passed::into_tcp_stream`] takes.
const TCP_STREAM: Wanted = Wanted { words: "a TCP connection", role: Some(Role::Connected), ..TCP_LISTENER };

/// What [`Passed::into_udp_socket`] takes, connected or not.
pub(super) const UDP_SOCKET: Wanted =
    Wanted { words: "a UDP socket", transports: &[Transport::Udp], role: None };

/// What [`Passed::into_unix_listener`] takes.
pub(super) const UNIX_LISTENER: Wanted = Wanted {
    words: "a listening unix stream socket",
    transports: &[Transport::UnixStream],
    role: Some(Role::Listening),
};

/// What [`Passed::into_unix_stream`] takes.
const UNIX_STREAM: Wanted =
    Wanted { words: "a unix stream connection", role: Some(Role::Connected), ..UNIX_LISTENER };

/// What [`Passed::into_unix_datagram`] takes, connected or not.
pub(super) const UNIX_DATAGRAM: Wanted =
    Wanted { words: "a unix datagram socket", transports: &[Transport::UnixDatagram], role: None };

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(fd: impl Into<OwnedFd>) -> Passed {
        Passed::new("web".into(), fd.into()).unwrap()
    }

    fn is_nonblocking(fd: impl AsFd) -> bool {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn a_listener_becomes_non_blocking_when_it_becomes_a_listener() {
        let passed = passed(TcpListener::bind("127.0.0.1:0").unwrap());
        assert!(!is_nonblocking(&passed));
        assert!(is_nonblocking(passed.into_tcp_listener().unwrap()));
    }

    #[test]
    fn what_is_wrong_comes_back_unharmed_with_both_sides_named() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let error = passed(udp).into_tcp_listener().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "a listening TCP socket is wanted, but what was passed is \"web\" (UDP socket on {address}): \
                 compare the unit with the program"
            )
        );
        let back = error.into_passed();
        assert!(!is_nonblocking(&back));
        assert_eq!(back.into_udp_socket().unwrap().local_addr().unwrap(), address);
    }

    #[test]
    fn a_connection_is_no_listener_and_a_listener_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(passed(client).into_tcp_listener().unwrap_err().into_passed().into_tcp_stream().is_ok());
        assert!(passed(listener).into_tcp_stream().unwrap_err().into_passed().into_tcp_listener().is_ok());
        let (unix, _peer) = UnixStream::pair().unwrap();
        assert!(passed(unix).into_unix_listener().unwrap_err().into_passed().into_unix_stream().is_ok());
    }

    #[test]
    fn what_is_no_socket_has_no_address() {
        let file = passed(std::fs::File::open("/").unwrap());
        assert_eq!((file.address(), file.to_string()), (None, "\"web\" (directory)".to_string()));
        assert!(file.into_unix_datagram().is_err());
    }
}
