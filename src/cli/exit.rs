//! The exit statuses. 1 to 7 mean what they mean for `systemctl reload` and the init scripts of the LSB.

use std::process::ExitCode;

use crate::manager::{Drain, End, Error, Failure, Refusal, Report, Verdict};
use crate::status::Status;

/// How the program ends. `handover upgrade --help` lists these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: the new process serves.
    Success,
    /// 1: the upgrade failed, and no other status says why.
    Failed,
    /// 2: the command line makes no sense.
    Usage,
    /// 3: the service cannot reload, or the unit is no service.
    NotReloadable,
    /// 4: not allowed.
    AccessDenied,
    /// 5: no such unit.
    NotFound,
    /// 6: the unit is masked, or its files cannot be read.
    Unusable,
    /// 7: the service does not run.
    NotActive,
    /// 8: the service ended during the upgrade, whether or not systemd started it afresh.
    Died,
    /// 9: the time is up.
    TimeUp,
    /// 10 to 39, 44 and more: what the ExecReload= helper exited with.
    Helper(u8),
    /// 40: there is no bus, or no systemd on it, or it went away; or no stand-in answers.
    NoBus,
    /// 41: another job of the unit rules out a reload.
    Busy,
    /// 42: it was found before that it would fail.
    PreFlight,
    /// 43: Ctrl-C.
    Interrupted,
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotReloadable => 3,
            Exit::AccessDenied => 4,
            Exit::NotFound => 5,
            Exit::Unusable => 6,
            Exit::NotActive => 7,
            Exit::Died => 8,
            Exit::TimeUp => 9,
            Exit::Helper(status) => status,
            Exit::NoBus => 40,
            Exit::Busy => 41,
            Exit::PreFlight => 42,
            Exit::Interrupted => 43,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(u8::from(exit))
    }
}

/// How `handover status` ends: the statuses of `systemctl status`, which are the LSB's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StatusExit {
    /// 0: it serves.
    Running,
    /// 1: it could not be asked for, or the answer could not be written.
    Failed,
    /// 3: it does not run.
    NotActive,
    /// 4: there is no such unit.
    NotFound,
    /// What kept us from asking, as of an upgrade.
    Error(u8),
}

impl From<StatusExit> for ExitCode {
    fn from(exit: StatusExit) -> Self {
        Self::from(match exit {
            StatusExit::Running => 0,
            StatusExit::Failed => 1,
            StatusExit::NotActive => 3,
            StatusExit::NotFound => 4,
            StatusExit::Error(status) => status,
        })
    }
}

impl From<&Status> for StatusExit {
    fn from(status: &Status) -> Self {
        match (status.is_there(), status.is_active()) {
            (false, false) => Self::NotFound,
            (_, false) => Self::NotActive,
            (_, true) => Self::Running,
        }
    }
}

impl From<&Report> for Exit {
    fn from(report: &Report) -> Self {
        match &report.verdict {
            Verdict::Switched { .. } => match report.drain {
                Drain::Unfinished(_) => Self::TimeUp,
                _ => Self::Success,
            },
            Verdict::Failed(failure) => failure.into(),
            Verdict::Refused(why) => why.into(),
            Verdict::Restarted { .. } | Verdict::Died { .. } => Self::Died,
            Verdict::Pending { .. } => Self::TimeUp,
        }
    }
}

impl From<&Failure> for Exit {
    /// The helper's own status where it cannot be taken for one of ours.
    fn from(failure: &Failure) -> Self {
        match failure.helper.as_ref().and_then(|helper| helper.end) {
            Some(End::Exited(status)) => match u8::try_from(status) {
                Ok(status @ (10..=39 | 44..)) => Self::Helper(status),
                _ => Self::Failed,
            },
            _ => Self::Failed,
        }
    }
}

impl From<&Refusal> for Exit {
    fn from(why: &Refusal) -> Self {
        match why {
            Refusal::BadName { .. } => Self::Usage,
            Refusal::NotAService | Refusal::NotReloadable | Refusal::NoMainProcess { .. } => {
                Self::NotReloadable
            }
            Refusal::NotFound => Self::NotFound,
            Refusal::Masked | Refusal::Broken { .. } => Self::Unusable,
            Refusal::NotActive { .. } => Self::NotActive,
            Refusal::Busy { .. } => Self::Busy,
        }
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error {
            Error::NoBus { .. }
            | Error::NoManager { .. }
            | Error::NoBridge { .. }
            | Error::BusLost { .. }
            | Error::NoStandin { .. } => Self::NoBus,
            Error::AccessDenied { .. } => Self::AccessDenied,
            Error::NoAnswer { .. } => Self::TimeUp,
            Error::Unwatchable { .. } | Error::Standin { .. } | Error::Call { .. } => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::Helper;

    fn failed_with(end: Option<End>) -> u8 {
        let helper = end.map(|end| Helper {
            command: vec![],
            pid: 1240,
            started_usec: 1,
            end: Some(end),
            may_fail: false,
        });
        Exit::from(&Failure {
            old: 1234,
            serving: 1234,
            reason: None,
            status: None,
            status_is_new: false,
            errno: None,
            helper,
            job: "failed".into(),
            reload_result: "exit-code".into(),
        })
        .into()
    }

    #[test]
    fn the_status_of_the_helper_is_passed_on_unless_it_could_be_taken_for_ours() {
        assert_eq!(failed_with(Some(End::Exited(21))), 21);
        assert_eq!(failed_with(Some(End::Exited(203))), 203);
        for ours in [2, 7, 9, 40, 41, 42, 43] {
            assert_eq!(failed_with(Some(End::Exited(ours))), 1);
        }
        assert_eq!(failed_with(Some(End::Killed(9))), 1);
        assert_eq!(failed_with(None), 1);
    }
}
