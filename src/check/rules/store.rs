//! What PID 1 keeps for the service: FileDescriptorStoreMax=.

use crate::check::Severity::{Error, Note, Warning};
use crate::check::rule::{Find, Rule, Whom, Wrong};
use crate::check::scene::{Scene, Way};
use crate::unit::{FdStorePreserve, Resource};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "no-store",
        severity: Note,
        whom: Whom::Library,
        about: "PID 1 keeps what the service has: FileDescriptorStoreMax=",
        manual: "systemd.service(5), FileDescriptorStoreMax=",
        find: Find::Service(no_store),
    },
    Rule {
        name: "store-too-small",
        severity: Warning,
        whom: Whom::Library,
        about: "the FD store has room for more than what handover itself keeps there",
        manual: "systemd.service(5), FileDescriptorStoreMax=",
        find: Find::Service(store_too_small),
    },
    Rule {
        name: "store-over-nofile",
        severity: Error,
        whom: Whom::Storing,
        about: "a full FD store can be passed to a new process: LimitNOFILE=",
        manual: "systemd.exec(5), LimitNOFILE=",
        find: Find::Service(store_over_nofile),
    },
    Rule {
        name: "store-names-too-long",
        severity: Error,
        whom: Whom::Handover,
        about: "the names of a full FD store fit into one variable of 128 KiB",
        manual: "sd_listen_fds(3), $LISTEN_FDNAMES",
        find: Find::Service(store_names_too_long),
    },
    Rule {
        name: "store-not-preserved",
        severity: Error,
        whom: Whom::Storing,
        about: "the FD store outlives a restart",
        manual: "systemd.service(5), FileDescriptorStorePreserve=",
        find: Find::Service(store_not_preserved),
    },
    Rule {
        name: "store-preserve-too-new",
        severity: Warning,
        whom: Whom::Storing,
        about: "FileDescriptorStorePreserve=on-success is only for systemd 261 and newer",
        manual: "systemd.service(5), FileDescriptorStorePreserve=",
        find: Find::Service(store_preserve_too_new),
    },
    Rule {
        name: "store-lost-at-start-limit",
        severity: Warning,
        whom: Whom::Storing,
        about: "a service that fails for good leaves its FD store behind, for the version that is mended",
        manual: "systemd.service(5), FileDescriptorStorePreserve=",
        find: Find::Service(store_lost_at_start_limit),
    },
    Rule {
        name: "input-is-socket",
        severity: Error,
        whom: Whom::Handover,
        about: "sockets are passed as LISTEN_FDS, not as standard input",
        manual: "systemd.exec(5), StandardInput=",
        find: Find::Service(input_is_socket),
    },
];

/// The soft limit that systemd gives where nobody says another one.
const USUAL_NOFILE: u64 = 1024;

/// What a new process opens by itself before it has looked at what it was given.
const MARGIN: u64 = 64;

/// Most bytes of LISTEN_FDNAMES=, of those that a string of the environment may have.
const MOST_NAMES: u64 = 131_056;

/// `ho.` and a number in base 36, and the colon.
const NAME: u64 = 8;

fn no_store(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.fd_store_max == 0).then(|| {
        let why = "over a restart or crash PID 1 keeps the listening sockets, but no connection and no state";
        scene.line("FileDescriptorStoreMax").mended("Service", ["FileDescriptorStoreMax=512"], why)
    })
}

fn store_too_small(scene: &Scene<'_>) -> Option<Wrong> {
    let max = scene.service.fd_store_max;
    (1..8).contains(&max).then(|| {
        let why = format!(
            "of {max} places handover itself takes a few, and PID 1 closes what finds none in silence"
        );
        scene.line("FileDescriptorStoreMax").mended("Service", ["FileDescriptorStoreMax=512"], why)
    })
}

fn store_over_nofile(scene: &Scene<'_>) -> Option<Wrong> {
    let max = u64::from(scene.service.fd_store_max);
    let mut limits = scene.service.exec.limits.iter();
    let limit = limits.rfind(|(resource, _)| *resource == Resource::NoFile);
    let soft = match limit {
        Some((_, limit)) => limit.soft?,
        None => USUAL_NOFILE,
    };
    // Older ones move each descriptor with the limit set already, and need two numbers for it.
    let numbers = if scene.version.has(255) { 1 } else { 2 };
    let needed = (max + scene.listens().count() as u64) * numbers + MARGIN;
    (max > 0 && needed > soft).then(|| {
        let why = format!(
            "a full FD store needs LimitNOFILE= of {needed} at a start, and with {soft} the start fails with \
             202/FDS, again at every try"
        );
        let mend = format!("LimitNOFILE={}", needed.max(65536));
        scene.line("LimitNOFILE").mended("Service", [&mend], why)
    })
}

fn store_names_too_long(scene: &Scene<'_>) -> Option<Wrong> {
    let max = u64::from(scene.service.fd_store_max);
    (max * NAME > MOST_NAMES).then(|| {
        let why = format!(
            "the names of {max} stored descriptors do not fit into LISTEN_FDNAMES=, and then no start works \
             (203/EXEC, E2BIG)"
        );
        let mend = format!("FileDescriptorStoreMax={}", MOST_NAMES / NAME);
        scene.line("FileDescriptorStoreMax").mended("Service", [&mend], why)
    })
}

fn store_not_preserved(scene: &Scene<'_>) -> Option<Wrong> {
    let service = scene.service;
    let dropped = service.fd_store_preserve == FdStorePreserve::No && scene.version.has(254);
    (dropped && service.fd_store_max > 0).then(|| {
        let why = "with `no` PID 1 drops the FD store at every restart, which is what it is for";
        let place = scene.line("FileDescriptorStorePreserve");
        place.mended("Service", ["FileDescriptorStorePreserve=yes"], why)
    })
}

fn store_preserve_too_new(scene: &Scene<'_>) -> Option<Wrong> {
    let service = scene.service;
    let newer = service.fd_store_preserve == FdStorePreserve::OnSuccess && !scene.version.has(261);
    (newer && service.fd_store_max > 0).then(|| {
        let why = format!("systemd {} does not know `on-success`, and takes `restart`", scene.version);
        let place = scene.line("FileDescriptorStorePreserve");
        place.mended("Service", ["FileDescriptorStorePreserve=yes"], why)
    })
}

fn store_lost_at_start_limit(scene: &Scene<'_>) -> Option<Wrong> {
    let service = scene.service;
    let kept = service.fd_store_preserve == FdStorePreserve::Yes;
    let can_fail = super::restart::reaches_start_limit(scene);
    (scene.way != Way::Other && service.fd_store_max > 0 && !kept && can_fail && scene.version.has(254)).then(|| {
        let why = "when the start limit is hit PID 1 drops every connection that it keeps, and a broken new version \
                   hits it within a second";
        let place = scene.line("FileDescriptorStorePreserve");
        place.mended("Service", ["FileDescriptorStorePreserve=yes"], why)
    })
}

fn input_is_socket(scene: &Scene<'_>) -> Option<Wrong> {
    (scene.service.exec.standard_input == crate::unit::Input::Socket).then(|| {
        let why =
            "with it there is no LISTEN_FDS, and so no socket that could be told by its name, nor a store";
        scene.line("StandardInput").mended("Service", ["StandardInput=null"], why)
    })
}
