//! What is known of a unit, by systemd's names: `systemctl show`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::machine::{End, State};
use super::service::{Process, ServiceUnit, Surroundings, never_run};
use super::sockets::SocketUnit;
use crate::manager::wire::{Run, Unit};
use crate::unit::{Common, FdStorePreserve, KillMode, NotifyAccess, Restart, ServiceType};

/// Properties that are gathered.
#[derive(Default)]
struct Properties(BTreeMap<String, String>);

impl Properties {
    fn set(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.to_owned(), value.to_string());
    }

    fn common(&mut self, name: &str, load: &str, common: &Common) {
        self.set("Id", name);
        self.set("Names", name);
        self.set("LoadState", load);
        let wanted = !(common.wanted_by.is_empty() && common.required_by.is_empty());
        self.set(
            "UnitFileState",
            match load {
                "loaded" if wanted => "enabled",
                "loaded" => "static",
                _ => "",
            },
        );
        self.set("Description", common.description.as_deref().unwrap_or(name));
    }
}

/// A service.
pub(super) fn service(service: &ServiceUnit, around: &Surroundings, sockets: &[SocketUnit]) -> Unit {
    let (machine, settings) = (&service.machine, &service.settings);
    let state = machine.state();
    let mut p = Properties::default();
    p.common(&service.name, if service.source.gone { "not-found" } else { "loaded" }, &settings.common);
    p.set("FragmentPath", service.source.fragment().display());
    p.set("DropInPaths", service.source.drop_ins());
    p.set("NeedDaemonReload", yes(service.source.is_outdated()));
    p.set("ActiveState", state.active().word());
    p.set("SubState", sub_state(service, state));
    p.set("CanReload", yes(machine.can_reload()));
    p.set("InvocationID", if state.is_down() { "" } else { &service.traces.invocation });
    p.set("ActiveEnterTimestampMonotonic", service.active_since);
    p.set("Result", machine.result().word());
    p.set("ReloadResult", machine.reload_result().word());
    p.set("NRestarts", machine.restarts());
    let pid = |process: &Option<Process>| process.as_ref().map_or(0, Process::pid);
    p.set("MainPID", pid(&service.main));
    p.set("ControlPID", pid(&service.control));
    let (last, since, end) = service.last_main;
    p.set("ExecMainPID", last);
    p.set("ExecMainStartTimestampMonotonic", service.main.as_ref().map_or(since, |main| main.since));
    let (code, status) = match end {
        Some(End::Exited(status)) => (libc::CLD_EXITED, status),
        Some(End::Killed { signal, core: false }) => (libc::CLD_KILLED, signal),
        Some(End::Killed { signal, .. }) => (libc::CLD_DUMPED, signal),
        None => (0, 0),
    };
    p.set("ExecMainCode", code);
    p.set("ExecMainStatus", status);
    p.set("StatusText", &service.status);
    p.set("StatusErrno", service.errno);
    p.set("NotifyAccess", access_word(service.access()));
    p.set("NFileDescriptorStore", service.store.len());
    p.set("FileDescriptorStoreMax", settings.fd_store_max);
    p.set("FileDescriptorStorePreserve", preserve_word(settings.fd_store_preserve));
    p.set("Type", type_word(settings.kind));
    p.set("Restart", restart_word(settings.restart));
    p.set("KillMode", kill_word(settings.kill.mode));
    p.set("WatchdogUSec", machine.watchdog_usec().unwrap_or(0));
    p.set("WatchdogTimestampMonotonic", service.alive_at);
    p.set("ControlGroup", if state.is_down() { String::new() } else { service.control_group(around) });
    let triggers = sockets.iter().filter(|socket| socket.service() == service.name);
    p.set("TriggeredBy", triggers.map(|socket| socket.name.clone()).collect::<Vec<_>>().join(" "));
    let reloads = runs(service);
    p.set("ExecReload", reloads.iter().map(exec_line).collect::<Vec<_>>().join("\n"));
    whole(p, reloads, service.statuses)
}

/// A socket unit.
pub(super) fn socket(socket: &SocketUnit) -> Unit {
    let mut p = Properties::default();
    p.common(&socket.name, "loaded", &socket.settings.common);
    p.set("FragmentPath", socket.source.fragment().display());
    p.set("DropInPaths", socket.source.drop_ins());
    p.set("NeedDaemonReload", yes(socket.source.is_outdated()));
    p.set("ActiveState", socket.state.active().word());
    p.set("SubState", socket.state.word());
    p.set("Result", socket.result);
    p.set("Triggers", socket.service());
    p.set("FileDescriptorName", socket.fd_name());
    let lines = socket.addresses().map(|listen| format!("{} ({:?})", listen.address, listen.kind));
    p.set("Listen", lines.collect::<Vec<_>>().join("\n"));
    whole(p, Vec::new(), 0)
}

/// A unit that there is not.
pub(super) fn nothing(name: &str) -> Unit {
    let mut p = Properties::default();
    p.common(name, "not-found", &Common::default());
    p.set("ActiveState", "inactive");
    p.set("SubState", "dead");
    whole(p, Vec::new(), 0)
}

/// All of it, with a number that is another one after any change.
fn whole(Properties(properties): Properties, exec_reload: Vec<Run>, statuses: u64) -> Unit {
    let mut hasher = DefaultHasher::new();
    (&properties, &exec_reload, statuses).hash(&mut hasher);
    Unit { properties, exec_reload, statuses, state: hasher.finish() }
}

/// Down with an FD store that is kept, a service has a sub state of its own (systemd 254).
fn sub_state(service: &ServiceUnit, state: State) -> &'static str {
    if state == State::Dead && service.store.len() > 0 { "dead-resources-pinned" } else { state.word() }
}

/// The lines of ExecReload= with their last runs, also when there was none in this life.
fn runs(service: &ServiceUnit) -> Vec<Run> {
    if !service.reloads.is_empty() {
        return service.reloads.clone();
    }
    service.settings.exec_reload.iter().map(never_run).collect()
}

/// As `systemctl show` prints a command.
fn exec_line(run: &Run) -> String {
    let path = run.command.first().map_or("", String::as_str);
    let (code, status) = match (run.exited, run.killed) {
        (Some(status), _) => ("exited", status.to_string()),
        (None, Some(signal)) => ("killed", signal.to_string()),
        (None, None) => ("(null)", "0/0".to_owned()),
    };
    format!(
        "{{ path={path} ; argv[]={} ; ignore_errors={} ; start_time=[n/a] ; stop_time=[n/a] ; pid={} ; \
         code={code} ; status={status} }}",
        run.command.join(" "),
        yes(run.may_fail),
        run.pid
    )
}

fn yes(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}

fn access_word(access: NotifyAccess) -> &'static str {
    match access {
        NotifyAccess::None => "none",
        NotifyAccess::Main => "main",
        NotifyAccess::Exec => "exec",
        NotifyAccess::All => "all",
    }
}

fn preserve_word(preserve: FdStorePreserve) -> &'static str {
    match preserve {
        FdStorePreserve::No => "no",
        FdStorePreserve::Restart => "restart",
        FdStorePreserve::Yes => "yes",
        FdStorePreserve::OnSuccess => "on-success",
    }
}

fn type_word(kind: ServiceType) -> &'static str {
    match kind {
        ServiceType::Simple => "simple",
        ServiceType::Exec => "exec",
        ServiceType::Forking => "forking",
        ServiceType::Oneshot => "oneshot",
        ServiceType::Dbus => "dbus",
        ServiceType::Notify => "notify",
        ServiceType::NotifyReload => "notify-reload",
        ServiceType::Idle => "idle",
    }
}

fn restart_word(restart: Restart) -> &'static str {
    match restart {
        Restart::No => "no",
        Restart::Always => "always",
        Restart::OnSuccess => "on-success",
        Restart::OnFailure => "on-failure",
        Restart::OnAbnormal => "on-abnormal",
        Restart::OnAbort => "on-abort",
        Restart::OnWatchdog => "on-watchdog",
    }
}

fn kill_word(mode: KillMode) -> &'static str {
    match mode {
        KillMode::ControlGroup => "control-group",
        KillMode::Mixed => "mixed",
        KillMode::Process => "process",
        KillMode::None => "none",
    }
}
