//! sock_diag(7): which sockets listen in this network namespace, and how many connections wait in the queue
//! of each, which no other interface tells with the most that the queue takes.
//!
//! Needs no privilege. What the kernel answers is read as if it were not to be trusted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// TCP_LISTEN of the kernel's net/tcp_states.h, as one of a set.
const LISTEN: u32 = 1 << 10;

/// linux/sock_diag.h, linux/netlink.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const DONE: u16 = 3;
const ERROR: u16 = 2;

/// linux/unix_diag.h: what to tell, and the attributes it is told in.
const SHOW_NAME_AND_QUEUE: u32 = 0x01 | 0x10;
const NAME: u16 = 0;
const QUEUE: u16 = 4;

/// Sizes of what is in front of a message, of an entry of inet and of one of unix.
const HEADER: usize = 16;
const INET_ENTRY: usize = 72;
const UNIX_ENTRY: usize = 16;

/// Most bytes that are taken from the kernel: some ten thousand sockets.
const MOST_BYTES: usize = 4 << 20;

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// TCP.
    Inet(SocketAddr),
    /// A unix socket by its path, or by its name behind a NUL.
    Unix(Vec<u8>),
}

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Where.
    pub(crate) place: Place,
    /// Connections that nobody has accepted yet.
    pub(crate) waiting: u32,
    /// How many may wait.
    pub(crate) most: u32,
}

/// All sockets of TCP and of AF_UNIX that listen.
///
/// Errors: what socket(2), sendto(2) and recv(2) say; EAFNOSUPPORT where AF_NETLINK is not allowed.
pub(crate) fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        dump(&inet_request(family), &mut |entry| found.extend(inet(entry)))?;
    }
    dump(&unix_request(), &mut |entry| found.extend(unix(entry)))?;
    Ok(found)
}

/// Asks one question, and passes each entry of the answer on.
fn dump(question: &[u8], entry: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let kernel =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    sendto(kernel.as_raw_fd(), question, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let (mut buffer, mut taken) = (vec![0; 64 * 1024], 0);
    while taken < MOST_BYTES {
        let len = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        taken += len.max(1);
        if messages(&buffer[..len], entry)? {
            break;
        }
    }
    Ok(())
}

/// Goes through the messages of one datagram; whether the last one was among them.
fn messages(mut bytes: &[u8], entry: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
    while let (Some(len), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let Some(message) = bytes.get(HEADER..len as usize) else { return Ok(true) };
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let errno = word(message, 0).unwrap_or(0).cast_signed().saturating_neg();
                return Err(io::Error::from_raw_os_error(errno));
            }
            _ => entry(message),
        }
        bytes = bytes.get((len as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// struct nlmsghdr, and the rest behind it.
fn request(rest: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + rest.len()).unwrap_or(0);
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(rest);
    bytes
}

/// struct inet_diag_req_v2: TCP of one family, and of every address.
fn inet_request(family: i32) -> Vec<u8> {
    let mut rest = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    rest.extend(LISTEN.to_ne_bytes());
    rest.extend([0; 48]);
    request(&rest)
}

/// struct unix_diag_req.
fn unix_request() -> Vec<u8> {
    let mut rest = vec![libc::AF_UNIX as u8, 0, 0, 0];
    for number in [LISTEN, 0, SHOW_NAME_AND_QUEUE, 0, 0] {
        rest.extend(number.to_ne_bytes());
    }
    request(&rest)
}

/// struct inet_diag_msg.
fn inet(entry: &[u8]) -> Option<Listener> {
    let entry = entry.get(..INET_ENTRY)?;
    let port = u16::from_be_bytes(*entry.get(4..)?.first_chunk()?);
    let ip = match i32::from(entry[0]) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(*entry.get(8..)?.first_chunk::<4>()?)),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(*entry.get(8..)?.first_chunk::<16>()?)),
        _ => return None,
    };
    let (waiting, most) = (word(entry, 56)?, word(entry, 60)?);
    Some(Listener { place: Place::Inet(SocketAddr::new(ip, port)), waiting, most })
}

/// struct unix_diag_msg with its attributes; one without a name is nobody's to find.
fn unix(entry: &[u8]) -> Option<Listener> {
    let (mut rest, mut name, mut queue) = (entry.get(UNIX_ENTRY..)?, None, None);
    while let (Some(len), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let value = rest.get(4..usize::from(len))?;
        match kind {
            NAME => name = Some(value.to_vec()),
            QUEUE => queue = Some((word(value, 0)?, word(value, 4)?)),
            _ => {}
        }
        rest = rest.get(usize::from(len).next_multiple_of(4)..).unwrap_or_default();
    }
    let (mut name, (waiting, most)) = (name?, queue?);
    // A path ends in a NUL, an abstract name begins with one.
    if name.first() != Some(&0) {
        name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    }
    Some(Listener { place: Place::Unix(name), waiting, most })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};

    fn find(place: &Place) -> Listener {
        listeners().unwrap().into_iter().find(|one| one.place == *place).unwrap()
    }

    #[test]
    fn who_waits_at_an_address_is_counted_with_the_most_that_may() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let address = listener.local_addr().unwrap();
            let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
            let found = find(&Place::Inet(address));
            assert!(found.waiting == 3 && found.most >= 128, "{found:?}");
            drop(listener.accept());
            assert_eq!(find(&Place::Inet(address)).waiting, 2);
        }
    }

    #[test]
    fn who_waits_at_a_unix_socket_is_counted_too() {
        let name = format!("handover-diag-{}", std::process::id());
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        let path = std::env::temp_dir().join(&name);
        let abstract_one = UnixListener::bind_addr(&address).unwrap();
        let with_path = UnixListener::bind(&path).unwrap();
        let _clients = [UnixStream::connect_addr(&address).unwrap(), UnixStream::connect(&path).unwrap()];
        let bytes = path.as_os_str().as_encoded_bytes().to_vec();
        for place in [Place::Unix(bytes), Place::Unix([b"\0", name.as_bytes()].concat())] {
            assert_eq!(find(&place).waiting, 1, "{place:?}");
        }
        std::fs::remove_file(path).unwrap();
        drop((abstract_one, with_path));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (inet(&bytes), unix(&bytes), messages(&bytes, &mut |entry| drop((inet(entry), unix(entry)))));
        }
    }
}
