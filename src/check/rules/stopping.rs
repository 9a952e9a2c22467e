//! How the processes of the service end, the one that serves and those that drain: systemd.kill(5).

use std::time::Duration;

use crate::check::Severity::{Error, Note, Warning};
use crate::check::rule::{Find, Rule, Whom, Wrong};
use crate::check::scene::{Scene, program};
use crate::unit::{KillMode, Signal};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "kill-mode-none",
        severity: Error,
        whom: Whom::Handover,
        about: "a stopped service has no processes",
        manual: "systemd.kill(5), KillMode=",
        find: Find::Service(kill_mode_none),
    },
    Rule {
        name: "kill-mode-process",
        severity: Error,
        whom: Whom::Library,
        about: "PID 1 also ends the processes that drain",
        manual: "systemd.kill(5), KillMode=",
        find: Find::Service(kill_mode_process),
    },
    Rule {
        name: "kill-mode-mixed",
        severity: Warning,
        whom: Whom::Library,
        about: "processes that drain get SIGTERM and time, as the main process does",
        manual: "systemd.kill(5), KillMode=",
        find: Find::Service(kill_mode_mixed),
    },
    Rule {
        name: "no-sigkill",
        severity: Error,
        whom: Whom::Handover,
        about: "a process that hangs does not keep the service from its next start",
        manual: "systemd.kill(5), SendSIGKILL=",
        find: Find::Service(no_sigkill),
    },
    Rule {
        name: "sighup-at-stop",
        severity: Warning,
        whom: Whom::Handover,
        about: "a stop is not an upgrade: no SIGHUP comes with it",
        manual: "systemd.kill(5), SendSIGHUP=",
        find: Find::Service(sighup_at_stop),
    },
    Rule {
        name: "kill-signal",
        severity: Error,
        whom: Whom::Handover,
        about: "the service is asked to stop by a signal that it knows: SIGTERM or SIGINT",
        manual: "systemd.kill(5), KillSignal=",
        find: Find::Service(kill_signal),
    },
    Rule {
        name: "restart-kill-signal",
        severity: Error,
        whom: Whom::Handover,
        about: "the same at a restart",
        manual: "systemd.kill(5), RestartKillSignal=",
        find: Find::Service(restart_kill_signal),
    },
    Rule {
        name: "stop-timeout-too-short",
        severity: Warning,
        whom: Whom::Handover,
        about: "TimeoutStopSec= is longer than work in flight may take",
        manual: "systemd.service(5), TimeoutStopSec=",
        find: Find::Service(stop_timeout_too_short),
    },
    Rule {
        name: "stop-timeout-infinite",
        severity: Note,
        whom: Whom::Handover,
        about: "a process that hangs does not hold up a restart for ever",
        manual: "systemd.service(5), TimeoutStopSec=",
        find: Find::Service(stop_timeout_infinite),
    },
    Rule {
        name: "exec-stop-kills",
        severity: Warning,
        whom: Whom::Handover,
        about: "nobody but PID 1 sends the signal to stop",
        manual: "systemd.service(5), ExecStop=",
        find: Find::Service(exec_stop_kills),
    },
    Rule {
        name: "exec-stop-skipped",
        severity: Note,
        whom: Whom::Handover,
        about: "what must run at each stop does not hang on ExecStop=",
        manual: "systemd.service(5), ExecStop=",
        find: Find::Service(exec_stop_skipped),
    },
];

/// How long work in flight may take by default, of a service on the library.
const DRAIN: Duration = Duration::from_secs(30);

fn kill_mode_none(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.kill.mode == KillMode::None).then(|| {
        let mode = if scene.runner().is_some() { "KillMode=process" } else { "KillMode=control-group" };
        let why = "nobody is ever asked to stop: a stopped service serves on, beside the next one";
        scene.line("KillMode").mended("Service", [mode], why)
    })
}

fn kill_mode_process(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.kill.mode == KillMode::Process).then(|| {
        let why = "processes that drain are left over by a stop, and nobody ends them when their time is up";
        scene.line("KillMode").mended("Service", ["KillMode=control-group"], why)
    })
}

fn kill_mode_mixed(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.kill.mode == KillMode::Mixed).then(|| {
        let why = "processes that drain get SIGKILL the moment the main process has ended, in the midst of a request";
        scene.line("KillMode").mended("Service", ["KillMode=control-group"], why)
    })
}

fn no_sigkill(scene: &Scene<'_>) -> Option<Wrong> {
    (!scene.service.kill.send_sigkill).then(|| {
        let why = "systemd refuses to start the service as long as a process is left over, and ends none that hangs";
        scene.line("SendSIGKILL").mended("Service", ["SendSIGKILL=yes"], why)
    })
}

fn sighup_at_stop(scene: &Scene<'_>) -> Option<Wrong> {
    scene.service.kill.send_sighup.then(|| {
        let why = "SIGHUP asks for an upgrade, here of a service that is told to stop";
        scene.line("SendSIGHUP").mended("Service", ["SendSIGHUP=no"], why)
    })
}

/// Whether a service of handover's stops at this signal.
fn stops_at(signal: Signal) -> bool {
    [Signal::TERM, Signal::INT].contains(&signal)
}

fn kill_signal(scene: &Scene<'_>) -> Option<Wrong> {
    (!stops_at(scene.service.kill.signal)).then(|| {
        let why = "handover stops at SIGTERM or SIGINT, and another signal kills it with all that it does, or does nothing";
        scene.line("KillSignal").mended("Service", ["KillSignal=SIGTERM"], why)
    })
}

fn restart_kill_signal(scene: &Scene<'_>) -> Option<Wrong> {
    scene.service.kill.restart_signal.filter(|signal| !stops_at(*signal)).map(|_| {
        let why = "at a restart handover stops at SIGTERM or SIGINT, and stashes nothing at another signal";
        scene.line("RestartKillSignal").mended("Service", ["RestartKillSignal=SIGTERM"], why)
    })
}

fn stop_timeout_too_short(scene: &Scene<'_>) -> Option<Wrong> {
    let (needed, whose) = match scene.runner() {
        Some(runner) => (runner.stop, "the program may take by --stop-timeout"),
        None => (DRAIN, "the drain deadline of the library is, unless the program has set another one"),
    };
    let timeout = scene.service.timeout_stop.filter(|timeout| *timeout < needed)?;
    let why = format!(
        "PID 1 kills what is left after {} s, before the {} s are over which {whose}",
        timeout.as_secs_f64(),
        needed.as_secs_f64()
    );
    let mend = format!("TimeoutStopSec={}", needed.as_secs().saturating_add(15));
    Some(scene.at("Service", &["TimeoutStopSec", "TimeoutSec"]).mended("Service", [&mend], why))
}

fn stop_timeout_infinite(scene: &Scene<'_>) -> Option<Wrong> {
    scene.service.timeout_stop.is_none().then(|| {
        let why = "a restart waits for a process that hangs for ever, and clients with it";
        scene.at("Service", &["TimeoutStopSec", "TimeoutSec"]).mended("Service", ["TimeoutStopSec=90"], why)
    })
}

fn exec_stop_kills(scene: &Scene<'_>) -> Option<Wrong> {
    let kills = |name: &str| ["kill", "pkill", "killall", "start-stop-daemon"].contains(&name);
    scene.service.exec_stop.iter().any(|command| kills(program(command))).then(|| {
        let why = "a signal by name or to $MAINPID misses the processes that drain, or hits them twice; PID 1 sends \
                   SIGTERM to all of them by itself";
        scene.line("ExecStop").mended("Service", ["ExecStop="], why)
    })
}

fn exec_stop_skipped(scene: &Scene<'_>) -> Option<Wrong> {
    let skipped = !scene.service.exec_stop.is_empty() && exec_stop_kills(scene).is_none();
    skipped.then(|| {
        let lines = scene.unit.values("Service", "ExecStop");
        let moved = lines.into_iter().map(|line| format!("ExecStopPost={}", line.value));
        let why = "a stop in the midst of an upgrade skips ExecStop=, and so does a crash; ExecStopPost= runs always";
        let mut wrong = scene.line("ExecStop").mended("Service", ["ExecStop="], why);
        if let Some(mend) = &mut wrong.mend {
            mend.lines.extend(moved);
        }
        wrong
    })
}
