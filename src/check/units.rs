//! The units that are to be judged together, and finding them in files.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::unit::{self, Finding, Host, Loaded, Service, Unit, UnitName};

use super::scene::{Heard, Way, service_of};

/// The folders in which a system's units are, of systemd.unit(5): what stands first wins.
const SEARCH_PATH: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Why something is no unit that could be checked.
pub(super) const NO_UNIT: &str = "there is no such unit";
pub(super) const NEITHER: &str = "only services and sockets can be checked";

/// Whether a name is that of a service or socket.
pub(super) fn is_checked(name: &str) -> bool {
    name.ends_with(".service") || name.ends_with(".socket")
}

/// Units to be judged together: a service, its sockets, and whatever shares them.
#[derive(Debug, Default)]
pub struct Units {
    pub(super) loaded: Loaded,
    /// What PID 1 has of units that their files do not say; empty where nobody was asked.
    pub(super) stale: Vec<Stale>,
    /// Names of what cannot be checked, each with why not.
    unknown: Vec<String>,
    /// PID 1 was asked, so that what is not here is not there.
    pub(super) complete: bool,
    /// Where each is in `loaded`: among the units, and among the services or sockets if it can be used.
    index: HashMap<String, (usize, Option<usize>)>,
    /// The sockets of each service, as numbers in `loaded`.
    sockets: HashMap<String, Vec<usize>>,
}

/// A unit of which PID 1 has something else than its files say.
#[derive(Debug)]
pub(super) struct Stale {
    pub(super) unit: UnitName,
    /// A directive that differs: its name, what the files say, what PID 1 has; None: the files are newer as
    /// a whole, NeedDaemonReload=.
    pub(super) differs: Option<(&'static str, String, String)>,
}

/// Reads unit files, and all services and sockets of folders, with their drop-ins and with what belongs to
/// them in the same folders. Nothing of systemd's is needed.
pub fn read(paths: &[PathBuf]) -> Units {
    Units::of(unit::survey(paths, Host::current()), Vec::new())
}

/// Finds units by their names where a system has them, without asking its systemd.
pub fn find(names: &[String]) -> Units {
    let folders: Vec<_> = SEARCH_PATH.iter().map(PathBuf::from).filter(|folder| folder.is_dir()).collect();
    let (names, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_checked(name));
    let mut unknown: Vec<_> = others.iter().map(|name| format!("{name}: {NEITHER}")).collect();
    let invalid = names.iter().filter(|name| UnitName::parse(name).is_none());
    unknown.extend(invalid.map(|name| format!("{name}: {NO_UNIT}")));
    let names: Vec<_> = names.iter().filter_map(|name| UnitName::parse(name)).collect();
    Units::of(unit::look_up(&folders, &names, Host::current()), unknown)
}

impl Units {
    /// Puts in order what was read.
    pub(super) fn of(loaded: Loaded, unknown: Vec<String>) -> Self {
        let mut index: HashMap<_, _> = HashMap::new();
        for (at, unit) in loaded.units.iter().enumerate() {
            index.insert(unit.name().to_string(), (at, None));
        }
        let services = loaded.services.iter().map(|(name, _)| name).enumerate();
        for (at, name) in services.chain(loaded.sockets.iter().map(|(name, _)| name).enumerate()) {
            if let Some((_, usable)) = index.get_mut(name.as_str()) {
                *usable = Some(at);
            }
        }
        let mut sockets: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, (name, socket)) in loaded.sockets.iter().enumerate() {
            if let Some(service) = service_of(name, socket) {
                sockets.entry(service.to_string()).or_default().push(at);
            }
        }
        for (name, service) in &loaded.services {
            for socket in &service.sockets {
                let Some((_, Some(at))) = index.get(socket) else { continue };
                let of_service = sockets.entry(name.to_string()).or_default();
                if !of_service.contains(at) {
                    of_service.push(*at);
                }
            }
        }
        Self { loaded, stale: Vec::new(), unknown, complete: false, index, sockets }
    }

    /// The same from PID 1, with what it has otherwise.
    pub(super) fn with_stale(self, stale: Vec<Stale>) -> Self {
        Self { stale, complete: true, ..self }
    }

    /// What could not be read at all, in words: files that are not there, names that nobody knows.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        let of_files = self.loaded.findings.iter().filter(|finding| finding.unit.is_none());
        of_files.map(|finding: &Finding| finding.message.clone()).chain(self.unknown.iter().cloned())
    }

    /// The units as they stand in their files, in the order in which they were read.
    pub fn units(&self) -> &[Unit] {
        &self.loaded.units
    }

    /// How many of the services are of handover's, built on it or under it.
    pub fn served(&self) -> usize {
        self.loaded.services.iter().filter(|(_, service)| Way::of(service) != Way::Other).count()
    }

    /// The place of a unit among the others.
    pub(super) fn order(&self, name: &str) -> usize {
        self.index.get(name).map_or(usize::MAX, |(at, _)| *at)
    }

    /// A unit by its name.
    pub(super) fn unit(&self, name: &UnitName) -> Option<&Unit> {
        self.loaded.units.get(self.index.get(name.as_str())?.0)
    }

    /// A service that can be used, by its name.
    pub(super) fn service(&self, name: &UnitName) -> Option<(&Unit, &Service)> {
        let (unit, Some(at)) = self.index.get(name.as_str())? else { return None };
        let (found, service) = self.loaded.services.get(*at)?;
        (found == name).then_some((self.loaded.units.get(*unit)?, service))
    }

    /// A socket unit that can be used, by its name.
    pub(super) fn socket(&self, name: &str) -> Option<Heard<'_>> {
        let (unit, Some(at)) = self.index.get(name)? else { return None };
        let (found, socket) = self.loaded.sockets.get(*at)?;
        let unit = self.loaded.units.get(*unit)?;
        (found.as_str() == name).then_some(Heard { unit, socket })
    }

    /// The sockets of a service: those that start it, and those that it names itself.
    pub(super) fn sockets_of(&self, service: &UnitName) -> Vec<Heard<'_>> {
        let all = self.sockets.get(service.as_str()).into_iter().flatten();
        all.filter_map(|at| self.socket(self.loaded.sockets.get(*at)?.0.as_str())).collect()
    }

    /// The services that name this socket unit in Sockets=.
    pub(super) fn naming(&self, socket: &UnitName) -> impl Iterator<Item = &UnitName> {
        let services = self.loaded.services.iter();
        let names = move |service: &Service| service.sockets.iter().any(|name| *name == socket.as_str());
        services.filter(move |(_, service)| names(service)).map(|(name, _)| name)
    }
}
