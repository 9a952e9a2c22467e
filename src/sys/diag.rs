//! sock_diag(7): which sockets listen in this network namespace, and how many connections wait in the queue
//! of each, which no other interface tells with the most that the queue takes; and which sockets there are at
//! one port, without all those that the kernel keeps after their end (TIME_WAIT).
//!
//! Needs no privilege. What the kernel answers is read as if it were not to be trusted, and never kept whole.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// TCP_LISTEN of the kernel's net/tcp_states.h, as one of a set.
const LISTEN: u32 = 1 << 10;

/// TCP_ESTABLISHED and TCP_CLOSE_WAIT: somebody may still want something of the connection.
const ALIVE: u32 = 1 << 1 | 1 << 8;

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

/// Most sockets that listen that are told of.
const MOST_LISTENERS: usize = 10_000;

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

/// A socket of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// By the kernel's net/tcp_states.h.
    pub(crate) state: u8,
    /// Connections that nobody has accepted for a socket that listens, else bytes that nobody has read.
    pub(crate) waiting: u32,
    /// Its inode; 0 while nobody has a descriptor of it.
    pub(crate) inode: u32,
}

/// All sockets of TCP and of AF_UNIX that listen, or as many of them as anybody could read.
///
/// Errors: what socket(2), sendto(2) and recv(2) say; EAFNOSUPPORT where AF_NETLINK is not allowed.
pub(crate) fn listeners() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let tcp = inet_request(family, libc::IPPROTO_TCP, LISTEN, 0);
        dump(&tcp, &mut |entry| found.extend(inet(entry).filter(|_| found.len() < MOST_LISTENERS)))?;
    }
    dump(&unix_request(), &mut |entry| {
        found.extend(unix(entry).filter(|_| found.len() < 2 * MOST_LISTENERS));
    })?;
    Ok(found)
}

/// Passes on every socket at this port of its own: those of TCP that listen or are connections which one side
/// at least has not ended, and all those of UDP. `like` is an address of the wanted family, IPv4 or IPv6.
///
/// Errors: as [`listeners`], and ENOENT where the kernel does not know how to tell it.
pub(crate) fn at_port(like: IpAddr, tcp: bool, port: u16, socket: &mut dyn FnMut(Socket)) -> io::Result<()> {
    let family = if like.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let (protocol, states) =
        if tcp { (libc::IPPROTO_TCP, LISTEN | ALIVE) } else { (libc::IPPROTO_UDP, u32::MAX) };
    // Older kernels do not sort them out by port for all kinds.
    let mut entry = |entry: &[u8]| {
        let found = inet_port(entry).filter(|found| *found == port).and_then(|_| inet_socket(entry));
        found.into_iter().for_each(&mut *socket);
    };
    dump(&inet_request(family, protocol, states, port), &mut entry)
}

/// Asks one question, and passes each entry of the answer on.
fn dump(question: &[u8], entry: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let kernel =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    sendto(kernel.as_raw_fd(), question, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let len = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if len == 0 || messages(&buffer[..len], entry)? {
            return Ok(());
        }
    }
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

/// struct inet_diag_req_v2: one family and protocol, every address, and one port unless it is 0.
fn inet_request(family: i32, protocol: i32, states: u32, port: u16) -> Vec<u8> {
    let mut rest = vec![family as u8, protocol as u8, 0, 0];
    rest.extend(states.to_ne_bytes());
    rest.extend(port.to_be_bytes());
    rest.extend([0; 46]);
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
    let (entry, port) = (entry.get(..INET_ENTRY)?, inet_port(entry)?);
    let ip = match i32::from(entry[0]) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(*entry.get(8..)?.first_chunk::<4>()?)),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(*entry.get(8..)?.first_chunk::<16>()?)),
        _ => return None,
    };
    let (waiting, most) = (word(entry, 56)?, word(entry, 60)?);
    Some(Listener { place: Place::Inet(SocketAddr::new(ip, port)), waiting, most })
}

fn inet_port(entry: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*entry.get(4..)?.first_chunk()?))
}

/// struct inet_diag_msg, of a socket that need not listen.
fn inet_socket(entry: &[u8]) -> Option<Socket> {
    Some(Socket { state: *entry.get(1)?, waiting: word(entry, 56)?, inode: word(entry, 68)? })
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

    #[test]
    fn at_a_port_are_its_listener_and_the_connections_that_live() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let address = listener.local_addr().unwrap();
            let found = || {
                let mut found = Vec::new();
                at_port(address.ip(), true, address.port(), &mut |one| found.push(one)).unwrap();
                found
            };
            let inode = |fd: &dyn std::os::fd::AsFd| nix::sys::stat::fstat(fd.as_fd()).unwrap().st_ino as u32;
            let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
            let accepted = listener.accept().unwrap().0;
            let listens = Socket { state: 10, waiting: 2, inode: inode(&listener) };
            assert!(found().contains(&listens), "{:?}", found());
            assert!(found().contains(&Socket { state: 1, waiting: 0, inode: inode(&accepted) }));
            // One that its own side has ended first is kept for a minute, and nobody wants it any more.
            accepted.shutdown(std::net::Shutdown::Write).unwrap();
            drop((accepted, clients));
            // A child of another test may have copies of them until its execve(2).
            let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while found().iter().any(|one| one.state == 1) {
                assert!(std::time::Instant::now() < until, "{:?}", found());
            }
        }
    }

    #[test]
    fn a_datagram_that_nobody_has_read_is_seen() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.send_to(b"x", address).unwrap();
        let mut found = Vec::new();
        at_port(address.ip(), false, address.port(), &mut |one| found.push(one)).unwrap();
        assert!(matches!(found[..], [Socket { waiting: 1.., .. }]), "{found:?}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (inet(&bytes), inet_socket(&bytes), inet_port(&bytes), unix(&bytes), messages(&bytes, &mut |entry| drop((inet(entry), unix(entry)))));
        }
    }
}
