//! A stand-in for PID 1 with units of its own, as an ordinary process: no root, no machine, no systemd.

mod container;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::lab::{Output, executable};

/// A test that waits longer than this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How a stand-in follows processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By cgroups, where it may have them.
    Cgroups,
    /// By session and parentage.
    Sessions,
}

/// Makes each function a test of both ways: `cgroups::name`, `sessions::name`.
macro_rules! in_both_ways {
    ($($(#[$attribute:meta])* fn $name:ident($way:ident) $body:block)+) => {
        $($(#[$attribute])* fn $name($way: crate::standin::Way) $body)+
        in_both_ways! { @module cgroups Cgroups $($name)+ }
        in_both_ways! { @module sessions Sessions $($name)+ }
    };
    (@module $module:ident $way:ident $($name:ident)+) => {
        mod $module {
            $(#[test]
            fn $name() {
                super::$name(crate::standin::Way::$way);
            }
            )+
        }
    };
}

/// A folder of units and what runs them.
pub(crate) struct Standin {
    folder: PathBuf,
    arguments: Vec<String>,
    /// What executes it, if anything does.
    wrapper: Vec<String>,
    kind: Kind,
    child: Option<Child>,
    log: Arc<Log>,
    puppets: UnixListener,
}

/// What `handover pid1` is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// As we are.
    Ours,
    /// A process of a user without privileges.
    Nobody,
    /// Process 1 of a pid namespace.
    Process1,
}

/// A user without privileges, and its group.
pub(crate) const NOBODY: u32 = 65534;

/// All that was printed.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

/// A puppet that has connected.
pub(crate) struct Puppet {
    pub(crate) pid: u32,
    stream: BufReader<UnixStream>,
}

impl Standin {
    /// A folder without units, and nobody who runs them.
    pub(crate) fn new(way: Way) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ho{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(folder.join("units")).unwrap();
        let puppets = UnixListener::bind(folder.join("puppets")).unwrap();
        let arguments = if way == Way::Sessions { vec!["--no-cgroups".to_owned()] } else { Vec::new() };
        let (wrapper, kind) = (Vec::new(), Kind::Ours);
        Self { folder, arguments, wrapper, kind, child: None, log: Arc::default(), puppets }
    }

    /// One more argument of `handover pid1`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A command that executes it in its own place.
    pub(crate) fn behind(mut self, command: &[&str]) -> Self {
        self.wrapper = command.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A program where everybody may execute it. cp(1) writes it: what a thread of ours has open for
    /// writing, a child of another thread may have, too, and then nobody can execute it.
    pub(crate) fn copy(&self, program: &Path) -> String {
        fs::create_dir_all(self.folder.join("bin")).unwrap();
        let copy = self.folder.join("bin").join(program.file_name().unwrap());
        assert!(Command::new("cp").arg(program).arg(&copy).status().unwrap().success());
        copy.display().to_string()
    }

    /// It is to run without privileges, and everything in the folder until now is that user's. For root.
    pub(crate) fn unprivileged(mut self) -> Self {
        self.kind = Kind::Nobody;
        let owner = format!("{NOBODY}:{NOBODY}");
        assert!(Command::new("chown").arg("-R").arg(owner).arg(&self.folder).status().unwrap().success());
        self
    }

    /// It is to be process 1 of a pid namespace. For root.
    pub(crate) fn process_1(mut self) -> Self {
        self.kind = Kind::Process1;
        self
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a unit file, or a drop-in. `@` stands for the folder.
    pub(crate) fn unit(&self, name: &str, text: &str) {
        let path = self.folder.join("units").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace('@', self.folder.to_str().unwrap())).unwrap();
    }

    /// A service that is a puppet, with these settings.
    pub(crate) fn puppet_unit(&self, settings: &str) {
        let program = example("puppet");
        let exec = format!("[Service]\nExecStart={}\nEnvironment=PUPPET=@/puppets\n", program.display());
        self.unit("puppet.service", &format!("{exec}{settings}"));
    }

    /// Starts it, and waits until it can be asked.
    pub(crate) fn start(mut self) -> Self {
        let program = env!("CARGO_BIN_EXE_handover");
        let mut command = Command::new(program);
        if self.kind == Kind::Nobody {
            command = Command::new(self.copy(program.as_ref()));
            command.uid(NOBODY).gid(NOBODY);
        } else if self.kind == Kind::Process1 {
            command = self.container();
            command.arg(program);
        } else if let [wrapper, words @ ..] = &*self.wrapper {
            command = Command::new(wrapper);
            command.args(words).arg(program);
        }
        command
            .arg("pid1")
            .arg("--runtime")
            .arg(&self.folder)
            .args(&self.arguments)
            .arg(self.folder.join("units"));
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let (out, log) = (child.stdout.take().unwrap(), self.log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                log.lines.lock().unwrap().push(line);
                log.more.notify_all();
            }
        });
        self.child = Some(child);
        self.await_log("ready; control socket");
        self
    }

    /// Its pid, as it is here.
    pub(crate) fn pid(&self) -> u32 {
        let pid = self.child.as_ref().unwrap().id();
        if self.kind != Kind::Process1 {
            return pid;
        }
        let below = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        below.trim().parse().expect("unshare has one child")
    }

    /// Waits for a line with `text`.
    pub(crate) fn await_log(&self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let all = lines.join("\n");
                // Whoever panics with the lock takes it from those who clean up.
                drop(lines);
                panic!("no {text:?} in:\n{all}");
            }
            lines = self.log.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All lines until now.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    /// `handover VERB --standin ... WORDS`.
    pub(crate) fn handover(&self, verb: &str, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
        let done = command.arg(verb).arg("--standin").arg(&self.folder).args(words).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Output { status: done.status.code().unwrap(), stdout: text(&done.stdout), stderr: text(&done.stderr) }
    }

    /// `handover ctl WORDS`.
    pub(crate) fn ctl(&self, words: &[&str]) -> Output {
        self.handover("ctl", words)
    }

    /// The same, which must succeed; what it printed.
    pub(crate) fn succeed(&self, words: &[&str]) -> String {
        let done = self.ctl(words);
        assert_eq!(done.status, 0, "{words:?}: {done:?}\n{}", self.log());
        done.stdout.trim_end().to_owned()
    }

    /// One property of a unit.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.succeed(&["show", "-P", property, unit])
    }

    /// Waits until a property has this value.
    pub(crate) fn await_property(&self, unit: &str, property: &str, value: &str) {
        let until = format!("{property}={value}");
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_handover"), "ctl", "--standin"]).arg(&self.folder);
        let done = command.args(["show", "-P", property, "--until", &until, unit]).output().unwrap();
        assert!(
            done.status.success(),
            "{unit}: not {until}, but {}: {done:?}\n{}",
            self.show(unit, property),
            self.log()
        );
    }

    /// The next puppet that connects.
    pub(crate) fn puppet(&self) -> Puppet {
        self.puppets.set_nonblocking(false).unwrap();
        let (stream, _) = self.accept();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut puppet = Puppet { pid: 0, stream: BufReader::new(stream) };
        puppet.pid = puppet.answer().strip_prefix("pid ").unwrap().parse().unwrap();
        puppet
    }

    fn accept(&self) -> (UnixStream, std::os::unix::net::SocketAddr) {
        let mut wait = [PollFd::new(self.puppets.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut wait, PollTimeout::from(20_000_u16)).unwrap(), 1, "no puppet:\n{}", self.log());
        self.puppets.accept().unwrap()
    }

    /// Sends SIGTERM and waits for the end; its exit status.
    pub(crate) fn stop(&mut self) -> i32 {
        signal(self.pid(), rustix::process::Signal::TERM);
        self.end()
    }

    /// Waits for the end; its exit status.
    pub(crate) fn end(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let mut end = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut end, PollTimeout::from(20_000_u16)).unwrap() == 0 {
            let _ = child.kill();
            println!("it does not stop");
        }
        child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        if self.child.is_some() && self.stop() != 0 && !std::thread::panicking() {
            panic!("it did not end well:\n{}", self.log());
        }
        if std::thread::panicking() {
            println!("the stand-in said:\n{}", self.log());
        }
        if self.kind == Kind::Process1 {
            self.remove_container();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Puppet {
    /// Has it do something; its answer.
    pub(crate) fn act(&mut self, command: &str) -> String {
        writeln!(self.stream.get_mut(), "{command}").unwrap();
        self.answer()
    }

    /// Has it do something, and waits until the stand-in has seen it.
    pub(crate) fn tell(&mut self, command: &str) {
        assert_eq!(self.act(command), "ok");
        assert_eq!(self.act("barrier"), "ok");
    }

    /// Has it exit.
    pub(crate) fn exit(mut self, status: i32) {
        writeln!(self.stream.get_mut(), "exit {status}").unwrap();
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        signal(self.pid, rustix::process::Signal::KILL);
    }

    /// Waits until it has gone, as its connection tells.
    pub(crate) fn leaves(mut self) {
        let mut rest = String::new();
        assert_eq!(self.stream.read_line(&mut rest).unwrap_or(0), 0, "{rest}");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

/// A puppet that runs under a stand-in of its own, with these settings.
pub(crate) fn run(way: Way, settings: &str) -> (Standin, Puppet) {
    let standin = Standin::new(way);
    standin.puppet_unit(settings);
    let standin = standin.start();
    let puppet = standin.puppet();
    (standin, puppet)
}

/// Waits until a process has ended.
pub(crate) fn gone(process: &impl AsFd) {
    let mut end = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut end, PollTimeout::from(20_000_u16)).unwrap(), 1, "it does not end");
}

/// Signals a process.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// A sample, as cargo built it beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    executable().with_file_name(name)
}

/// A port that nobody has at the moment.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
