//! What stashing costs, beside a loop that sends the same to PID 1 without asking anything, on a real
//! systemd in a machine of the lab. Where there can be none, the table says why.
//!
//! Both begin with an empty store and end with the answer to a barrier. PID 1 compares what comes with
//! all that it holds (kcmp(2)), so that the n-th costs more than the first, whoever sends it. systemd 252
//! does not say how much it holds: there each place is proven with a canary before it is used.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use handover::fdstore::Store;
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::pipe;

use crate::sample;
use crate::table::{Row, Table, median};

/// The argument by which this program is the service that stashes.
pub(crate) const STASHER: &str = "stasher";

/// How many are stashed at once, how often, and how many thousands once.
const COUNT: usize = 500;
const ROUNDS: usize = 15;
const THOUSANDS: usize = 4;

/// The systemds, of which one has a bound to keep.
const SYSTEMDS: [(&str, bool); 3] = [("V257", true), ("V262", false), ("V252", false)];

/// All systemds that are there.
pub(crate) fn measure(table: &mut Table) {
    for (systemd, promised) in SYSTEMDS {
        match said(systemd) {
            Ok(said) => rows(table, systemd, promised, &said),
            Err(why) => table.skip(&format!("stashing, {systemd}"), &why),
        }
    }
}

/// What the stasher prints in a machine; or why there is none.
fn said(systemd: &str) -> Result<String, String> {
    let lab = sample("lab");
    let missing = Command::new(&lab).arg("missing").output().map_err(|error| error.to_string())?;
    if !missing.status.success() {
        return Err(String::from_utf8_lossy(&missing.stdout).trim().to_owned());
    }
    let this = std::env::current_exe().expect("name of this program");
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/stashing.service");
    let mut command = Command::new(lab);
    command.args(["run", systemd, "--bind", &format!("{}:/usr/bin/bounds", this.display())]);
    command.args(["--bind", &format!("{unit}:/etc/systemd/system/stashing.service")]);
    command.args(["--", "sh", "-c", "systemctl start stashing && cat /run/stashed"]);
    let done = command.stdin(Stdio::null()).output().expect("start lab");
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(format!("the lab says: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

fn rows(table: &mut Table, systemd: &str, promised: bool, said: &str) {
    let figures = |word: &str| -> Vec<f64> {
        let line = said.lines().find_map(|line| line.strip_prefix(word)).expect("the stasher says all");
        line.split_whitespace().map(|figure| figure.parse().expect("a figure")).collect()
    };
    let (bare, stashed) = (figures("bare"), figures("stashed"));
    let rates: Vec<f64> = bare.iter().zip(&stashed).map(|(bare, stashed)| bare / stashed).collect();
    let each = |times: &[f64]| format!("{:.0} µs", median(times) * 1e6 / COUNT as f64);
    table.add(&Row {
        what: &format!("stashing, {systemd}: each of {COUNT}; rate"),
        measured: each(&stashed),
        beside: format!("{} bare sendmsg", each(&bare)),
        ratio: Some(median(&rates)),
        bound: promised.then_some((">= 0.8", median(&rates) >= 0.8)),
    });
    let thousands = figures("thousands");
    let thousands: Vec<String> = thousands.iter().map(|time| format!("{:.0}", time * 1e3)).collect();
    table.add(&Row {
        what: "  one thousand after the other",
        measured: format!("{} ms", thousands.first().map_or("", |first| first)),
        beside: format!("{} ms", thousands[1..].join(", ")),
        ratio: None,
        bound: None,
    });
}

/// The stasher's life: measures both in turns, and prints all figures, in seconds.
pub(crate) fn stash() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let inherited = handover::activation::claim().expect("nothing was passed");
        let (store, manager) = (Store::from_env(&inherited).expect("a store"), Bare::find());
        let (mut bare, mut stashed, mut thousands) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(manager.stash(COUNT));
            stashed.push(stash_all(&store, COUNT, &mut Vec::new()).await);
            // The removals are no part of either.
            while !store.list().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            manager.barrier();
        }
        let mut held = Vec::new();
        for _ in 0..THOUSANDS {
            thousands.push(stash_all(&store, 1000, &mut held).await);
        }
        for (word, figures) in [("bare", bare), ("stashed", stashed), ("thousands", thousands)] {
            let figures: Vec<String> = figures.iter().map(f64::to_string).collect();
            println!("{word} {}", figures.join(" "));
        }
    });
    ExitCode::SUCCESS
}

/// Stashes so many more than are `held`, until PID 1 is known to hold them.
async fn stash_all(store: &Store, count: usize, held: &mut Vec<handover::fdstore::Stashed<EventFd>>) -> f64 {
    let things: Vec<EventFd> = (0..count).map(|_| EventFd::new().expect("eventfd")).collect();
    let begin = Instant::now();
    for thing in things {
        let name = format!("stashed{}", held.len());
        held.push(store.stash(&name, thing).await.expect("there is room"));
    }
    store.confirm().await.expect("PID 1 holds all");
    begin.elapsed().as_secs_f64()
}

/// The way to PID 1 without a library.
pub(crate) struct Bare(UnixDatagram);

impl Bare {
    /// By NOTIFY_SOCKET.
    pub(crate) fn find() -> Self {
        let path = std::env::var("NOTIFY_SOCKET").expect("NOTIFY_SOCKET");
        let socket = UnixDatagram::unbound().expect("a socket");
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        socket.connect_addr(&address.expect("an address")).expect("connect to PID 1");
        Self(socket)
    }

    /// One message.
    pub(crate) fn send(&self, text: &str, fds: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg::<()>(self.0.as_raw_fd(), &parts, rights, MsgFlags::empty(), None).expect("sendmsg");
    }

    /// Returns when PID 1 has read all that was sent.
    pub(crate) fn barrier(&self) {
        let (ours, theirs) = pipe().expect("pipe");
        self.send("BARRIER=1", &[theirs.as_raw_fd()]);
        drop(theirs);
        let mut ends = [nix::poll::PollFd::new(ours.as_fd(), nix::poll::PollFlags::empty())];
        nix::poll::poll(&mut ends, nix::poll::PollTimeout::NONE).expect("poll");
    }

    /// Has PID 1 hold so many, and then none of them; how long the first took.
    fn stash(&self, count: usize) -> f64 {
        let things: Vec<EventFd> = (0..count).map(|_| EventFd::new().expect("eventfd")).collect();
        let begin = Instant::now();
        for (number, thing) in things.iter().enumerate() {
            self.send(&format!("FDSTORE=1\nFDNAME=bare{number}"), &[thing.as_fd().as_raw_fd()]);
        }
        self.barrier();
        let took = begin.elapsed().as_secs_f64();
        (0..count).for_each(|number| self.send(&format!("FDSTOREREMOVE=1\nFDNAME=bare{number}"), &[]));
        self.barrier();
        took
    }
}
