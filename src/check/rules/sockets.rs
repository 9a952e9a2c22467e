//! What PID 1 listens on for the service: systemd.socket(5).

use crate::check::Severity::{Error, Note, Warning};
use crate::check::rule::{Find, Rule, Whom, Wrong};
use crate::check::scene::{Ear, Heard, Scene, blame_line, service_of};
use crate::unit::Assignment;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "no-socket",
        severity: Note,
        whom: Whom::Handover,
        about: "PID 1 holds the listening sockets, so that clients wait where they would be refused",
        manual: "systemd.socket(5)",
        find: Find::Service(no_socket),
    },
    Rule {
        name: "blocking-sockets",
        severity: Warning,
        whom: Whom::Library,
        about: "PID 1 leaves the sockets non-blocking: NonBlocking=yes",
        manual: "systemd.service(5), NonBlocking=",
        find: Find::Service(blocking_sockets),
    },
    Rule {
        name: "socket-missing",
        severity: Error,
        whom: Whom::Handover,
        about: "the sockets that the service names are there",
        manual: "systemd.service(5), Sockets=",
        find: Find::Service(socket_missing),
    },
    Rule {
        name: "socket-for-another",
        severity: Error,
        whom: Whom::Handover,
        about: "the service gets the socket unit of its name",
        manual: "systemd.socket(5), Service=",
        find: Find::Service(socket_for_another),
    },
    Rule {
        name: "same-fd-name",
        severity: Warning,
        whom: Whom::Handover,
        about: "the socket units of a service can be told apart by FileDescriptorName=",
        manual: "systemd.socket(5), FileDescriptorName=",
        find: Find::Service(same_fd_name),
    },
    Rule {
        name: "socket-shared",
        severity: Warning,
        whom: Whom::All,
        about: "a socket unit belongs to one service",
        manual: "systemd.service(5), Sockets=",
        find: Find::Socket(socket_shared),
    },
    Rule {
        name: "accept-yes",
        severity: Error,
        whom: Whom::Handover,
        about: "the service accepts its connections itself",
        manual: "systemd.socket(5), Accept=",
        find: Find::Service(accept_yes),
    },
    Rule {
        name: "socket-tied-to-service",
        severity: Error,
        whom: Whom::All,
        about: "a restart of the service leaves its socket alone",
        manual: "systemd.unit(5), PartOf=",
        find: Find::Socket(socket_tied_to_service),
    },
    Rule {
        name: "flush-pending",
        severity: Error,
        whom: Whom::All,
        about: "who waits in a socket's queue while the service restarts is served",
        manual: "systemd.socket(5), FlushPending=",
        find: Find::Socket(flush_pending),
    },
    Rule {
        name: "trigger-limit",
        severity: Warning,
        whom: Whom::Handover,
        about: "a service that crashes again and again does not take its socket down",
        manual: "systemd.socket(5), TriggerLimitIntervalSec=",
        find: Find::Socket(trigger_limit),
    },
    Rule {
        name: "remove-on-stop",
        severity: Warning,
        whom: Whom::Handover,
        about: "the path of a socket stays where clients look for it",
        manual: "systemd.socket(5), RemoveOnStop=",
        find: Find::Socket(remove_on_stop),
    },
    Rule {
        name: "small-backlog",
        severity: Warning,
        whom: Whom::Handover,
        about: "there is room for the clients that wait while the service restarts",
        manual: "systemd.socket(5), Backlog=",
        find: Find::Socket(small_backlog),
    },
    Rule {
        name: "no-fd-name",
        severity: Note,
        whom: Whom::Library,
        about: "a socket has a name of its own: FileDescriptorName=",
        manual: "systemd.socket(5), FileDescriptorName=",
        find: Find::Socket(no_fd_name),
    },
    Rule {
        name: "odd-fd-name",
        severity: Warning,
        whom: Whom::All,
        about: "every reader of LISTEN_FDNAMES= understands the names in it",
        manual: "systemd.socket(5), FileDescriptorName=",
        find: Find::Socket(odd_fd_name),
    },
];

/// The queue that is long enough for a restart of a second, of a service that is not busy.
const LEAST_BACKLOG: u32 = 128;

fn no_socket(scene: &Scene<'_>) -> Option<Wrong> {
    scene.sockets.is_empty().then(|| {
        let name = format!("{}.socket", scene.unit.name().stem());
        let why = format!("there is no {name} among these files: over a restart or crash nobody listens, and clients are refused");
        // What it would listen on is in no unit.
        let port = "ListenStream=8080";
        let fd_name = format!("FileDescriptorName={}", scene.unit.name().prefix());
        let lines = match scene.runner() {
            Some(_) => vec![port, port, port, "ReusePort=yes", "TriggerLimitIntervalSec=0"],
            None => vec![port, &fd_name, "TriggerLimitIntervalSec=0"],
        };
        let mut wrong = scene.line("Sockets").mended_in(name, "Socket", [], why);
        if let Some(mend) = &mut wrong.mend {
            mend.lines = lines.into_iter().map(str::to_owned).collect();
            mend.by_hand = true;
        }
        wrong
    })
}

fn blocking_sockets(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.listens().next().is_some() && !scene.service.non_blocking).then(|| {
        let why =
            "at a restart PID 1 makes the sockets blocking, also for an older process that still uses them";
        scene.line("NonBlocking").mended("Service", ["NonBlocking=yes"], why)
    })
}

fn socket_missing(scene: &Scene<'_>) -> Option<Wrong> {
    let is_missing = |name: &&String| scene.units.complete && scene.units.socket(name).is_none();
    let name = scene.service.sockets.iter().find(is_missing)?;
    let lines = scene.unit.values("Service", "Sockets");
    let line = lines.iter().find(|line| line.value.split_whitespace().any(|word| word == name))?;
    let others = line.value.split_whitespace().filter(|word| word != name).collect::<Vec<_>>().join(" ");
    let left = if others.is_empty() { Vec::new() } else { vec![format!("Sockets={others}")] };
    let why = format!("PID 1 knows no {name}, and the service gets nothing of it");
    Some(blame_line(scene.unit, line).replaced("Service", left, why))
}

fn socket_for_another(scene: &Scene<'_>) -> Option<Wrong> {
    let own = format!("{}.socket", scene.unit.name().stem());
    let heard = scene.units.socket(&own)?;
    let gets = scene.sockets.iter().any(|heard| heard.unit.name().as_str() == own);
    let other = heard.socket.service.as_ref().filter(|_| !gets)?;
    let why = format!("{own} starts {other}, and this service does not get what it listens on");
    Some(scene.line("Sockets").mended("Service", [&format!("Sockets={own}")], why))
}

fn same_fd_name(scene: &Scene<'_>) -> Option<Wrong> {
    let own = scene.unit.name().stem();
    let is_twin = |heard: &&Heard<'_>| {
        let others = scene.sockets.iter().filter(|other| other.unit.name() != heard.unit.name());
        let mut names = others.map(|other| &other.socket.fd_name);
        heard.socket.fd_name.is_some() && names.any(|name| *name == heard.socket.fd_name)
    };
    // The one of the service's own name keeps its own.
    let mut twins = scene.sockets.iter().filter(is_twin);
    let twin = twins.find(|heard| heard.unit.name().stem() != own)?;
    let name = twin.socket.fd_name.clone().unwrap_or_default();
    let why = format!(
        "another socket unit of the service is called {name:?}, too, and which comes first is chance"
    );
    let stem = twin.unit.name().stem();
    Some(twin.line("FileDescriptorName").mended("Socket", [&format!("FileDescriptorName={stem}")], why))
}

fn socket_shared(ear: &Ear<'_>) -> Option<Wrong> {
    let first = service_of(ear.unit.name(), ear.socket);
    let second = ear.units.naming(ear.unit.name()).find(|name| Some(*name) != first.as_ref())?;
    let (first, (unit, _)) =
        (first.filter(|name| ear.units.service(name).is_some())?, ear.units.service(second)?);
    let named =
        |line: &&&Assignment| line.value.split_whitespace().any(|word| word == ear.unit.name().as_str());
    let lines = unit.values("Service", "Sockets");
    let line = lines.iter().find(named)?;
    let others = line.value.split_whitespace().filter(|word| *word != ear.unit.name().as_str());
    let others = others.collect::<Vec<_>>().join(" ");
    let left = if others.is_empty() { Vec::new() } else { vec![format!("Sockets={others}")] };
    let why = format!(
        "{first} is started by {}, too: each new start changes O_NONBLOCK under the other one, and a start limit of \
         one closes the socket for both",
        ear.unit.name()
    );
    Some(blame_line(unit, line).replaced("Service", left, why))
}

fn accept_yes(scene: &Scene<'_>) -> Option<Wrong> {
    let own = format!("{}.socket", scene.unit.name().prefix());
    let heard = scene.units.socket(&own).filter(|heard| heard.socket.accept)?;
    let why = "PID 1 accepts, and starts a process for each connection: there is none that could be upgraded";
    Some(heard.line("Accept").mended("Socket", ["Accept=no"], why))
}

fn socket_tied_to_service(ear: &Ear<'_>) -> Option<Wrong> {
    let (common, service) = (&ear.socket.common, service_of(ear.unit.name(), ear.socket)?);
    let lists = [("PartOf", &common.part_of), ("BindsTo", &common.binds_to), ("Requires", &common.requires)];
    let (key, _) = lists.into_iter().find(|(_, list)| list.iter().any(|name| *name == service.as_str()))?;
    if ear.socket.accept {
        return None;
    }
    let is_one = |line: &&&Assignment| line.value.split_whitespace().any(|word| word == service.as_str());
    let lines = ear.unit.values("Unit", key);
    let line = lines.iter().rev().find(is_one)?;
    let others = line.value.split_whitespace().filter(|word| *word != service.as_str());
    let others = others.collect::<Vec<_>>().join(" ");
    let left = if others.is_empty() { Vec::new() } else { vec![format!("{key}={others}")] };
    let why =
        format!("{key}={service} stops the socket with the service: at a restart who waits in it is reset");
    Some(blame_line(ear.unit, line).replaced("Unit", left, why))
}

fn flush_pending(ear: &Ear<'_>) -> Option<Wrong> {
    (ear.socket.flush_pending && !ear.socket.accept).then(|| {
        let why = "when the service has ended PID 1 throws away who waits in the queue of the socket";
        ear.line("FlushPending").mended("Socket", ["FlushPending=no"], why)
    })
}

fn trigger_limit(ear: &Ear<'_>) -> Option<Wrong> {
    (!ear.socket.trigger_limit().is_off() && !ear.socket.accept).then(|| {
        let why = "a service that is started too often by its traffic makes PID 1 close the socket, for good";
        ear.line("TriggerLimitIntervalSec").mended("Socket", ["TriggerLimitIntervalSec=0"], why)
    })
}

fn remove_on_stop(ear: &Ear<'_>) -> Option<Wrong> {
    ear.socket.remove_on_stop.then(|| {
        let why = "a restart of the socket unit takes the path from under a service that still serves there";
        ear.line("RemoveOnStop").mended("Socket", ["RemoveOnStop=no"], why)
    })
}

fn small_backlog(ear: &Ear<'_>) -> Option<Wrong> {
    let backlog = ear.socket.backlog.filter(|backlog| *backlog < LEAST_BACKLOG && !ear.socket.accept)?;
    let why = format!(
        "no more than {backlog} clients can wait while the service restarts, and the next ones are turned away"
    );
    Some(ear.line("Backlog").mended("Socket", ["Backlog=4096"], why))
}

fn no_fd_name(ear: &Ear<'_>) -> Option<Wrong> {
    let name = ear.unit.name();
    (ear.socket.fd_name.is_none() && !ear.socket.accept).then(|| {
        let why = format!("the service gets the socket as {:?}, and has to ask for it so", name.as_str());
        ear.line("FileDescriptorName").mended(
            "Socket",
            [&format!("FileDescriptorName={}", name.prefix())],
            why,
        )
    })
}

fn odd_fd_name(ear: &Ear<'_>) -> Option<Wrong> {
    let name = ear.socket.fd_name.as_deref()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let odd = |c: char| c.is_whitespace() || "\\\"'".contains(c);
    let mended: String = name.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    name.contains(odd).then(|| {
        let why = "libsystemd takes blanks, quotes and backslashes in LISTEN_FDNAMES= for its own, and reads another name";
        ear.line("FileDescriptorName").mended("Socket", [&format!("FileDescriptorName={mended}")], why)
    })
}
