//! How the processes of a unit end: systemd.kill(5).

use super::line::Line;
use super::{Signal, value};

/// How the processes of a unit end: systemd.kill(5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kill {
    /// KillMode=.
    pub mode: KillMode,
    /// KillSignal=.
    pub signal: Signal,
    /// RestartKillSignal=: instead of KillSignal= when a restart is under way; None is the same.
    pub restart_signal: Option<Signal>,
    /// FinalKillSignal=: what follows when the others did not help.
    pub final_signal: Signal,
    /// WatchdogSignal=: what a service gets whose watchdog ran out.
    pub watchdog_signal: Signal,
    /// SendSIGKILL=: whether FinalKillSignal= is sent at all.
    pub send_sigkill: bool,
    /// SendSIGHUP=: whether SIGHUP follows the first signal.
    pub send_sighup: bool,
}

impl Default for Kill {
    fn default() -> Self {
        Self {
            mode: KillMode::ControlGroup,
            signal: Signal::TERM,
            restart_signal: None,
            final_signal: Signal::KILL,
            watchdog_signal: Signal::ABRT,
            send_sigkill: true,
            send_sighup: false,
        }
    }
}

/// KillMode=.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KillMode {
    /// All processes of the unit get every signal.
    #[default]
    ControlGroup,
    /// The main process gets the first one, all the last.
    Mixed,
    /// The main process alone.
    Process,
    /// None at all.
    None,
}

const MODES: [(&str, KillMode); 4] = [
    ("control-group", KillMode::ControlGroup),
    ("mixed", KillMode::Mixed),
    ("process", KillMode::Process),
    ("none", KillMode::None),
];

impl Kill {
    /// Reads a directive of systemd.kill(5); false says that it is none.
    pub(super) fn read(&mut self, line: &mut Line<'_>) -> bool {
        match line.key() {
            "KillMode" => line.or_default(&mut self.mode, |text| value::choice(text, &MODES)),
            "KillSignal" => line.set(&mut self.signal, Signal::read),
            "RestartKillSignal" => line.some(&mut self.restart_signal, Signal::read),
            "FinalKillSignal" => line.set(&mut self.final_signal, Signal::read),
            "WatchdogSignal" => line.set(&mut self.watchdog_signal, Signal::read),
            "SendSIGKILL" => line.flag(&mut self.send_sigkill),
            "SendSIGHUP" => line.flag(&mut self.send_sighup),
            _ => return false,
        }
        true
    }
}
