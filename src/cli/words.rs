//! What people read about an upgrade: one line a unit, and what to do next when it did not go well.

use crate::manager::{ActiveState, Drain, Error, Failure, FdStore, Reason, Refusal, Report, Scope, Verdict};

/// Finds the words for one manager.
pub(crate) struct Words {
    /// How the reader reaches the same manager.
    systemctl: &'static str,
}

impl Words {
    /// Words for those who ask the manager of `scope`.
    pub(crate) fn new(scope: Scope) -> Self {
        let systemctl = match scope {
            Scope::System => "systemctl",
            Scope::User => "systemctl --user",
        };
        Self { systemctl }
    }

    /// Words for those who ask a stand-in.
    pub(crate) fn of_standin() -> Self {
        Self { systemctl: "handover ctl" }
    }

    /// One line about one upgrade. Text of the service's is in it: nothing in it moves the cursor.
    pub(crate) fn report(&self, report: &Report) -> String {
        let (unit, systemctl, seconds) = (&report.unit, self.systemctl, report.took.as_secs_f64());
        let text = match &report.verdict {
            Verdict::Switched { old, new } => {
                format!("{old} -> {new} switched in {seconds:.2} s{}", drain(*old, report.drain))
            }
            Verdict::Failed(failure) => format!("upgrade failed{}; {}", why(failure), serving(failure)),
            Verdict::Refused(refusal) => self.refusal(unit, refusal),
            Verdict::Restarted { old, new } => format!(
                "{old} did not survive the upgrade: the unit left `active`, and systemd started it \
                 afresh; {new} is serving now; {systemctl} status {unit} shows the log"
            ),
            Verdict::Died { old, state, sub_state, result } => {
                let state = state.word();
                let detail = if sub_state == state { String::new() } else { format!(" ({sub_state})") };
                format!(
                    "{old} did not survive the upgrade: the unit is {state}{detail}, result {result}; \
                     nobody is serving; {systemctl} status {unit} shows the log"
                )
            }
            Verdict::Pending { serving, helper } => {
                let helper = helper.map_or(String::new(), |pid| format!(", helper {pid} is at work"));
                format!("still reloading after {seconds:.2} s{helper}; {serving} is still serving")
            }
        };
        plain(&format!("{unit}: {text}"))
    }

    /// Why nothing was tried, and what to do about it.
    fn refusal(&self, unit: &str, why: &Refusal) -> String {
        let systemctl = self.systemctl;
        match why {
            Refusal::BadName { said } => format!("no unit can have this name: {said}"),
            Refusal::NotAService => String::from("this is no service, and only services can be upgraded"),
            Refusal::NotFound => {
                format!("there is no such unit; {systemctl} list-units --type=service shows those there are")
            }
            Refusal::Masked => format!("it is masked: first {systemctl} unmask {unit}"),
            Refusal::Broken { load_state } => {
                format!("its files cannot be read ({load_state}): {systemctl} status {unit} says why")
            }
            Refusal::NotActive { state: state @ (ActiveState::Activating | ActiveState::Deactivating) } => {
                format!("it is {}: wait until it is active", state.word())
            }
            Refusal::NotActive { state } => {
                format!("it is not active but {}: start it first: {systemctl} start {unit}", state.word())
            }
            Refusal::NoMainProcess { sub_state } => {
                format!("it is active ({sub_state}) without a main process: there is nothing to upgrade")
            }
            Refusal::NotReloadable => String::from(
                "it has no way to reload: add ExecReload=/usr/bin/handover reload to its [Service] section",
            ),
            Refusal::Busy { said } => format!("another job of the unit comes first: {said}"),
        }
    }

    /// One line about a unit that nothing was done with.
    pub(crate) fn plainly(unit: &str, why: &str) -> String {
        plain(&format!("{unit}: {why}"))
    }

    /// What kept us from asking or knowing, and what to do about it.
    pub(crate) fn error(&self, unit: &str, error: &Error) -> String {
        let hint = match error {
            Error::AccessDenied { .. } if self.systemctl != "handover ctl" => access_hint(unit),
            _ => String::new(),
        };
        format!("{}{hint}", plain(&format!("{unit}: {error}")))
    }

    /// That the FD store takes no more, which systemd tells nobody.
    pub(crate) fn full(&self, unit: &str, store: FdStore) -> String {
        let FdStore { held, most } = store;
        plain(&format!(
            "{unit}: its FD store is full ({held} of {most}): what comes now does not survive a crash; raise \
             FileDescriptorStoreMax= and LimitNOFILE=, then {} daemon-reload",
            self.systemctl
        ))
    }

    /// That the unit's files are newer than what systemd knows.
    pub(crate) fn outdated(&self, unit: &str) -> String {
        let systemctl = self.systemctl;
        format!(
            "{unit}: its files have changed since systemd read them; for the new settings: \
             {systemctl} daemon-reload, then upgrade again"
        )
    }
}

/// What became of the old process, if anybody waited for it.
fn drain(old: u32, drain: Drain) -> String {
    match drain {
        Drain::Gone(after) => format!("; {old} was gone {:.2} s later", after.as_secs_f64()),
        Drain::Unfinished(after) => format!("; {old} still drains {:.2} s later", after.as_secs_f64()),
        Drain::NotAwaited => String::new(),
    }
}

/// Why an upgrade failed: in the service's words, else the helper's end, else systemd's result.
fn why(failure: &Failure) -> String {
    if let Some(reason) = &failure.reason {
        let text = if reason.text.is_empty() { String::new() } else { format!(": {}", reason.text) };
        return format!(" ({}){text}", reason.name);
    }
    let status = match &failure.status {
        Some(text) if failure.status_is_new => format!("; its status is: {text}"),
        Some(text) if Reason::from_status(text).is_some() => format!("; its status was and is: {text}"),
        _ => String::new(),
    };
    let cause = match (&failure.helper, failure.job.as_str(), failure.reload_result.as_str()) {
        (_, _, "timeout") => String::from("the reload took longer than TimeoutStartSec= allows"),
        (Some(helper), ..) => match helper.end {
            Some(end) => format!("`{}` {end}", helper.command.join(" ")),
            None => format!("`{}` did not end", helper.command.join(" ")),
        },
        (None, "done", "success") => String::from(
            "the reload ended well, but no new process took over (is this service made to be upgraded so?)",
        ),
        (None, "done" | "failed", result) => format!("systemd calls the reload a failure: {result}"),
        (None, job, _) => format!("the reload's job was {job}"),
    };
    format!(": {cause}{status}")
}

/// Who serves after a failed upgrade.
fn serving(failure: &Failure) -> String {
    let Failure { old, serving, .. } = failure;
    if serving == old {
        format!("{serving} is still serving")
    } else {
        format!("{serving} took over from {old} all the same, and is serving")
    }
}

/// How somebody who is not root gets permission for exactly this.
fn access_hint(unit: &str) -> String {
    format!(
        r#"
  Run it as root; or, for a service of your own manager, with --user;
  or let a polkit rule allow it, in /etc/polkit-1/rules.d/50-handover.rules:
    polkit.addRule(function(action, subject) {{
        if (action.id == "org.freedesktop.systemd1.manage-units" &&
            action.lookup("unit") == "{unit}" && action.lookup("verb") == "reload" &&
            subject.user == "NAME") return polkit.Result.YES;
    }});"#
    )
}

/// Without control characters, which a service may have put into its status.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::{End, Helper};
    use std::time::Duration;

    fn line(verdict: Verdict, drain: Drain) -> String {
        let (unit, took) = ("web.service".into(), Duration::from_millis(212));
        Words::new(Scope::System).report(&Report { unit, verdict, took, drain, outdated: false, store: None })
    }

    fn failure() -> Failure {
        let command = vec!["/usr/bin/handover".into(), "reload".into()];
        let helper =
            Helper { command, pid: 1240, started_usec: 1, end: Some(End::Exited(21)), may_fail: false };
        Failure {
            old: 1234,
            serving: 1234,
            reason: None,
            status: None,
            status_is_new: false,
            errno: None,
            helper: Some(helper),
            job: "failed".into(),
            reload_result: "exit-code".into(),
        }
    }

    #[test]
    fn a_switch_is_one_line_with_both_processes_and_the_time() {
        let switched = Verdict::Switched { old: 1234, new: 1250 };
        assert_eq!(line(switched.clone(), Drain::NotAwaited), "web.service: 1234 -> 1250 switched in 0.21 s");
        assert_eq!(
            line(switched, Drain::Gone(Duration::from_millis(3100))),
            "web.service: 1234 -> 1250 switched in 0.21 s; 1234 was gone 3.10 s later"
        );
    }

    #[test]
    fn a_failure_says_why_as_well_as_anybody_knows_and_who_serves() {
        let told = |change: &dyn Fn(&mut Failure)| {
            let mut failure = failure();
            change(&mut failure);
            line(Verdict::Failed(failure), Drain::NotAwaited)
        };
        let reason = Reason { name: "exec-failed".into(), text: "/usr/bin/web: No such file".into() };
        assert_eq!(
            told(&|f| f.reason = Some(reason.clone())),
            "web.service: upgrade failed (exec-failed): /usr/bin/web: No such file; 1234 is still serving"
        );
        assert_eq!(
            told(&|_| {}),
            "web.service: upgrade failed: `/usr/bin/handover reload` exited with status 21; 1234 is still serving"
        );
        let unchanged = told(&|f| {
            (f.helper, f.job, f.reload_result) = (None, "done".into(), "success".into());
        });
        assert!(unchanged.contains("no new process took over"), "{unchanged}");
        let again = told(&|f| f.status = Some("upgrade failed: hung: no word".into()));
        assert!(again.contains("; its status was and is: upgrade failed: hung"), "{again}");
        let late = told(&|f| f.reload_result = "timeout".into());
        assert!(late.contains("longer than TimeoutStartSec= allows"), "{late}");
        let killed = told(&|f| f.serving = 1250);
        assert!(killed.ends_with("1250 took over from 1234 all the same, and is serving"), "{killed}");
    }

    #[test]
    fn what_a_service_says_cannot_move_the_cursor() {
        let status = Some(String::from("\u{1b}[2Jall is well\r"));
        let told =
            line(Verdict::Failed(Failure { status, status_is_new: true, ..failure() }), Drain::NotAwaited);
        assert!(!told.contains(char::is_control), "{told:?}");
    }

    #[test]
    fn who_is_not_allowed_is_told_three_ways_to_be() {
        let error = Error::AccessDenied { said: "Access denied".into() };
        let told = Words::new(Scope::System).error("web.service", &error);
        for way in
            ["as root", "--user", "org.freedesktop.systemd1.manage-units", "== \"web.service\"", "reload"]
        {
            assert!(told.contains(way), "{told}");
        }
    }
}
