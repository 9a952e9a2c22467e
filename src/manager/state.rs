//! One look at a service, in systemd's words. Pure: what is read here is judged in `verdict`.

use std::fmt;

use nix::sys::signal::Signal;

/// ActiveState= of a unit, see systemctl(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActiveState {
    /// It runs.
    Active,
    /// It runs, and a reload is under way.
    Reloading,
    /// It runs, and systemd renews what it sees of the system (since 257).
    Refreshing,
    /// It has ended, or never began.
    Inactive,
    /// It has ended badly.
    Failed,
    /// It is being started, or waits for its restart.
    Activating,
    /// It is being stopped.
    Deactivating,
    /// It is being cleaned.
    Maintenance,
    /// A word that this version of handover does not know.
    Unknown,
}

impl ActiveState {
    /// Reads systemd's word for it.
    pub(crate) fn from_word(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "reloading" => Self::Reloading,
            "refreshing" => Self::Refreshing,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            "maintenance" => Self::Maintenance,
            _ => Self::Unknown,
        }
    }

    /// systemd's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Reloading => "reloading",
            Self::Refreshing => "refreshing",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
            Self::Maintenance => "maintenance",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the service works in this state: a reload does not interrupt it.
    pub fn serves(self) -> bool {
        matches!(self, Self::Active | Self::Reloading | Self::Refreshing)
    }
}

/// How an ExecReload= line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(203) => f.write_str("could not be executed (203/EXEC)"),
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Killed(signal) => match Signal::try_from(*signal) {
                Ok(name) => write!(f, "was killed by {name}"),
                Err(_) => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

/// One ExecReload= line and its last run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The process of that run, 0 if there never was one.
    pub pid: u32,
    /// When that run began: CLOCK_MONOTONIC, microseconds.
    pub started_usec: u64,
    /// How it ended; `None` while it runs, and when it never ran.
    pub end: Option<End>,
    /// The line begins with `-`: systemd takes its failure for success.
    pub may_fail: bool,
}

impl Helper {
    /// Whether this run ended in a way that fails the reload.
    pub(crate) fn failed(&self) -> bool {
        !self.may_fail && self.end.is_some_and(|end| end != End::Exited(0))
    }
}

/// What systemd keeps for a service: FileDescriptorStoreMax= of systemd.service(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdStore {
    /// How many descriptors it holds.
    pub held: u32,
    /// How many it takes; 0: the service has no store.
    pub most: u32,
}

impl FdStore {
    /// Whether it takes no more, although the service has one.
    pub fn is_full(self) -> bool {
        self.most > 0 && self.held >= self.most
    }
}

/// A service at one moment. What decides whether it lives (`active`, `invocation`) is read last: if
/// it was alive then, the rest was read from the same life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// LoadState=: `loaded`, `not-found`, `masked`, ...
    pub(crate) load_state: String,
    /// CanReload=.
    pub(crate) can_reload: bool,
    /// NeedDaemonReload=: the unit's files are newer than what systemd has read.
    pub(crate) outdated: bool,
    /// StatusText=, empty for none.
    pub(crate) status: String,
    /// StatusErrno=, 0 for none.
    pub(crate) errno: i32,
    /// ExecReload=, in order.
    pub(crate) helpers: Vec<Helper>,
    /// ReloadResult=: how the last reload went.
    pub(crate) reload_result: String,
    /// Result=: why the service ended.
    pub(crate) result: String,
    /// ControlPID=, 0 for none.
    pub(crate) control_pid: u32,
    /// MainPID=, 0 for none.
    pub(crate) main_pid: u32,
    /// SubState=.
    pub(crate) sub_state: String,
    /// ActiveState=.
    pub(crate) active: ActiveState,
    /// InvocationID=: changes when the unit is started, not when its main process changes.
    pub(crate) invocation: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_systemd_is_read_back_as_itself_and_a_new_one_is_not_taken_for_serving() {
        for word in
            "active reloading refreshing inactive failed activating deactivating maintenance".split(' ')
        {
            assert_eq!(ActiveState::from_word(word).word(), word);
        }
        assert_eq!(ActiveState::from_word("hibernating"), ActiveState::Unknown);
        assert!(!ActiveState::Unknown.serves());
    }

    #[test]
    fn a_helper_whose_failure_does_not_matter_has_not_failed() {
        let ended =
            |end, may_fail| Helper { command: vec![], pid: 7, started_usec: 1, end, may_fail }.failed();
        assert!(ended(Some(End::Exited(21)), false));
        assert!(ended(Some(End::Killed(9)), false));
        assert!(!ended(Some(End::Exited(0)), false));
        assert!(!ended(None, false));
        assert!(!ended(Some(End::Exited(21)), true));
    }
}
