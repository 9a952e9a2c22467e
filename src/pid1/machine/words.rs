//! The words of systemd for what a service does and how it ended: SubState=, ActiveState=, Result=.

use crate::manager::ActiveState;
use crate::unit::ExitStatuses;

/// SubState= of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Dead,
    Condition,
    StartPre,
    Start,
    StartPost,
    Running,
    /// The main process has ended well, and RemainAfterExit= says that this does not matter.
    Exited,
    Reload,
    ReloadSignal,
    ReloadNotify,
    ReloadPost,
    Stop,
    StopWatchdog,
    StopSigterm,
    StopSigkill,
    StopPost,
    FinalSigterm,
    FinalSigkill,
    AutoRestart,
    Failed,
}

impl State {
    /// Every state there is.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 20] = [
        Self::Dead,
        Self::Condition,
        Self::StartPre,
        Self::Start,
        Self::StartPost,
        Self::Running,
        Self::Exited,
        Self::Reload,
        Self::ReloadSignal,
        Self::ReloadNotify,
        Self::ReloadPost,
        Self::Stop,
        Self::StopWatchdog,
        Self::StopSigterm,
        Self::StopSigkill,
        Self::StopPost,
        Self::FinalSigterm,
        Self::FinalSigkill,
        Self::AutoRestart,
        Self::Failed,
    ];

    /// As `systemctl show -p SubState` has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Condition => "condition",
            Self::StartPre => "start-pre",
            Self::Start => "start",
            Self::StartPost => "start-post",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Reload => "reload",
            Self::ReloadSignal => "reload-signal",
            Self::ReloadNotify => "reload-notify",
            Self::ReloadPost => "reload-post",
            Self::Stop => "stop",
            Self::StopWatchdog => "stop-watchdog",
            Self::StopSigterm => "stop-sigterm",
            Self::StopSigkill => "stop-sigkill",
            Self::StopPost => "stop-post",
            Self::FinalSigterm => "final-sigterm",
            Self::FinalSigkill => "final-sigkill",
            Self::AutoRestart => "auto-restart",
            Self::Failed => "failed",
        }
    }

    /// What it is for a unit of any type.
    pub(crate) fn active(self) -> ActiveState {
        match self {
            Self::Dead => ActiveState::Inactive,
            Self::Failed => ActiveState::Failed,
            Self::Condition | Self::StartPre | Self::Start | Self::StartPost | Self::AutoRestart => {
                ActiveState::Activating
            }
            Self::Running | Self::Exited => ActiveState::Active,
            Self::Reload | Self::ReloadSignal | Self::ReloadNotify | Self::ReloadPost => {
                ActiveState::Reloading
            }
            _ => ActiveState::Deactivating,
        }
    }

    /// Whether nothing of the service runs, nor will without a command.
    pub(crate) fn is_down(self) -> bool {
        matches!(self, Self::Dead | Self::Failed)
    }

    /// Whether it is on its way down.
    pub(crate) fn is_stopping(self) -> bool {
        self.active() == ActiveState::Deactivating
    }

    /// Whether it is on its way up.
    pub(crate) fn is_starting(self) -> bool {
        matches!(self, Self::Condition | Self::StartPre | Self::Start | Self::StartPost)
    }

    /// Whether a reload is under way.
    pub(crate) fn is_reloading(self) -> bool {
        self.active() == ActiveState::Reloading
    }
}

/// Result=: why a service ended, or how a reload did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    #[default]
    Success,
    Resources,
    Protocol,
    Timeout,
    ExitCode,
    Signal,
    CoreDump,
    Watchdog,
    StartLimitHit,
    ExecCondition,
}

impl Outcome {
    /// As `systemctl show -p Result` has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Resources => "resources",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::ExitCode => "exit-code",
            Self::Signal => "signal",
            Self::CoreDump => "core-dump",
            Self::Watchdog => "watchdog",
            Self::StartLimitHit => "start-limit-hit",
            Self::ExecCondition => "exec-condition",
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this status.
    Exited(i32),
    /// By this signal, perhaps with a core dump.
    Killed { signal: i32, core: bool },
}

impl End {
    /// Whether it is among `ends`.
    pub(crate) fn is_in(self, ends: &ExitStatuses) -> bool {
        match self {
            Self::Exited(status) => u8::try_from(status).is_ok_and(|status| ends.statuses.contains(&status)),
            Self::Killed { signal, .. } => ends.signals.iter().any(|one| one.number() == signal),
        }
    }

    /// What it means for the service. A daemon may also end by the signals that ask it to.
    pub(crate) fn outcome(self, daemon: bool, clean: &ExitStatuses) -> Outcome {
        let asked = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE];
        match self {
            Self::Exited(0) => Outcome::Success,
            Self::Killed { signal, .. } if daemon && asked.contains(&signal) => Outcome::Success,
            _ if self.is_in(clean) => Outcome::Success,
            Self::Exited(_) => Outcome::ExitCode,
            Self::Killed { core: true, .. } => Outcome::CoreDump,
            Self::Killed { .. } => Outcome::Signal,
        }
    }
}
