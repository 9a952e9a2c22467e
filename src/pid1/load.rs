//! From unit files to units at work: at the start, and again at each daemon-reload.
//!
//! What the reader finds wrong is passed on, and what is right but not done here is said, each with file
//! and line, once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::service::ServiceUnit;
use super::sockets::{SocketUnit, State};
use super::standin::Standin;
use crate::unit::{self, Host, Loaded, ServiceType, Unit, UnitName};

/// The files of a unit, and when each was changed last: NeedDaemonReload=.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Source {
    files: Vec<(PathBuf, Option<SystemTime>)>,
    /// LoadState=: there are none any more.
    pub(crate) gone: bool,
}

impl Source {
    /// The files of `unit` and the folder of its drop-ins, which may yet come.
    fn of(unit: &Unit) -> Self {
        let files = unit.files().iter().map(|file| file.to_path_buf());
        let folder = unit.files().first().map(|file| PathBuf::from(format!("{}.d", file.display())));
        Self { files: files.chain(folder).map(|path| (path.clone(), changed(&path))).collect(), gone: false }
    }

    /// Whether a file has changed since.
    pub(crate) fn is_outdated(&self) -> bool {
        self.files.iter().any(|(path, then)| changed(path) != *then)
    }

    /// DropInPaths=, as words.
    pub(crate) fn drop_ins(&self) -> String {
        let between = self.files.get(1..self.files.len().saturating_sub(1)).unwrap_or_default();
        between.iter().map(|(path, _)| path.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    /// FragmentPath=.
    pub(crate) fn fragment(&self) -> &Path {
        self.files.first().map_or_else(|| Path::new(""), |(path, _)| path)
    }
}

/// When a file was changed last; `None` if it is not there.
fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}

/// Directives of \[Unit\] and \[Install\] that are obeyed, or only inform.
const UNIT: &str = "Description Documentation StartLimitIntervalSec StartLimitBurst StartLimitInterval";
const INSTALL: &str = "WantedBy RequiredBy Also Alias DefaultInstance";

/// Directives of \[Service\] that are obeyed.
const SERVICE: &str = "Type ExecCondition ExecStartPre ExecStart ExecStartPost ExecReload ExecReloadPost \
    ExecStop ExecStopPost Restart RestartSec RestartSteps RestartMaxDelaySec SuccessExitStatus \
    RestartPreventExitStatus RestartForceExitStatus TimeoutSec TimeoutStartSec TimeoutStopSec \
    TimeoutAbortSec RuntimeMaxSec WatchdogSec NotifyAccess ReloadSignal RemainAfterExit NonBlocking \
    Sockets FileDescriptorStoreMax FileDescriptorStorePreserve KillMode KillSignal RestartKillSignal \
    FinalKillSignal WatchdogSignal SendSIGKILL SendSIGHUP StartLimitInterval StartLimitBurst \
    Environment EnvironmentFile PassEnvironment UnsetEnvironment WorkingDirectory User Group \
    SupplementaryGroups UMask Nice StandardOutput StandardError SyslogIdentifier RuntimeDirectory \
    RuntimeDirectoryMode RuntimeDirectoryPreserve IgnoreSIGPIPE NoNewPrivileges LimitCPU LimitFSIZE \
    LimitDATA LimitSTACK LimitCORE LimitRSS LimitNOFILE LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS \
    LimitSIGPENDING LimitMSGQUEUE LimitNICE LimitRTPRIO LimitRTTIME";

/// Directives of \[Socket\] that are obeyed.
const SOCKET: &str = "ListenStream ListenDatagram ListenSequentialPacket ListenFIFO Accept Service \
    FileDescriptorName Backlog BindIPv6Only BindToDevice SocketMode DirectoryMode KeepAlive \
    KeepAliveTimeSec KeepAliveIntervalSec KeepAliveProbes NoDelay DeferAcceptSec ReusePort FreeBind \
    Transparent Broadcast PassCredentials PassSecurity PassPIDFD PassPacketInfo ReceiveBuffer SendBuffer PipeSize Priority Mark IPTOS IPTTL \
    TCPCongestion SocketProtocol RemoveOnStop Symlinks TriggerLimitIntervalSec TriggerLimitBurst";

/// Directives that order units, which here are all started at once, sockets first.
const ORDER: [&str; 3] = ["After", "Before", "DefaultDependencies"];

impl Standin {
    /// Reads the unit files, and makes or renews the units. Returns how many units there are.
    pub(super) fn load(&mut self, paths: &[PathBuf]) -> usize {
        let found = self.read(paths, |_, _| true);
        self.forget_missing(&found);
        found.len()
    }

    /// Reads an instance of a template that nobody has asked for before, if `name` is one: it is read again at
    /// each daemon-reload from now on.
    pub(super) fn load_instance(&mut self, name: &str) {
        let known = |standin: &Self, name: &str| {
            standin.services.iter().any(|one| one.name == name)
                || standin.sockets.iter().any(|one| one.name == name)
        };
        let Some(unit) = UnitName::parse(name).filter(|unit| !unit.is_template()) else { return };
        let Some(template) = unit.template().filter(|_| !known(self, name)) else { return };
        let folders =
            self.paths.iter().filter_map(|path| if path.is_dir() { Some(&**path) } else { path.parent() });
        let folder = folders.into_iter().find(|folder| folder.join(template.as_str()).exists());
        let Some(file) = folder.map(|folder| folder.join(name)) else { return };
        self.paths.push(file);
        self.read(&self.paths.clone(), |standin, name| !known(standin, name));
        if !known(self, name) {
            self.paths.pop();
        }
    }

    /// Reads the unit files, and makes or renews the units that are wanted; the names of all there are.
    fn read(&mut self, paths: &[PathBuf], wanted: impl Fn(&Self, &str) -> bool) -> BTreeSet<String> {
        let host = Host::current().with('t', self.around.runtime.to_string_lossy());
        let loaded = unit::load(paths, host);
        self.report(&loaded);
        let source = |name: &str| {
            loaded.units.iter().find(|unit| unit.name().as_str() == name).map(Source::of).unwrap_or_default()
        };
        let mut found = BTreeSet::new();
        for (name, settings) in &loaded.services {
            let name = name.as_str();
            if !wanted(self, name) {
                continue;
            }
            if let Some(why) = unusable(settings) {
                self.around.output.say_of(name, &format!("it is not used: {why}"));
                continue;
            }
            found.insert(name.to_owned());
            self.load_service(name, Arc::new(settings.clone()), source(name));
        }
        for (name, settings) in &loaded.sockets {
            let name = name.as_str();
            if !wanted(self, name) {
                continue;
            }
            if settings.accept {
                let text = "it is not used: Accept=yes is not done here: one process for each connection is \
                            nothing that could be upgraded";
                self.around.output.say_of(name, text);
                continue;
            }
            found.insert(name.to_owned());
            let settings = Arc::new(settings.clone());
            match self.sockets.iter_mut().find(|socket| socket.name == name) {
                Some(socket) => {
                    (socket.settings, socket.source) = (settings, source(name));
                    if socket.is_outdated() {
                        let text =
                            "its addresses have changed: restart it, and the service, for the new ones";
                        self.around.output.say_of(name, text);
                    }
                }
                None => self.sockets.push(SocketUnit::new(name.to_owned(), settings, source(name))),
            }
        }
        found
    }

    fn load_service(&mut self, name: &str, settings: Arc<unit::Service>, source: Source) {
        let Some(service) = self.services.iter_mut().find(|service| service.name == name) else {
            return self.services.push(ServiceUnit::new(name.to_owned(), settings, source));
        };
        service.machine.set_settings(settings.clone());
        (service.settings, service.source) = (settings, source);
        let most = service.settings.fd_store_max as usize;
        if service.store.len() > most {
            let text =
                format!("its FD store holds more than FileDescriptorStoreMax={most}; the rest is closed");
            self.around.output.say_of(name, &text);
            service.store.keep(most, &self.around.hangups);
        }
        service.store.reverse();
    }

    /// Units without a file: what runs, runs on; what does not is forgotten.
    fn forget_missing(&mut self, found: &BTreeSet<String>) {
        for socket in self.sockets.iter_mut().filter(|socket| !found.contains(&socket.name)) {
            if socket.state != State::Dead {
                self.around.output.say_of(&socket.name, "its file is gone, and its sockets are closed");
            }
            socket.close(State::Dead, "success", &self.around.traffic);
        }
        self.sockets.retain(|socket| found.contains(&socket.name));
        for service in self.services.iter_mut().filter(|service| !found.contains(&service.name)) {
            service.source.gone = true;
        }
    }

    /// Says what the reader found, and what is not done here. What was said once is not said again.
    fn report(&mut self, loaded: &Loaded) {
        let findings = loaded.findings.iter().map(ToString::to_string);
        let ignored = loaded.units.iter().flat_map(ignored);
        for line in findings.chain(ignored).collect::<Vec<_>>() {
            if self.said.insert(line.clone()) {
                self.around.output.say(&line);
            }
        }
    }
}

/// The lines of a unit that systemd would obey, and we do not.
fn ignored(unit: &Unit) -> Vec<String> {
    let obeyed = |section: &str, key: &str| {
        let keys = match section {
            "Unit" => UNIT,
            "Install" => INSTALL,
            "Service" => SERVICE,
            "Socket" => SOCKET,
            _ => "",
        };
        keys.split_whitespace().any(|known| known == key)
            || (section == "Unit" && (ORDER.contains(&key) || is_about_targets(unit, key)))
            || key.starts_with("X-")
    };
    let known = |section: &str, key: &str| unit::directive(section, key).is_some();
    let lines = unit.assignments().iter();
    lines
        .filter(|line| known(&line.section, &line.key) && !obeyed(&line.section, &line.key))
        .map(|line| format!("{}: {}= is not done by handover pid1; it is ignored", line.place, line.key))
        .collect()
}

/// Dependencies on what is no service and no socket (targets, mounts): there is nothing to be done.
fn is_about_targets(unit: &Unit, key: &str) -> bool {
    let dependency =
        ["Requires", "Wants", "BindsTo", "PartOf", "Conflicts", "Requisite", "Upholds"].contains(&key);
    let names = || unit.values("Unit", key).into_iter().flat_map(|line| line.value.split_whitespace());
    let own_socket =
        |name: &str| name.strip_suffix(".socket").is_some_and(|stem| unit.name().as_str().starts_with(stem));
    dependency
        && names().all(|name| !(name.ends_with(".service") || name.ends_with(".socket")) || own_socket(name))
}

/// Why a service cannot be run here at all.
fn unusable(settings: &unit::Service) -> Option<&'static str> {
    match settings.kind {
        ServiceType::Forking => Some("Type=forking is not done here: have it stay in the foreground"),
        ServiceType::Dbus => Some("Type=dbus is not done here: there is no bus"),
        _ if settings.exec.dynamic_user => Some("DynamicUser= is not done here: name a user"),
        _ if settings.exec.root_directory.is_some() => Some("RootDirectory= is not done here"),
        _ => None,
    }
}
