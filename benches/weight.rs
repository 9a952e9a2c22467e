//! What the library weighs in memory, and the program on disk and at its start.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::Connection;
use crate::service::{Manager, Service, started};
use crate::table::{Row, Table, median, milliseconds};
use crate::{HANDOVER, sample};

/// How often each is measured.
const ROUNDS: usize = 15;
const STARTS: usize = 100;

/// Requests of either kind before a process is looked at.
const REQUESTS: usize = 100;

/// Both.
pub(crate) fn measure(table: &mut Table) {
    memory(table);
    program(table);
}

/// What a process has in memory, in KiB; see proc_pid_smaps(5).
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Its own: no file stands behind it.
    pub(crate) anonymous: i64,
    /// All of it, in which pages of files count by share: those of the program belong to all processes
    /// of a service at once, and the kernel drops them when memory is short.
    proportional: i64,
    /// All of it, in which each page counts, whoever else has it.
    pub(crate) resident: i64,
}

impl Memory {
    /// Of a process.
    pub(crate) fn of(pid: i32) -> Self {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
        let kib = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)).expect("Linux 5.4 or newer");
            rest.trim_end_matches("kB").trim().parse().expect("a number")
        };
        Self { anonymous: kib("Pss_Anon:"), proportional: kib("Pss:"), resident: kib("Rss:") }
    }
}

fn memory(table: &mut Table) {
    let manager = Manager::new("memory");
    let (mut plain, mut paved, mut successor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut service, address) = started(Command::new(sample("plain")).env_clear());
        plain.push(after_requests(service.id().cast_signed(), address));
        service.kill().and_then(|()| service.wait()).expect("end the service");

        let (mut service, address) = started(&mut manager.command(0));
        manager.hears("READY=1");
        paved.push(after_requests(service.id().cast_signed(), address));
        service.kill().and_then(|()| service.wait()).expect("end the service");

        let mut service = Service::start("memory-of-successor", 0);
        service.upgrade();
        successor.push(after_requests(service.main(), service.address));
    }
    let [plain, paved, successor] = [plain, paved, successor].map(|all: Vec<Memory>| {
        let middle = |part: fn(&Memory) -> i64| median(&all.iter().map(part).collect::<Vec<_>>());
        Memory {
            anonymous: middle(|memory| memory.anonymous),
            proportional: middle(|memory| memory.proportional),
            resident: middle(|memory| memory.resident),
        }
    });
    let mut row = |what, more: i64, of: i64, promised: bool| {
        table.add(&Row {
            what,
            measured: format!("+{more} KiB"),
            beside: format!("{of} KiB plain tokio"),
            ratio: Some((of + more) as f64 / of as f64),
            bound: promised.then_some(("< 200 KiB", more < 200)),
        });
    };
    row("memory of its own", paved.anonymous - plain.anonymous, plain.anonymous, true);
    row("  of a process that took over", successor.anonymous - plain.anonymous, plain.anonymous, true);
    row(
        "  with mapped pages of the program file",
        paved.proportional - plain.proportional,
        plain.proportional,
        false,
    );
}

fn after_requests(pid: i32, address: std::net::SocketAddr) -> Memory {
    let mut connection = Connection::open(address);
    for _ in 0..REQUESTS {
        connection.ask();
        Connection::ask_once(address);
    }
    Memory::of(pid)
}

fn program(table: &mut Table) {
    let start = || {
        let begin = Instant::now();
        let status = Command::new(HANDOVER).arg("--version").env_clear().stdout(Stdio::null()).status();
        assert!(status.expect("start handover").success());
        begin.elapsed()
    };
    let starts: Vec<Duration> = (0..STARTS).map(|_| start()).collect();
    let start = median(&starts);
    table.add(&Row {
        what: "`handover --version`, from fork to exit",
        measured: milliseconds(start),
        beside: String::new(),
        ratio: None,
        bound: Some(("< 10 ms", start < Duration::from_millis(10))),
    });
    let size = std::fs::metadata(HANDOVER).expect("the program").len();
    table.add(&Row {
        what: "`handover`, stripped",
        measured: format!("{:.2} MB", size as f64 / 1e6),
        beside: String::new(),
        ratio: None,
        bound: Some(("< 5 MB", size < 5_000_000)),
    });
}
