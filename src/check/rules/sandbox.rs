//! What the sandbox of the service takes away that an upgrade needs: systemd.exec(5).

use crate::check::Severity::{Error, Warning};
use crate::check::rule::{Find, Rule, Whom, Wrong};
use crate::check::scene::{Scene, Way};
use crate::unit::{NotifyAccess, Service};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "private-pids",
        severity: Error,
        whom: Whom::Handover,
        about: "old and new process live beside each other, children of PID 1 both",
        manual: "systemd.exec(5), PrivatePIDs=",
        find: Find::Service(private_pids),
    },
    Rule {
        name: "pam-name",
        severity: Warning,
        whom: Whom::Handover,
        about: "the service needs no PAM session",
        manual: "systemd.exec(5), PAMName=",
        find: Find::Service(pam_name),
    },
    Rule {
        name: "no-unix-sockets",
        severity: Error,
        whom: Whom::All,
        about: "the service can speak to PID 1: RestrictAddressFamilies= has AF_UNIX",
        manual: "systemd.exec(5), RestrictAddressFamilies=",
        find: Find::Service(no_unix_sockets),
    },
    Rule {
        name: "no-inet-sockets",
        severity: Warning,
        whom: Whom::Run,
        about: "the runner can make and probe sockets like those of the service",
        manual: "systemd.exec(5), RestrictAddressFamilies=",
        find: Find::Service(no_inet_sockets),
    },
    Rule {
        name: "missing-system-calls",
        severity: Error,
        whom: Whom::Handover,
        about: "SystemCallFilter= allows what an upgrade needs; for the runner that is more than @system-service",
        manual: "systemd.exec(5), SystemCallFilter=",
        find: Find::Service(missing_system_calls),
    },
    Rule {
        name: "root-without-notify",
        severity: Error,
        whom: Whom::All,
        about: "the notify socket is there also under another root",
        manual: "systemd.exec(5), MountAPIVFS=",
        find: Find::Service(root_without_notify),
    },
    Rule {
        name: "notify-hidden",
        severity: Error,
        whom: Whom::All,
        about: "nothing hides /run/systemd/notify from the service",
        manual: "systemd.exec(5), TemporaryFileSystem=",
        find: Find::Service(notify_hidden),
    },
    Rule {
        name: "root-start-only",
        severity: Error,
        whom: Whom::Library,
        about: "the new process has the same root as the old one",
        manual: "systemd.service(5), RootDirectoryStartOnly=",
        find: Find::Service(root_start_only),
    },
    Rule {
        name: "permissions-start-only",
        severity: Error,
        whom: Whom::Library,
        about: "`handover reload` runs as the user of the service",
        manual: "systemd.service(5), User=",
        find: Find::Service(permissions_start_only),
    },
    Rule {
        name: "protocol-unset",
        severity: Error,
        whom: Whom::Handover,
        about: "the service is told what PID 1 passes to it",
        manual: "systemd.exec(5), UnsetEnvironment=",
        find: Find::Service(protocol_unset),
    },
    Rule {
        name: "protocol-overwritten",
        severity: Error,
        whom: Whom::Handover,
        about: "the variables of PID 1's own protocols are PID 1's to set",
        manual: "systemd.exec(5), Environment=",
        find: Find::Service(protocol_overwritten),
    },
];

/// System calls that an upgrade needs, each with the groups of systemd-analyze(1) that have it.
const NEEDED: [(&str, &[&str]); 4] = [
    ("clone", &["@process", "@system-service"]),
    ("memfd_create", &["@ipc", "@system-service"]),
    ("pidfd_open", &["@process", "@system-service"]),
    ("sendmsg", &["@network-io", "@system-service"]),
];

/// The same for a runner, on top.
const NEEDED_BY_RUNNER: [(&str, &[&str]); 3] = [
    ("pidfd_getfd", &["@debug"]),
    ("process_vm_readv", &["@ipc", "@system-service"]),
    ("seccomp", &["@sandbox"]),
];

/// What PID 1 tells a service by its environment.
const PROTOCOL: [&str; 8] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "FDSTORE",
    "WATCHDOG_USEC",
];

fn private_pids(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.is_on("PrivatePIDs") && scene.version.has(257)).then(|| {
        let why = "the main process is process 1 of its own there: when it ends the kernel kills the one that took over";
        scene.line("PrivatePIDs").mended("Service", ["PrivatePIDs=no"], why)
    })
}

fn pam_name(scene: &Scene<'_>) -> Option<Wrong> {
    scene.value("PAMName").map(|_| {
        let why = "the session is closed when the first main process ends, and a new one is in none";
        scene.line("PAMName").mended("Service", ["PAMName="], why)
    })
}

/// Whether the service may use sockets of a family: RestrictAddressFamilies= as systemd reads it.
fn has_family(scene: &Scene<'_>, family: &str) -> bool {
    let mut allow_list = None;
    let mut listed = false;
    for line in scene.unit.values("Service", "RestrictAddressFamilies") {
        let (denies, words) = match line.value.strip_prefix('~') {
            Some(rest) => (true, rest),
            None => (false, line.value.as_str()),
        };
        if words == "none" {
            (allow_list, listed) = (Some(!denies), false);
            continue;
        }
        // The first line says what kind of list it is; another one of the other kind takes away from it.
        let kind = *allow_list.get_or_insert(!denies);
        if words.split_whitespace().any(|word| word == family) {
            listed = kind != denies;
        }
    }
    allow_list.is_none_or(|allows| allows == listed)
}

fn no_unix_sockets(scene: &Scene<'_>) -> Option<Wrong> {
    let speaks = scene.way != Way::Other || speaks(scene.service);
    (speaks && !has_family(scene, "AF_UNIX")).then(|| {
        let why = "without AF_UNIX nothing reaches PID 1, neither READY=1 nor what is to be stored, and an upgrade \
                   cannot be asked for";
        let place = scene.line("RestrictAddressFamilies");
        place.mended("Service", ["RestrictAddressFamilies=AF_UNIX"], why)
    })
}

/// Whether a service says anything to PID 1, so far as its unit tells.
fn speaks(service: &Service) -> bool {
    service.notify_access != NotifyAccess::None
}

fn no_inet_sockets(scene: &Scene<'_>) -> Option<Wrong> {
    let missing: Vec<_> =
        ["AF_INET", "AF_INET6"].into_iter().filter(|family| !has_family(scene, family)).collect();
    (!missing.is_empty()).then(|| {
        let why = format!(
            "without {} the runner can neither steer its slots nor probe a new generation",
            missing.join(" and ")
        );
        let mend = format!("RestrictAddressFamilies={}", missing.join(" "));
        scene.line("RestrictAddressFamilies").mended("Service", [&mend], why)
    })
}

/// Whether SystemCallFilter= lets a system call through, which is in these groups.
fn lets_through(scene: &Scene<'_>, call: &str, groups: &[&str]) -> bool {
    let mut allow_list = None;
    let mut listed = false;
    for line in scene.unit.values("Service", "SystemCallFilter") {
        let (denies, words) = match line.value.strip_prefix('~') {
            Some(rest) => (true, rest),
            None => (false, line.value.as_str()),
        };
        let kind = *allow_list.get_or_insert(!denies);
        // A call may be followed by what happens instead: `pidfd_getfd:EPERM`.
        let mut words = words.split_whitespace().map(|word| word.split(':').next().unwrap_or_default());
        if words.any(|word| word == call || word == "@known" || groups.contains(&word)) {
            listed = kind != denies;
        }
    }
    allow_list.is_none_or(|allows| allows == listed)
}

fn missing_system_calls(scene: &Scene<'_>) -> Option<Wrong> {
    let for_runner = if scene.runner().is_some() { &NEEDED_BY_RUNNER[..] } else { &[] };
    let needed = NEEDED.iter().chain(for_runner);
    let missing: Vec<_> =
        needed.filter(|(call, groups)| !lets_through(scene, call, groups)).map(|(call, _)| *call).collect();
    (!missing.is_empty()).then(|| {
        let calls = missing.join(" ");
        let why = format!("the kernel refuses {calls}, which an upgrade needs, or kills who calls it");
        scene.line("SystemCallFilter").mended("Service", [&format!("SystemCallFilter={calls}")], why)
    })
}

fn root_without_notify(scene: &Scene<'_>) -> Option<Wrong> {
    let other_root = ["RootDirectory", "RootImage"].iter().any(|key| scene.value(key).is_some());
    let hidden = scene.unit.flag("Service", "MountAPIVFS") == Some(false) && scene.version.has(258);
    (other_root && hidden && speaks(scene.service)).then(|| {
        let why = "since systemd 258 the notify socket is shown below /run/host, which is there with MountAPIVFS=yes alone";
        scene.line("MountAPIVFS").mended("Service", ["MountAPIVFS=yes"], why)
    })
}

fn notify_hidden(scene: &Scene<'_>) -> Option<Wrong> {
    let hides =
        |path: &str| ["/run", "/run/systemd", "/run/systemd/notify"].contains(&path.trim_end_matches('/'));
    let keys = ["TemporaryFileSystem", "InaccessiblePaths"];
    let covers = |key: &str| {
        let paths = scene.words(key).into_iter();
        let mut paths =
            paths.map(|word| word.trim_start_matches(['-', '+']).split(':').next().unwrap_or_default());
        paths.any(hides)
    };
    let key = keys.into_iter().find(|key| covers(key))?;
    let binds = ["BindPaths", "BindReadOnlyPaths"].into_iter().flat_map(|key| scene.words(key));
    let shown = binds.into_iter().any(|word| word.trim_start_matches('-').starts_with("/run/systemd"));
    let other_root = ["RootDirectory", "RootImage"].iter().any(|key| scene.value(key).is_some());
    (speaks(scene.service) && !shown && !other_root).then(|| {
        let why = format!("{key}= covers /run/systemd/notify: the service cannot say READY=1");
        scene.line(key).mended("Service", ["BindReadOnlyPaths=/run/systemd/notify"], why)
    })
}

fn root_start_only(scene: &Scene<'_>) -> Option<Wrong> {
    let only = scene.service.root_directory_start_only;
    (only && scene.service.exec.root_directory.is_some()).then(|| {
        let why = "`handover reload` runs outside of RootDirectory=, and so does the process that it starts";
        scene.line("RootDirectoryStartOnly").mended("Service", ["RootDirectoryStartOnly=no"], why)
    })
}

fn permissions_start_only(scene: &Scene<'_>) -> Option<Wrong> {
    let exec = &scene.service.exec;
    (scene.is_on("PermissionsStartOnly") && exec.user.is_some()).then(|| {
        let why = "`handover reload` runs as root, and is refused by a service that does not: the new process would be root's";
        scene.line("PermissionsStartOnly").mended("Service", ["PermissionsStartOnly=no"], why)
    })
}

fn protocol_unset(scene: &Scene<'_>) -> Option<Wrong> {
    let unset = &scene.service.exec.unset_environment;
    let protocol = |name: &&String| PROTOCOL.contains(&name.as_str());
    let first = unset.iter().find(protocol)?;
    let why = format!("without {first} the service does not learn what PID 1 has for it");
    let rest: Vec<_> = unset.iter().filter(|name| !protocol(name)).map(String::as_str).collect();
    let mut wrong = scene.line("UnsetEnvironment").mended("Service", ["UnsetEnvironment="], why);
    if let Some(mend) = wrong.mend.as_mut().filter(|_| !rest.is_empty()) {
        mend.lines.push(format!("UnsetEnvironment={}", rest.join(" ")));
    }
    Some(wrong)
}

fn protocol_overwritten(scene: &Scene<'_>) -> Option<Wrong> {
    let variables = &scene.service.exec.environment;
    let (name, _) = variables.iter().find(|(name, _)| PROTOCOL.contains(&name.as_str()))?;
    let why =
        format!("Environment= wins over what PID 1 says in {name}, in this process and in all later ones");
    let mine = |line: &&&crate::unit::Assignment| line.value.contains(&format!("{name}="));
    let lines = scene.unit.values("Service", "Environment");
    let place = lines.iter().find(mine);
    let mut wrong = scene.line("Environment").mended("Service", ["Environment="], why);
    if let Some(line) = place {
        (wrong.place.file, wrong.place.line) = (line.place.file.clone(), Some(line.place.line));
    }
    let rest = variables.iter().filter(|(name, _)| !PROTOCOL.contains(&name.as_str()));
    let quoted = |(name, value): &(String, String)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
        format!("Environment=\"{name}={value}\"")
    };
    if let Some(mend) = &mut wrong.mend {
        mend.lines.extend(rest.map(quoted));
    }
    Some(wrong)
}
