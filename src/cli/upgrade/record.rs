//! What programs read about an upgrade: one JSON object a line, always with the same fields.

use serde::Serialize;

use crate::cli::exit::Exit;
use crate::manager::{Drain, End, Error, Refusal, Report, Verdict};

/// The last event of a unit.
const ENDED: &str = "ended";

/// One upgrade. Fields are added, never renamed or taken away; what does not apply is null.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Record<'a> {
    /// `ended`.
    event: &'static str,
    /// The unit's own name.
    unit: &'a str,
    /// `switched`, `failed`, `refused`, `restarted`, `died`, `pending`, `error`, `pre-flight` or `not-tried`.
    outcome: &'static str,
    /// The exit status for this unit alone.
    exit_status: u8,
    /// The main process before.
    old_pid: Option<u32>,
    /// The main process that took over.
    new_pid: Option<u32>,
    /// The main process that serves; null when none does, or nobody knows.
    serving_pid: Option<u32>,
    /// One word for why: the service's own, a refusal's or an error's.
    reason: Option<&'a str>,
    /// What the exit status of the ExecReload= helper was.
    helper_status: Option<i32>,
    /// The signal that ended the ExecReload= helper.
    helper_signal: Option<i32>,
    /// What the service last said with STATUS=.
    status_text: Option<&'a str>,
    /// Whether it said so during the reload.
    status_is_new: Option<bool>,
    /// What the service said with ERRNO= during the reload.
    status_errno: Option<i32>,
    /// How systemd says that the job ended.
    job_result: Option<&'a str>,
    /// From the call until systemd called the reload ended.
    seconds: Option<f64>,
    /// Whether the old process has gone; null when nobody waited for it.
    drained: Option<bool>,
    /// From the switch until the old process had gone, or the time was up.
    drain_seconds: Option<f64>,
    /// The unit's files have changed since systemd read them.
    need_daemon_reload: bool,
    /// How many descriptors systemd's FD store holds for the service.
    stored: Option<u32>,
    /// How many it takes.
    store_limit: Option<u32>,
    /// The same for people.
    message: &'a str,
}

impl<'a> Record<'a> {
    /// The record of an upgrade; `message` is its line for people.
    pub(crate) fn of_report(report: &'a Report, message: &'a str, exit: Exit) -> Self {
        let (drained, drain_seconds) = match report.drain {
            Drain::Gone(after) => (Some(true), Some(after.as_secs_f64())),
            Drain::Unfinished(after) => (Some(false), Some(after.as_secs_f64())),
            Drain::NotAwaited => (None, None),
        };
        let mut record = Self {
            event: ENDED,
            unit: &report.unit,
            exit_status: exit.into(),
            seconds: Some(report.took.as_secs_f64()),
            drained,
            drain_seconds,
            need_daemon_reload: report.outdated,
            stored: report.store.map(|store| store.held),
            store_limit: report.store.map(|store| store.most),
            message,
            ..Self::default()
        };
        record.judged(&report.verdict);
        record
    }

    /// The record of a unit that was not tried: `outcome` says why, in a word.
    pub(crate) fn of_nothing(unit: &'a str, outcome: &'static str, message: &'a str, exit: Exit) -> Self {
        Self { event: ENDED, unit, outcome, exit_status: exit.into(), message, ..Self::default() }
    }

    /// The record of an error.
    pub(crate) fn of_error(unit: &'a str, error: &Error, message: &'a str, exit: Exit) -> Self {
        let reason = match error {
            Error::NoBus { .. } => "no-bus",
            Error::NoManager { .. } => "no-manager",
            Error::NoBridge { .. } => "no-bridge",
            Error::AccessDenied { .. } => "access-denied",
            Error::NoAnswer { .. } => "no-answer",
            Error::BusLost { .. } => "bus-lost",
            Error::Unwatchable { .. } => "unwatchable",
            Error::NoStandin { .. } => "no-standin",
            Error::Standin { .. } => "standin",
            Error::Call { .. } => "call-failed",
        };
        let (outcome, reason) = ("error", Some(reason));
        Self { event: ENDED, unit, outcome, reason, exit_status: exit.into(), message, ..Self::default() }
    }

    /// Fills in what depends on the verdict.
    fn judged(&mut self, verdict: &'a Verdict) {
        match verdict {
            Verdict::Switched { old, new } => {
                self.outcome = "switched";
                (self.old_pid, self.new_pid, self.serving_pid) = (Some(*old), Some(*new), Some(*new));
            }
            Verdict::Failed(failure) => {
                self.outcome = "failed";
                (self.old_pid, self.serving_pid) = (Some(failure.old), Some(failure.serving));
                self.new_pid = Some(failure.serving).filter(|&pid| pid != failure.old);
                self.reason = failure.reason.as_ref().map(|reason| reason.name.as_str());
                match failure.helper.as_ref().and_then(|helper| helper.end) {
                    Some(End::Exited(status)) => self.helper_status = Some(status),
                    Some(End::Killed(signal)) => self.helper_signal = Some(signal),
                    None => {}
                }
                (self.status_text, self.status_errno) = (failure.status.as_deref(), failure.errno);
                self.status_is_new = Some(failure.status_is_new);
                self.job_result = Some(&failure.job);
            }
            Verdict::Refused(why) => {
                (self.outcome, self.reason, self.seconds) = ("refused", Some(word(why)), None);
            }
            Verdict::Restarted { old, new } => {
                self.outcome = "restarted";
                (self.old_pid, self.new_pid, self.serving_pid) = (Some(*old), Some(*new), Some(*new));
            }
            Verdict::Died { old, result, .. } => {
                (self.outcome, self.old_pid, self.reason) = ("died", Some(*old), Some(result.as_str()));
            }
            Verdict::Pending { serving, .. } => {
                (self.outcome, self.serving_pid) = ("pending", Some(*serving))
            }
        }
    }

    /// The record as one line of JSON, without its end.
    pub(crate) fn line(&self) -> String {
        // Strings, numbers and options of them: there is nothing in it that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// One word for a refusal.
fn word(why: &Refusal) -> &'static str {
    match why {
        Refusal::BadName { .. } => "bad-name",
        Refusal::NotAService => "not-a-service",
        Refusal::NotFound => "not-found",
        Refusal::Masked => "masked",
        Refusal::Broken { .. } => "broken",
        Refusal::NotActive { .. } => "not-active",
        Refusal::NoMainProcess { .. } => "no-main-process",
        Refusal::NotReloadable => "not-reloadable",
        Refusal::Busy { .. } => "busy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{Failure, FdStore, Helper, Reason};
    use std::time::Duration;

    fn json(verdict: Verdict, drain: Drain) -> serde_json::Value {
        let report = Report {
            unit: "web.service".into(),
            verdict,
            took: Duration::from_millis(250),
            drain,
            outdated: false,
            store: Some(FdStore { held: 3, most: 512 }),
        };
        let line = Record::of_report(&report, "words", Exit::from(&report)).line();
        assert!(!line.contains('\n'));
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_switch_names_both_processes_and_every_field_is_there() {
        let record = json(Verdict::Switched { old: 1234, new: 1250 }, Drain::Gone(Duration::from_secs(3)));
        let expected = serde_json::json!({
            "event": "ended", "unit": "web.service", "outcome": "switched", "exit_status": 0,
            "old_pid": 1234, "new_pid": 1250, "serving_pid": 1250, "reason": null,
            "helper_status": null, "helper_signal": null, "status_text": null, "status_is_new": null, "status_errno": null,
            "job_result": null, "seconds": 0.25, "drained": true, "drain_seconds": 3.0,
            "need_daemon_reload": false, "stored": 3, "store_limit": 512, "message": "words",
        });
        assert_eq!(record, expected);
    }

    #[test]
    fn a_failure_names_who_serves_and_why() {
        let helper = Helper {
            command: vec![],
            pid: 1240,
            started_usec: 1,
            end: Some(End::Exited(21)),
            may_fail: false,
        };
        let failure = Failure {
            old: 1234,
            serving: 1234,
            reason: Some(Reason { name: "exec-failed".into(), text: "no".into() }),
            status: Some("upgrade failed: exec-failed: no".into()),
            status_is_new: true,
            errno: Some(2),
            helper: Some(helper),
            job: "failed".into(),
            reload_result: "exit-code".into(),
        };
        let record = json(Verdict::Failed(failure), Drain::NotAwaited);
        let fields =
            ["outcome", "exit_status", "serving_pid", "new_pid", "reason", "helper_status", "status_errno"];
        let values = serde_json::json!(["failed", 21, 1234, null, "exec-failed", 21, 2]);
        assert_eq!(serde_json::json!(fields.map(|field| &record[field])), values);
    }

    #[test]
    fn a_refusal_and_an_error_say_so_in_a_word() {
        let record = json(Verdict::Refused(Refusal::NotReloadable), Drain::NotAwaited);
        assert_eq!((&record["outcome"], &record["reason"]), (&"refused".into(), &"not-reloadable".into()));
        let error = Error::AccessDenied { said: "no".into() };
        let line = Record::of_error("web.service", &error, "words\nmore", Exit::from(&error)).line();
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&record["outcome"], &record["exit_status"]), (&"error".into(), &4.into()));
        assert!(!line.contains('\n'));
    }
}
