//! What stands in the way of the next upgrade, or of what it is to keep. Pure.

use serde::Serialize;

use crate::manager::facts::Facts;
use crate::manager::{ActiveState, Refusal, refuse};
use crate::upgrade::Standing;

/// Something in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Obstacle {
    /// A name for programs.
    pub name: &'static str,
    /// What it is, and what to do about it.
    pub why: String,
    /// An upgrade is refused, or fails; else it is only not what one would expect.
    pub stops: bool,
}

/// All that is known.
pub(super) fn find(facts: &Facts, standing: Option<&Standing>) -> Vec<Obstacle> {
    let mut all = Vec::new();
    let mut add = |name, stops, why: String| all.push(Obstacle { name, why, stops });
    let unit = &facts.unit;
    if let Some(why) = refuse(&facts.look) {
        let (name, why) = refusal(&why, facts);
        add(name, true, why);
    }
    if facts.look.outdated {
        let why = "the unit's files have changed since they were read: systemctl daemon-reload";
        add("need-daemon-reload", false, why.to_owned());
    }
    if standing.is_some_and(|one| one.under_way) || facts.look.active == ActiveState::Reloading {
        add("under-way", true, "an upgrade is under way: wait for its end".to_owned());
    } else if facts.has_job {
        add("busy", true, format!("a job of the unit waits: systemctl list-jobs {unit}"));
    }
    if let Some(one) = standing.filter(|one| one.most_draining > 0)
        && one.draining.len() as u64 >= one.most_draining
    {
        let (count, most) = (one.draining.len(), one.most_draining);
        // A runner has its callers wait.
        let why = format!("{count} older processes still drain, and {most} may: wait for one of them");
        add("too-many-draining", !one.is_runner, why);
    }
    if facts.store.is_full() {
        let why = format!(
            "the FD store takes no more ({} of {}): what comes now does not survive a crash; raise \
             FileDescriptorStoreMax= and LimitNOFILE=",
            facts.store.held, facts.store.most
        );
        add("store-full", false, why);
    }
    if let Some(closed) = facts.sockets.iter().find(|socket| socket.active != "active") {
        let why = format!("{} is {}: systemctl start {}", closed.unit, closed.active, closed.unit);
        add("socket-not-active", false, why);
    }
    all
}

/// Why there can be no upgrade, and what to do.
fn refusal(why: &Refusal, facts: &Facts) -> (&'static str, String) {
    let unit = &facts.unit;
    match why {
        Refusal::NotFound => ("not-found", "there is no such unit".to_owned()),
        Refusal::Masked => ("masked", format!("it is masked: systemctl unmask {unit}")),
        Refusal::NotActive { .. } if facts.look.result == "start-limit-hit" => {
            let why = "it was started too often: mend it, then systemctl reset-failed and start; \
                       StartLimitIntervalSec=0 has it tried for ever";
            ("start-limit-hit", why.to_owned())
        }
        Refusal::NotActive { state } => {
            ("not-active", format!("it is {}: systemctl start {unit}", state.word()))
        }
        Refusal::NotReloadable => {
            ("not-reloadable", "it has no ExecReload=: add ExecReload=/usr/bin/handover reload".to_owned())
        }
        Refusal::NoMainProcess { .. } => ("no-main-process", "it has no main process".to_owned()),
        other => ("unusable", format!("its files cannot be used: {other:?}")),
    }
}
