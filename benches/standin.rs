//! What `handover pid1` costs: a first request under it, ten thousand descriptors in its store, memory.

use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::eventfd::EventFd;
use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::client::Connection;
use crate::service::started;
use crate::stashing::Bare;
use crate::table::{Row, Table, median, milliseconds};
use crate::weight::Memory;
use crate::{HANDOVER, sample};

/// The argument by which this program is the service that fills the store.
pub(crate) const FILLER: &str = "filler";

/// How often a first request is measured, and how often what is slower.
const STARTS: usize = 100;
const ROUNDS: usize = 5;

/// What is stored, and in how many steps of which each is timed.
const STEP: usize = 1000;
const STEPS: usize = 10;

/// How many services the stand-in runs while it is weighed.
const SERVICES: usize = 10;

/// All of it.
pub(crate) fn measure(table: &mut Table) {
    first_request(table);
    store(table);
    memory(table);
}

/// A stand-in in a folder of its own; stopped and removed when dropped.
struct Standin {
    folder: PathBuf,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Standin {
    /// Starts it with what [`write_units`] made; it may not be ready yet.
    fn start(folder: PathBuf, option: &str) -> Self {
        let mut command = Command::new(HANDOVER);
        command.arg("pid1").arg("--runtime").arg(&folder).arg(option).arg(folder.join("units"));
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the stand-in");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Self { folder, child, lines }
    }

    /// What follows `text` in the next line that has it.
    fn says(&mut self, text: &str) -> String {
        let mut lines = self.lines.by_ref().map(|line| line.expect("a line of the stand-in"));
        let found = lines.find_map(|line| Some(line.split_once(text)?.1.to_owned()));
        found.expect("the stand-in says it before it ends")
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        // It could wait for us to read.
        self.lines.by_ref().for_each(drop);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder with these units, files by name.
fn write_units(name: &str, units: &[(String, String)]) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("handover-bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("units")).expect("a folder for the units");
    for (name, text) in units {
        std::fs::write(folder.join("units").join(name), text).expect("a unit file");
    }
    folder
}

/// The sample as a service with a socket, at this address.
fn hello(name: &str, address: SocketAddr) -> [(String, String); 2] {
    let socket = format!("[Socket]\nListenStream={address}\nFileDescriptorName=hello\n");
    let program = sample("paved");
    let service = format!(
        "[Service]\nType=notify\nNotifyAccess=main\nNonBlocking=yes\nExecStart={}\n",
        program.display()
    );
    [(format!("{name}.socket"), socket), (format!("{name}.service"), service)]
}

/// An address that nobody has at the moment.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

/// From the start of the stand-in until a request was answered, beside the same service alone.
fn first_request(table: &mut Table) {
    let (mut alone, mut at_once, mut on_traffic) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let begin = Instant::now();
        let (mut service, address) = started(Command::new(sample("paved")).env_clear().stdin(Stdio::null()));
        Connection::ask_once(address);
        alone.push(begin.elapsed());
        service.kill().and_then(|()| service.wait()).expect("end the service");
        for (option, times) in [("--now", &mut at_once), ("--on-traffic", &mut on_traffic)] {
            let address = free_address();
            let folder = write_units("first", &hello("hello", address));
            let begin = Instant::now();
            let mut standin = Standin::start(folder, option);
            standin.says("ready; control socket");
            Connection::ask_once(address);
            times.push(begin.elapsed());
        }
    }
    let alone = median(&alone);
    let most = alone.mul_f64(1.2) + Duration::from_millis(10);
    for (what, times) in [
        ("`handover pid1` to a first answer", at_once),
        ("  of a service that waits for traffic", on_traffic),
    ] {
        let took = median(&times);
        table.add(&Row {
            what,
            measured: milliseconds(took),
            beside: format!("{} the service alone", milliseconds(alone)),
            ratio: Some(took.as_secs_f64() / alone.as_secs_f64()),
            bound: Some(("1.2+10 ms", took <= most)),
        });
    }
}

/// The time of each thousand that is stored, and removed again after a restart.
fn store(table: &mut Table) {
    let this = std::env::current_exe().expect("name of this program");
    let (limit, program) = (STEP * STEPS, this.display());
    let service = format!(
        "[Service]\nType=exec\nNotifyAccess=main\nExecStart={program} {FILLER}\nRestart=always\nRestartSec=0\n\
         FileDescriptorStoreMax={limit}\nLimitNOFILE={}\n",
        limit + 100
    );
    let (mut stored, mut removed, mut passed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let folder = write_units("store", &[("filler.service".to_owned(), service.clone())]);
        let mut standin = Standin::start(folder, "--now");
        stored.push(figures(&standin.says(": stored ")));
        let ended = figures(&standin.says(": ends "));
        passed.push(figures(&standin.says(": begins "))[0] - ended[0]);
        removed.push(figures(&standin.says(": removed ")));
    }
    for (what, all) in [("storing 10,000: the last thousand", stored), ("  removing them", removed)] {
        let step = |at: usize| median(&all.iter().map(|steps: &Vec<f64>| steps[at]).collect::<Vec<_>>());
        let (first, last) = (step(0), step(STEPS - 1));
        table.add(&Row {
            what,
            measured: format!("{:.1} ms", last * 1e3),
            beside: format!("{:.1} ms the first thousand", first * 1e3),
            ratio: Some(last / first),
            bound: Some(("< 2", last / first < 2.0)),
        });
    }
    table.add(&Row {
        what: "  a restart with them, from end to start",
        measured: format!("{:.1} ms", median(&passed) * 1e3),
        beside: String::new(),
        ratio: None,
        bound: None,
    });
}

fn figures(text: &str) -> Vec<f64> {
    text.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect()
}

/// The filler's life: at its first start it stores all, and ends; at its second it removes what came back.
pub(crate) fn fill() -> ExitCode {
    let clock = || clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC");
    let now = || Duration::from(clock()).as_secs_f64();
    let (manager, began) = (Bare::find(), now());
    // Each thousand by its time: name by name, and then all is known to be done.
    let steps = |act: &dyn Fn(usize)| -> String {
        let steps = (0..STEPS).map(|step| {
            let begin = now();
            (step * STEP..(step + 1) * STEP).for_each(act);
            manager.barrier();
            format!(" {}", now() - begin)
        });
        steps.collect()
    };
    match std::env::var("LISTEN_FDS") {
        Err(_) => {
            let stored = steps(&|at| {
                let thing = EventFd::new().expect("eventfd");
                manager.send(&format!("FDSTORE=1\nFDNAME=thing{at}"), &[thing.as_fd().as_raw_fd()]);
            });
            println!("stored {stored}\nends {}", now());
        }
        Ok(count) => {
            assert_eq!(count, (STEP * STEPS).to_string(), "all of them come back");
            println!("begins {began}");
            let remove = |at| manager.send(&format!("FDSTOREREMOVE=1\nFDNAME=thing{at}"), &[]);
            println!("removed {}", steps(&remove));
            // The stand-in ends it.
            loop {
                std::thread::park();
            }
        }
    }
    ExitCode::SUCCESS
}

/// What the stand-in has in memory while it runs some services that have served.
fn memory(table: &mut Table) {
    let addresses: Vec<SocketAddr> = (0..SERVICES).map(|_| free_address()).collect();
    let units = addresses.iter().enumerate().flat_map(|(at, address)| hello(&format!("hello{at}"), *address));
    let mut standin = Standin::start(write_units("memory", &units.collect::<Vec<_>>()), "--now");
    standin.says("ready; control socket");
    for address in addresses {
        Connection::ask_once(address);
    }
    let memory = Memory::of(standin.child.id().cast_signed());
    table.add(&Row {
        what: "memory of the stand-in with 10 services",
        measured: format!("{} KiB", memory.resident),
        beside: format!("{} KiB its own", memory.anonymous),
        ratio: None,
        bound: Some(("< 8 MiB", memory.resident < 8 << 10)),
    });
}
