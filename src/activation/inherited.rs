//! What was passed, until somebody takes it.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::env::UNKNOWN;
use super::passed::{TCP_LISTENER, UDP_SOCKET, UNIX_DATAGRAM, UNIX_LISTENER, Wanted};
use super::{ClaimError, ConvertError, Kind, Passed};

/// Names that start so are handover's own: what it passes and stores for itself, and the connections
/// that it has PID 1 hold. Those have a short beginning, for all names together are one string.
const RESERVED: [&str; 2] = ["handover.", "ho."];

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

/// Whether `name` is handover's own, so that no service may use it.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix))
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
            let whose = if is_reserved(&name) { &mut reserved } else { &mut plain };
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

    /// As [`take_reserved`](Self::take_reserved), of those that are of this kind.
    pub(crate) fn take_reserved_as(&mut self, name: &str, kind: Kind) -> Vec<Passed> {
        self.reserved.extract_if(.., |passed| passed.name() == name && passed.kind() == kind).collect()
    }

    /// Takes handover's own descriptors whose names start so, in the order of arrival.
    pub(crate) fn take_reserved_prefix(&mut self, prefix: &str) -> Vec<Passed> {
        self.reserved.extract_if(.., |passed| passed.name().starts_with(prefix)).collect()
    }

    /// All that nobody took, handover's own as well.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Passed> {
        self.fds.iter().chain(&self.reserved)
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
mod tests;
