//! When a service counts as started, and who may say so: sd_notify(3).

use std::time::Duration;

use crate::check::Severity::{Error, Note, Warning};
use crate::check::rule::{Find, Rule, Whom, Wrong};
use crate::check::scene::{Scene, Way, program};
use crate::unit::{NotifyAccess, ServiceType};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "type-not-notify",
        severity: Error,
        whom: Whom::Handover,
        about: "the service says itself when it serves: Type=notify",
        manual: "systemd.service(5), Type=",
        find: Find::Service(type_not_notify),
    },
    Rule {
        name: "notify-reload-before-253",
        severity: Error,
        whom: Whom::All,
        about: "Type=notify-reload is only for systemd 253 and newer",
        manual: "systemd.service(5), Type=",
        find: Find::Service(notify_reload_before_253),
    },
    Rule {
        name: "notify-reload-after-262",
        severity: Note,
        whom: Whom::All,
        about: "since systemd 262 a service of Type=notify-reload must catch its signal before READY=1",
        manual: "systemd.service(5), Type=",
        find: Find::Service(notify_reload_after_262),
    },
    Rule {
        name: "notify-reload-asks-twice",
        severity: Warning,
        whom: Whom::Handover,
        about: "an upgrade is asked for once: by ExecReload=, and not by a signal, too",
        manual: "systemd.service(5), ReloadSignal=",
        find: Find::Service(notify_reload_asks_twice),
    },
    Rule {
        name: "notify-access-all",
        severity: Warning,
        whom: Whom::Handover,
        about: "only the main process speaks for the service",
        manual: "systemd.service(5), NotifyAccess=",
        find: Find::Service(notify_access_all),
    },
    Rule {
        name: "exit-type-cgroup",
        severity: Error,
        whom: Whom::Handover,
        about: "the end of the main process is the end of the service, also while older ones drain",
        manual: "systemd.service(5), ExitType=",
        find: Find::Service(exit_type_cgroup),
    },
    Rule {
        name: "remain-after-exit",
        severity: Error,
        whom: Whom::Handover,
        about: "a service whose process is gone does not count as active",
        manual: "systemd.service(5), RemainAfterExit=",
        find: Find::Service(remain_after_exit),
    },
    Rule {
        name: "shell-is-main",
        severity: Error,
        whom: Whom::Handover,
        about: "the main process is the service, not a shell that waits for it",
        manual: "systemd.service(5), ExecStart=",
        find: Find::Service(shell_is_main),
    },
    Rule {
        name: "start-timeout-too-short",
        severity: Warning,
        whom: Whom::Handover,
        about: "TimeoutStartSec=, which bounds a reload as well, is longer than a new process may take to be ready",
        manual: "systemd.service(5), TimeoutStartSec=",
        find: Find::Service(start_timeout_too_short),
    },
    Rule {
        name: "start-timeout-infinite",
        severity: Note,
        whom: Whom::Handover,
        about: "a reload that hangs comes to an end",
        manual: "systemd.service(5), TimeoutStartSec=",
        find: Find::Service(start_timeout_infinite),
    },
    Rule {
        name: "watchdog-too-short",
        severity: Warning,
        whom: Whom::Handover,
        about: "the watchdog outlasts an upgrade, in which old and new process share the processors",
        manual: "systemd.service(5), WatchdogSec=",
        find: Find::Service(watchdog_too_short),
    },
];

/// How long a successor of the library's may take by default.
const INIT: Duration = Duration::from_secs(60);

fn type_not_notify(scene: &Scene<'_>) -> Option<Wrong> {
    let notifies = matches!(scene.service.kind, ServiceType::Notify | ServiceType::NotifyReload);
    (!notifies).then(|| {
        let why = "systemd does not wait for READY=1, so that neither a start nor an upgrade is known to have \
                   worked, and a new main process is not believed";
        scene.line("Type").mended("Service", ["Type=notify"], why)
    })
}

fn notify_reload_before_253(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.kind == ServiceType::NotifyReload && !scene.version.has(253)).then(|| {
        let why = format!(
            "systemd {} does not know Type=notify-reload and takes Type=simple: it waits for no readiness, and \
             cannot reload",
            scene.version
        );
        scene.line("Type").mended("Service", ["Type=notify"], why)
    })
}

fn notify_reload_after_262(scene: &Scene<'_>) -> Option<Wrong> {
    let concerned = scene.service.kind == ServiceType::NotifyReload && scene.way == Way::Other;
    (concerned && scene.version.has(262) && !scene.is_of_systemd()).then(|| {
        let why = "since systemd 262 the start fails with the result `protocol`, unless the main process catches \
                   or blocks ReloadSignal= when it says READY=1";
        scene.line("Type").mended("Service", ["Type=notify"], why)
    })
}

fn notify_reload_asks_twice(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.kind == ServiceType::NotifyReload && scene.version.has(253)).then(|| {
        let why = if scene.service.exec_reload.is_empty() {
            "a reload by signal cannot fail: systemd reports an upgrade as done that was not"
        } else {
            "systemd sends ReloadSignal= besides running ExecReload=, and which comes first depends on its version"
        };
        scene.line("Type").mended("Service", ["Type=notify"], why)
    })
}

fn notify_access_all(scene: &Scene<'_>) -> Option<Wrong> {
    let wide = matches!(scene.service.notify_access, NotifyAccess::All | NotifyAccess::Exec);
    wide.then(|| {
        let why = "any process of the service can say STOPPING=1 or MAINPID= for all of it, also one that drains \
                   or a helper that it has started";
        scene.line("NotifyAccess").mended("Service", ["NotifyAccess=main"], why)
    })
}

fn exit_type_cgroup(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.value("ExitType") == Some("cgroup")).then(|| {
        let why = "a crash of the main process goes unnoticed until the last older process has drained";
        scene.line("ExitType").mended("Service", ["ExitType=main"], why)
    })
}

fn remain_after_exit(scene: &Scene<'_>) -> Option<Wrong> {
    scene.service.remain_after_exit.then(|| {
        let why = "a service that exits with 0 stays `active` with nobody serving, and is not started again";
        scene.line("RemainAfterExit").mended("Service", ["RemainAfterExit=no"], why)
    })
}

fn shell_is_main(scene: &Scene<'_>) -> Option<Wrong> {
    let command = scene.service.exec_start.first()?;
    let shell = ["sh", "bash", "dash", "ash", "zsh"].contains(&program(command));
    let [_, option, script] = &command.words[..] else { return None };
    if !shell || option != "-c" || script.split([' ', ';', '&']).any(|word| word == "exec") {
        return None;
    }
    let line = scene.unit.values("Service", "ExecStart").into_iter().next_back()?;
    let last = script.rsplit([';', '&', '|']).next()?.trim_start();
    let mended = line.value.rfind(last).filter(|_| !last.is_empty()).map(|at| {
        let (before, after) = line.value.split_at(at);
        format!("ExecStart={before}exec {after}")
    })?;
    let why = "systemd takes the shell for the main process, and hears nothing of what the service says";
    Some(scene.line("ExecStart").mended("Service", ["ExecStart=", &mended], why))
}

fn start_timeout_too_short(scene: &Scene<'_>) -> Option<Wrong> {
    let (needed, whose) = match scene.runner() {
        Some(runner) => (runner.ready, "--ready-timeout"),
        None => (INIT, "the init deadline of the library, unless the program has set another one"),
    };
    let timeout = scene.service.timeout_start.filter(|timeout| *timeout <= needed)?;
    let why = format!(
        "systemd ends a reload after {} s, before {whose} of {} s is over: an upgrade that fails so has no reason",
        timeout.as_secs_f64(),
        needed.as_secs_f64()
    );
    let mend = format!("TimeoutStartSec={}", needed.as_secs().saturating_add(30));
    Some(scene.at("Service", &["TimeoutStartSec", "TimeoutSec"]).mended("Service", [&mend], why))
}

fn start_timeout_infinite(scene: &Scene<'_>) -> Option<Wrong> {
    scene.service.timeout_start.is_none().then(|| {
        let why = "systemd never ends a start or a reload that hangs";
        let place = scene.at("Service", &["TimeoutStartSec", "TimeoutSec"]);
        place.mended("Service", ["TimeoutStartSec=90"], why)
    })
}

fn watchdog_too_short(scene: &Scene<'_>) -> Option<Wrong> {
    let watchdog = scene.service.watchdog.filter(|watchdog| *watchdog < Duration::from_secs(2))?;
    let why = format!(
        "the main process is killed when it is busy for {} s, and an upgrade is such a moment: the new one takes \
         over what the old one has left of that time",
        watchdog.as_secs_f64()
    );
    Some(scene.line("WatchdogSec").mended("Service", ["WatchdogSec=10"], why))
}
