//! From assignments to the settings of a service.

use super::line::{self, Line};
use super::service::{
    ExitStatuses, FdStorePreserve, NotifyAccess, Restart, RestartMode, Service, ServiceType,
};
use super::{Command, Common, Finding, KillMode, Signal, Unit, command, span, value};

const TYPES: [(&str, ServiceType); 8] = [
    ("simple", ServiceType::Simple),
    ("exec", ServiceType::Exec),
    ("forking", ServiceType::Forking),
    ("oneshot", ServiceType::Oneshot),
    ("dbus", ServiceType::Dbus),
    ("notify", ServiceType::Notify),
    ("notify-reload", ServiceType::NotifyReload),
    ("idle", ServiceType::Idle),
];

const RESTARTS: [(&str, Restart); 7] = [
    ("no", Restart::No),
    ("always", Restart::Always),
    ("on-success", Restart::OnSuccess),
    ("on-failure", Restart::OnFailure),
    ("on-abnormal", Restart::OnAbnormal),
    ("on-abort", Restart::OnAbort),
    ("on-watchdog", Restart::OnWatchdog),
];

const RESTART_MODES: [(&str, RestartMode); 3] =
    [("normal", RestartMode::Normal), ("direct", RestartMode::Direct), ("debug", RestartMode::Debug)];

const ACCESSES: [(&str, NotifyAccess); 4] = [
    ("none", NotifyAccess::None),
    ("main", NotifyAccess::Main),
    ("exec", NotifyAccess::Exec),
    ("all", NotifyAccess::All),
];

const PRESERVES: [(&str, FdStorePreserve); 4] = [
    ("no", FdStorePreserve::No),
    ("restart", FdStorePreserve::Restart),
    ("yes", FdStorePreserve::Yes),
    ("on-success", FdStorePreserve::OnSuccess),
];

/// What is only known of a service when all of it is read.
#[derive(Default)]
struct Said {
    kind: Option<ServiceType>,
    timeout_start: bool,
}

impl Service {
    /// Reads the settings of `unit`, and adds to `findings` what is wrong with them. What systemd would
    /// ignore with a warning is left at its default; an error among the findings is one for which systemd
    /// would refuse the unit.
    pub fn read(unit: &Unit, findings: &mut Vec<Finding>) -> Self {
        let mut service = Self { common: Common::read(unit, findings), ..Self::default() };
        let mut said = Said::default();
        Line::each(unit, "Service", findings, |line| service.line(line, &mut said));
        service.complete(said);
        service.exec.complete(unit.name());
        service.verify(unit, findings);
        service
    }

    fn line(&mut self, line: &mut Line<'_>, said: &mut Said) {
        if self.exec.read(line) || self.kill.read(line) || self.times(line, said) {
            return;
        }
        if let Some(list) = self.commands(line.key()) {
            return command::read(line, list);
        }
        match line.key() {
            "Type" => line.some(&mut said.kind, |text| value::choice(text, &TYPES)),
            "Restart" => line.set(&mut self.restart, |text| value::choice(text, &RESTARTS)),
            "RestartSteps" => line.set(&mut self.restart_steps, value::unsigned32),
            "RestartMode" => line.set(&mut self.restart_mode, |text| value::choice(text, &RESTART_MODES)),
            "SuccessExitStatus" => statuses(line, &mut self.success_exit_status),
            "RestartPreventExitStatus" => statuses(line, &mut self.restart_prevent_exit_status),
            "RestartForceExitStatus" => statuses(line, &mut self.restart_force_exit_status),
            "NotifyAccess" => line.set(&mut self.notify_access, |text| value::choice(text, &ACCESSES)),
            "ReloadSignal" => line.set(&mut self.reload_signal, Signal::read),
            "RemainAfterExit" => line.flag(&mut self.remain_after_exit),
            "GuessMainPID" => line.flag(&mut self.guess_main_pid),
            "RootDirectoryStartOnly" => line.flag(&mut self.root_directory_start_only),
            "PIDFile" => self.pid_file(line),
            "BusName" => self.bus_name(line),
            "NonBlocking" => line.flag(&mut self.non_blocking),
            "Sockets" => line.units(&mut self.sockets, Some("socket")),
            "FileDescriptorStoreMax" => line.set(&mut self.fd_store_max, value::unsigned32),
            "FileDescriptorStorePreserve" => {
                line.set(&mut self.fd_store_preserve, |text| value::choice_or_boolean(text, &PRESERVES));
            }
            "StartLimitInterval" | "StartLimitBurst" => self.common.start_limit(line),
            _ => {}
        }
    }

    fn times(&mut self, line: &mut Line<'_>, said: &mut Said) -> bool {
        // 0 is an old word for infinity here.
        let timeout = |text: &str| span::read(text).map(|span| span.filter(|span| !span.is_zero()));
        match line.key() {
            "TimeoutSec" => {
                let mut both = None;
                line.some(&mut both, timeout);
                if let Some(both) = both {
                    (self.timeout_start, self.timeout_stop) = (both, both);
                    said.timeout_start = true;
                }
            }
            "TimeoutStartSec" => {
                let mut start = None;
                line.some(&mut start, timeout);
                self.timeout_start = start.unwrap_or(self.timeout_start);
                said.timeout_start |= start.is_some();
            }
            "TimeoutStopSec" => line.set(&mut self.timeout_stop, timeout),
            "TimeoutAbortSec" => line.or_default(&mut self.timeout_abort, |text| timeout(text).map(Some)),
            "RuntimeMaxSec" => line.set(&mut self.runtime_max, span::read),
            "WatchdogSec" => line.set(&mut self.watchdog, timeout),
            "RestartSec" => line.set(&mut self.restart_after, span::read),
            "RestartMaxDelaySec" => line.set(&mut self.restart_max_delay, span::read),
            _ => return false,
        }
        true
    }

    fn commands(&mut self, key: &str) -> Option<&mut Vec<Command>> {
        Some(match key {
            "ExecCondition" => &mut self.exec_condition,
            "ExecStartPre" => &mut self.exec_start_pre,
            "ExecStart" => &mut self.exec_start,
            "ExecStartPost" => &mut self.exec_start_post,
            "ExecReload" => &mut self.exec_reload,
            "ExecReloadPost" => &mut self.exec_reload_post,
            "ExecStop" => &mut self.exec_stop,
            "ExecStopPost" => &mut self.exec_stop_post,
            _ => return None,
        })
    }

    /// A relative path is below /run, or the user's runtime folder.
    fn pid_file(&mut self, line: &mut Line<'_>) {
        if line.is_reset() {
            self.pid_file = None;
        } else if let Some(text) = line.resolve(line.value()) {
            let runtime = line.unit.host().specifier('t').unwrap_or("/run");
            let below = if text.starts_with('/') { text } else { format!("{runtime}/{text}") };
            line.set(&mut self.pid_file, |_| line::absolute(&below).map(Some));
        }
    }

    fn bus_name(&mut self, line: &mut Line<'_>) {
        let Some(name) = line.resolve(line.value()) else { return };
        let part = |part: &str| {
            let fine = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            !part.is_empty() && !part.starts_with(|c: char| c.is_ascii_digit()) && part.chars().all(fine)
        };
        let fine = name.len() <= 255 && name.contains('.') && name.split('.').all(part);
        line.some(&mut self.bus_name, |_| {
            fine.then_some(name).ok_or_else(|| "wanted a name like org.example.Web".into())
        });
    }

    /// What follows from several settings, as systemd's service_add_extras() has it.
    fn complete(&mut self, said: Said) {
        let implied = match (&self.bus_name, self.exec_start.is_empty()) {
            (Some(_), _) => ServiceType::Dbus,
            (None, false) => ServiceType::Simple,
            (None, true) => ServiceType::Oneshot,
        };
        self.kind = said.kind.unwrap_or(implied);
        if self.kind == ServiceType::Oneshot && !said.timeout_start {
            self.timeout_start = None;
        }
        let speaks = matches!(self.kind, ServiceType::Notify | ServiceType::NotifyReload);
        if self.notify_access == NotifyAccess::None
            && (speaks || self.watchdog.is_some() || self.fd_store_max > 0)
        {
            self.notify_access = NotifyAccess::Main;
        }
    }

    /// What makes systemd refuse a service: its service_verify().
    fn verify(&self, unit: &Unit, findings: &mut Vec<Finding>) {
        let at = |key: &str| unit.values("Service", key).last().map(|line| line.place.clone());
        let mut refuse = |key: &str, why: &str| {
            let place = at(key);
            let file = if place.is_none() { format!("{}: ", unit.fragment()) } else { String::new() };
            findings.push(Finding::error(place.as_ref(), format!("{file}{why}")));
        };
        let oneshot = self.kind == ServiceType::Oneshot;
        let ends_well = !unit.values("Unit", "SuccessAction").is_empty();
        if self.exec_start.is_empty() && self.exec_stop.is_empty() && !ends_well {
            refuse("", "the service has neither ExecStart= nor ExecStop=");
        } else if self.exec_start.is_empty() && !oneshot {
            refuse("Type", "only a service of Type=oneshot may have no ExecStart=");
        } else if self.exec_start.is_empty() && !self.remain_after_exit && !ends_well {
            refuse("", "a service without ExecStart= needs RemainAfterExit=yes");
        }
        if self.exec_start.len() > 1 && !oneshot {
            refuse("ExecStart", "only a service of Type=oneshot may have more than one ExecStart=");
        }
        if oneshot && matches!(self.restart, Restart::Always | Restart::OnSuccess) {
            refuse("Restart", "a service of Type=oneshot cannot be restarted after success");
        }
        if oneshot && self.restart_force_exit_status != ExitStatuses::default() {
            refuse("RestartForceExitStatus", "a service of Type=oneshot cannot have RestartForceExitStatus=");
        }
        if self.kind == ServiceType::Dbus && self.bus_name.is_none() {
            refuse("Type", "a service of Type=dbus needs BusName=");
        }
        let pam = !unit.values("Service", "PAMName").is_empty();
        if pam && !matches!(self.kill.mode, KillMode::ControlGroup | KillMode::Mixed) {
            refuse("KillMode", "with PAMName= it can only be control-group or mixed");
        }
    }
}

/// Adds exit statuses and signals, by name or number, to a set which an empty value resets.
fn statuses(line: &mut Line<'_>, slot: &mut ExitStatuses) {
    if line.is_reset() {
        *slot = ExitStatuses::default();
    }
    for word in line.plain_words() {
        if let Some(status) = value::exit_status(word) {
            slot.statuses.insert(status);
        } else if let Ok(signal) = Signal::read(word) {
            slot.signals.insert(signal);
        } else {
            line.ignore(format_args!("{word:?} is neither an exit status nor a signal"));
        }
    }
}
