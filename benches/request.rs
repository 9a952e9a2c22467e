//! What a request costs through the paved path, beside the same service on plain tokio; and through the
//! chapter http, beside the same one on plain axum.
//!
//! Instructions are those of user space, of one request more: start and end of the program cancel out.
//! Time is that of the whole, the kernel and the client in it, measured in turns and on one CPU: the
//! scheduler's choice of another would count for more than all else.
//!
//! On a new connection plain tokio's instructions are only told: most of what it costs is the kernel's, and a
//! quarter of its instructions are those of malloc, which does more or less as the heap happens to lie.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Connection;
use crate::sample;
use crate::service::started;
use crate::table::{Row, Table, median};

/// Requests of a short and of a long run under valgrind.
const RUNS: [u64; 2] = [1000, 4000];

/// Rounds of four batches of requests, where time is measured: short ones, so that what else happens on the
/// machine meets both samples of a round or spoils few of many.
const ROUNDS: usize = 601;
const BATCH: usize = 25;

/// How the client uses its connections.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    /// One for all requests.
    KeepAlive,
    /// One for each.
    NewConnection,
}

/// Two samples that serve the same.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    /// Their names.
    plain: &'static str,
    ours: &'static str,
    /// What the plain one is.
    beside: &'static str,
    /// What ours may cost.
    bound: (&'static str, f64),
    /// Whether that holds for the instructions of a new connection, too.
    always: bool,
}

/// The paved path.
const TOKIO: Pair =
    Pair { plain: "plain", ours: "paved", beside: "plain tokio", bound: ("< 1.01", 1.01), always: false };

/// The chapter http.
pub(crate) const AXUM: Pair = Pair {
    plain: "axum_plain",
    ours: "axum_moving",
    beside: "plain axum",
    bound: ("< 1.02", 1.02),
    always: true,
};

/// Requests on a connection that stays, and on new ones.
pub(crate) fn measure(table: &mut Table) {
    compare(table, TOKIO);
}

/// The same for any pair.
pub(crate) fn compare(table: &mut Table, pair: Pair) {
    let counted = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok();
    if counted {
        table.add(&instructions(pair, "request, keep-alive: instructions", Use::KeepAlive, true));
        let what = "request, new connection: instructions";
        table.add(&instructions(pair, what, Use::NewConnection, pair.always));
    }
    on_one_cpu(|| {
        table.add(&time(pair, "request, keep-alive: time", Use::KeepAlive, !counted));
        table.add(&time(pair, "request, new connection: time", Use::NewConnection, true));
    });
}

/// Keeps this thread, and the processes that it starts, where it is.
pub(crate) fn on_one_cpu(work: impl FnOnce()) {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).expect("the CPUs that we may use");
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true));
    let mut one = CpuSet::new();
    one.set(first.expect("we run on a CPU")).expect("a CPU that there is");
    sched_setaffinity(this_thread, &one).expect("to stay on one CPU");
    work();
    sched_setaffinity(this_thread, &allowed).expect("to use all CPUs again");
}

fn instructions(pair: Pair, what: &'static str, connections: Use, promised: bool) -> Row<'static> {
    let [plain, ours] = [pair.plain, pair.ours].map(|name| {
        let [short, long] = RUNS.map(|requests| count(name, connections, requests));
        (long - short) as f64 / (RUNS[1] - RUNS[0]) as f64
    });
    row(pair, what, format!("{ours:.0}"), format!("{plain:.0} {}", pair.beside), ours / plain, promised)
}

/// Instructions of one run, as callgrind counts them.
fn count(name: &str, connections: Use, requests: u64) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(sample(name));
    let (service, address) = started(command.stderr(Stdio::piped()));
    ask(address, connections, requests as usize);
    // Not SIGKILL: valgrind has something to say at the end.
    kill(Pid::from_raw(service.id().cast_signed()), Signal::SIGTERM).expect("end the service");
    let output = service.wait_with_output().expect("the end of valgrind");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("no count in what valgrind said:\n{said}"))
}

fn time(pair: Pair, what: &'static str, connections: Use, promised: bool) -> Row<'static> {
    let services = [pair.plain, pair.ours].map(|name| started(Command::new(sample(name)).env_clear()));
    let mut clients = [&services[0], &services[1]].map(|(_, address)| Client::of(*address, connections));
    let mut batch = |which: usize| {
        let begin = Instant::now();
        clients[which].ask(BATCH);
        begin.elapsed().as_secs_f64() / BATCH as f64 * 1e6
    };
    let (mut plain, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Whoever comes second finds the caches as the first left them, and a machine that gets slower.
        let [one, other, again, last] = [0, 1, 1, 0].map(&mut batch);
        plain.extend([one, last]);
        ours.extend([other, again]);
        ratios.push((other + again) / (one + last));
    }
    for (mut service, _) in services {
        service.kill().and_then(|()| service.wait()).expect("end the service");
    }
    let [plain, ours] = [plain, ours].map(|times| format!("{:.2} µs", median(&times)));
    row(pair, what, ours, format!("{plain} {}", pair.beside), median(&ratios), promised)
}

fn row(
    pair: Pair,
    what: &'static str,
    measured: String,
    beside: String,
    ratio: f64,
    promised: bool,
) -> Row<'static> {
    Row {
        what,
        measured,
        beside,
        ratio: Some(ratio),
        bound: promised.then_some((pair.bound.0, ratio < pair.bound.1)),
    }
}

/// So many requests, one after the other.
pub(crate) fn ask(address: SocketAddr, connections: Use, requests: usize) {
    Client::of(address, connections).ask(requests);
}

/// Whoever asks a service.
struct Client {
    address: SocketAddr,
    kept: Connection,
    connections: Use,
}

impl Client {
    fn of(address: SocketAddr, connections: Use) -> Self {
        Self { address, kept: Connection::open(address), connections }
    }

    fn ask(&mut self, requests: usize) {
        for _ in 0..requests {
            match self.connections {
                Use::KeepAlive => self.kept.ask(),
                Use::NewConnection => Connection::ask_once(self.address),
            };
        }
    }
}
