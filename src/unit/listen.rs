//! The addresses of a socket unit: ListenStream= and its relatives, see systemd.socket(5).

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

use super::Place;
use super::value::{self, Value};

/// One Listen...= line: one socket, pipe or file that is opened, and one descriptor that is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listen {
    /// What is opened.
    pub kind: ListenKind,
    /// Where.
    pub address: Address,
    /// The line that wants it.
    pub place: Place,
}

/// What a Listen...= line opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenKind {
    /// ListenStream=: SOCK_STREAM.
    Stream,
    /// ListenDatagram=: SOCK_DGRAM.
    Datagram,
    /// ListenSequentialPacket=: SOCK_SEQPACKET.
    SequentialPacket,
    /// ListenFIFO=: a named pipe.
    Fifo,
    /// ListenSpecial=: a special file.
    Special,
    /// ListenNetlink=.
    Netlink,
    /// ListenMessageQueue=: a POSIX message queue.
    MessageQueue,
    /// ListenUSBFunction=.
    UsbFunction,
}

/// Where a Listen...= line listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A port alone: on `[::]`, or on 0.0.0.0 where the kernel has no IPv6.
    Port(u16),
    /// An address and a port.
    Inet {
        /// Both; the scope is 0 unless it was written as a number.
        address: SocketAddr,
        /// The interface of a link-local address that was written with its name, as in `[fe80::1]:80%eth0`.
        interface: Option<String>,
    },
    /// An absolute path: a unix socket, or the file of a kind that is no socket.
    Path(PathBuf),
    /// A unix socket in the abstract namespace, without its `@`.
    Abstract(String),
    /// AF_VSOCK; None is any.
    Vsock {
        /// The host or guest.
        cid: Option<u32>,
        /// The port on it.
        port: u32,
    },
    /// The family of netlink(7) and its multicast group, as written; or a message queue's name.
    Name(String),
}

/// As systemd shows it: `[::]:80`, `/run/web.sock`, `@web`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "[::]:{port}"),
            Self::Inet { address: SocketAddr::V6(address), interface: Some(interface) } => {
                write!(f, "[{}]:{}%{interface}", address.ip(), address.port())
            }
            Self::Inet { address, .. } => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
            Self::Abstract(name) => write!(f, "@{name}"),
            Self::Vsock { cid: Some(cid), port } => write!(f, "vsock:{cid}:{port}"),
            Self::Vsock { cid: None, port } => write!(f, "vsock::{port}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The longest path of a unix socket, with its NUL.
const LONGEST_UNIX: usize = 108;

/// Reads an address of a socket: a port, an address with a port, a path, `@` and a name, `vsock:`.
pub(super) fn read(text: &str, kind: ListenKind) -> Value<Address> {
    if text.starts_with('/') {
        // As it is written: the path that clients use.
        let fits = text.len() < LONGEST_UNIX;
        let too_long = || format!("a unix socket's path has fewer than {LONGEST_UNIX} bytes");
        return fits.then(|| Address::Path(text.into())).ok_or_else(too_long);
    }
    if let Some(name) = text.strip_prefix('@') {
        let fits = !name.is_empty() && name.len() < LONGEST_UNIX;
        return fits
            .then(|| Address::Abstract(name.to_owned()))
            .ok_or_else(|| "the name is empty, or too long".into());
    }
    let address = match text.strip_prefix("vsock") {
        Some(rest) => vsock(rest)?,
        None => inet(text).ok_or("wanted a port, an address with a port, a path, or @ and a name")?,
    };
    if kind == ListenKind::SequentialPacket && !matches!(address, Address::Vsock { .. }) {
        return Err("only unix sockets have ListenSequentialPacket=".into());
    }
    Ok(address)
}

/// `8080`, `127.0.0.1:8080`, `[::1]:8080`, and `%` with an interface behind the last one.
fn inet(text: &str) -> Option<Address> {
    let port = |text: &str| {
        let digits = text.starts_with(|c: char| c.is_ascii_digit());
        let port = digits.then(|| value::unsigned(text).ok()).flatten();
        port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
    };
    if let Some(port) = port(text) {
        return Some(Address::Port(port));
    }
    let (before, interface) = match text.split_once('%') {
        Some((before, interface)) => (before, Some(interface).filter(|name| !name.is_empty())),
        None => (text, None),
    };
    let (address, port) = (before.rsplit_once(':')?.0, port(before.rsplit_once(':')?.1)?);
    let Some(v6) = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        let v4 = SocketAddr::new(address.parse::<Ipv4Addr>().ok()?.into(), port);
        return interface.is_none().then_some(Address::Inet { address: v4, interface: None });
    };
    let scope = interface.and_then(|interface| interface.parse().ok());
    let address = SocketAddrV6::new(v6.parse().ok()?, port, 0, scope.unwrap_or(0)).into();
    let interface = interface.filter(|_| scope.is_none()).map(str::to_owned);
    Some(Address::Inet { address, interface })
}

/// `vsock:CID:PORT`, either of which may be empty; since systemd 254 also `vsock-stream:` and so on.
fn vsock(rest: &str) -> Value<Address> {
    let wrong = || "wanted vsock:CID:PORT".to_owned();
    let (kind, rest) = rest.split_once(':').ok_or_else(wrong)?;
    if !["", "-stream", "-dgram", "-seqpacket"].contains(&kind) {
        return Err(wrong());
    }
    let (cid, port) = rest.split_once(':').ok_or_else(wrong)?;
    let cid = if cid.is_empty() { None } else { Some(value::unsigned32(cid)?) };
    Ok(Address::Vsock { cid, port: value::unsigned32(port)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_systemd_shows_it() {
        let cases = [
            ("8080", "[::]:8080"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[fe80::1]:80%eth0", "[fe80::1]:80%eth0"),
            ("/run/web.sock", "/run/web.sock"),
            ("@web", "@web"),
            ("vsock:2:80", "vsock:2:80"),
            ("vsock::80", "vsock::80"),
        ];
        for (text, shown) in cases {
            assert_eq!(read(text, ListenKind::Stream).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_says_what_would_be_one() {
        let long = format!("/{}", "a".repeat(LONGEST_UNIX));
        for text in
            ["0", "65536", "localhost:80", "1.2.3.4", "::1:80", "[1.2.3.4]:80", "run/x", "@", "", &long]
        {
            assert!(read(text, ListenKind::Stream).is_err(), "{text}");
        }
        assert!(read("80", ListenKind::SequentialPacket).is_err());
    }
}
