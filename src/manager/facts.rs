//! All that a manager knows of a service that matters for an upgrade, and a wait for news of it.
//!
//! What changes without a signal (the FD store) can be asked for alone, in one question.

use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::stat::SFlag;
use zbus::fdo::PropertiesChangedStream;

use super::connect::{Bus, Error, Manager, Way};
use super::proxy::StoredFd;
use super::service::Service;
use super::standin::{self, Standin};
use super::state::{FdStore, Snapshot};
use super::units::Loaded;
use super::wire::{Reply, Request, Unit};

/// How long after one change others are taken for the same.
const TOGETHER: Duration = Duration::from_millis(50);

/// A socket unit of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketUnit {
    /// Its name.
    pub(crate) unit: String,
    /// ActiveState=.
    pub(crate) active: String,
    /// What it listens on: `Stream` and such, and the address as systemd writes it.
    pub(crate) listen: Vec<(String, String)>,
}

/// Something in the FD store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its name.
    pub(crate) name: String,
    /// What it is, in a word or two.
    pub(crate) kind: String,
}

/// What is known of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The unit's own name.
    pub(crate) unit: String,
    /// What decides about an upgrade.
    pub(crate) look: Snapshot,
    /// When the main process became that, CLOCK_MONOTONIC, microseconds.
    pub(crate) main_since_usec: u64,
    /// A job of the unit waits or runs.
    pub(crate) has_job: bool,
    /// Those that are for it.
    pub(crate) sockets: Vec<SocketUnit>,
    /// How many descriptors are kept, and may be.
    pub(crate) store: FdStore,
    /// Which; `None` where nobody says: systemd before 254, and to all but root.
    pub(crate) stored: Option<Vec<Stored>>,
}

/// A service that is looked at again and again.
#[derive(Debug)]
pub(crate) struct Observed<'a> {
    unit: String,
    way: Eyes<'a>,
}

#[derive(Debug)]
enum Eyes<'a> {
    Bus { bus: &'a Bus, service: Box<Service>, changes: Option<Box<PropertiesChangedStream>> },
    Standin { standin: &'a Standin, last: Option<Unit> },
}

/// The services of a manager that run, or are loaded: those of whose ExecReload= lines one has a word of
/// `handover` in it.
pub(crate) async fn ours(manager: &Manager) -> Result<Vec<String>, Error> {
    let mut ours = Vec::new();
    for Loaded { name, .. } in manager.services_like("").await? {
        let lines = match &manager.way {
            Way::Bus(bus) => bus.service_of(&name).await?.reload_lines().await?,
            Way::Standin(standin) => {
                standin.show(&name).await?.exec_reload.into_iter().map(|run| run.command).collect()
            }
        };
        if lines.iter().flatten().any(|word| word == "handover" || word.ends_with("/handover")) {
            ours.push(name);
        }
    }
    Ok(ours)
}

impl<'a> Observed<'a> {
    /// Finds the service `unit`, a whole name; with `news`, it can be waited for.
    pub(crate) async fn find(manager: &'a Manager, unit: &str, news: bool) -> Result<Self, Error> {
        let way = match &manager.way {
            Way::Standin(standin) => Eyes::Standin { standin, last: None },
            Way::Bus(bus) => {
                let service = bus.service_of(unit).await?;
                let changes = if news { Some(Box::new(bus.news_of(&service).await?)) } else { None };
                Eyes::Bus { bus, service: Box::new(service), changes }
            }
        };
        Ok(Self { unit: unit.to_owned(), way })
    }

    /// Looks at all of it.
    pub(crate) async fn look(&mut self) -> Result<Facts, Error> {
        match &mut self.way {
            Eyes::Bus { bus, service, .. } => bus.facts(service).await,
            Eyes::Standin { standin, last } => {
                let shown = standin.show(&self.unit).await?;
                let facts = of_standin(standin, &self.unit, &shown).await;
                *last = Some(shown);
                facts
            }
        }
    }

    /// Looks at what changes without news.
    pub(crate) async fn look_at_store(&self, facts: &mut Facts) -> Result<(), Error> {
        match &self.way {
            Eyes::Bus { service, .. } if facts.store.most > 0 => {
                let held = service.held().await?;
                if held != facts.store.held {
                    facts.store.held = held;
                    facts.stored = None;
                }
            }
            // Its news are about everything.
            Eyes::Bus { .. } | Eyes::Standin { .. } => {}
        }
        Ok(())
    }

    /// Waits until something of it has changed; several changes at once are one.
    pub(crate) async fn change(&mut self) -> Result<(), Error> {
        match &mut self.way {
            Eyes::Bus { changes: Some(changes), .. } => {
                changes.next().await.ok_or(Error::BusLost { call: "PropertiesChanged" })?;
                let more = async { while changes.next().await.is_some() {} };
                let _ = tokio::time::timeout(TOGETHER, more).await;
                Ok(())
            }
            Eyes::Standin { standin, last: Some(last) } => standin.change(&self.unit, last).await.map(drop),
            _ => std::future::pending().await,
        }
    }
}

impl Bus {
    /// Everything about one service.
    async fn facts(&self, service: &Service) -> Result<Facts, Error> {
        let look = service.look().await?;
        let unit = service.id().await?;
        let mut sockets = Vec::new();
        let is_service = unit.ends_with(".service") && look.load_state != "not-found";
        for name in if is_service { service.triggers().await? } else { Vec::new() } {
            if name.ends_with(".socket") {
                let (active, listen) = self.socket(&name).await?;
                sockets.push(SocketUnit { unit: name, active, listen });
            }
        }
        let store = if is_service { service.store().await? } else { FdStore::default() };
        let (main_since_usec, has_job) = service.times_and_job().await?;
        let stored = match store.held {
            0 => Some(Vec::new()),
            _ => self.stored(&unit).await.map(|all| all.iter().map(stored).collect()),
        };
        Ok(Facts { unit, look, main_since_usec, has_job, sockets, store, stored })
    }
}

/// What is in the store, in words.
fn stored(fd: &StoredFd) -> Stored {
    let (name, mode, _, _, _, _, _, path, _) = fd;
    let kind = match SFlag::from_bits_truncate(*mode) & SFlag::S_IFMT {
        SFlag::S_IFSOCK => "socket",
        SFlag::S_IFIFO => "pipe",
        SFlag::S_IFREG if path.starts_with("/memfd:") => "memfd",
        SFlag::S_IFREG => "file",
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFCHR => "character device",
        _ => path.strip_prefix("anon_inode:").map_or("descriptor", |kind| kind.trim_matches(['[', ']'])),
    };
    Stored { name: name.clone(), kind: kind.to_owned() }
}

/// Everything about one service of the stand-in's.
async fn of_standin(standin: &Standin, unit: &str, shown: &Unit) -> Result<Facts, Error> {
    let text = |name: &str| shown.properties.get(name).map_or("", String::as_str);
    let mut sockets = Vec::new();
    for name in text("TriggeredBy").split_whitespace() {
        let socket = standin.show(name).await?;
        let of = |name: &str| socket.properties.get(name).map_or("", String::as_str);
        let line = |line: &str| {
            let (address, kind) = line.rsplit_once(" (")?;
            Some((kind.trim_end_matches(')').to_owned(), address.to_owned()))
        };
        let listen = of("Listen").lines().filter_map(line).collect();
        sockets.push(SocketUnit { unit: name.to_owned(), active: of("ActiveState").to_owned(), listen });
    }
    let number = |name: &str| text(name).parse().unwrap_or(0);
    let stored = match standin.ask(&Request::Stored { unit: unit.to_owned() }).await? {
        Reply::Stored { stored } => stored,
        _ => Vec::new(),
    };
    let stored = stored.into_iter().map(|(name, kind)| Stored { name, kind });
    Ok(Facts {
        unit: unit.to_owned(),
        look: standin::snapshot(shown),
        main_since_usec: text("ExecMainStartTimestampMonotonic").parse().unwrap_or(0),
        has_job: false,
        sockets,
        store: FdStore { held: number("NFileDescriptorStore"), most: number("FileDescriptorStoreMax") },
        stored: Some(stored.collect()),
    })
}
