//! What `handover run` costs: the requests of a program under it beside the same program alone, the calls
//! that it is asked about, and the memory of the runner.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind as bind_to, socket};
use nix::unistd::Pid;

use crate::client::Connection;
use crate::request::{Use, ask, on_one_cpu};
use crate::service::started;
use crate::standin::free_address;
use crate::table::{Row, Table, median};
use crate::weight::Memory;
use crate::{HANDOVER, sample};

/// The argument by which this program is one that binds again and again.
pub(crate) const BINDER: &str = "binder";

/// How often both programs are started anew: where a process happens to lie in memory makes more of a
/// difference than a runner.
const STARTS: usize = 11;

/// Pairs of batches of requests for each of them, and requests in each.
const PAIRS: usize = 101;
const BATCH: usize = 50;

/// How often a bind is timed.
const BINDS: usize = 500;

/// How often the program is upgraded before its runner is weighed.
const UPGRADES: usize = 5;

/// How many connections have ended a moment before that: the kernel remembers each of them for a minute.
const ENDED: usize = 15_000;

/// All of it.
pub(crate) fn measure(table: &mut Table) {
    on_one_cpu(|| {
        throughput(table, "throughput under `handover run`, keep-alive", Use::KeepAlive);
        throughput(table, "  with a new connection for each request", Use::NewConnection);
    });
    binds(table);
    memory(table);
}

/// A cgroup, as a service manager gives every service one; none where none can be made.
struct Home(Option<PathBuf>);

impl Home {
    fn make(name: &str) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (mounts, own) = (text("/proc/self/mountinfo"), text("/proc/self/cgroup"));
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let mount = mount.and_then(|line| line.split(' ').nth(4));
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let folder = mount.zip(own).map(|(mount, own)| {
            Path::new(mount).join(own).join(format!("handover-bench-{}-{name}", std::process::id()))
        });
        Self(folder.filter(|folder| std::fs::create_dir(folder).is_ok()))
    }

    /// Runs a program in it.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(folder) = &self.0 else { return Command::new(program) };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]).arg(folder.join("cgroup.procs")).arg(program);
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            let below = std::fs::read_dir(folder).into_iter().flatten().flatten();
            below.for_each(|entry| drop(std::fs::remove_dir(entry.path())));
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// A runner, and below it a program that prints a line when it serves; stopped when dropped.
struct Runner(Child, #[expect(dead_code, reason = "goes when the runner has gone")] Home);

impl Runner {
    /// Starts it without a service manager: it makes its slots itself.
    fn start(program: &[&str]) -> (Self, BufReader<std::process::ChildStdout>) {
        let home = Home::make("runner");
        let mut command = home.command(HANDOVER);
        command.args(["run", "--drain", "1s", "--"]).args(program).env_clear();
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("start a runner");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        (Self(child, home), output)
    }

    /// One that runs the sample at this address.
    fn of_sample(address: SocketAddr) -> (Self, BufReader<std::process::ChildStdout>) {
        let (program, address) = (sample("plain").display().to_string(), address.to_string());
        let (runner, mut output) = Self::start(&[&program, &address]);
        output.read_line(&mut String::new()).expect("the sample says where it serves");
        (runner, output)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Requests in turns to the program alone and to the same one under a runner, again and again; both are
/// in a cgroup, as services are.
fn throughput(table: &mut Table, what: &'static str, connections: Use) {
    let (mut with, mut without, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let home = Home::make("alone");
        let (mut alone, there) = started(home.command(sample("plain")).env_clear());
        let here = free_address();
        let (runner, _output) = Runner::of_sample(here);
        let batch = |address| {
            let begin = Instant::now();
            ask(address, connections, BATCH);
            BATCH as f64 / begin.elapsed().as_secs_f64()
        };
        // The first ones are for the caches.
        let (_, _) = (batch(there), batch(here));
        for pair in 0..PAIRS {
            // Whoever comes second finds the caches as the first left them.
            let (one, other) = if pair % 2 == 0 {
                let one = batch(there);
                (one, batch(here))
            } else {
                let other = batch(here);
                (batch(there), other)
            };
            without.push(one);
            with.push(other);
            ratios.push(other / one);
        }
        drop(runner);
        alone.kill().and_then(|()| alone.wait()).expect("end the sample");
    }
    let ratio = median(&ratios);
    table.add(&Row {
        what,
        measured: format!("{:.0}/s", median(&with)),
        beside: format!("{:.0}/s alone", median(&without)),
        ratio: Some(ratio),
        bound: Some((">= 0.98", ratio >= 0.98)),
    });
}

/// The calls that the kernel asks the runner about, beside the same ones of a program that nobody watches.
fn binds(table: &mut Table) {
    let this = std::env::current_exe().expect("name of this program").display().to_string();
    let watched = |address: &str| {
        let (_runner, mut output) = Runner::start(&[&this, BINDER, address]);
        microseconds(&mut output)
    };
    let alone = |address: &str| {
        let mut command = Command::new(&this);
        let command = command.args([BINDER, address]).env_clear().stdout(Stdio::piped());
        let mut child = command.spawn().expect("start a program that binds");
        let told = microseconds(&mut BufReader::new(child.stdout.take().expect("stdout is piped")));
        child.kill().and_then(|()| child.wait()).expect("end it");
        told
    };
    let address = free_address().to_string();
    let ([slot, elsewhere], [slot_alone, elsewhere_alone]) = (watched(&address), alone(&address));
    let mut row = |what, measured: f64, plain: f64| {
        table.add(&Row {
            what,
            measured: format!("{measured:.0} µs"),
            beside: format!("{plain:.1} µs alone"),
            ratio: None,
            bound: Some(("< 1 ms", measured < 1000.0)),
        });
    };
    row("a bind(2) that gets a slot", slot, slot_alone);
    row("  of an address that no slot has", elsewhere, elsewhere_alone);
}

/// What the program that binds says: of its own address, and of any.
fn microseconds(output: &mut impl BufRead) -> [f64; 2] {
    let mut line = String::new();
    output.read_line(&mut line).expect("a line of the program that binds");
    let times: Vec<f64> = line.split_whitespace().map(|time| time.parse().expect("a number")).collect();
    times.try_into().expect("two times")
}

/// The life of the program that binds: its own address, and any free port, again and again. Then it
/// serves, for as long as it lives.
pub(crate) fn bind() -> ExitCode {
    let address: SocketAddr = std::env::args().nth(2).and_then(|text| text.parse().ok()).expect("an address");
    let SocketAddr::V4(own) = address else { panic!("an IPv4 address is wanted, not {address}") };
    let time = |to: SockaddrIn| {
        let times = (0..BINDS).map(|_| {
            let fresh = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None);
            let fresh = fresh.expect("a socket");
            let begin = Instant::now();
            bind_to(std::os::fd::AsRawFd::as_raw_fd(&fresh), &to).expect("bind");
            begin.elapsed().as_secs_f64() * 1e6
        });
        median(&times.collect::<Vec<_>>())
    };
    let (slot, any) = (time(own.into()), time(SockaddrIn::new(127, 0, 0, 1, 0)));
    println!("{slot} {any}");
    let listener = TcpListener::bind(address).expect("its address");
    listener.incoming().for_each(drop);
    ExitCode::SUCCESS
}

/// What the runner has in memory, when it has done its work for a while.
fn memory(table: &mut Table) {
    let address = free_address();
    let (runner, _output) = Runner::of_sample(address);
    for _ in 0..ENDED {
        Connection::ask_once(address);
    }
    let mut serves = Connection::ask_once(address);
    for _ in 0..UPGRADES {
        let (old, until) = (serves, Instant::now() + Duration::from_secs(30));
        for look in 0.. {
            assert!(Instant::now() < until, "no new generation serves");
            // More than once: while an upgrade comes to its end, another one is refused.
            if look % 100 == 0 {
                kill(runner.pid(), Signal::SIGHUP).expect("ask for an upgrade");
            }
            serves = Connection::ask_once(address);
            if serves != old {
                break;
            }
            // As a client does that has other things to do.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    drop(TcpStream::connect(address));
    // At rest: the last one that drained has left, and nothing is looked for any more.
    std::thread::sleep(Duration::from_secs(3));
    let (memory, before) = (Memory::of(runner.pid().as_raw()), wake_ups(runner.pid()));
    table.add(&Row {
        what: "memory of a runner, resident, after 5 upgrades",
        measured: format!("{} KiB", memory.resident),
        beside: format!("{} KiB its own", memory.anonymous),
        ratio: None,
        bound: Some(("<= 3 MiB", memory.resident <= 3072)),
    });
    let rest = Duration::from_secs(3);
    std::thread::sleep(rest);
    let more = wake_ups(runner.pid()) - before;
    table.add(&Row {
        what: "  how often it wakes up at rest",
        measured: more.to_string(),
        beside: format!("in {} s", rest.as_secs()),
        ratio: None,
        bound: Some(("0", more == 0)),
    });
}

/// How often threads of a process have waited for something.
fn wake_ups(process: Pid) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads").flatten();
    let waits = threads.map(|thread| {
        let status = std::fs::read_to_string(thread.path().join("status")).expect("of a thread");
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        waits.and_then(|number| number.trim().parse::<u64>().ok()).expect("a number")
    });
    waits.sum()
}
