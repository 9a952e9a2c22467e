//! Units of a program under `handover run`: slots, and what keeps generations apart.

use std::collections::BTreeMap;

use crate::check::Severity::{Error, Note, Warning};
use crate::check::rule::{Find, Rule, Whom, Wrong};
use crate::check::scene::{Ear, Scene};
use crate::unit::{Address, KillMode, Listen, ListenKind};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "run-delegate",
        severity: Error,
        whom: Whom::Run,
        about: "each generation of the program has a cgroup of its own: Delegate=yes",
        manual: "systemd.resource-control(5), Delegate=",
        find: Find::Service(run_delegate),
    },
    Rule {
        name: "run-kill-mode",
        severity: Warning,
        whom: Whom::Run,
        about: "the program outlives a runner that is killed: KillMode=process",
        manual: "systemd.kill(5), KillMode=",
        find: Find::Service(run_kill_mode),
    },
    Rule {
        name: "run-store",
        severity: Error,
        whom: Whom::Run,
        about: "the next runner learns what the last one had: FileDescriptorStoreMax=",
        manual: "systemd.service(5), FileDescriptorStoreMax=",
        find: Find::Service(run_store),
    },
    Rule {
        name: "run-one-slot",
        severity: Error,
        whom: Whom::Run,
        about: "each address is listed several times: one slot a generation",
        manual: "systemd.socket(5), ReusePort=",
        find: Find::Socket(run_one_slot),
    },
    Rule {
        name: "run-two-slots",
        severity: Note,
        whom: Whom::Run,
        about: "there are slots for more than one generation that drains",
        manual: "systemd.socket(5), ListenStream=",
        find: Find::Socket(run_two_slots),
    },
    Rule {
        name: "run-uneven-slots",
        severity: Warning,
        whom: Whom::Run,
        about: "all addresses have the same number of slots",
        manual: "systemd.socket(5), ListenStream=",
        find: Find::Socket(run_uneven_slots),
    },
    Rule {
        name: "run-no-reuse-port",
        severity: Error,
        whom: Whom::Run,
        about: "several sockets can have one address: ReusePort=yes",
        manual: "systemd.socket(5), ReusePort=",
        find: Find::Socket(run_no_reuse_port),
    },
    Rule {
        name: "run-unix-socket",
        severity: Warning,
        whom: Whom::Run,
        about: "what the program listens on can have slots: TCP or UDP",
        manual: "systemd.socket(5), ListenStream=",
        find: Find::Socket(run_unix_socket),
    },
    Rule {
        name: "run-fd-name",
        severity: Warning,
        whom: Whom::Run,
        about: "no name is one of handover's own",
        manual: "systemd.socket(5), FileDescriptorName=",
        find: Find::Socket(run_fd_name),
    },
];

fn run_delegate(scene: &Scene<'_>) -> Option<Wrong> {
    let value = scene.value("Delegate").unwrap_or("no");
    let off = scene.unit.flag("Service", "Delegate") == Some(false) || scene.value("Delegate").is_none();
    off.then(|| {
        let why = format!(
            "with Delegate={value} a generation has no cgroup of its own: what it starts and leaves behind is found by \
             its process group, its parents and its environment only, or not at all, and nothing is accounted for it \
             alone"
        );
        scene.line("Delegate").mended("Service", ["Delegate=yes"], why)
    })
}

fn run_kill_mode(scene: &Scene<'_>) -> Option<Wrong> {
    let mode = scene.service.kill.mode;
    (mode != KillMode::Process && mode != KillMode::None).then(|| {
        let why = "when the runner is killed PID 1 kills the program and all its connections, too";
        scene.line("KillMode").mended("Service", ["KillMode=process"], why)
    })
}

fn run_store(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.fd_store_max == 0).then(|| {
        let why = "after a crash of the runner the next one does not know which generation serves, and the program \
                   cannot bind any more";
        scene.line("FileDescriptorStoreMax").mended("Service", ["FileDescriptorStoreMax=64"], why)
    })
}

/// How often each address of TCP or UDP is listed, and the first line with it.
fn slots<'a>(ear: &Ear<'a>) -> BTreeMap<String, (usize, &'a Listen)> {
    let mut slots = BTreeMap::new();
    for listen in &ear.socket.listen {
        let kind = match (listen.kind, &listen.address) {
            (ListenKind::Stream, Address::Port(_) | Address::Inet { .. }) => "ListenStream",
            (ListenKind::Datagram, Address::Port(_) | Address::Inet { .. }) => "ListenDatagram",
            _ => continue,
        };
        slots.entry(format!("{kind}={}", listen.address)).or_insert((0, listen)).0 += 1;
    }
    slots
}

/// So many more lines for an address, in the words in which the unit has it.
fn more(ear: &Ear<'_>, listen: &Listen, count: usize, why: String) -> Option<Wrong> {
    let line = ear.unit.assignments().iter().find(|line| line.place == listen.place)?;
    let mut wrong = crate::check::scene::blame_line(ear.unit, line).mended("Socket", [], why);
    if let Some(mend) = &mut wrong.mend {
        mend.lines = vec![format!("{}={}", line.key, line.value); count];
        if !ear.socket.reuse_port {
            mend.lines.push("ReusePort=yes".into());
        }
    }
    Some(wrong)
}

fn run_one_slot(ear: &Ear<'_>) -> Option<Wrong> {
    let slots = slots(ear);
    let (address, (_, listen)) = slots.into_iter().find(|(_, (count, _))| *count == 1)?;
    let why = format!(
        "with one {address} both generations share its queue: the old one is told to stop at once, and whom it has \
         not accepted by then may wait for a process that is gone"
    );
    more(ear, listen, 2, why)
}

fn run_two_slots(ear: &Ear<'_>) -> Option<Wrong> {
    let slots = slots(ear);
    let (_, (_, listen)) = slots.into_iter().find(|(_, (count, _))| *count == 2)?;
    let why =
        "with two slots one generation can drain at a time, and an upgrade meanwhile has to wait for it";
    more(ear, listen, 1, why.into())
}

fn run_uneven_slots(ear: &Ear<'_>) -> Option<Wrong> {
    let slots = slots(ear);
    let most = slots.values().map(|(count, _)| *count).max()?;
    let (address, (count, listen)) = slots.into_iter().find(|(_, (count, _))| *count > 1 && *count < most)?;
    let why = format!(
        "{address} is listed {count} times, and another address {most} times: the least counts for all"
    );
    more(ear, listen, most - count, why)
}

fn run_no_reuse_port(ear: &Ear<'_>) -> Option<Wrong> {
    let several = slots(ear).into_values().any(|(count, _)| count > 1);
    (several && !ear.socket.reuse_port).then(|| {
        let why = "PID 1 cannot bind an address twice without it, and the socket unit fails";
        ear.line("ReusePort").mended("Socket", ["ReusePort=yes"], why)
    })
}

fn run_unix_socket(ear: &Ear<'_>) -> Option<Wrong> {
    let has_no_slots = |listen: &&Listen| {
        let unix = matches!(listen.address, Address::Path(_) | Address::Abstract(_));
        unix && matches!(
            listen.kind,
            ListenKind::Stream | ListenKind::SequentialPacket | ListenKind::Datagram
        )
    };
    let listen = ear.socket.listen.iter().find(has_no_slots)?;
    let line = ear.unit.assignments().iter().find(|line| line.place == listen.place)?;
    let why = format!(
        "{} is one socket for all generations: while one leaves and the other one comes, a client may be accepted by \
         the one that leaves",
        listen.address
    );
    let mended = vec!["ListenStream=127.0.0.1:8080".to_owned(); 3];
    Some(crate::check::scene::blame_line(ear.unit, line).replaced("Socket", mended, why))
}

fn run_fd_name(ear: &Ear<'_>) -> Option<Wrong> {
    let name = ear.socket.fd_name.as_deref()?;
    (name.starts_with("handover.") || name.starts_with("ho.")).then(|| {
        let why = format!(
            "handover keeps things of its own under names like {name:?}, and takes the socket for one of them"
        );
        let mend = format!("FileDescriptorName={}", ear.unit.name().prefix());
        ear.line("FileDescriptorName").mended("Socket", [&mend], why)
    })
}
