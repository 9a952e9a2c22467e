//! What the rules look at: a service with its sockets, a socket with its service.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use crate::unit::{self, Assignment, Command, Service, Socket, Unit, UnitName, span};

use super::rule::Blame;
use super::{Units, Version};

/// How handover serves a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is built on the library.
    Library,
    /// It is a program under `handover run`.
    Run(Runner),
    /// Not at all.
    Other,
}

/// What the command line of a runner says about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runner {
    /// --ready-timeout.
    pub(super) ready: Duration,
    /// --stop-timeout.
    pub(super) stop: Duration,
}

/// A service, and its sockets as far as they are known.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) unit: &'a Unit,
    pub(super) service: &'a Service,
    pub(super) way: Way,
    pub(super) sockets: Vec<Heard<'a>>,
    pub(super) units: &'a Units,
    pub(super) version: Version,
}

/// A socket unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard<'a> {
    pub(super) unit: &'a Unit,
    pub(super) socket: &'a Socket,
}

/// A socket unit, and whose it is.
#[derive(Debug)]
pub(super) struct Ear<'a> {
    pub(super) unit: &'a Unit,
    pub(super) socket: &'a Socket,
    pub(super) way: Way,
    pub(super) units: &'a Units,
    pub(super) version: Version,
}

/// Every service that can be used.
pub(super) fn services(units: &Units, version: Version) -> impl Iterator<Item = Scene<'_>> {
    units.loaded.services.iter().filter_map(move |(name, service)| {
        let sockets = units.sockets_of(name);
        Some(Scene { unit: units.unit(name)?, service, way: Way::of(service), sockets, units, version })
    })
}

/// Every socket unit that can be used.
pub(super) fn sockets(units: &Units, version: Version) -> impl Iterator<Item = Ear<'_>> {
    units.loaded.sockets.iter().filter_map(move |(name, socket)| {
        let service = service_of(name, socket).and_then(|name| units.service(&name));
        let way = service.map_or(Way::Other, |(_, service)| Way::of(service));
        Some(Ear { unit: units.unit(name)?, socket, way, units, version })
    })
}

/// The service that a socket unit starts; with Accept=yes it is a template.
pub(super) fn service_of(name: &UnitName, socket: &Socket) -> Option<UnitName> {
    if let Some(service) = &socket.service {
        return UnitName::parse(service);
    }
    let each = if socket.accept { "@" } else { "" };
    UnitName::parse(&format!("{}{each}.service", name.stem()))
}

impl Way {
    /// Sees it from the commands.
    pub(super) fn of(service: &Service) -> Self {
        if let Some(command) = service.exec_start.iter().find(|command| is_handover(command, "run")) {
            return Self::Run(Runner::of(&command.words));
        }
        let reloads = service.exec_reload.iter().any(|command| is_handover(command, "reload"));
        if reloads { Self::Library } else { Self::Other }
    }
}

/// Whether a command is `handover VERB`.
pub(super) fn is_handover(command: &Command, verb: &str) -> bool {
    program(command) == "handover" && command.words.get(1).is_some_and(|word| word == verb)
}

/// The name of a command's program, without its folder.
pub(super) fn program(command: &Command) -> &str {
    Path::new(&command.path).file_name().and_then(OsStr::to_str).unwrap_or_default()
}

impl Runner {
    /// Reads the options before `--`; what it cannot read is as if it were not there.
    fn of(words: &[String]) -> Self {
        let options = || words.iter().take_while(|word| *word != "--");
        let span = |name: &str, usual: u64| {
            let joined = options().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            let apart = || options().skip_while(|word| *word != name).nth(1).map(String::as_str);
            let said = joined.or_else(apart).and_then(|text| span::read(text).ok());
            said.map_or_else(|| Duration::from_secs(usual), |span| span.unwrap_or(Duration::MAX))
        };
        Self { ready: span("--ready-timeout", 30), stop: span("--stop-timeout", 10) }
    }
}

impl Scene<'_> {
    /// The last line that sets one of `keys`, or the file in which it is missing.
    pub(super) fn at(&self, section: &str, keys: &[&str]) -> Blame {
        blame(self.unit, section, keys)
    }

    /// The same in \[Service\].
    pub(super) fn line(&self, key: &str) -> Blame {
        self.at("Service", &[key])
    }

    /// What a directive of \[Service\] is set to, as it stands.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.unit.values("Service", key).last().map(|last| last.value.as_str())
    }

    /// Whether a boolean of \[Service\] is set to yes.
    pub(super) fn is_on(&self, key: &str) -> bool {
        self.unit.flag("Service", key) == Some(true)
    }

    /// The words of a list in \[Service\], those after its last reset, in their order.
    pub(super) fn words(&self, key: &str) -> Vec<&str> {
        self.unit.values("Service", key).into_iter().flat_map(|line| line.value.split_whitespace()).collect()
    }

    /// Whether it is a service of systemd's own, which needs no advice about systemd.
    pub(super) fn is_of_systemd(&self) -> bool {
        self.service.exec_start.iter().any(|command| command.path.contains("/lib/systemd/"))
    }

    /// What the runner was told, if there is one.
    pub(super) fn runner(&self) -> Option<Runner> {
        match self.way {
            Way::Run(runner) => Some(runner),
            _ => None,
        }
    }

    /// The sockets on which it serves itself.
    pub(super) fn listens(&self) -> impl Iterator<Item = (&Heard<'_>, &unit::Listen)> {
        let whole = self.sockets.iter().filter(|heard| !heard.socket.accept);
        whole.flat_map(|heard| heard.socket.listen.iter().map(move |listen| (heard, listen)))
    }
}

impl Ear<'_> {
    /// The last line of \[Socket\] that sets `key`, or the file in which it is missing.
    pub(super) fn line(&self, key: &str) -> Blame {
        blame(self.unit, "Socket", &[key])
    }
}

impl Heard<'_> {
    /// The same.
    pub(super) fn line(&self, key: &str) -> Blame {
        blame(self.unit, "Socket", &[key])
    }
}

/// The last line that sets one of `keys`, or the main file.
pub(super) fn blame(unit: &Unit, section: &str, keys: &[&str]) -> Blame {
    let is_one = |one: &&Assignment| &*one.section == section && keys.contains(&one.key.as_str());
    let last = unit.assignments().iter().rev().find(is_one);
    match last {
        Some(line) => blame_line(unit, line),
        None => Blame { unit: unit.name().to_string(), file: main_file(unit), line: None },
    }
}

/// A line of a unit.
pub(super) fn blame_line(unit: &Unit, line: &Assignment) -> Blame {
    let place = &line.place;
    Blame { unit: unit.name().to_string(), file: place.file.clone(), line: Some(place.line) }
}

/// The main file of a unit.
pub(super) fn main_file(unit: &Unit) -> std::sync::Arc<Path> {
    unit.files().first().cloned().unwrap_or_else(|| Path::new(unit.name().as_str()).into())
}
