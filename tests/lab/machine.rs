//! A machine as a test holds it: boot, run commands, push files, read the journal, drop.
//!
//! Whatever fails here panics with what was said, as a test wants it; a panic while a machine is held
//! prints the end of its journal.
#![expect(clippy::expect_used, clippy::panic, reason = "a test's hands: what fails, fails the test")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Instant, UNIX_EPOCH};

use nix::sched::{CloneFlags, setns, unshare};

use super::journal::{self, Query, SYNC, SYNC_FILE};
use super::permit::Permit;
use super::systemd::Systemd;

/// Where the supervisors of machines keep what they have, each in a folder named by its pid: a lock, the
/// notify socket, the mount point.
pub(crate) const STATE: &str = "/run/handover-lab";

/// Where commands are looked for inside.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Output {
    /// As a shell tells it: 128 and the signal's number for a command that was killed.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A machine to be.
pub(crate) struct Builder {
    systemd: Systemd,
    options: Vec<String>,
}

impl Builder {
    /// Has it stand on the tree with more servers, where there is one: 257's, and the stand-in's.
    pub(crate) fn with_programs(mut self) -> Self {
        self.options.push("--programs".into());
        self
    }

    /// Shows a file of the host at `path`, read-only.
    pub(crate) fn bind(self, host: impl AsRef<Path>, path: &str) -> Self {
        self.option("--bind", host.as_ref(), path)
    }

    /// Gives the machine its own copy of a file of the host, with the same mode.
    pub(crate) fn copy(self, host: impl AsRef<Path>, path: &str) -> Self {
        self.option("--copy", host.as_ref(), path)
    }

    /// Gives the machine its own copy of all that is in a folder of the host, at the same places.
    pub(crate) fn tree(mut self, host: impl AsRef<Path>) -> Self {
        self.options.extend(["--tree".to_owned(), host.as_ref().display().to_string()]);
        self
    }

    fn option(mut self, flag: &str, host: &Path, path: &str) -> Self {
        self.options.extend([flag.to_owned(), format!("{}:{path}", host.display())]);
        self
    }

    /// Boots and returns when systemd says that it has finished; waits while as many machines live as may.
    pub(crate) fn boot(self) -> Machine {
        let permit = Permit::take(self.systemd);
        let mut supervisor = Command::new(executable());
        supervisor.arg("boot").arg(self.systemd.to_string()).args(self.options);
        let mut supervisor =
            supervisor.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start lab boot");
        let mut line = String::new();
        let stdout = supervisor.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("read from lab boot");
        let mut words = line.split_whitespace();
        let (Some("ready"), Some(pid), Some(cgroup)) = (words.next(), words.next(), words.next()) else {
            panic!("{} did not boot: {line:?}, {:?}", self.systemd, supervisor.wait());
        };
        let pid1 = pid.parse().expect("lab boot says a pid");
        let open = |kind| File::open(format!("/proc/{pid1}/ns/{kind}")).expect("namespace of the machine");
        Machine {
            systemd: self.systemd,
            pid1,
            cgroup: cgroup.into(),
            network: open("net"),
            files: open("mnt"),
            processes: open("pid"),
            supervisor,
            _permit: permit,
        }
    }
}

/// A running machine; dropping it destroys it and waits until all of it is gone.
#[derive(Debug)]
pub(crate) struct Machine {
    systemd: Systemd,
    pid1: u32,
    cgroup: PathBuf,
    network: File,
    files: File,
    processes: File,
    supervisor: Child,
    _permit: Permit,
}

impl Machine {
    /// A machine with nothing of the host's in it.
    pub(crate) fn boot(systemd: Systemd) -> Self {
        Self::with(systemd).boot()
    }

    /// A machine to which files are given before it boots.
    pub(crate) fn with(systemd: Systemd) -> Builder {
        Builder { systemd, options: Vec::new() }
    }

    /// Which systemd it runs.
    pub(crate) fn systemd(&self) -> Systemd {
        self.systemd
    }

    /// Its PID 1, as the host counts.
    pub(crate) fn pid1(&self) -> u32 {
        self.pid1
    }

    /// Its cgroup, as a path on the host.
    pub(crate) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The process on the host on which the machine depends.
    pub(crate) fn supervisor(&self) -> u32 {
        self.supervisor.id()
    }

    /// A command inside, as root, not started yet; its standard streams are the caller's to set.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.enter(&[], words)
    }

    fn enter(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new(executable());
        command.arg("exec").arg(self.pid1.to_string()).args(options).arg("--").args(words);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command inside to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        match words {
            ["systemctl", ..] | ["timeout", _, "systemctl", ..] if self.systemd == Systemd::Standin => {
                self.ask_the_standin(words)
            }
            _ => output(&mut self.command(words)),
        }
    }

    /// Without `lab exec`: no cgroup tells the stand-in who asks, and scenarios ask thousands of times.
    fn ask_the_standin(&self, words: &[&str]) -> Output {
        self.inside(&self.files, || {
            setns(&self.processes, CloneFlags::empty()).expect("enter the machine");
            // As a path: what is looked for in PATH is forked for, and this process is large.
            let mut command = Command::new(Path::new("/usr/bin").join(words[0]));
            surround(command.args(&words[1..]).stdin(Stdio::null()));
            output(&mut command)
        })
    }

    /// Runs a command inside as `user`, with the user's own runtime folder and bus; see [`Self::linger`].
    pub(crate) fn run_as(&self, user: &str, words: &[&str]) -> Output {
        output(&mut self.enter(&["--user", user], words))
    }

    /// Runs a command that must succeed; returns what it printed.
    pub(crate) fn succeed(&self, words: &[&str]) -> String {
        let done = self.run(words);
        assert!(done.status == 0, "{words:?} on {}: {done:?}", self.systemd);
        done.stdout
    }

    /// Starts a command that goes on in the background, its output piped; killing the child kills it.
    pub(crate) fn spawn(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start lab exec")
    }

    /// Starts the user manager of `user` and keeps it without a session.
    pub(crate) fn linger(&self, user: &str) {
        self.succeed(&["loginctl", "enable-linger", user]);
        let uid = self.succeed(&["id", "-u", user]);
        self.succeed(&["systemctl", "start", &format!("user@{}.service", uid.trim())]);
    }

    /// Writes a file inside, its folders with it; who has the old one open keeps it.
    pub(crate) fn push(&self, path: &str, contents: impl AsRef<[u8]>, mode: u32) {
        let (path, contents) = (Path::new(path), contents.as_ref());
        self.inside(&self.files, || {
            let fresh = PathBuf::from(format!("{}.fresh", path.display()));
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            fs::write(&fresh, contents)?;
            fs::set_permissions(&fresh, PermissionsExt::from_mode(mode))?;
            fs::rename(&fresh, path)
        })
        .unwrap_or_else(|why| panic!("push {}: {why}", path.display()));
    }

    /// Writes a unit file and has PID 1 read it.
    pub(crate) fn unit(&self, name: &str, text: &str) {
        self.units(&[(name, text)]);
    }

    /// Writes unit files and has PID 1 read them all at once.
    pub(crate) fn units(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.push(&format!("/etc/systemd/system/{name}"), text, 0o644);
        }
        self.succeed(&["systemctl", "daemon-reload"]);
    }

    /// What journalctl(1) shows with these arguments, all that was said until now in it.
    pub(crate) fn journal(&self, arguments: &[&str]) -> String {
        if self.systemd == Systemd::Standin {
            self.sync();
            let lines = self.said(arguments);
            return lines.iter().map(|line| format!("{line}\n")).collect();
        }
        self.succeed(&["journalctl", "--sync"]);
        self.succeed(&[&["journalctl", "--no-pager"], arguments].concat())
    }

    /// An argument for journalctl(1): what is said from now on. (A cursor would do, but 252 passes over
    /// the first match after it.)
    pub(crate) fn mark(&self) -> String {
        if self.systemd == Systemd::Standin {
            self.sync();
        } else {
            self.succeed(&["journalctl", "--sync"]);
        }
        let now = UNIX_EPOCH.elapsed().expect("a clock of this century");
        format!("--since=@{}.{:06}", now.as_secs(), now.subsec_micros())
    }

    /// Waits for a line with `text` in what journalctl(1) shows with `arguments` since `mark`.
    pub(crate) fn await_journal(&self, mark: &str, arguments: &[&str], text: &str) -> String {
        if self.systemd == Systemd::Standin {
            let query = query(&[&[mark], arguments].concat());
            let found = journal::wait(&self.journal_file(), &query, text);
            return found.unwrap_or_else(|| panic!("nothing with {text:?} in the journal within 20 s"));
        }
        let follow = ["timeout", "20", "journalctl", "-q", "-f", "--no-tail", mark];
        let mut journalctl = self.spawn(&[&follow, arguments].concat());
        let lines = BufReader::new(journalctl.stdout.take().expect("stdout is piped")).lines();
        let found = lines.map_while(Result::ok).find(|line| line.contains(text));
        let _ = journalctl.kill();
        let _ = journalctl.wait();
        // A journalctl that sleeps over the last line is not what is tested here.
        let slept_over = || {
            let said = self.journal(&[&[mark], arguments].concat());
            said.lines().find(|line| line.contains(text)).map(str::to_owned)
        };
        found
            .or_else(slept_over)
            .unwrap_or_else(|| panic!("nothing with {text:?} in the journal within 20 s"))
    }

    /// Where the supervisor keeps the journal of the stand-in.
    fn journal_file(&self) -> PathBuf {
        journal::file(&Path::new(STATE).join(self.supervisor.id().to_string()))
    }

    /// What is in it, in the words of journalctl(1).
    fn said(&self, arguments: &[&str]) -> Vec<String> {
        query(arguments).find(&fs::read_to_string(self.journal_file()).expect("a journal"))
    }

    /// Waits until it has all that the stand-in was told or has said until now: a line of a service goes the
    /// same way, behind them.
    fn sync(&self) {
        let now = format!("{:?}", Instant::now());
        self.push(SYNC_FILE, format!("{now}\n"), 0o644);
        self.succeed(&["systemctl", "start", SYNC]);
        journal::wait(&self.journal_file(), &query(&["-u", SYNC]), &now).expect("a line of the lab's own");
    }

    /// One property of a unit, as `systemctl show -P` prints it.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.succeed(&["systemctl", "show", "-P", property, unit]).trim_end().to_owned()
    }

    /// Calls `work` in a thread whose network is the machine's: sockets made there live in it.
    pub(crate) fn enter_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside(&self.network, work)
    }

    /// Starts a thread whose network is the machine's, for clients that go on in the background.
    pub(crate) fn network_thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let network = self.network.try_clone().expect("dup");
        let named = std::thread::Builder::new().name(name.to_owned());
        named.spawn(move || join(&network, work)).expect("start a thread")
    }

    fn inside<T: Send>(&self, namespace: &File, work: impl FnOnce() -> T + Send) -> T {
        let joined = std::thread::scope(|scope| scope.spawn(|| join(namespace, work)).join());
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = match self.systemd {
                Systemd::Standin => self.said(&["-n", "60"]).join("\n"),
                _ => self.run(&["journalctl", "--no-pager", "-n", "60"]).stdout,
            };
            println!("the journal of {} ends so:\n{journal}", self.systemd);
        }
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// The environment of commands inside: nothing of this process's own.
pub(crate) fn surround(command: &mut Command) {
    command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").env("TERM", "dumb").env("HOME", "/root");
    command.env("SYSTEMD_PAGER", "").env("SYSTEMD_COLORS", "0").env("SYSTEMD_URLIFY", "0");
}

/// journalctl(1)'s arguments, as far as the lab knows them.
fn query(arguments: &[&str]) -> Query {
    Query::parse(arguments).unwrap_or_else(|why| panic!("{why}"))
}

/// Calls `work` with this thread moved into `namespace` for good.
fn join<T>(namespace: &File, work: impl FnOnce() -> T) -> T {
    // A mount namespace can only be joined by a thread that has a root and a folder of its own.
    unshare(CloneFlags::CLONE_FS)
        .and_then(|()| setns(namespace, CloneFlags::empty()))
        .expect("enter the machine");
    work()
}

/// Waits for a command that was started with [`Machine::spawn`].
pub(crate) fn finish(child: Child) -> Output {
    told(child.wait_with_output().expect("wait for lab exec"))
}

fn output(command: &mut Command) -> Output {
    told(command.output().expect("start lab exec"))
}

fn told(done: std::process::Output) -> Output {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let status = done.status.code().unwrap_or(-1);
    Output { status, stdout: text(&done.stdout), stderr: text(&done.stderr) }
}

/// The `lab` executable, as cargo builds it beside the tests and beside the other examples.
pub(crate) fn executable() -> PathBuf {
    let this = std::env::current_exe().expect("name of this program");
    match this.parent() {
        Some(folder) if folder.ends_with("deps") => folder.with_file_name("examples").join("lab"),
        _ => this.with_file_name("lab"),
    }
}
