//! What `systemctl reload` runs: the exit status of ExecReload= is the only way for an upgrade to fail.

use crate::check::Severity::{Error, Note, Warning};
use crate::check::rule::{Find, Rule, Whom, Wrong};
use crate::check::scene::{Scene, Way, is_handover, program};
use crate::unit::{Assignment, Command, Privilege, ServiceType};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "no-exec-reload",
        severity: Error,
        whom: Whom::Run,
        about: "the service can be upgraded at all: ExecReload=",
        manual: "systemd.service(5), ExecReload=",
        find: Find::Service(no_exec_reload),
    },
    Rule {
        name: "async-reload",
        severity: Error,
        whom: Whom::Storing,
        about: "ExecReload= ends when the upgrade has ended",
        manual: "systemd.service(5), ExecReload=",
        find: Find::Service(async_reload),
    },
    Rule {
        name: "exec-reload-may-fail",
        severity: Error,
        whom: Whom::Library,
        about: "a failed upgrade is a failed reload",
        manual: "systemd.service(5), ExecReload=",
        find: Find::Service(exec_reload_may_fail),
    },
    Rule {
        name: "exec-reload-privileged",
        severity: Error,
        whom: Whom::Library,
        about: "the new process runs with the user and the sandbox of the service",
        manual: "systemd.service(5), ExecReload=",
        find: Find::Service(exec_reload_privileged),
    },
    Rule {
        name: "exec-reload-goes-on",
        severity: Warning,
        whom: Whom::Library,
        about: "nothing runs after the upgrade that could fail it",
        manual: "systemd.service(5), ExecReload=",
        find: Find::Service(exec_reload_goes_on),
    },
    Rule {
        name: "exec-reload-by-shell",
        severity: Warning,
        whom: Whom::Handover,
        about: "`handover reload` is the control process itself",
        manual: "systemd.service(5), ExecReload=",
        find: Find::Service(exec_reload_by_shell),
    },
    Rule {
        name: "exec-reload-post-before-259",
        severity: Warning,
        whom: Whom::All,
        about: "ExecReloadPost= is only for systemd 259 and newer",
        manual: "systemd.service(5), ExecReloadPost=",
        find: Find::Service(exec_reload_post_before_259),
    },
    Rule {
        name: "no-syslog-identifier",
        severity: Note,
        whom: Whom::Handover,
        about: "the new process logs under the name of the service",
        manual: "systemd.exec(5), SyslogIdentifier=",
        find: Find::Service(no_syslog_identifier),
    },
];

fn no_exec_reload(scene: &Scene<'_>) -> Option<Wrong> {
    scene.service.exec_reload.is_empty().then(|| {
        let why = "without it `systemctl reload` is refused, and only a restart is left";
        let mend = format!("ExecReload={} reload", handover(scene));
        scene.line("ExecReload").mended("Service", [&mend], why)
    })
}

fn async_reload(scene: &Scene<'_>) -> Option<Wrong> {
    let kill = scene.service.exec_reload.iter().find(|command| sends_a_signal(command))?;
    if scene.service.kind == ServiceType::NotifyReload {
        return None;
    }
    let mend = format!("ExecReload={} reload", handover(scene));
    let why = "the reload is done when the signal is sent: nobody learns how the upgrade went, or when";
    let mut place = scene.line("ExecReload");
    (place.file, place.line) = (kill.place.file.clone(), Some(kill.place.line));
    Some(place.mended("Service", ["ExecReload=", &mend], why))
}

fn exec_reload_may_fail(scene: &Scene<'_>) -> Option<Wrong> {
    upgrade(scene).filter(|command| command.ignore_failure).map(|_| {
        let why = "with the \"-\" a failed upgrade is reported as one that worked";
        plain_reload(scene, why)
    })
}

fn exec_reload_privileged(scene: &Scene<'_>) -> Option<Wrong> {
    upgrade(scene).filter(|command| command.privilege != Privilege::Unit).map(|_| {
        let why = "with \"+\" or \"!\" the new process would not run as the user of the service, nor in its sandbox";
        plain_reload(scene, why)
    })
}

fn exec_reload_goes_on(scene: &Scene<'_>) -> Option<Wrong> {
    let commands = &scene.service.exec_reload;
    let at = commands.iter().position(|command| is_handover(command, "reload"))?;
    commands.get(at + 1).filter(|next| !next.ignore_failure).map(|next| {
        let why = format!(
            "{} runs when the new process serves already: if it fails, the reload fails, and nothing is taken back",
            next.path
        );
        let rest = lines(scene).into_iter().map(|line| line.value.clone());
        let (mut others, upgrades): (Vec<_>, Vec<_>) = rest.partition(|value| !value.contains("handover reload"));
        others.extend(upgrades);
        let lines = others.into_iter().map(|value| format!("ExecReload={value}"));
        let mut wrong = scene.line("ExecReload").mended("Service", ["ExecReload="], why);
        if let Some(mend) = &mut wrong.mend {
            mend.lines.extend(lines);
        }
        wrong
    })
}

fn exec_reload_by_shell(scene: &Scene<'_>) -> Option<Wrong> {
    let shell = |command: &&Command| {
        ["sh", "bash", "dash"].contains(&program(command))
            && command.words.iter().any(|word| word.contains("handover reload"))
    };
    scene.service.exec_reload.iter().find(shell).map(|_| {
        let why = "the new process is to be a child of PID 1, and below a shell it is not: PID 1 would not see it end";
        let mend = format!("ExecReload={} reload", handover(scene));
        scene.line("ExecReload").mended("Service", ["ExecReload=", &mend], why)
    })
}

fn exec_reload_post_before_259(scene: &Scene<'_>) -> Option<Wrong> {
    let line = scene.unit.values("Service", "ExecReloadPost").into_iter().next_back()?;
    (!scene.version.has(259)).then(|| {
        let why = format!("systemd {} does not know ExecReloadPost=, and never runs it", scene.version);
        scene.line("ExecReloadPost").replaced("Service", vec![format!("ExecReload={}", line.value)], why)
    })
}

fn no_syslog_identifier(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.way == Way::Library && scene.service.exec.syslog_identifier.is_none()).then(|| {
        let why = "after an upgrade the service logs as `handover`, the command that has started it";
        scene.line("SyslogIdentifier").mended("Service", ["SyslogIdentifier=%N"], why)
    })
}

/// The command that upgrades.
fn upgrade<'a>(scene: &Scene<'a>) -> Option<&'a Command> {
    scene.service.exec_reload.iter().find(|command| is_handover(command, "reload"))
}

/// The lines of ExecReload= that hold.
fn lines<'a>(scene: &Scene<'a>) -> Vec<&'a Assignment> {
    scene.unit.values("Service", "ExecReload")
}

/// All of ExecReload= without prefixes before the command that upgrades.
fn plain_reload(scene: &Scene<'_>, why: &str) -> Wrong {
    let mut wrong = scene.line("ExecReload").mended("Service", ["ExecReload="], why);
    let plain = |line: &Assignment| {
        let value = line.value.as_str();
        let upgrades = value.contains("handover reload");
        format!(
            "ExecReload={}",
            if upgrades { value.trim_start_matches(['-', '+', '!', ':', '@']) } else { value }
        )
    };
    if let Some(mend) = &mut wrong.mend {
        mend.lines.extend(lines(scene).into_iter().map(plain));
    }
    wrong
}

/// Whether a command only sends a signal.
fn sends_a_signal(command: &Command) -> bool {
    ["kill", "pkill", "killall"].contains(&program(command))
}

/// The path of the program, as the unit has it.
fn handover<'a>(scene: &Scene<'a>) -> &'a str {
    let commands = scene.service.exec_start.iter().chain(&scene.service.exec_reload);
    let mut ours = commands.filter(|command| program(command) == "handover" && command.path.starts_with('/'));
    ours.next().map_or("/usr/bin/handover", |command| command.path.as_str())
}
