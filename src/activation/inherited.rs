//! What was passed, until somebody takes it.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::env::UNKNOWN;
use super::passed::{TCP_LISTENER, UDP_SOCKET, UNIX_DATAGRAM, UNIX_LISTENER, Wanted};
use super::{ClaimError, ConvertError, Passed};

/// Names that start so are handover's own.
const RESERVED: &str = "handover.";

/// Most descriptors an error message lists.
const LISTED: usize = 8;

/// Where the descriptors came from, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// LISTEN_PID names this process: PID 1, or whoever speaks as it does.
    Manager,
    /// A tool for development, as systemfd, which cannot know names, nor perhaps the pid.
    Development,
    /// LISTEN_FDS is not set: nobody passed anything.
    Nobody,
    /// They were meant for another process, from which this one has only the environment.
    ForAnother {
        /// The variable that says so: LISTEN_PID or LISTEN_PIDFDID.
        variable: &'static str,
        /// What it holds.
        value: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manager => f.write_str("LISTEN_PID names this process"),
            Self::Development => f.write_str("a development tool passes descriptors"),
            Self::Nobody => f.write_str("LISTEN_FDS is not set"),
            Self::ForAnother { variable, value } => write!(f, "{variable}={value} names another process"),
        }
    }
}

/// What was passed to this process and nobody took yet. Dropping it closes the rest.
#[derive(Debug)]
pub struct Inherited {
    origin: Origin,
    /// In the order of arrival, without the reserved ones.
    fds: Vec<Passed>,
    reserved: Vec<Passed>,
    /// Names that were there and were taken, to tell "taken" from "never passed".
    taken: BTreeSet<String>,
    /// The speaker gave no names.
    nameless: bool,
    /// Among what arrived was something to serve on.
    serves: bool,
}

/// Why a descriptor could not be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// Nothing of that name was passed, or of that kind where the speaker gave no names.
    #[error(
        "nothing named {name:?} was passed ({origin}); what is there: {there}. A .socket unit names its \
         sockets with FileDescriptorName="
    )]
    NotPassed {
        /// What was asked for.
        name: String,
        /// Where the descriptors came from, or why there are none.
        origin: Origin,
        /// What is there, in words; at most eight of them.
        there: String,
    },
    /// It was passed, and somebody in this process took it already.
    #[error("{name:?} was passed, but has been taken already: take it once and hand it on")]
    AlreadyTaken {
        /// What was asked for.
        name: String,
    },
    /// One was asked for, and there are several.
    #[error(
        "{count} descriptors are named {name:?}: take them all, or give their .socket units different names"
    )]
    Several {
        /// What was asked for.
        name: String,
        /// How many there are.
        count: usize,
    },
    /// It is not what was wanted; the descriptor is in the error.
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

impl Inherited {
    /// Asks each descriptor what it is. `names` are as many as `fds`, or `None`.
    pub(super) fn new(
        origin: Origin,
        fds: Vec<OwnedFd>,
        names: Option<Vec<String>>,
    ) -> Result<Self, ClaimError> {
        let nameless = names.is_none();
        let names = names.unwrap_or_else(|| vec![UNKNOWN.to_string(); fds.len()]);
        let (mut plain, mut reserved) = (Vec::with_capacity(fds.len()), Vec::new());
        for (name, fd) in names.into_iter().zip(fds) {
            let whose = if name.starts_with(RESERVED) { &mut reserved } else { &mut plain };
            let passed = Passed::new(name.clone(), fd).map_err(|source| ClaimError::Kind { name, source })?;
            whose.push(passed);
        }
        let serves = plain.iter().any(|passed| passed.kind().is_for_serving());
        Ok(Self { origin, fds: plain, reserved, taken: BTreeSet::new(), nameless, serves })
    }

    /// Where the descriptors came from, or why there are none.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The names of what is left, each once, in the order of arrival. The order of what comes from the
    /// fd store means nothing.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut seen = HashSet::new();
        self.fds.iter().map(Passed::name).filter(move |name| seen.insert(*name))
    }

    /// What nobody took so far. A service that is about to be ready should report it: a unit passes
    /// something that the program does not use, and clients may wait on it for ever.
    pub fn leftover(&self) -> impl Iterator<Item = &Passed> {
        self.fds.iter()
    }

    /// Takes the one descriptor of this name, whatever it is.
    pub fn take(&mut self, name: &str) -> Result<Passed, TakeError> {
        let mut places = self.places(name, None);
        match (places.pop(), places.len()) {
            (None, _) => Err(self.missing(name)),
            (Some(place), 0) => Ok(self.remove(place)),
            (Some(_), others) => Err(TakeError::Several { name: name.to_string(), count: others + 1 }),
        }
    }

    /// Takes all descriptors of this name, in the order of arrival; perhaps none.
    pub fn take_all(&mut self, name: &str) -> Vec<Passed> {
        let fds = std::mem::take(&mut self.fds).into_iter();
        let (all, rest): (Vec<_>, Vec<_>) = fds.partition(|passed| passed.name() == name);
        self.fds = rest;
        if !all.is_empty() {
            self.taken.insert(name.to_string());
        }
        all
    }

    /// Takes handover's own descriptors of this name, in the order of arrival.
    pub(crate) fn take_reserved(&mut self, name: &str) -> Vec<Passed> {
        self.reserved.extract_if(.., |passed| passed.name() == name).collect()
    }

    /// Takes the listening TCP socket of this name; non-blocking, so that
    /// `tokio::net::TcpListener::from_std` works.
    ///
    /// A TCP and a UDP socket may share a name: the kind decides, here and in the methods below. If
    /// the speaker gave no names, the first one left of the kind is taken.
    pub fn tcp_listener(&mut self, name: &str) -> Result<TcpListener, TakeError> {
        self.take_as(name, TCP_LISTENER)
    }

    /// Takes all listening TCP sockets of this name, one at least; else as [`Self::tcp_listener`].
    pub fn tcp_listeners(&mut self, name: &str) -> Result<Vec<TcpListener>, TakeError> {
        self.take_all_as(name, TCP_LISTENER)
    }

    /// Takes the listening unix stream socket of this name; else as [`Self::tcp_listener`].
    pub fn unix_listener(&mut self, name: &str) -> Result<UnixListener, TakeError> {
        self.take_as(name, UNIX_LISTENER)
    }

    /// Takes all listening unix stream sockets of this name, one at least.
    pub fn unix_listeners(&mut self, name: &str) -> Result<Vec<UnixListener>, TakeError> {
        self.take_all_as(name, UNIX_LISTENER)
    }

    /// Takes the UDP socket of this name; else as [`Self::tcp_listener`].
    pub fn udp_socket(&mut self, name: &str) -> Result<UdpSocket, TakeError> {
        self.take_as(name, UDP_SOCKET)
    }

    /// Takes all UDP sockets of this name, one at least.
    pub fn udp_sockets(&mut self, name: &str) -> Result<Vec<UdpSocket>, TakeError> {
        self.take_all_as(name, UDP_SOCKET)
    }

    /// Takes the unix datagram socket of this name; else as [`Self::tcp_listener`].
    pub fn unix_datagram(&mut self, name: &str) -> Result<UnixDatagram, TakeError> {
        self.take_as(name, UNIX_DATAGRAM)
    }

    /// Whether the program may bind by itself what it was not passed: unless PID 1 passed something
    /// else to serve on, for then the unit and the program disagree, and an address of the program's
    /// own would hide it. What comes out of the fd store (connections, state) does not count.
    pub(super) fn may_bind(&self) -> bool {
        self.origin != Origin::Manager || !self.serves
    }

    /// Takes the one of this name and kind.
    fn take_as<T: From<OwnedFd>>(&mut self, name: &str, wanted: Wanted) -> Result<T, TakeError> {
        let places = self.places(name, Some(wanted));
        if places.len() > 1 && !self.nameless {
            return Err(TakeError::Several { name: name.to_string(), count: places.len() });
        }
        let place = self.one_of(places, name)?;
        Ok(self.remove(place).into_std(wanted)?)
    }

    /// Takes all of this name and kind.
    fn take_all_as<T: From<OwnedFd>>(&mut self, name: &str, wanted: Wanted) -> Result<Vec<T>, TakeError> {
        let mut places = self.places(name, Some(wanted));
        if places.is_empty() {
            places.push(self.one_of(Vec::new(), name)?);
        }
        // Each removal moves what is behind it by one.
        let all = places.iter().enumerate().map(|(gone, place)| self.remove(place - gone));
        all.collect::<Vec<_>>().into_iter().map(|passed| Ok(passed.into_std(wanted)?)).collect()
    }

    /// The first of `places`; or the first of that name, which then is of the wrong kind.
    fn one_of(&self, places: Vec<usize>, name: &str) -> Result<usize, TakeError> {
        let wrong = || self.places(name, None).first().copied().filter(|_| !self.nameless);
        places.first().copied().or_else(wrong).ok_or_else(|| self.missing(name))
    }

    /// Where the descriptors of this name, and of this kind if it matters, are. To ask for a kind is
    /// enough where nothing has a name.
    fn places(&self, name: &str, wanted: Option<Wanted>) -> Vec<usize> {
        let any_name = self.nameless && wanted.is_some();
        let fits = |passed: &Passed| {
            (any_name || passed.name() == name) && wanted.is_none_or(|wanted| wanted.fits(passed.kind()))
        };
        self.fds.iter().enumerate().filter(|(_, passed)| fits(passed)).map(|(place, _)| place).collect()
    }

    /// Gives one away and remembers its name.
    fn remove(&mut self, place: usize) -> Passed {
        let passed = self.fds.remove(place);
        self.taken.insert(passed.name().to_string());
        passed
    }

    /// The error for a name that is not there, or no longer.
    fn missing(&self, name: &str) -> TakeError {
        let name = name.to_string();
        if self.taken.contains(&name) {
            return TakeError::AlreadyTaken { name };
        }
        let mut there: Vec<String> = self.fds.iter().take(LISTED).map(ToString::to_string).collect();
        match self.fds.len() {
            0 => there.push("nothing".to_string()),
            all if all > LISTED => there.push(format!("and {} more", all - LISTED)),
            _ => {}
        }
        TakeError::NotPassed { name, origin: self.origin.clone(), there: there.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::{Kind, Role, Transport};

    fn tcp() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    fn udp() -> OwnedFd {
        UdpSocket::bind("127.0.0.1:0").unwrap().into()
    }

    fn directory() -> OwnedFd {
        std::fs::File::open("/").unwrap().into()
    }

    fn named(fds: Vec<(&str, OwnedFd)>) -> Inherited {
        let (names, fds) = fds.into_iter().map(|(name, fd)| (name.to_string(), fd)).unzip();
        Inherited::new(Origin::Manager, fds, Some(names)).unwrap()
    }

    #[test]
    fn a_name_is_taken_once_and_then_it_is_known_to_be_taken() {
        let mut inherited = named(vec![("web", tcp()), ("admin", tcp())]);
        let web = inherited.take("web").unwrap();
        assert_eq!((web.name(), web.kind()), ("web", Kind::Socket(Transport::Tcp, Role::Listening)));
        assert!(matches!(inherited.take("web"), Err(TakeError::AlreadyTaken { .. })));
        assert!(matches!(inherited.tcp_listener("web"), Err(TakeError::AlreadyTaken { .. })));
        assert_eq!(inherited.names().collect::<Vec<_>>(), ["admin"]);
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        let mut inherited = named(vec![("web.socket", directory())]);
        assert_eq!(
            inherited.take("web").unwrap_err().to_string(),
            "nothing named \"web\" was passed (LISTEN_PID names this process); what is there: \
             \"web.socket\" (directory). A .socket unit names its sockets with FileDescriptorName="
        );
        let mut many = named((0..30).map(|_| ("stored", directory())).collect());
        let error = many.take("web").unwrap_err().to_string();
        assert!(error.matches("stored").count() == 8 && error.contains("and 22 more"), "{error}");
    }

    #[test]
    fn several_of_one_name_come_in_the_order_of_arrival_and_never_one_by_chance() {
        let mut inherited = named(vec![("web", tcp()), ("stored", directory()), ("web", tcp())]);
        let order: Vec<_> = inherited.leftover().filter_map(Passed::address).collect();
        assert!(matches!(inherited.take("web"), Err(TakeError::Several { count: 2, .. })));
        assert!(matches!(inherited.tcp_listener("web"), Err(TakeError::Several { count: 2, .. })));
        assert_eq!(inherited.names().collect::<Vec<_>>(), ["web", "stored"]);
        let all = inherited.tcp_listeners("web").unwrap();
        assert_eq!(all.iter().map(|web| web.local_addr().unwrap().to_string()).collect::<Vec<_>>(), order);
        assert_eq!(inherited.take_all("stored").len(), 1);
        assert!(inherited.take_all("stored").is_empty());
        assert_eq!(inherited.leftover().count(), 0);
    }

    #[test]
    fn the_kind_decides_where_tcp_and_udp_share_a_name() {
        let mut inherited = named(vec![("dns", udp()), ("dns", tcp())]);
        assert!(matches!(inherited.take("dns"), Err(TakeError::Several { .. })));
        inherited.tcp_listener("dns").unwrap();
        inherited.udp_socket("dns").unwrap();
    }

    #[test]
    fn a_wrong_kind_is_an_error_that_holds_the_descriptor() {
        let mut inherited = named(vec![("web", udp()), ("web", directory())]);
        for _ in 0..2 {
            let error = inherited.tcp_listeners("web").unwrap_err();
            let TakeError::Convert(error) = error else { panic!("{error}") };
            assert_eq!(error.into_passed().name(), "web");
        }
        assert!(matches!(inherited.tcp_listeners("web"), Err(TakeError::AlreadyTaken { .. })));
    }

    #[test]
    fn without_names_the_first_of_the_kind_is_taken_whatever_it_is_called() {
        let fds = vec![udp(), tcp(), tcp()];
        let mut inherited = Inherited::new(Origin::Development, fds, None).unwrap();
        let first = inherited.leftover().nth(1).and_then(Passed::address).unwrap();
        assert_eq!(inherited.tcp_listener("web").unwrap().local_addr().unwrap().to_string(), first);
        inherited.tcp_listener("admin").unwrap();
        assert!(matches!(inherited.tcp_listener("third"), Err(TakeError::NotPassed { .. })));
        assert!(matches!(inherited.take("web"), Err(TakeError::NotPassed { .. })));
        assert_eq!(inherited.take("unknown").unwrap().kind().to_string(), "UDP socket");
    }

    #[test]
    fn reserved_names_are_for_handover_alone() {
        let mut inherited = named(vec![("handover.link", tcp()), ("handover", directory())]);
        assert_eq!(inherited.names().collect::<Vec<_>>(), ["handover"]);
        assert_eq!(inherited.leftover().count(), 1);
        assert!(inherited.take("handover.link").is_err() && inherited.take_all("handover.link").is_empty());
        assert!(inherited.may_bind());
        assert_eq!(inherited.take_reserved("handover.link").len(), 1);
        assert!(inherited.take_reserved("handover.link").is_empty());
    }

    #[test]
    fn nothing_is_a_state_and_no_error() {
        let origin = Origin::ForAnother { variable: "LISTEN_PID", value: "1".into() };
        let mut nothing = Inherited::new(origin, Vec::new(), None).unwrap();
        let error = nothing.tcp_listener("web").unwrap_err().to_string();
        assert!(error.contains("(LISTEN_PID=1 names another process); what is there: nothing."), "{error}");
    }
}
