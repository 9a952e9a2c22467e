//! What became of an upgrade: two looks at the service and what was seen between them, judged.
//!
//! Pure, and suspicious: a job that is `done` proves nothing. systemd 252 and 257 say `done` of a
//! service that ended cleanly in the middle of its reload, and every version says it of a reload that
//! changed no process.

use super::state::{ActiveState, Helper, Snapshot};
use crate::upgrade::status;

/// Why nothing was tried: the service is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// systemd does not take this for the name of a unit.
    BadName {
        /// What it said of it.
        said: String,
    },
    /// The unit is no service.
    NotAService,
    /// There is no such unit.
    NotFound,
    /// The unit is masked.
    Masked,
    /// The unit's files could not be read.
    Broken {
        /// LoadState=.
        load_state: String,
    },
    /// The service does not run.
    NotActive {
        /// What it does instead.
        state: ActiveState,
    },
    /// The service is active without a main process.
    NoMainProcess {
        /// SubState=, `exited` for one.
        sub_state: String,
    },
    /// The service has no ExecReload= and is no Type=notify-reload.
    NotReloadable,
    /// Another job of the unit is queued and rules out a reload.
    Busy {
        /// What systemd said of it.
        said: String,
    },
}

/// Why an upgrade failed, in the words of the service: its STATUS= of the form
/// `upgrade failed: <name>: <text>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A word for programs: lower case letters, digits and `-`.
    pub name: String,
    /// A sentence for people, perhaps empty.
    pub text: String,
}

impl Reason {
    /// Reads a reason from a STATUS= text, if it is one.
    pub fn from_status(text: &str) -> Option<Self> {
        let (name, text) = status::read(text)?;
        Some(Self { name: name.to_owned(), text: text.to_owned() })
    }
}

/// An upgrade that did not come about, with all that is known of why. The service lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The main process before.
    pub old: u32,
    /// The main process now: the same, unless the reload failed after the switch.
    pub serving: u32,
    /// The service's own reason, if it gave one during this reload.
    pub reason: Option<Reason>,
    /// The STATUS= text of the service, if there is one.
    pub status: Option<String>,
    /// Whether the service set that text during this reload: only then does it explain it.
    pub status_is_new: bool,
    /// The ERRNO= of the service, if it set one with that text.
    pub errno: Option<i32>,
    /// The ExecReload= line that failed.
    pub helper: Option<Helper>,
    /// How systemd says that the job ended: `done`, `failed`, `canceled`, `timeout`, ...
    pub job: String,
    /// How systemd says that the reload went: `success`, `exit-code`, `timeout`, ...
    pub reload_result: String,
}

/// What became of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The new process serves, and the unit never left `active`.
    Switched {
        /// The main process before.
        old: u32,
        /// The main process now.
        new: u32,
    },
    /// No new process took over, or systemd calls the reload a failure. The service lives.
    Failed(Failure),
    /// Nothing was tried.
    Refused(Refusal),
    /// The service ended during the reload, and systemd has started it afresh.
    Restarted {
        /// The main process before.
        old: u32,
        /// The main process now.
        new: u32,
    },
    /// The service ended during the reload, and nobody serves.
    Died {
        /// The main process before.
        old: u32,
        /// What the unit is now.
        state: ActiveState,
        /// The same in the words of this type of unit.
        sub_state: String,
        /// Result=: why it ended.
        result: String,
    },
    /// The time is up, and the reload is still under way.
    Pending {
        /// The main process so far.
        serving: u32,
        /// The ExecReload= line that runs, as a pid.
        helper: Option<u32>,
    },
}

/// What the signals between the two looks told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// An ActiveState= in which the service does not serve.
    pub(crate) left_active: bool,
    /// The STATUS= text changed.
    pub(crate) status_changed: bool,
}

/// All that a verdict rests on.
#[derive(Debug)]
pub(crate) struct Observation {
    /// The service before the reload was asked for.
    pub(crate) before: Snapshot,
    /// What happened between.
    pub(crate) seen: Seen,
    /// How the job ended; `None` when it has not.
    pub(crate) job: Option<String>,
    /// The service afterwards.
    pub(crate) after: Snapshot,
}

/// Whether the service cannot be upgraded at all as it is.
pub(crate) fn refuse(service: &Snapshot) -> Option<Refusal> {
    match service.load_state.as_str() {
        "loaded" => {}
        // Also when it runs on without its file: systemd refuses to reload that.
        "not-found" => return Some(Refusal::NotFound),
        "masked" => return Some(Refusal::Masked),
        _ => return Some(Refusal::Broken { load_state: service.load_state.clone() }),
    }
    if !service.active.serves() {
        return Some(Refusal::NotActive { state: service.active });
    }
    if !service.can_reload {
        return Some(Refusal::NotReloadable);
    }
    (service.main_pid == 0).then(|| Refusal::NoMainProcess { sub_state: service.sub_state.clone() })
}

/// Judges an upgrade. The service's life comes first, then who serves, then what systemd says.
pub(crate) fn judge(seen: &Observation) -> Verdict {
    let (old, new) = (seen.before.main_pid, seen.after.main_pid);
    if let Some(end) = survival(seen) {
        return end;
    }
    let Some(job) = &seen.job else {
        let helper = Some(seen.after.control_pid).filter(|&pid| pid != 0);
        return Verdict::Pending { serving: new, helper };
    };
    if job == "done" && seen.after.reload_result == "success" {
        if new != old {
            return Verdict::Switched { old, new };
        }
        if let Some((old, new)) = generations(seen) {
            return Verdict::Switched { old, new };
        }
    }
    Verdict::Failed(failure(seen, job))
}

/// The processes of two generations under `handover run`, which is the main process of both.
fn generations(seen: &Observation) -> Option<(u32, u32)> {
    let [before, after] = [&seen.before, &seen.after].map(|look| status::read_generation(&look.status));
    let ((older, old), (newer, new)) = (before?, after?);
    (newer > older).then_some((old, new))
}

/// What became of the service if it did not live through the reload; `None` if it did.
pub(crate) fn survival(seen: &Observation) -> Option<Verdict> {
    let (before, after) = (&seen.before, &seen.after);
    let (old, new) = (before.main_pid, after.main_pid);
    if !after.active.serves() || new == 0 {
        let (state, sub_state, result) = (after.active, after.sub_state.clone(), after.result.clone());
        return Some(Verdict::Died { old, state, sub_state, result });
    }
    (seen.seen.left_active || after.invocation != before.invocation)
        .then_some(Verdict::Restarted { old, new })
}

/// Gathers why a service that lives was not upgraded.
fn failure(seen: &Observation, job: &str) -> Failure {
    let after = &seen.after;
    let status = Some(after.status.clone()).filter(|text| !text.is_empty());
    // A text from before may tell of an earlier upgrade.
    let status_is_new = seen.seen.status_changed || after.status != seen.before.status;
    Failure {
        old: serving(&seen.before),
        serving: serving(after),
        reason: status.as_deref().filter(|_| status_is_new).and_then(Reason::from_status),
        errno: Some(after.errno).filter(|&errno| status_is_new && errno != 0),
        status,
        status_is_new,
        helper: after.helpers.iter().rfind(|h| h.failed() && !ran_before(h, &seen.before)).cloned(),
        job: job.to_owned(),
        reload_result: after.reload_result.clone(),
    }
}

/// Who serves: under a runner its live generation.
pub(crate) fn serving(look: &Snapshot) -> u32 {
    status::read_generation(&look.status).map_or(look.main_pid, |(_, pid)| pid)
}

/// Whether this run of an ExecReload= line is older than the reload that is judged.
pub(crate) fn ran_before(helper: &Helper, before: &Snapshot) -> bool {
    let run = |h: &Helper| (h.pid, h.started_usec);
    before.helpers.iter().any(|earlier| run(earlier) == run(helper))
}

#[cfg(test)]
mod tests {
    use super::super::state::End;
    use super::*;

    /// A service that runs as 1234 since its start number 1.
    fn running() -> Snapshot {
        Snapshot {
            load_state: "loaded".into(),
            can_reload: true,
            outdated: false,
            status: String::new(),
            errno: 0,
            helpers: vec![helper(900, 1, End::Exited(0))],
            reload_result: "success".into(),
            result: "success".into(),
            control_pid: 0,
            main_pid: 1234,
            sub_state: "running".into(),
            active: ActiveState::Active,
            invocation: vec![1],
        }
    }

    fn helper(pid: u32, started_usec: u64, end: End) -> Helper {
        Helper { command: vec!["reload".into()], pid, started_usec, end: Some(end), may_fail: false }
    }

    /// A reload of `running()` with job result `job`, after which the service is as `change` makes it.
    fn after(job: &str, change: impl FnOnce(&mut Observation)) -> Verdict {
        let (before, after, job) = (running(), running(), Some(job.to_owned()));
        let mut seen = Observation { before, after, job, seen: Seen::default() };
        change(&mut seen);
        judge(&seen)
    }

    fn failed(verdict: Verdict) -> Failure {
        match verdict {
            Verdict::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn under_a_runner_the_generation_changes_and_the_main_process_does_not() {
        let generation = |number, pid| status::write_generation(number, pid);
        let verdict =
            |old: String, new: String| after("done", |o| (o.before.status, o.after.status) = (old, new));
        let switched = verdict(generation(1, 70), format!("{}; 1 older ones drain", generation(2, 80)));
        assert_eq!(switched, Verdict::Switched { old: 70, new: 80 });
        let failed = failed(verdict(generation(1, 70), generation(1, 70)));
        assert_eq!((failed.old, failed.serving), (70, 70));
    }

    #[test]
    fn a_new_main_process_in_the_same_life_of_the_unit_is_a_switch() {
        let verdict = after("done", |o| o.after.main_pid = 1250);
        assert_eq!(verdict, Verdict::Switched { old: 1234, new: 1250 });
        let again = after("done", |o| {
            o.after.main_pid = 1250;
            o.after.active = ActiveState::Reloading;
        });
        assert_eq!(again, Verdict::Switched { old: 1234, new: 1250 });
    }

    #[test]
    fn a_job_that_is_done_proves_nothing() {
        assert_eq!(failed(after("done", |_| {})).serving, 1234);
        let ended = after("done", |o| {
            (o.after.main_pid, o.after.active) = (0, ActiveState::Inactive);
            o.after.sub_state = "dead".into();
        });
        assert!(matches!(ended, Verdict::Died { old: 1234, state: ActiveState::Inactive, .. }));
        let waits = after("done", |o| (o.after.main_pid, o.after.active) = (0, ActiveState::Activating));
        assert!(matches!(waits, Verdict::Died { .. }));
        let lame = after("done", |o| {
            o.after.main_pid = 1250;
            o.after.reload_result = "exit-code".into();
        });
        assert_eq!(failed(lame).serving, 1250);
    }

    #[test]
    fn a_new_main_process_in_a_new_life_of_the_unit_is_a_restart() {
        let new_life = after("done", |o| (o.after.main_pid, o.after.invocation) = (1250, vec![2]));
        assert_eq!(new_life, Verdict::Restarted { old: 1234, new: 1250 });
        let seen_down = after("done", |o| {
            o.after.main_pid = 1250;
            o.seen.left_active = true;
        });
        assert_eq!(seen_down, Verdict::Restarted { old: 1234, new: 1250 });
    }

    #[test]
    fn a_failed_helper_is_named_with_its_end_and_the_reason_the_service_gave() {
        let failure = failed(after("failed", |o| {
            o.after.reload_result = "exit-code".into();
            o.after.helpers = vec![helper(1240, 2, End::Exited(21))];
            o.after.status = "upgrade failed: exec-failed: /usr/bin/web: No such file".into();
            o.after.errno = 2;
        }));
        let reason = Reason { name: "exec-failed".into(), text: "/usr/bin/web: No such file".into() };
        assert_eq!(failure.reason, Some(reason));
        assert_eq!((failure.errno, failure.serving), (Some(2), 1234));
        assert_eq!(failure.helper.and_then(|h| h.end), Some(End::Exited(21)));
    }

    #[test]
    fn what_an_earlier_reload_left_behind_explains_nothing() {
        let stale = |o: &mut Observation| {
            for side in [&mut o.before, &mut o.after] {
                side.status = "upgrade failed: hung: no word".into();
                side.helpers = vec![helper(900, 1, End::Exited(21))];
            }
        };
        let failure = failed(after("failed", stale));
        assert_eq!((failure.reason, failure.status_is_new, failure.helper), (None, false, None));
        let repeated = failed(after("failed", |o| {
            stale(o);
            o.seen.status_changed = true;
        }));
        assert_eq!(repeated.reason.map(|r| r.name).as_deref(), Some("hung"));
    }

    #[test]
    fn when_the_time_is_up_the_helper_that_still_runs_is_named_unless_the_service_is_dead() {
        let late = after("", |o| (o.job, o.after.control_pid) = (None, 1240));
        assert_eq!(late, Verdict::Pending { serving: 1234, helper: Some(1240) });
        let dead = after("", |o| (o.job, o.after.main_pid) = (None, 0));
        assert!(matches!(dead, Verdict::Died { .. }));
    }

    #[test]
    fn a_service_that_cannot_be_upgraded_as_it_is_is_refused_with_the_first_thing_to_mend() {
        let why = |change: &dyn Fn(&mut Snapshot)| {
            let mut service = running();
            change(&mut service);
            refuse(&service)
        };
        assert_eq!(why(&|_| {}), None);
        assert_eq!(why(&|s| s.active = ActiveState::Reloading), None);
        assert_eq!(why(&|s| s.load_state = "not-found".into()), Some(Refusal::NotFound));
        assert_eq!(why(&|s| s.load_state = "masked".into()), Some(Refusal::Masked));
        let broken = Refusal::Broken { load_state: "bad-setting".into() };
        assert_eq!(why(&|s| s.load_state = "bad-setting".into()), Some(broken));
        let stopped = Refusal::NotActive { state: ActiveState::Inactive };
        let stop = |s: &mut Snapshot| (s.active, s.can_reload) = (ActiveState::Inactive, false);
        assert_eq!(why(&stop), Some(stopped));
        assert_eq!(why(&|s| s.can_reload = false), Some(Refusal::NotReloadable));
        let exited = Refusal::NoMainProcess { sub_state: "running".into() };
        assert_eq!(why(&|s| s.main_pid = 0), Some(exited));
    }
}
