//! Which sockets there are at the addresses of the slots, of whomever: those that listen, and connections in
//! which somebody may still want something.
//!
//! The kernel is asked for those alone: sock_diag(7). Where it must not be (RestrictAddressFamilies= without
//! AF_NETLINK) or cannot tell, /proc has it, among every other socket of the host and every connection that
//! ended a minute ago: the answer is the same, and the look takes longer. Neither is ever in memory whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::IpAddr;

use super::address::{Kind, Place};
use super::table::{self, Entry};
use crate::sys::diag::{self, Socket};

/// All of them at these places; where the kernel tells nothing at all, there are none.
pub(crate) fn at(places: impl Iterator<Item = Place>) -> Vec<Entry> {
    // Several addresses of one family may have the same port.
    let asked: BTreeSet<_> =
        places.map(|place| (place.address.is_ipv4(), place.kind, place.address.port())).collect();
    let mut found = Vec::new();
    for (is_ipv4, kind, port) in asked {
        let before = found.len();
        if by_netlink(is_ipv4, kind, port, &mut found).is_err() {
            found.truncate(before);
            // What /proc does not tell either, nobody does.
            let _ = by_proc(is_ipv4, kind, port, &mut found);
        }
    }
    found
}

fn by_netlink(is_ipv4: bool, kind: Kind, port: u16, found: &mut Vec<Entry>) -> io::Result<()> {
    let like = if is_ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    diag::at_port(like, kind == Kind::Stream, port, &mut |socket| {
        let Socket { state, waiting, inode } = socket;
        found.push(Entry { port, state, waiting, inode: inode.into() });
    })
}

fn by_proc(is_ipv4: bool, kind: Kind, port: u16, found: &mut Vec<Entry>) -> io::Result<()> {
    let name = match (kind, is_ipv4) {
        (Kind::Stream, true) => "tcp",
        (Kind::Stream, false) => "tcp6",
        (Kind::Datagram, true) => "udp",
        (Kind::Datagram, false) => "udp6",
    };
    // ProcSubset=pid hides /proc/net, but not the files behind it.
    let mut table = BufReader::new(File::open(format!("/proc/self/net/{name}"))?);
    let mut line = String::new();
    while table.read_line(&mut line)? > 0 {
        let wanted = |one: &Entry| {
            one.port == port && (kind == Kind::Datagram || one.listens() || one.is_connection())
        };
        found.extend(table::entry(&line).filter(wanted));
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn both_ways_tell_the_same() {
        let sorted = |ask: &dyn Fn(&mut Vec<Entry>) -> io::Result<()>| {
            let mut found = Vec::new();
            ask(&mut found).unwrap();
            found.sort_unstable_by_key(|one: &Entry| one.inode);
            found
        };
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let address = listener.local_addr().unwrap();
            let _clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
            let _accepted = listener.accept().unwrap();
            let (v4, port) = (address.is_ipv4(), address.port());
            let [told, read] = [
                sorted(&|found| by_netlink(v4, Kind::Stream, port, found)),
                sorted(&|found| by_proc(v4, Kind::Stream, port, found)),
            ];
            assert_eq!(told, read);
            assert_eq!(told.iter().filter(|one| one.is_connection()).count(), 3, "{told:?}");
            let there = Place { address, kind: Kind::Stream };
            assert_eq!(at([there, there].into_iter()).len(), told.len(), "nobody is counted twice");
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.send_to(b"x", address).unwrap();
        let [told, read] = [
            sorted(&|found| by_netlink(true, Kind::Datagram, address.port(), found)),
            sorted(&|found| by_proc(true, Kind::Datagram, address.port(), found)),
        ];
        assert_eq!(told, read);
        assert!(told.len() == 1 && told[0].waiting > 0, "{told:?}");
    }
}
