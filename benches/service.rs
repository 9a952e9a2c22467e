//! A service of the benchmark's own, and its manager: what PID 1 does for one, and nothing else.
//!
//! The successors are children of this process, as they are of PID 1: who asks for an upgrade, this
//! program in its role as the helper or `handover reload`, is one, and makes them with CLONE_PARENT.

use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::{HANDOVER, sample};

/// The argument by which this program is the helper.
pub(crate) const HELPER: &str = "helper";

/// Who has said nothing by then never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A sample that was started, and where it serves.
pub(crate) type Running = (Child, SocketAddr);

/// The receiving end of sd_notify(3).
pub(crate) struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    /// A manager under a name of its own.
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("handover-bench-{name}-{}", std::process::id());
        let address = UnixAddress::from_abstract_name(&name).expect("an abstract name");
        let socket = UnixDatagram::bind_addr(&address).expect("a notify socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        Self { socket, name }
    }

    /// The sample as a service, which takes so many milliseconds longer to start than it must.
    pub(crate) fn command(&self, busy: u32) -> Command {
        self.command_of("paved", &busy.to_string())
    }

    /// A sample as a service, with nothing in its environment but the way to its manager.
    pub(crate) fn command_of(&self, name: &str, argument: &str) -> Command {
        let mut command = Command::new(sample(name));
        command
            .arg(argument)
            .env_clear()
            .env("NOTIFY_SOCKET", format!("@{}", self.name))
            .stdin(Stdio::null());
        command
    }

    /// When a message with a line that begins with `word` came, and the rest of that line. Descriptors
    /// that come along are closed at once: for BARRIER=1 that is the answer.
    pub(crate) fn hears(&self, word: &str) -> (Instant, String) {
        let mut buffer = [0; 4096];
        loop {
            let len = self.socket.recv(&mut buffer).expect("a message to the manager");
            let now = Instant::now();
            let text = String::from_utf8_lossy(&buffer[..len]);
            if let Some(rest) = text.lines().find_map(|line| line.strip_prefix(word)) {
                return (now, rest.to_owned());
            }
        }
    }
}

/// The service, which is upgraded again and again.
pub(crate) struct Service {
    manager: Manager,
    main: i32,
    helper: Child,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where it serves.
    pub(crate) address: SocketAddr,
}

/// How an upgrade went.
pub(crate) struct Upgrade {
    /// When it was asked for.
    pub(crate) asked: Instant,
    /// From the request until whoever asked knew that the new process serves.
    pub(crate) took: Duration,
    /// When the manager got to know the new main process.
    pub(crate) switched: Instant,
    /// Who served before, and is gone now.
    pub(crate) old: i32,
}

impl Service {
    /// Starts it, and the helper; `busy` as for [`Manager::command`].
    pub(crate) fn start(name: &str, busy: u32) -> Self {
        Self::start_of(name, "paved", &busy.to_string())
    }

    /// Starts a sample, and the helper.
    pub(crate) fn start_of(name: &str, sample: &str, argument: &str) -> Self {
        let manager = Manager::new(name);
        let (first, address) = started(&mut manager.command_of(sample, argument));
        manager.hears("READY=1");
        let this = std::env::current_exe().expect("name of this program");
        let mut helper = Command::new(this);
        let helper = helper.arg(HELPER).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut helper = helper.spawn().expect("start the helper");
        let answers = BufReader::new(helper.stdout.take().expect("stdout is piped")).lines();
        Self { manager, main: pid_of(&first), helper, answers, address }
    }

    /// Who serves.
    pub(crate) fn main(&self) -> i32 {
        self.main
    }

    /// An upgrade, asked for by a helper that runs already.
    pub(crate) fn upgrade(&mut self) -> Upgrade {
        self.upgrade_and(|_| ()).0
    }

    /// An upgrade, and what is to be done as soon as the manager knows the new main process.
    pub(crate) fn upgrade_and<T>(&mut self, work: impl FnOnce(i32) -> T) -> (Upgrade, T) {
        let asker = self.helper.stdin.as_mut().expect("stdin is piped");
        let asked = Instant::now();
        writeln!(asker, "{}", self.main).expect("ask the helper");
        let (switched, new) = self.switch();
        let done = work(new);
        // The successors print to the same pipe.
        let took = self.answers.find_map(|line| line.ok()?.strip_prefix("nanoseconds ")?.parse().ok());
        let took = Duration::from_nanos(took.expect("the helper says how long it took"));
        let old = self.replaced(new);
        (Upgrade { asked, took, switched, old }, done)
    }

    /// An upgrade by `handover reload`, counted from before its fork and exec until it has ended.
    pub(crate) fn upgrade_by_command(&mut self) -> Upgrade {
        let begin = Instant::now();
        let mut command = Command::new(HANDOVER);
        let command = command.arg("reload").env_clear().env("MAINPID", self.main.to_string());
        let helper = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut helper = helper.expect("start handover reload");
        let (switched, new) = self.switch();
        let status = helper.wait().expect("wait for handover reload");
        let took = begin.elapsed();
        assert!(status.success(), "handover reload: {status}");
        Upgrade { asked: begin, took, switched, old: self.replaced(new) }
    }

    fn switch(&self) -> (Instant, i32) {
        let (switched, new) = self.manager.hears("MAINPID=");
        self.manager.hears("BARRIER=1");
        (switched, new.parse().expect("a pid"))
    }

    /// Waits until the old process is gone; who that was.
    fn replaced(&mut self, new: i32) -> i32 {
        let old = std::mem::replace(&mut self.main, new);
        reap(old);
        old
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.helper.stdin.take());
        let _ = self.helper.wait();
        let _ = kill(Pid::from_raw(self.main), Signal::SIGKILL);
        reap(self.main);
    }
}

/// Starts a sample, and reads where it serves; it may not be ready yet.
pub(crate) fn started(command: &mut Command) -> Running {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("start a sample");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the sample says where it serves");
    (child, line.trim().parse().expect("an address"))
}

fn pid_of(child: &Child) -> i32 {
    child.id().cast_signed()
}

fn reap(pid: i32) {
    waitpid(Pid::from_raw(pid), None).expect("a child of ours");
}

/// The helper's life: what `handover reload` does, for each pid that comes in.
pub(crate) fn help() -> ExitCode {
    for line in stdin().lines() {
        let pid = line.expect("a line").parse().expect("a pid");
        let begin = Instant::now();
        handover::upgrade::reload(pid).expect("the upgrade");
        println!("nanoseconds {}", begin.elapsed().as_nanos());
    }
    ExitCode::SUCCESS
}
