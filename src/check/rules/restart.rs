//! What PID 1 does when the service ends: Restart=, and the limits after which it does nothing any more.

use std::time::Duration;

use crate::check::Severity::{Error, Note, Warning};
use crate::check::rule::{Find, Rule, Whom, Wrong};
use crate::check::scene::{Scene, Way};
use crate::unit::{ExitStatuses, Restart};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "no-restart",
        severity: Error,
        whom: Whom::Handover,
        about: "a crash is followed by a restart: Restart=always",
        manual: "systemd.service(5), Restart=",
        find: Find::Service(no_restart),
    },
    Rule {
        name: "restart-not-always",
        severity: Warning,
        whom: Whom::Handover,
        about: "every end that nobody asked for is followed by a restart: Restart=always",
        manual: "systemd.service(5), Restart=",
        find: Find::Service(restart_not_always),
    },
    Rule {
        name: "restart-prevented",
        severity: Warning,
        whom: Whom::Handover,
        about: "no exit status keeps the service down",
        manual: "systemd.service(5), RestartPreventExitStatus=",
        find: Find::Service(restart_prevented),
    },
    Rule {
        name: "restart-without-pause",
        severity: Warning,
        whom: Whom::Handover,
        about: "a service that crashes at once does not keep PID 1 busy: RestartSec=",
        manual: "systemd.service(5), RestartSec=",
        find: Find::Service(restart_without_pause),
    },
    Rule {
        name: "restart-too-late",
        severity: Warning,
        whom: Whom::Handover,
        about: "clients that wait in the queue of a socket do not wait for long: RestartSec=",
        manual: "systemd.service(5), RestartSec=",
        find: Find::Service(restart_too_late),
    },
    Rule {
        name: "start-limit",
        severity: Error,
        whom: Whom::All,
        about: "a service with a socket is started for ever: StartLimitIntervalSec=0",
        manual: "systemd.unit(5), StartLimitIntervalSec=",
        find: Find::Service(start_limit),
    },
    Rule {
        name: "start-limit-action",
        severity: Warning,
        whom: Whom::Handover,
        about: "a version that is no good does not reboot the machine",
        manual: "systemd.unit(5), StartLimitAction=",
        find: Find::Service(start_limit_action),
    },
    Rule {
        name: "exec-condition",
        severity: Note,
        whom: Whom::Handover,
        about: "nothing can skip a restart in silence",
        manual: "systemd.service(5), ExecCondition=",
        find: Find::Service(exec_condition),
    },
    Rule {
        name: "runtime-max",
        severity: Warning,
        whom: Whom::Handover,
        about: "the service does not end at a set time",
        manual: "systemd.service(5), RuntimeMaxSec=",
        find: Find::Service(runtime_max),
    },
    Rule {
        name: "stop-when-unneeded",
        severity: Warning,
        whom: Whom::Handover,
        about: "the service does not end because another unit does",
        manual: "systemd.unit(5), StopWhenUnneeded=",
        find: Find::Service(stop_when_unneeded),
    },
    Rule {
        name: "oom-policy",
        severity: Warning,
        whom: Whom::Handover,
        about: "an older process that the kernel kills for its memory does not take the newest with it",
        manual: "systemd.service(5), OOMPolicy=",
        find: Find::Service(oom_policy),
    },
];

fn no_restart(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.restart == Restart::No).then(|| {
        let why = "after a crash nobody serves, and the FD store is dropped";
        scene.line("Restart").mended("Service", ["Restart=always"], why)
    })
}

fn restart_not_always(scene: &Scene<'_>) -> Option<Wrong> {
    let restart = scene.service.restart;
    (restart != Restart::No && restart != Restart::Always).then(|| {
        let why = match restart {
            Restart::OnFailure => "a service that exits with 0 stays down, and its FD store is dropped",
            Restart::OnSuccess => "a service that crashes stays down, and its FD store is dropped",
            _ => "after many ends of the process the service stays down, and its FD store is dropped",
        };
        scene.line("Restart").mended("Service", ["Restart=always"], why)
    })
}

fn restart_prevented(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.restart_prevent_exit_status != ExitStatuses::default()).then(|| {
        let why =
            "a service that ends so stays down, and a socket unit is not told: its clients wait for nobody";
        scene.line("RestartPreventExitStatus").mended("Service", ["RestartPreventExitStatus="], why)
    })
}

fn restart_without_pause(scene: &Scene<'_>) -> Option<Wrong> {
    let restarts = scene.service.restart != Restart::No;
    (restarts && scene.service.restart_after == Some(Duration::ZERO)).then(|| {
        let why =
            "a service that crashes at its start is started as fast as PID 1 can, and does nothing else";
        scene.line("RestartSec").mended("Service", ["RestartSec=100ms"], why)
    })
}

fn restart_too_late(scene: &Scene<'_>) -> Option<Wrong> {
    let pause = scene.service.restart_after.unwrap_or(Duration::MAX);
    let restarts = scene.service.restart != Restart::No;
    (restarts && pause > Duration::from_secs(5)).then(|| {
        let why = "after a crash clients wait that long in the queue of the socket, and many give up before";
        scene.line("RestartSec").mended("Service", ["RestartSec=100ms"], why)
    })
}

/// Whether so many restarts come so fast that PID 1 gives up.
pub(super) fn reaches_start_limit(scene: &Scene<'_>) -> bool {
    let (limit, service) = (scene.service.common.start_limit, scene.service);
    let pause = service.restart_after.unwrap_or(Duration::MAX);
    let long = pause.checked_mul(limit.burst).unwrap_or(Duration::MAX);
    !limit.is_off() && service.restart != Restart::No && limit.interval.is_none_or(|interval| long < interval)
}

fn start_limit(scene: &Scene<'_>) -> Option<Wrong> {
    let limit = scene.service.common.start_limit;
    let streams = scene.listens().next().is_some();
    let promised = streams && scene.service.restart == Restart::Always && !scene.is_of_systemd();
    let concerned = scene.way != Way::Other || promised;
    (concerned && reaches_start_limit(scene)).then(|| {
        let within = limit.interval.map_or_else(String::new, |time| format!(" within {} s", time.as_secs_f64()));
        let why = format!(
            "after {} starts{within} PID 1 gives up, closes the sockets, resets who waits in them, and nothing starts \
             them again",
            limit.burst
        );
        let place = scene.at("Unit", &["StartLimitIntervalSec", "StartLimitInterval", "StartLimitBurst"]);
        place.mended("Unit", ["StartLimitIntervalSec=0"], why)
    })
}

fn start_limit_action(scene: &Scene<'_>) -> Option<Wrong> {
    let keys = ["StartLimitAction", "FailureAction"];
    let acts = |key: &&str| {
        let last = scene.unit.values("Unit", key).into_iter().next_back();
        last.is_some_and(|last| last.value != "none")
    };
    let key = keys.into_iter().find(acts)?;
    let why = "a new version that cannot start takes the whole machine down, and every other service with it";
    Some(scene.at("Unit", &[key]).mended("Unit", [&format!("{key}=none")], why))
}

fn exec_condition(scene: &Scene<'_>) -> Option<Wrong> {
    (!scene.service.exec_condition.is_empty()).then(|| {
        let why = "a condition that does not hold when PID 1 restarts the service leaves it down, without a failure";
        scene.line("ExecCondition").mended("Service", ["ExecCondition="], why)
    })
}

fn runtime_max(scene: &Scene<'_>) -> Option<Wrong> {
    scene.service.runtime_max.map(|_| {
        let why = "the time counts from the start of the unit, not from the last upgrade, and then the service fails";
        scene.line("RuntimeMaxSec").mended("Service", ["RuntimeMaxSec=infinity"], why)
    })
}

fn stop_when_unneeded(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.unit.flag("Unit", "StopWhenUnneeded") == Some(true)).then(|| {
        let why = "the service is stopped when the last unit that wants it is, whoever is connected";
        scene.at("Unit", &["StopWhenUnneeded"]).mended("Unit", ["StopWhenUnneeded=no"], why)
    })
}

fn oom_policy(scene: &Scene<'_>) -> Option<Wrong> {
    let policy = scene.value("OOMPolicy").filter(|policy| ["stop", "kill"].contains(policy))?;
    let why = format!(
        "with `{policy}` the kernel's choice of an older process that drains ends the one that serves"
    );
    Some(scene.line("OOMPolicy").mended("Service", ["OOMPolicy=continue"], why))
}
