//! A socket unit at work: its sockets, open before anything is started, and the traffic that starts it.
//!
//! ```text
//!   dead --start--> listening --traffic--> running (the service has it) --the service is down--> listening
//!                      |                      |
//!                      |                      +--the service was started too often--> failed
//!                      +--traffic too often, or a hang-up--> failed
//! ```
//!
//! Whoever fails closes its sockets; what is open stays the same over every restart of the service.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::sys::listen::{self, Kind, Opened, Place};
use crate::unit::{Address, Listen, ListenKind, Socket};

use super::load::Source;
use super::options::{Family, options};
use super::rate::Rate;
use super::watches::{Ticket, Watches};

/// SubState= of a socket unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Dead,
    Listening,
    Running,
    Failed,
}

impl State {
    /// As `systemctl show -p SubState` has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Listening => "listening",
            Self::Running => "running",
            Self::Failed => "failed",
        }
    }

    /// ActiveState=.
    pub(crate) fn active(self) -> crate::manager::ActiveState {
        match self {
            Self::Dead => crate::manager::ActiveState::Inactive,
            Self::Failed => crate::manager::ActiveState::Failed,
            Self::Listening | Self::Running => crate::manager::ActiveState::Active,
        }
    }
}

/// One socket unit.
#[derive(Debug)]
pub(crate) struct SocketUnit {
    pub(crate) name: String,
    pub(crate) settings: Arc<Socket>,
    pub(crate) source: Source,
    pub(crate) state: State,
    /// Result=, in systemd's words.
    pub(crate) result: &'static str,
    /// What is open, in the order of the lines.
    open: Vec<(Listen, OwnedFd)>,
    triggers: Rate,
    /// Where traffic is waited for; empty while the service has the sockets.
    watched: Vec<Ticket>,
}

impl SocketUnit {
    /// A unit whose sockets are not open.
    pub(crate) fn new(name: String, settings: Arc<Socket>, source: Source) -> Self {
        Self {
            name,
            settings,
            source,
            state: State::Dead,
            result: "success",
            open: Vec::new(),
            triggers: Rate::default(),
            watched: Vec::new(),
        }
    }

    /// The service that traffic starts.
    pub(crate) fn service(&self) -> String {
        let own = || format!("{}.service", self.name.trim_end_matches(".socket"));
        self.settings.service.clone().unwrap_or_else(own)
    }

    /// The name under which the service gets its sockets.
    pub(crate) fn fd_name(&self) -> &str {
        self.settings.fd_name.as_deref().unwrap_or(&self.name)
    }

    /// The sockets, in order.
    pub(crate) fn fds(&self) -> impl Iterator<Item = &OwnedFd> {
        self.open.iter().map(|(_, fd)| fd)
    }

    /// What it listens to.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Listen> {
        self.open.iter().map(|(listen, _)| listen)
    }

    /// Opens everything, or nothing; what the kernel did not want, and is gone without. That, and the error,
    /// are sentences that begin with file and line.
    pub(crate) fn open(&mut self) -> Result<Vec<String>, String> {
        let (mut open, mut without) = (Vec::new(), Vec::new());
        for listen in &self.settings.listen {
            let told = |why: String| format!("{}: {}: {why}", listen.place, listen.address);
            let opened = open_one(listen, &self.settings).map_err(told)?;
            let refused = opened.refused.iter();
            without.extend(refused.map(|(called, why)| told(format!("{called} cannot be had: {why}"))));
            open.push((listen.clone(), opened.fd));
        }
        (self.open, self.result) = (open, "success");
        self.triggers = Rate::default();
        Ok(without)
    }

    /// Closes everything.
    pub(crate) fn close(&mut self, state: State, result: &'static str, traffic: &Watches) {
        self.hand_over(traffic);
        if self.settings.remove_on_stop {
            for (listen, _) in &self.open {
                if let Address::Path(path) = &listen.address {
                    // It may be another's by now, or gone.
                    let _ = std::fs::remove_file(path);
                }
            }
        }
        self.open.clear();
        (self.state, self.result) = (state, result);
    }

    /// Waits for traffic.
    pub(crate) fn listen(&mut self, traffic: &Watches) {
        self.state = State::Listening;
        // What cannot be watched starts nothing by itself; there is no such socket.
        let watched = self.open.iter().filter_map(|(_, fd)| traffic.watch(fd.as_fd()).ok().flatten());
        self.watched = watched.collect();
    }

    /// The service has the sockets: traffic is its business.
    pub(crate) fn hand_over(&mut self, traffic: &Watches) {
        if !std::mem::take(&mut self.watched).is_empty() {
            self.fds().for_each(|fd| traffic.forget(fd.as_fd()));
        }
        self.state = State::Running;
    }

    /// Whether this is where it waits for traffic.
    pub(crate) fn waits_by(&self, ticket: Ticket) -> bool {
        self.watched.contains(&ticket)
    }

    /// Whether it may start its service once more.
    pub(crate) fn may_trigger(&mut self, now: u64) -> bool {
        self.triggers.allows(self.settings.trigger_limit(), now)
    }

    /// What its settings say now and what is open is not the same.
    pub(crate) fn is_outdated(&self) -> bool {
        let same = |(listen, _): &(Listen, OwnedFd), wanted: &Listen| {
            listen.kind == wanted.kind && listen.address == wanted.address
        };
        !self.open.is_empty()
            && (self.open.len() != self.settings.listen.len()
                || self.open.iter().zip(&self.settings.listen).any(|(open, wanted)| !same(open, wanted)))
    }

    /// NonBlocking= of the service, for all who share the sockets: PID 1 sets it at every start.
    pub(crate) fn set_non_blocking(&self, on: bool) {
        for fd in self.fds() {
            // It is our socket: the flags of an open one can be read and set.
            let _ = listen::set_non_blocking(fd.as_fd(), on);
        }
    }
}

/// Whether two lines want the same: then the second one finds the first in its way.
pub(crate) fn clash(a: &Listen, b: &Listen) -> bool {
    let port = |address: &Address| match address {
        Address::Port(port) => Some(*port),
        Address::Inet { address, .. } => Some(address.port()),
        _ => None,
    };
    let wild = |address: &Address| match address {
        Address::Port(_) => true,
        Address::Inet { address, .. } => address.ip().is_unspecified(),
        _ => false,
    };
    let same_port = || port(&a.address).is_some_and(|one| one != 0 && port(&b.address) == Some(one));
    a.kind == b.kind && (a.address == b.address || same_port() && (wild(&a.address) || wild(&b.address)))
}

/// Opens what one line wants.
fn open_one(listen: &Listen, settings: &Socket) -> Result<Opened, String> {
    let kind = match listen.kind {
        ListenKind::Stream => Kind::Stream,
        ListenKind::Datagram => Kind::Datagram,
        ListenKind::SequentialPacket => Kind::SeqPacket,
        ListenKind::Fifo => {
            let Address::Path(path) = &listen.address else { return Err("a pipe is at a path".into()) };
            let options = options(settings, Family::Other);
            return listen::open_fifo(path, &options)
                .inspect(|_| link(settings, path))
                .map_err(|why| why.to_string());
        }
        _ => return Err("handover pid1 opens no sockets of this kind".into()),
    };
    let open = |place: Place| {
        let family = match &place {
            Place::Inet(SocketAddr::V4(_)) => Family::Ipv4,
            Place::Inet(SocketAddr::V6(_)) => Family::Ipv6,
            _ => Family::Other,
        };
        listen::open_socket(&place, kind, &options(settings, family))
    };
    let opened = match &listen.address {
        Address::Port(port) => {
            // systemd.socket(5): IPv6, which takes IPv4 as well, and IPv4 alone where there is no IPv6.
            let any = |ip: IpAddr| Place::Inet(SocketAddr::new(ip, *port));
            match open(any(Ipv6Addr::UNSPECIFIED.into())) {
                Err(why) if why.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    open(any(Ipv4Addr::UNSPECIFIED.into()))
                }
                opened => opened,
            }
        }
        Address::Inet { address, interface } => {
            with_scope(*address, interface.as_deref()).and_then(|address| open(Place::Inet(address)))
        }
        Address::Path(path) => open(Place::Path(path.clone())).inspect(|_| link(settings, path)),
        Address::Abstract(name) => open(Place::Abstract(name.clone().into_bytes())),
        Address::Vsock { cid, port } => {
            open(Place::Vsock { cid: cid.unwrap_or(libc::VMADDR_CID_ANY), port: *port })
        }
        _ => return Err("handover pid1 opens no sockets of this kind".into()),
    };
    opened.map_err(|why| match why.raw_os_error() {
        Some(libc::EADDRINUSE) => "the address is in use".to_owned(),
        Some(libc::EACCES) => format!("{why}: ports below 1024 and foreign folders are root's"),
        _ => why.to_string(),
    })
}

/// Fills in the number of an interface.
fn with_scope(address: SocketAddr, interface: Option<&str>) -> io::Result<SocketAddr> {
    match (address, interface) {
        (SocketAddr::V6(mut v6), Some(name)) => {
            v6.set_scope_id(nix::net::if_::if_nametoindex(name)?);
            Ok(v6.into())
        }
        _ => Ok(address),
    }
}

/// Symlinks= to a path; one that is there already stays.
fn link(settings: &Socket, path: &std::path::Path) {
    for link in &settings.symlinks {
        let _ = std::os::unix::fs::symlink(path, link);
    }
}
