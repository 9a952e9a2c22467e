//! The machines themselves: what every scenario relies on, and that nothing of them stays.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lab::{Machine, Systemd, executable};

on_every_systemd! {
    fn the_right_systemd_is_pid_1_and_nothing_failed(systemd) {
        let machine = Machine::boot(systemd);
        assert_eq!(machine.systemd(), systemd);
        differs_on_standin!("it is no systemd, and says so");
        let version = machine.succeed(&["systemctl", "--version"]);
        let major: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
        match systemd {
            Systemd::V252 => assert_eq!(major, 252),
            Systemd::V257 => assert_eq!(major, 257),
            Systemd::V262 => assert!(major >= 262, "{version}"),
            Systemd::Standin => panic!("{version}"),
        }
        assert_eq!(machine.succeed(&["cat", "/proc/1/comm"]), "systemd\n");
        assert_eq!(machine.succeed(&["systemctl", "is-system-running", "--wait"]), "running\n");
    }

    fn a_unit_runs_and_the_journal_has_what_it_said(systemd) {
        let machine = Machine::boot(systemd);
        machine.push("/usr/local/bin/hello", "#!/bin/sh\necho hello from $0\n", 0o755);
        machine.unit("hello.service", "[Service]\nType=oneshot\nExecStart=/usr/local/bin/hello\n");
        machine.succeed(&["systemctl", "start", "hello"]);
        assert_eq!(machine.show("hello", "Result"), "success");
        assert_eq!(machine.journal(&["-u", "hello", "-t", "hello", "-o", "cat"]), "hello from /usr/local/bin/hello\n");
    }

    fn a_command_passes_its_exit_code_its_signal_and_its_streams(systemd) {
        let machine = Machine::boot(systemd);
        let done = machine.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
        assert_eq!((done.status, &*done.stdout, &*done.stderr), (7, "out\n", "err\n"));
        assert_eq!(machine.run(&["sh", "-c", "kill -TERM $$"]).status, 128 + 15);
        assert_eq!(machine.run(&["/no/such/program"]).status, 127);
    }

    fn a_background_command_dies_with_the_one_who_waits_for_it(systemd) {
        let machine = Machine::boot(systemd);
        let mut child = machine.spawn(&["sh", "-c", "echo up; exec sleep infinity"]);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        child.kill().unwrap();
        assert_eq!(out.read_line(&mut String::new()).unwrap(), 0, "the command has closed its end");
        child.wait().unwrap();
    }

    fn a_user_has_a_manager_of_its_own_and_no_say_in_the_systems(systemd) {
        let machine = Machine::boot(systemd);
        differs_on_standin!("a user has a stand-in by starting it");
        machine.linger("tester");
        let running = machine.run_as("tester", &["systemctl", "--user", "is-system-running", "--wait"]);
        assert_eq!((running.status, &*running.stdout), (0, "running\n"), "{running:?}");
        let refused = machine.run_as("tester", &["systemctl", "stop", "dbus.service"]);
        assert_ne!(refused.status, 0);
        assert_eq!(machine.show("dbus.service", "ActiveState"), "active");
    }

    fn the_network_is_the_machines_own(systemd) {
        let machine = Machine::boot(systemd);
        let listener = machine.enter_network(|| TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let client = machine.network_thread("client", move || {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"from inside")?;
            Ok::<_, std::io::Error>(())
        });
        let mut heard = String::new();
        listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
        client.join().unwrap().unwrap();
        assert_eq!(heard, "from inside");
        let port = format!(":{:04X} ", address.port());
        assert!(machine.succeed(&["cat", "/proc/net/tcp"]).contains(&port), "PID 1 sees the listener");
        assert!(!fs::read_to_string("/proc/net/tcp").unwrap().contains(&port), "the host does not");
        assert!(TcpStream::connect(address).is_err());
    }

    fn a_file_of_the_hosts_is_shared_read_only_or_copied(systemd) {
        let host = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shared-{systemd}"));
        fs::write(&host, "#!/bin/sh\necho I am $0\n").unwrap();
        fs::set_permissions(&host, PermissionsExt::from_mode(0o755)).unwrap();
        let machine = Machine::with(systemd).bind(&host, "/usr/bin/shared").copy(&host, "/opt/new/own").boot();
        assert_eq!(machine.succeed(&["shared"]), "I am /usr/bin/shared\n");
        assert_eq!(machine.succeed(&["/opt/new/own"]), "I am /opt/new/own\n");
        assert_ne!(machine.run(&["sh", "-c", "echo >> /usr/bin/shared"]).status, 0);
        machine.succeed(&["sh", "-c", "echo >> /opt/new/own"]);
        assert_eq!(machine.run(&["cmp", "/usr/bin/shared", "/opt/new/own"]).status, 1);
    }

    fn a_folder_of_the_hosts_is_copied_with_its_links_and_modes(systemd) {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tree-{systemd}"));
        fs::create_dir_all(folder.join("opt/mine")).unwrap();
        fs::write(folder.join("opt/mine/hello"), "#!/bin/sh\necho hello\n").unwrap();
        fs::set_permissions(folder.join("opt/mine/hello"), PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("mine/hello", folder.join("opt/hello")).unwrap();
        let machine = Machine::with(systemd).tree(&folder).boot();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(machine.succeed(&["/opt/hello"]), "hello\n");
        assert_eq!(machine.succeed(&["readlink", "/opt/hello"]), "mine/hello\n");
    }

    fn a_dropped_machine_is_gone_at_once(systemd) {
        let machine = Machine::boot(systemd);
        let trace = Trace::of(machine.pid1(), machine.cgroup());
        trace.assert_alive();
        drop(machine);
        trace.assert_gone();
    }

    fn a_killed_test_leaves_nothing(systemd) {
        let mut holder = Command::new(executable());
        holder.args(["run", &systemd.to_string(), "--", "sh", "-c", "tail -f /dev/null & echo up >&2; read x"]);
        let mut holder = holder.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(holder.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(said.read_line(&mut String::new()).unwrap(), "up\n".len(), "the command runs");
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["lab:", "ready", pid1, cgroup] = words[..] else { panic!("{line}") };
        let trace = Trace::of(pid1.parse().unwrap(), Path::new(cgroup));
        trace.assert_alive();
        holder.kill().unwrap();
        holder.wait().unwrap();
        // All that the holder started has its standard error: its end is the end of the last of them.
        await_event(said.get_ref(), PollFlags::POLLIN);
        assert_eq!(said.read_line(&mut line).unwrap(), 0, "{line}");
        trace.assert_gone();
    }

    fn a_killed_supervisor_takes_its_machine_along_and_the_next_one_sweeps_up(systemd) {
        let machine = Machine::boot(systemd);
        let trace = Trace::of(machine.pid1(), machine.cgroup());
        kill(Pid::from_raw(machine.supervisor().cast_signed()), Signal::SIGKILL).unwrap();
        while trace.has_processes() {
            await_event(&trace.events, PollFlags::POLLPRI);
        }
        drop(machine);
        drop(Machine::boot(systemd));
        trace.assert_gone();
    }
}

/// All that a machine would leave on the host.
struct Trace {
    /// `stat` of PID 1, open since it lived: to read it fails once that very process is gone, whoever
    /// has its number by then.
    pid1: File,
    /// `cgroup.events` of its cgroup, which poll(2) watches.
    events: File,
    cgroup: PathBuf,
    state: PathBuf,
}

impl Trace {
    fn of(pid1: u32, cgroup: &Path) -> Self {
        let name = cgroup.file_name().unwrap().to_str().unwrap().strip_prefix("handover-lab-").unwrap();
        let pid1 = File::open(format!("/proc/{pid1}/stat")).unwrap();
        let events = File::open(cgroup.join("cgroup.events")).unwrap();
        Self { pid1, events, cgroup: cgroup.into(), state: Path::new("/run/handover-lab").join(name) }
    }

    /// A zombie is no life: the host's init has yet to take note of one whose parent was killed.
    fn pid1_lives(&self) -> bool {
        read_again(&self.pid1).is_ok_and(|stat| !stat.contains(") Z "))
    }

    fn has_processes(&self) -> bool {
        read_again(&self.events).is_ok_and(|events| events.contains("populated 1"))
    }

    fn assert_alive(&self) {
        assert!(self.pid1_lives() && self.has_processes() && self.state.exists());
    }

    fn assert_gone(&self) {
        assert!(!self.pid1_lives(), "PID 1 lives on");
        assert!(!self.cgroup.exists(), "{} lives on", self.cgroup.display());
        assert!(!self.state.exists(), "{} lives on", self.state.display());
    }
}

fn read_again(mut file: &File) -> std::io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Sleeps until the kernel tells of `event` on `file`; a test that waits for 20 s has failed.
fn await_event(file: &impl AsFd, event: PollFlags) {
    let mut fds = [PollFd::new(file.as_fd(), event)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap(), 1, "no {event:?} within 20 s");
}
