//! The way to a manager: over the system's bus to PID 1, over a user's bus to that user's manager.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zbus::connection::Builder;
use zbus::fdo::PropertiesProxy;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, fdo};

use super::proxy::{ManagerProxy, SocketProxy, StoredFd, UnitProxy};
use super::service::Service;
use super::standin::Standin;

/// How long one call may take. systemd answers in milliseconds; polkit may have to ask somebody.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Which manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// PID 1.
    System,
    /// The manager of the user that asks: `systemd --user`.
    User,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
        })
    }
}

/// What kept handover from asking, or from learning what became of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens at the bus's address.
    #[error("there is no {scope} bus: {source}; {}", remedy(*scope))]
    NoBus {
        /// Which bus.
        scope: Scope,
        /// What was tried, and what it answered.
        source: zbus::Error,
    },
    /// There is a bus, but no systemd is on it.
    #[error("there is no systemd on the {scope} bus: {source}; {}", remedy(*scope))]
    NoManager {
        /// Which bus.
        scope: Scope,
        /// What the bus answered.
        source: zbus::Error,
    },
    /// Nobody speaks for the bus of another host or container.
    #[error(
        "there is no way to the systemd of {place}: {source}; {program} must get there without a question, and \
         systemd-stdio-bridge and dbus must be installed there"
    )]
    NoBridge {
        /// The host or the container.
        place: String,
        /// What was to lead there.
        program: String,
        /// What came of it.
        source: zbus::Error,
    },
    /// systemd, polkit or the bus says no to this user.
    #[error("the reload is not allowed: {said}")]
    AccessDenied {
        /// The refusal as it came.
        said: String,
    },
    /// A call got no answer in 30 seconds.
    #[error("no answer to {call} within {} s: systemd is stuck, or polkit waits for somebody", CALL_TIMEOUT.as_secs())]
    NoAnswer {
        /// The call.
        call: &'static str,
    },
    /// The bus went away.
    #[error("the connection to the bus was lost in {call}; a reload that was begun goes on")]
    BusLost {
        /// The call, or the signal that was waited for.
        call: &'static str,
    },
    /// Nobody answers at the address of a stand-in.
    #[error("no `handover pid1` answers at {}: {source}; is it running, and is this its --runtime?", address.display())]
    NoStandin {
        /// The control socket.
        address: PathBuf,
        /// What was tried, and what came of it.
        source: io::Error,
    },
    /// The stand-in says no.
    #[error("`handover pid1` says: {said}")]
    Standin {
        /// Its words.
        said: String,
    },
    /// The old process cannot be waited for.
    #[error("cannot wait for process {pid}, the main one: {source}; wait for `switched` only")]
    Unwatchable {
        /// The main process as systemd numbers it, perhaps in another pid namespace.
        pid: u32,
        /// What pidfd_open(2) said.
        source: io::Error,
    },
    /// A call failed in a way that has no name here.
    #[error("{call} failed: {source}")]
    Call {
        /// The call.
        call: &'static str,
        /// What came back.
        source: zbus::Error,
    },
}

/// What to do when there is no bus, or no systemd on it.
fn remedy(scope: Scope) -> &'static str {
    match scope {
        Scope::System => {
            "handover asks systemd over D-Bus: this must be a system that systemd has booted, with \
             the package dbus (or dbus-broker) installed and its socket started: systemctl start dbus.socket"
        }
        Scope::User => {
            "install dbus-user-session, log in (or let root run `loginctl enable-linger USER`), and set \
             XDG_RUNTIME_DIR=/run/user/UID if su or sudo took it away"
        }
    }
}

impl Error {
    /// Sorts what `call` answered.
    pub(crate) fn from_call(call: &'static str, source: zbus::Error) -> Self {
        match &source {
            zbus::Error::InputOutput(e) if e.kind() == io::ErrorKind::TimedOut => Self::NoAnswer { call },
            zbus::Error::InputOutput(_) => Self::BusLost { call },
            _ => Self::Call { call, source },
        }
    }
}

/// A manager that can be asked.
#[derive(Debug)]
pub struct Manager {
    pub(crate) way: Way,
    /// Its processes are those of this machine.
    pub(crate) is_local: bool,
}

/// How it is asked.
#[derive(Debug)]
pub(crate) enum Way {
    /// systemd, over a bus.
    Bus(Bus),
    /// The stand-in, over its control socket.
    Standin(Standin),
}

impl Manager {
    /// Connects to systemd, and makes sure that it answers. Needs a tokio runtime with I/O and time.
    ///
    /// The user's bus is the session's (DBUS_SESSION_BUS_ADDRESS), and if no systemd is on that,
    /// `$XDG_RUNTIME_DIR/bus`.
    pub async fn connect(scope: Scope) -> Result<Self, Error> {
        Ok(Self::here(Way::Bus(Bus::connect(scope).await?)))
    }

    fn here(way: Way) -> Self {
        Self { way, is_local: true }
    }

    /// The stand-in at `address`: its control socket, or its runtime folder.
    pub fn standin(address: &Path) -> Self {
        Self::here(Way::Standin(Standin::at(address)))
    }

    /// systemd where it runs; else the stand-in that this user, or root, has started.
    pub async fn find(scope: Scope) -> Result<Self, Error> {
        if !sd_notify::booted().unwrap_or(false)
            && let Some(standin) = Standin::find()
        {
            return Ok(Self::here(Way::Standin(standin)));
        }
        Self::connect(scope).await
    }

    /// Whether it is the manager of this machine: its processes can be seen from here.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Whether it is the stand-in.
    pub fn is_standin(&self) -> bool {
        matches!(self.way, Way::Standin(_))
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub(crate) struct Bus {
    bus: Connection,
    proxy: ManagerProxy<'static>,
}

impl Bus {
    async fn connect(scope: Scope) -> Result<Self, Error> {
        match scope {
            Scope::System => Self::ask(scope, Builder::system()).await,
            Scope::User => match Self::ask(scope, Builder::session()).await {
                Ok(manager) => Ok(manager),
                Err(error) => {
                    let Ok(dir) = std::env::var("XDG_RUNTIME_DIR") else { return Err(error) };
                    let second = Builder::address(format!("unix:path={dir}/bus").as_str());
                    Self::ask(scope, second).await.map_err(|_| error)
                }
            },
        }
    }

    /// Connects to one bus and asks the systemd on it for its version, the cheapest question.
    async fn ask(scope: Scope, bus: Builder<'_>) -> Result<Self, Error> {
        let no_bus = |source| Error::NoBus { scope, source };
        let bus = bus.method_timeout(CALL_TIMEOUT).build().await.map_err(no_bus)?;
        let this = Self::of(bus).await?;
        match this.proxy.version().await {
            Ok(_) => Ok(this),
            Err(source) => Err(match Error::from_call("the version of systemd", source) {
                Error::Call { source, .. } => Error::NoManager { scope, source },
                other => other,
            }),
        }
    }

    /// The systemd on a bus, which has not been asked anything yet.
    pub(crate) async fn of(bus: Connection) -> Result<Self, Error> {
        let proxy = ManagerProxy::builder(&bus).cache_properties(CacheProperties::No).build().await;
        let proxy = proxy.map_err(|e| Error::from_call("the connection to systemd", e))?;
        Ok(Self { bus, proxy })
    }

    /// The manager's own interface.
    pub(crate) fn proxy(&self) -> &ManagerProxy<'static> {
        &self.proxy
    }

    /// The service `unit`; one that there is not has an object, too.
    pub(crate) async fn service_of(&self, unit: &str) -> Result<Service, Error> {
        let path = self.proxy.load_unit(unit).await.map_err(|e| Error::from_call("LoadUnit", e))?;
        self.service(&path).await
    }

    /// News of a service, from now on.
    pub(crate) async fn news_of(&self, service: &Service) -> Result<fdo::PropertiesChangedStream, Error> {
        let failed = |e| Error::from_call("the subscription to systemd's signals", e);
        let changes = service.changes().await.map_err(failed)?;
        match self.proxy.subscribe().await {
            // One subscription a client is enough.
            Err(zbus::Error::MethodError(name, ..))
                if name == "org.freedesktop.systemd1.AlreadySubscribed" => {}
            other => other.map_err(failed)?,
        }
        Ok(changes)
    }

    /// ActiveState= of a socket unit, and what it listens on.
    pub(crate) async fn socket(&self, unit: &str) -> Result<(String, Vec<(String, String)>), Error> {
        let failed = |e| Error::from_call("reading the socket's properties", e);
        let path = self.proxy.load_unit(unit).await.map_err(failed)?;
        let no = CacheProperties::No;
        let socket = SocketProxy::builder(&self.bus).path(path.clone()).cache_properties(no).build().await;
        let common = UnitProxy::builder(&self.bus).path(path).cache_properties(no).build().await;
        let active = common.map_err(failed)?.active_state().await.map_err(failed)?;
        Ok((active, socket.map_err(failed)?.listen().await.map_err(failed)?))
    }

    /// What is in the FD store of a unit; `None` where systemd does not say.
    pub(crate) async fn stored(&self, unit: &str) -> Option<Vec<StoredFd>> {
        self.proxy.dump_unit_file_descriptor_store(unit).await.ok()
    }

    /// The properties of the object at `path`, none of them cached.
    pub(crate) async fn properties(&self, path: &OwnedObjectPath) -> zbus::Result<PropertiesProxy<'static>> {
        let properties = PropertiesProxy::builder(&self.bus).destination("org.freedesktop.systemd1");
        properties.path(path.clone()).cache_properties(CacheProperties::No).build().await
    }

    /// The service whose object is at `path`.
    pub(crate) async fn service(&self, path: &OwnedObjectPath) -> Result<Service, Error> {
        Service::at(&self.bus, path).await.map_err(|e| Error::from_call("the proxies of a service", e))
    }
}
