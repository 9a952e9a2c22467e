//! The sockets on which generations live: groups of equal ones, each generation on one of each group.
//!
//! A `.socket` unit that says the same ListenStream= several times, with ReusePort=yes, has PID 1 hold
//! several sockets of one reuseport group, and PID 1 passes them in the order of the lines, which is the
//! order in which they began to listen: the places that [`Steering`] counts by. PID 1 keeps all of them
//! open, so that no place ever moves and nothing queued is ever reset.
//!
//! What can have no second one (a unix socket, a line that is there once) is shared by all generations.
//! Without any `.socket` unit the slots are made here, when the program binds.

mod queues;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt, listen, setsockopt,
    socket, sockopt,
};

use super::address::{self, Choice, Kind, Place};
use super::sockets;
use super::table::Entry;
use crate::activation::{self, Inherited, Passed, Role, Transport};
use crate::sys::steer::Steering;
use crate::sys::{adopt, kind};

/// How names of slots that were made here begin, in the fd store; their place follows.
pub(crate) const OWN: &str = "handover.slot.";

/// Slots at one address.
#[derive(Debug)]
pub(crate) struct Group {
    /// Where they are; `None` for what is no address of TCP or UDP.
    pub(crate) place: Option<Place>,
    /// What the unit calls them.
    name: String,
    /// In the order of their places.
    sockets: Vec<OwnedFd>,
    inodes: Vec<u64>,
    /// It takes no IPv4, though its address may be all of IPv6.
    pub(crate) ipv6_only: bool,
}

/// All slots.
#[derive(Debug)]
pub(crate) struct Slots {
    groups: Vec<Group>,
    /// How many generations can have slots of their own where the slots are made here.
    own: usize,
    /// A `.socket` unit says what there is.
    from_units: bool,
    /// What is made here is made where nobody comes.
    aside: bool,
}

impl Group {
    fn new(place: Option<Place>, name: String, sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let inode = |socket: &OwnedFd| Ok(nix::sys::stat::fstat(socket)?.st_ino);
        let inodes = sockets.iter().map(inode).collect::<io::Result<_>>()?;
        let ipv6_only = sockets.first().is_some_and(|socket| is_ipv6_only(socket.as_fd()));
        Ok(Self { place, name, sockets, inodes, ipv6_only })
    }

    /// The socket of a slot; all the same where there is one.
    pub(crate) fn socket(&self, slot: usize) -> BorrowedFd<'_> {
        self.sockets[slot.min(self.sockets.len() - 1)].as_fd()
    }

    /// The inode of that socket.
    pub(crate) fn inode(&self, slot: usize) -> u64 {
        self.inodes[slot.min(self.inodes.len() - 1)]
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Whether generations share its one socket.
    pub(crate) fn is_shared(&self) -> bool {
        self.sockets.len() < 2
    }
}

impl Slots {
    /// Sorts out what was passed; `own` is how many to make where nothing was.
    pub(crate) fn of(inherited: &mut Inherited, own: usize) -> io::Result<Self> {
        let mut slots = Self { groups: Vec::new(), own, from_units: false, aside: false };
        let names: Vec<_> = inherited.names().map(str::to_owned).collect();
        for passed in names.iter().flat_map(|name| inherited.take_all(name)) {
            if passed.kind().is_for_serving() {
                slots.from_units = true;
                slots.add(passed)?;
            }
        }
        // The order of what comes out of the fd store means nothing: the place is in the name.
        let mut kept = inherited.take_reserved_prefix(OWN);
        kept.sort_by_key(|passed| {
            passed.name().strip_prefix(OWN).and_then(|place| place.parse::<u32>().ok())
        });
        for passed in kept.into_iter().filter(|passed| passed.kind().is_for_serving()) {
            slots.add(passed)?;
        }
        Ok(slots)
    }

    /// None yet; those that are made are at a port of this host's own, whatever was asked for.
    pub(crate) fn aside() -> Self {
        Self { groups: Vec::new(), own: 1, from_units: false, aside: true }
    }

    fn add(&mut self, passed: Passed) -> io::Result<()> {
        let place = place_of(&passed);
        let (name, socket, _) = passed.into_parts();
        match self.groups.iter_mut().find(|group| place.is_some() && group.place == place) {
            Some(group) => {
                group.inodes.push(nix::sys::stat::fstat(&socket)?.st_ino);
                group.sockets.push(socket);
            }
            None => self.groups.push(Group::new(place, name, vec![socket])?),
        }
        Ok(())
    }

    /// The groups.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Whether a `.socket` unit says what there is.
    pub(crate) fn are_from_units(&self) -> bool {
        self.from_units
    }

    /// How many generations can have slots of their own; 1 if they share all there is.
    pub(crate) fn width(&self) -> usize {
        let several = self.groups.iter().filter(|group| !group.is_shared());
        let width = several.map(|group| group.sockets.len()).min();
        width.unwrap_or(if self.groups.is_empty() { self.own } else { 1 })
    }

    /// What all generations share, in words.
    pub(crate) fn shared(&self) -> Vec<String> {
        self.groups.iter().filter(|group| group.is_shared()).map(|group| group.words()).collect()
    }

    /// What there is, in words.
    pub(crate) fn words(&self) -> String {
        self.groups.iter().map(Group::words).collect::<Vec<_>>().join(", ")
    }

    /// Which of them is meant by who binds there.
    pub(crate) fn choose(&self, asked: Place) -> Choice {
        let with_place = || self.groups.iter().enumerate().filter_map(|(at, group)| Some((at, group.place?)));
        let places: Vec<_> = with_place().map(|(_, place)| place).collect();
        let index = |index: usize| with_place().nth(index).map(|(at, _)| at);
        match address::choose(asked, &places) {
            Choice::Slots(at) => index(at).map_or(Choice::Elsewhere, Choice::Slots),
            Choice::WrongFamily(at) => index(at).map_or(Choice::Elsewhere, Choice::WrongFamily),
            Choice::Elsewhere => Choice::Elsewhere,
        }
    }

    /// Has what is new go so, in every group that can be steered.
    pub(crate) fn steer(&self, steering: Steering) -> io::Result<()> {
        let mut groups = self.groups.iter().filter(|group| !group.is_shared());
        groups.try_for_each(|group| steering.attach(group.socket(0)))
    }

    /// The sockets of a slot with their names, as LISTEN_FDS passes them.
    pub(crate) fn passed(&self, slot: usize) -> Vec<(String, BorrowedFd<'_>)> {
        let plain =
            |group: &Group| if group.name.starts_with(OWN) { "handed".into() } else { group.name.clone() };
        self.groups.iter().map(|group| (plain(group), group.socket(slot))).collect()
    }

    /// All of them with the names under which they came, for another runner.
    pub(crate) fn all(&self) -> Vec<(String, BorrowedFd<'_>)> {
        let name = |group: &Group, at: usize| {
            if group.name.starts_with(OWN) { format!("{OWN}{at}") } else { group.name.clone() }
        };
        let mut all = Vec::new();
        for group in &self.groups {
            let sockets = group.sockets.iter().enumerate();
            all.extend(sockets.map(|(at, socket)| (name(group, at), socket.as_fd())));
        }
        all
    }

    /// The inodes of a slot.
    pub(crate) fn inodes(&self, slot: usize) -> HashSet<u64> {
        self.groups.iter().map(|group| group.inode(slot)).collect()
    }

    /// Every socket at the addresses of the slots, of whomever.
    pub(crate) fn sockets(&self) -> Vec<Entry> {
        sockets::at(self.groups.iter().filter_map(|group| group.place))
    }

    /// Which sockets of a slot are non-blocking, as a word of 0 and 1.
    pub(crate) fn modes(&self, slot: usize) -> String {
        let mode = |group: &Group| if adopt::is_nonblocking(group.socket(slot)) { '1' } else { '0' };
        self.groups.iter().map(mode).collect()
    }

    /// Makes them so again; a word of another length changes nothing.
    pub(crate) fn restore_modes(&self, slot: usize, modes: &str) -> io::Result<()> {
        if modes.len() != self.groups.len() {
            return Ok(());
        }
        let each = self.groups.iter().zip(modes.bytes());
        each.into_iter().try_for_each(|(group, mode)| adopt::set_mode(group.socket(slot), mode == b'1'))
    }

    /// Whether this is the inode of one of them.
    pub(crate) fn has(&self, inode: u64) -> bool {
        self.groups.iter().any(|group| group.inodes.contains(&inode))
    }

    /// The unix socket of the unit's that is at this path, in words.
    pub(crate) fn unix_at(&self, path: &[u8]) -> Option<String> {
        let mut unix = self.groups.iter().filter(|group| group.place.is_none()).map(Group::words);
        unix.find(|there| there.as_bytes() == path)
    }

    /// Makes the slots of an address that `model`, a socket of the program's, was to be bound to; they
    /// are steered to `first` before any of them can be reached.
    ///
    /// Errors: what bind(2) says; then there are none.
    pub(crate) fn open(&mut self, place: Place, model: BorrowedFd<'_>, first: usize) -> io::Result<usize> {
        let mut at = place;
        if self.aside {
            at.address = reachable(SocketAddr::new(unspecified(at.address), 0));
        }
        let sockets = make(at, model, self.own, first)?;
        let mut group = Group::new(Some(place), format!("{OWN}0"), sockets)?;
        // The kernel says so of whatever has one address, where the model was to have all.
        group.ipv6_only = is_ipv6_only(model);
        self.groups.push(group);
        Ok(self.groups.len() - 1)
    }

    /// The sockets of a group that was made here, with the names under which the fd store keeps them.
    pub(crate) fn to_keep(&self, group: usize) -> Vec<(String, BorrowedFd<'_>)> {
        let sockets = self.groups.get(group).map(|group| &group.sockets[..]).unwrap_or_default();
        sockets.iter().enumerate().map(|(at, socket)| (format!("{OWN}{at}"), socket.as_fd())).collect()
    }
}

/// Whether a socket takes no IPv4: ipv6(7), IPV6_V6ONLY.
pub(crate) fn is_ipv6_only(socket: BorrowedFd<'_>) -> bool {
    getsockopt(&socket, sockopt::Ipv6V6Only).unwrap_or(false)
}

impl Group {
    fn words(&self) -> String {
        match (self.place, self.sockets.len()) {
            (Some(place), 1) => format!("{place} (once)"),
            (Some(place), several) => format!("{place} ({several} times)"),
            (None, _) => kind::address(self.socket(0)).unwrap_or_else(|| self.name.clone()),
        }
    }
}

/// Where a socket is, if it is one that can have a twin.
fn place_of(passed: &Passed) -> Option<Place> {
    let kind = match passed.kind() {
        activation::Kind::Socket(Transport::Tcp | Transport::Mptcp, Role::Listening) => Kind::Stream,
        activation::Kind::Socket(Transport::Udp, Role::Alone) => Kind::Datagram,
        _ => return None,
    };
    Some(Place { address: passed.address()?.parse().ok()?, kind })
}

/// Sockets of one reuseport group. The first one to listen finds the steering there.
fn make(place: Place, model: BorrowedFd<'_>, count: usize, first: usize) -> io::Result<Vec<OwnedFd>> {
    let family = if place.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match place.kind {
        Kind::Stream => SockType::Stream,
        Kind::Datagram => SockType::Datagram,
    };
    let mut sockets = Vec::new();
    for at in 0..count.max(1) {
        let made = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        setsockopt(&made, sockopt::ReuseAddr, &true)?;
        setsockopt(&made, sockopt::ReusePort, &true)?;
        if place.address.is_ipv6() {
            let only = getsockopt(&model, sockopt::Ipv6V6Only)?;
            setsockopt(&made, sockopt::Ipv6V6Only, &only)?;
        }
        bind(made.as_raw_fd(), &SockaddrStorage::from(place.address))?;
        if at == 0 && count > 1 {
            Steering::to(u32::try_from(first).unwrap_or(0)).attach(made.as_fd())?;
        }
        if place.kind == Kind::Stream {
            listen(&made, Backlog::MAXALLOWABLE)?;
        }
        sockets.push(made);
    }
    Ok(sockets)
}

/// All addresses of the same family.
fn unspecified(like: SocketAddr) -> IpAddr {
    if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// The address at which this host reaches a socket bound to `address`.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn free_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn none() -> Slots {
        Slots { groups: Vec::new(), own: 3, from_units: false, aside: false }
    }

    #[test]
    fn slots_that_are_made_here_take_nothing_before_they_are_steered() {
        let (mut slots, model) = (none(), TcpListener::bind("127.0.0.1:0").unwrap());
        let place = Place { address: free_port(), kind: Kind::Stream };
        let group = slots.open(place, model.as_fd(), 2).unwrap();
        let _clients: Vec<_> = (0..9).map(|_| TcpStream::connect(place.address).unwrap()).collect();
        let table = slots.sockets();
        let waiting = |slot: usize| {
            let inodes = slots.inodes(slot);
            table.iter().filter(|one| inodes.contains(&one.inode)).map(|one| one.waiting).sum::<u32>()
        };
        assert_eq!([0, 1, 2].map(waiting), [0, 0, 9]);
        assert_eq!((slots.width(), slots.fullest()), (3, 2));
        assert_eq!(slots.choose(place), Choice::Slots(group));
        assert_eq!(slots.to_keep(group)[1].0, "handover.slot.1");
        slots.restore_modes(1, "0").unwrap();
        assert_eq!(["1", "0"], [0, 1].map(|slot| slots.modes(slot)));
        slots.restore_modes(1, "11").unwrap();
        assert_eq!(slots.modes(1), "0");
    }

    #[test]
    fn an_address_that_is_taken_is_the_programs_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place { address: taken.local_addr().unwrap(), kind: Kind::Stream };
        let error = none().open(place, taken.as_fd(), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
