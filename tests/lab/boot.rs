//! The supervisor of one machine: starts its PID 1, says when it is ready, and takes all of it away
//! when the user of the machine is gone, asks for it, or the machine powers itself off.
//!
//! Never polls: it sleeps until its standard input ends, a signal comes, PID 1 speaks or dies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;

use crate::journal::Journal;
use crate::machine::STATE;
use crate::systemd::Systemd;
use crate::{Doing, Plan, cgroup, roots};

/// A machine that is not ready by then never will be.
const BOOT_DEADLINE: Duration = Duration::from_secs(90);

/// How much of what PID 1 said on its console is kept for the case that it does not get ready.
const CONSOLE_BYTES: usize = 16 * 1024;

/// Boots `plan` and stays until the machine is gone.
pub(crate) fn run(plan: &Plan) -> Result<ExitCode, String> {
    // Out of the user's session: Ctrl-C there ends the user, and the pipe's end tells us. It fails for a
    // process that leads its group, that is when a person runs us from a shell; then Ctrl-C is for us.
    let _ = nix::unistd::setsid();
    let root = roots::get(plan.tree())?;
    let signals = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let signals: SigSet = signals.into_iter().collect();
    signals.thread_block().doing("block signals")?;
    let signals = SignalFd::new(&signals).doing("signalfd")?;

    let place = Place::make()?;
    let notify = UnixDatagram::bind(place.state.join("notify")).doing("notify socket")?;
    let standin = plan.systemd == Systemd::Standin;
    let journal = standin.then(|| Journal::new(&place.state)).transpose().doing("a journal")?;
    let console = Console::open()?;
    // For our child: it is PID 1 of the new namespace. We stay where we are.
    unshare(CloneFlags::CLONE_NEWPID).doing("unshare")?;
    let mut init = Command::new("/proc/self/exe")
        .arg("init")
        .args([&root.path, &place.state, &place.cgroup, &console.slave])
        .args(&plan.words)
        .stdin(Stdio::piped())
        .spawn()
        .doing("start PID 1")?;
    // PID 1 goes on when it reads this: by then it knows that it dies with us.
    init.stdin.take().map_or(Ok(()), |mut go| go.write_all(b"!")).doing("start PID 1")?;

    let mut watch = Watch { init, signals, notify, console, journal, ready: false };
    let ended = watch.until_over(&place.cgroup);
    let said = watch.end();
    drop(place);
    match ended {
        Ok(()) if watch.ready => Ok(ExitCode::SUCCESS),
        Ok(()) => Err(format!("the machine went before it was ready; its console said:\n{said}")),
        Err(why) => Err(format!("{why}; the console said:\n{said}")),
    }
}

/// All that one supervisor waits for.
struct Watch {
    init: Child,
    signals: SignalFd,
    notify: UnixDatagram,
    console: Console,
    /// Where there is no journald.
    journal: Option<Journal>,
    ready: bool,
}

impl Watch {
    /// Returns when the machine is to go or has gone; an error if it was not ready in time.
    fn until_over(&mut self, cgroup: &Path) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let left = BOOT_DEADLINE.saturating_sub(start.elapsed());
            let patience = if self.ready { None } else { Some(left) };
            let [user, signal, notify, console, journal] = self.wait(patience)?;
            if !(user || signal || notify || console || journal) {
                return Err(format!("not ready within {} s", BOOT_DEADLINE.as_secs()));
            }
            if notify && self.hears_ready() && !self.ready {
                self.ready = true;
                let mut out = io::stdout();
                // A reader that has gone closes our standard input as well, which is seen next.
                let _ =
                    writeln!(out, "ready {} {}", self.init.id(), cgroup.display()).and_then(|()| out.flush());
            }
            if journal || console {
                self.listen();
            }
            if user && !matches!(io::stdin().read(&mut [0; 512]), Ok(1..)) {
                return Ok(());
            }
            if signal && self.is_over()? {
                return Ok(());
            }
        }
    }

    /// Sleeps until something happens or `patience` ends; says which of the five it is.
    fn wait(&self, patience: Option<Duration>) -> Result<[bool; 5], String> {
        let stdin = io::stdin();
        let console = self.console.master.as_fd();
        // Without a journal the console is looked at twice.
        let journal = self.journal.as_ref().map_or(console, Journal::as_fd);
        let sources = [stdin.as_fd(), self.signals.as_fd(), self.notify.as_fd(), console, journal];
        let mut fds = sources.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let patience = patience.map_or(PollTimeout::NONE, |left| left.try_into().unwrap_or(PollTimeout::MAX));
        poll(&mut fds, patience).doing("poll")?;
        Ok(fds.map(|fd| fd.any().unwrap_or(true)))
    }

    /// Takes in what PID 1 says, and what others send to the journal. In this order: what was sent is in the
    /// journal before what was printed later.
    fn listen(&mut self) {
        let printed = self.console.read();
        if let Some(journal) = &mut self.journal {
            journal.hear();
            journal.print(&printed);
        }
    }

    /// sd_notify(3): whether this datagram of PID 1's says that boot is finished.
    fn hears_ready(&self) -> bool {
        let mut buffer = [0; 4096];
        let len = self.notify.recv(&mut buffer).unwrap_or(0);
        buffer[..len].split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
    }

    /// Whether the signal that came means the end: PID 1 has gone, or somebody asks us to.
    fn is_over(&mut self) -> Result<bool, String> {
        let signal = self.signals.read_signal().doing("signalfd")?;
        let is_child = signal.is_some_and(|info| info.ssi_signo.cast_signed() == Signal::SIGCHLD as i32);
        Ok(!is_child || self.init.try_wait().doing("wait for PID 1")?.is_some())
    }

    /// Kills PID 1 and with it all of its namespace; returns the last it said.
    fn end(&mut self) -> String {
        let _ = self.init.kill();
        let status = self.init.wait().map_or_else(|why| why.to_string(), |status| status.to_string());
        self.listen();
        let said = String::from_utf8_lossy(&self.console.said).into_owned();
        if self.ready { said } else { format!("{said}(PID 1 ended: {status})") }
    }
}

/// The terminal that is the machine's /dev/console.
struct Console {
    master: PtyMaster,
    slave: PathBuf,
    /// Open for as long as we live: without it the master is readable for ever while nobody writes.
    _writer: File,
    said: Vec<u8>,
}

impl Console {
    fn open() -> Result<Self, String> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let master = posix_openpt(flags).doing("open a terminal")?;
        grantpt(&master).and_then(|()| unlockpt(&master)).doing("unlock the terminal")?;
        let slave = PathBuf::from(ptsname_r(&master).doing("name the terminal")?);
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
        let writer = options.open(&slave).doing(slave.display())?;
        Ok(Self { master, slave, _writer: writer, said: Vec::new() })
    }

    /// Takes what there is, keeps the last of it.
    fn read(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = self.master.read(&mut buffer) {
            all.extend_from_slice(&buffer[..len]);
        }
        self.said.extend_from_slice(&all);
        let surplus = self.said.len().saturating_sub(CONSOLE_BYTES);
        self.said.drain(..surplus);
        all
    }
}

/// What a machine leaves on the host while it lives: a folder and a cgroup. Dropping removes both.
struct Place {
    state: PathBuf,
    cgroup: PathBuf,
    /// Held for as long as we live: a folder whose lock is free belongs to a supervisor that was killed.
    _alive: File,
}

impl Place {
    /// Makes a place for this process, after clearing away those of the killed.
    fn make() -> Result<Self, String> {
        fs::create_dir_all(STATE).doing(STATE)?;
        let lock = |path: &Path| {
            File::create(path).and_then(|file| file.try_lock().map(|()| file).map_err(Into::into))
        };
        let gate = File::create(Path::new(STATE).join("lock")).doing(STATE)?;
        // Nobody sees a folder between its making and its locking.
        gate.lock().doing(STATE)?;
        for entry in fs::read_dir(STATE).doing(STATE)?.flatten() {
            if entry.path().is_dir() && lock(&entry.path().join("alive")).is_ok() {
                clear(&entry.path(), &cgroup::place(&entry.file_name().to_string_lossy())?)?;
            }
        }
        let name = std::process::id().to_string();
        let (state, cgroup) = (Path::new(STATE).join(&name), cgroup::place(&name)?);
        fs::create_dir_all(state.join("tree")).doing(state.display())?;
        let alive = lock(&state.join("alive")).doing(state.display())?;
        fs::create_dir(&cgroup).doing(cgroup.display())?;
        Ok(Self { state, cgroup, _alive: alive })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(why) = clear(&self.state, &self.cgroup) {
            eprintln!("lab: {why}");
        }
    }
}

fn clear(state: &Path, cgroup: &Path) -> Result<(), String> {
    cgroup::remove(cgroup)?;
    fs::remove_dir_all(state).doing(state.display())
}
