//! How long an upgrade takes, and how soon the old process stops accepting.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::Connection;
use crate::service::{Manager, Service};
use crate::table::{Row, Table, median, milliseconds, quantile};

/// How often each is measured.
const ROUNDS: usize = 200;

/// How long the service is busy that has something to initialise; the other has nothing at all.
const BUSY: u32 = 10;

/// Both.
pub(crate) fn measure(table: &mut Table) {
    duration(table, "upgrade, from asking to the new one serving", 0);
    duration(table, "the same, of one that needs 10 ms to start", BUSY);
    overlap(table);
}

/// A bare start and an upgrade in turns, of the same program.
fn duration(table: &mut Table, what: &'static str, busy: u32) {
    let (manager, mut service) = (Manager::new("bare"), Service::start("duration", busy));
    let (mut forked, mut spawned, mut asked, mut by_command) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        forked.push(bare_start(&manager, &mut fork(manager.command(busy))));
        spawned.push(bare_start(&manager, &mut manager.command(busy)));
        asked.push(service.upgrade().took);
        by_command.push(service.upgrade_by_command().took);
    }
    let (asked, by_command) = (median(&asked), median(&by_command));
    let row = |what, took: Duration, beside: &[Duration], how| Row {
        what,
        measured: milliseconds(took),
        beside: format!("{} bare {how}", milliseconds(median(beside))),
        ratio: Some(took.as_secs_f64() / median(beside).as_secs_f64()),
        bound: None,
    };
    let promised = row(what, asked, &forked, "fork + exec");
    let kept = promised.ratio.is_some_and(|ratio| ratio <= 1.2);
    table.add(&Row { bound: Some(("<= 1.2", kept)), ..promised });
    table.add(&row("  beside a start without a copy", asked, &spawned, "vfork + exec"));
    table.add(&row("  with start and end of `handover reload`", by_command, &forked, "fork + exec"));
}

/// Has std fork, as the promise has it, where it would call vfork(2) otherwise, as we do.
fn fork(mut command: Command) -> Command {
    #[expect(unsafe_code, reason = "only a closure of ours between fork and exec makes std fork")]
    // SAFETY: the closure does nothing at all.
    unsafe {
        command.pre_exec(|| Ok(()));
    }
    command
}

/// From before fork and exec until the manager hears READY=1.
fn bare_start(manager: &Manager, command: &mut Command) -> Duration {
    let begin = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().expect("start the sample");
    let (ready, _) = manager.hears("READY=1");
    child.kill().and_then(|()| child.wait()).expect("end the sample");
    ready - begin
}

/// Under load from new connections: the last answer of each old process, counted from the moment when
/// the manager heard of the new one. The connection was accepted before that answer.
fn overlap(table: &mut Table) {
    let mut service = Service::start("overlap", 0);
    let (address, stop, answers) = (service.address, AtomicBool::new(false), AtomicU64::new(0));
    let last_answers = Mutex::new(BTreeMap::new());
    let client = || {
        while !stop.load(Ordering::Relaxed) {
            let pid = Connection::ask_once(address).cast_signed();
            last_answers.lock().expect("no client panicked").insert(pid, Instant::now());
            answers.fetch_add(1, Ordering::Relaxed);
        }
    };
    let pass = |more| {
        let goal = answers.load(Ordering::Relaxed) + more;
        while answers.load(Ordering::Relaxed) < goal {
            std::thread::yield_now();
        }
    };
    let late: Vec<Duration> = std::thread::scope(|scope| {
        let clients = [scope.spawn(client), scope.spawn(client)];
        let late = (0..ROUNDS).map(|_| {
            let upgrade = service.upgrade();
            // Each client has now told of all that the old process ever answered.
            pass(20);
            let last = last_answers.lock().expect("no client panicked").get(&upgrade.old).copied();
            last.map_or(Duration::ZERO, |last: Instant| last.saturating_duration_since(upgrade.switched))
        });
        let late = late.collect();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no client panicked");
        }
        late
    });
    let worst = quantile(&late, 0.99);
    table.add(&Row {
        what: "last answer of the old one after the switch, 99 %",
        measured: milliseconds(worst),
        beside: format!("{} median, {} max", milliseconds(median(&late)), milliseconds(quantile(&late, 1.0))),
        ratio: None,
        bound: Some(("<= 10 ms", worst <= Duration::from_millis(10))),
    });
}
