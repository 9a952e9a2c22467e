//! Which of the slots a program means when it binds an address.
//!
//! The unit says which addresses are open, the program which of them it means: by port and family. An
//! address that no slot has is the program's own affair. But a socket of the other family is never put in
//! place of what a program made: it would read garbage as its peers' addresses. This file is pure.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::fmt;

/// How a slot talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// TCP.
    Stream,
    /// UDP.
    Datagram,
}

/// Where some slots are: all of one reuseport group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The address.
    pub(crate) address: SocketAddr,
    /// How they talk.
    pub(crate) kind: Kind,
}

/// As a unit has it: `ListenStream=0.0.0.0:80`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.kind {
            Kind::Stream => "ListenStream",
            Kind::Datagram => "ListenDatagram",
        };
        write!(f, "{key}={}", self.address)
    }
}

/// What an address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The slots with this index.
    Slots(usize),
    /// None of them.
    Elsewhere,
    /// The slots with this index have the port, and the wrong family.
    WrongFamily(usize),
}

/// Which of `places` is meant by who binds `asked`: the same address, else the slots at all addresses,
/// else the only ones with the port if all addresses were asked for.
pub(crate) fn choose(asked: Place, places: &[Place]) -> Choice {
    let (address, any) = (asked.address, asked.address.ip().is_unspecified());
    if address.port() == 0 {
        return Choice::Elsewhere;
    }
    let here = || {
        let same = |place: &Place| place.kind == asked.kind && place.address.port() == address.port();
        places.iter().enumerate().filter(move |(_, place)| same(place))
    };
    let family = || here().filter(|(_, place)| place.address.is_ipv4() == address.is_ipv4());
    let exact = family().find(|(_, place)| place.address.ip() == address.ip());
    let wildcard = || family().find(|(_, place)| place.address.ip().is_unspecified());
    let only = || family().next().filter(|_| any && family().count() == 1);
    if let Some((index, _)) = exact.or_else(wildcard).or_else(only) {
        return Choice::Slots(index);
    }
    let overlaps =
        |other: IpAddr| any || other.is_unspecified() || other.to_canonical() == address.ip().to_canonical();
    let wrong = here()
        .find(|(_, place)| place.address.is_ipv4() != address.is_ipv4() && overlaps(place.address.ip()));
    wrong.map_or(Choice::Elsewhere, |(index, _)| Choice::WrongFamily(index))
}

/// The address in the bytes of a `sockaddr`, if it is one of IPv4 or IPv6: ip(7), ipv6(7).
pub(crate) fn read(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let ip = match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(*rest.first_chunk::<4>()?)),
        // Behind the flow information of 4 bytes.
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(*rest.get(4..)?.first_chunk::<16>()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// The path in the bytes of a `sockaddr`, if it is one of a unix socket; an abstract name as "@name": unix(7).
pub(crate) fn unix_path(bytes: &[u8]) -> Option<Vec<u8>> {
    let (family, path) = bytes.split_first_chunk()?;
    if i32::from(u16::from_ne_bytes(*family)) != libc::AF_UNIX {
        return None;
    }
    match path.split_first() {
        Some((0, name)) => Some([b"@", name].concat()),
        _ => Some(path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(address: &str) -> Place {
        Place { address: address.parse().unwrap(), kind: Kind::Stream }
    }

    fn chosen(asked: &str, places: &[&str]) -> Choice {
        let places: Vec<_> = places.iter().map(|place| stream(place)).collect();
        choose(stream(asked), &places)
    }

    #[test]
    fn the_same_address_wins_then_all_addresses_then_the_only_one() {
        let places = ["127.0.0.1:80", "0.0.0.0:80", "127.0.0.2:81"];
        assert_eq!(chosen("127.0.0.1:80", &places), Choice::Slots(0));
        assert_eq!(chosen("127.0.0.3:80", &places), Choice::Slots(1));
        assert_eq!(chosen("0.0.0.0:81", &places), Choice::Slots(2));
        assert_eq!(chosen("0.0.0.0:81", &["127.0.0.1:81", "127.0.0.2:81"]), Choice::Elsewhere);
    }

    #[test]
    fn what_no_slot_has_is_the_programs_own() {
        for asked in ["127.0.0.1:0", "127.0.0.1:82", "127.0.0.1:80"] {
            assert_eq!(chosen(asked, &["127.0.0.2:80", "0.0.0.0:81"]), Choice::Elsewhere);
        }
        let datagram = Place { kind: Kind::Datagram, ..stream("0.0.0.0:80") };
        assert_eq!(choose(datagram, &[stream("0.0.0.0:80")]), Choice::Elsewhere);
    }

    #[test]
    fn a_mapped_address_is_one_of_the_family_of_its_socket() {
        assert_eq!(chosen("[::ffff:127.0.0.1]:80", &["[::]:80"]), Choice::Slots(0));
        assert_eq!(chosen("[::ffff:127.0.0.1]:80", &["127.0.0.1:80"]), Choice::WrongFamily(0));
    }

    #[test]
    fn the_other_family_is_refused_where_the_addresses_overlap() {
        assert_eq!(chosen("[::]:80", &["0.0.0.0:80"]), Choice::WrongFamily(0));
        assert_eq!(chosen("0.0.0.0:80", &["[::]:80"]), Choice::WrongFamily(0));
        assert_eq!(chosen("[::1]:80", &["127.0.0.1:80"]), Choice::Elsewhere);
        assert_eq!(chosen("[::]:80", &["0.0.0.0:80", "[::]:80"]), Choice::Slots(1));
    }

    #[test]
    fn the_path_of_a_unix_socket_ends_at_a_nul_and_an_abstract_name_begins_with_one() {
        let path =
            |rest: &[u8]| unix_path(&[&(libc::AF_UNIX as u16).to_ne_bytes()[..], rest].concat()).unwrap();
        assert_eq!(
            (path(b"/run/x\0\0").as_slice(), path(b"/run/x").as_slice()),
            (&b"/run/x"[..], &b"/run/x"[..])
        );
        assert_eq!((path(b"\0name"), path(b"")), (b"@name".to_vec(), vec![]));
    }

    proptest! {
        #[test]
        fn an_address_is_read_as_the_kernel_lays_it_out(port: u16, v4: [u8; 4], v6: [u8; 16], any: Vec<u8>) {
            let bytes = |family: i32, rest: &[u8]| {
                [&(family as u16).to_ne_bytes()[..], &port.to_be_bytes(), rest].concat()
            };
            let four = bytes(libc::AF_INET, &[&v4[..], &[0; 8]].concat());
            prop_assert_eq!(read(&four), Some((v4, port).into()));
            let six = bytes(libc::AF_INET6, &[&[0; 4][..], &v6, &[0; 4]].concat());
            prop_assert_eq!(read(&six), Some((v6, port).into()));
            prop_assert_eq!(read(&bytes(libc::AF_UNIX, b"/run/x")), None);
            prop_assert_eq!(unix_path(&four), None);
            let _ = (read(&any), unix_path(&any));
        }
    }
}
