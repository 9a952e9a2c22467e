//! The control socket, and who the stand-in itself depends on: changes that are waited for, signals that
//! were blocked, a parent that is gone.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::standin::{PATIENCE, Standin, Way, gone, run, signal};

in_both_ways! {
    fn a_change_is_told_to_everybody_who_waits_for_it(way) {
        let (standin, mut puppet) = run(way, "Type=notify\nNotifyAccess=main\n");
        std::thread::scope(|scope| {
            let wait = |property: &'static str, value: &'static str| {
                let standin = &standin;
                scope.spawn(move || standin.await_property("puppet", property, value))
            };
            let waits = [wait("SubState", "running"), wait("StatusText", "two"), wait("NRestarts", "0")];
            puppet.tell("say READY=1\\nSTATUS=one");
            puppet.tell("say STATUS=two");
            waits.into_iter().for_each(|wait| wait.join().unwrap());
        });
        assert_eq!(standin.ctl(&["show", "--until", "nonsense", "puppet"]).status, 2);
    }

    fn nobody_is_told_of_the_living_who_have_died(way) {
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\n");
        // A start that takes as long as nobody opens the pipe.
        standin.unit("late.socket", "[Socket]\nListenStream=@/s\n");
        standin.unit("late.service", "[Service]\nType=exec\nEnvironmentFile=@/late\nExecStart=/bin/cat\n");
        nix::unistd::mkfifo(&standin.path("late"), Mode::S_IRWXU).unwrap();
        let standin = standin.start();
        let main = standin.puppet();
        let mut start = Asker::half(&standin, r#"{"verb":"job","unit":"late.service","job":"start"}"#);
        let mut show = Asker::half(&standin, r#"{"verb":"show","unit":"puppet.service"}"#);
        // By now both have been heard so far.
        standin.succeed(&["list-units"]);
        let pid = nix::unistd::Pid::from_raw(standin.pid().cast_signed());
        signal(standin.pid(), Signal::STOP);
        assert!(matches!(waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap(), WaitStatus::Stopped(..)));
        start.rest();
        show.rest();
        signal(standin.pid(), Signal::CONT);
        // It is busy with the first, and has taken in the second, when the main process dies.
        let late = File::options().write(true).open(standin.path("late")).unwrap();
        let end = pidfd_open(Pid::from_raw(main.pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
        main.kill();
        gone(&end);
        drop(late);
        let told: serde_json::Value = serde_json::from_str(&show.answer()).unwrap();
        let told = ["ActiveState", "MainPID"].map(|property| &told["properties"][property]);
        assert_eq!(told, ["failed", "0"]);
        assert!(start.answer().contains("done"));
    }

    fn signals_that_were_blocked_before_are_heard(way) {
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\nRestart=on-failure\nRestartSec=0\n");
        let mut standin = standin.behind(&["env", "--block-signal"]).start();
        standin.puppet().exit(1);
        let main = standin.puppet();
        assert_eq!(standin.show("puppet", "NRestarts"), "1");
        let status = std::fs::read_to_string(format!("/proc/{}/status", main.pid)).unwrap();
        assert!(status.contains("\nSigBlk:\t0000000000000000\n"), "{status}");
        assert_eq!(standin.stop(), 0);
    }

    fn it_ends_with_its_parent_where_it_is_told_to(way) {
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\nRuntimeDirectory=mine\n");
        // A shell that waits, and then exits itself: no exec in its place.
        let words = [env!("CARGO_BIN_EXE_handover"), "pid1", "--with-parent", "--runtime"];
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$@\"; exit", "sh"]).args(words).arg(standin.path("")).arg(standin.path("units"));
        if way == Way::Sessions {
            shell.arg("--no-cgroups");
        }
        let mut shell = shell.stdout(Stdio::null()).spawn().unwrap();
        let mut main = standin.puppet();
        main.act("double-fork");
        let orphan = standin.puppet();
        let below = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", shell.id())).unwrap();
        let pid1 = rustix::process::Pid::from_raw(below.trim().parse().unwrap()).unwrap();
        let end = pidfd_open(pid1, PidfdFlags::empty()).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
        main.leaves();
        orphan.leaves();
        gone(&end);
        assert!(!standin.path("mine").exists() && !standin.path("handover").exists());
    }
}

/// Somebody at the control socket who stops in the middle of what they say.
struct Asker {
    stream: UnixStream,
    rest: String,
}

impl Asker {
    /// Says the first half.
    fn half(standin: &Standin, request: &str) -> Self {
        let mut stream = UnixStream::connect(standin.path("handover/control")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (first, rest) = request.split_at(request.len() / 2);
        stream.write_all(first.as_bytes()).unwrap();
        Self { stream, rest: format!("{rest}\n") }
    }

    /// Says the second half.
    fn rest(&mut self) {
        self.stream.write_all(self.rest.as_bytes()).unwrap();
    }

    fn answer(self) -> String {
        let mut line = String::new();
        BufReader::new(self.stream).read_line(&mut line).unwrap();
        line
    }
}
