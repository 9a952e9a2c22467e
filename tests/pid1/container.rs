//! As process 1 of a container: a pid namespace of its own, in which everything ends with it.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::standin::{PATIENCE, Standin};

/// Skips where there can be no pid namespace; in CI that is a failure.
fn can_be_process_1() -> bool {
    let mut command = Command::new("unshare");
    let tried =
        command.args(["--pid", "--cgroup", "--fork", "--mount-proc", "true"]).stderr(Stdio::null()).status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: no pid namespace");
        // Past the capture of passing tests' output: a skip must not look like a pass.
        let _ = writeln!(std::io::stderr(), "skipped: no pid namespace without root");
    }
    can
}

/// The children of a process, zombies among them.
fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

in_both_ways! {
    fn process_1_reaps_orphans_whoever_they_were(way) {
        if !can_be_process_1() {
            return;
        }
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\nNotifyAccess=all\n");
        let standin = standin.process_1().start();
        let mut main = standin.puppet();
        assert_eq!(standin.show("puppet", "MainPID"), main.pid.to_string());
        assert_eq!(children(standin.pid()).len(), 1);
        // It loses its parent, and process 1 is the next.
        main.act("double-fork");
        let mut orphan = standin.puppet();
        orphan.tell("say STATUS=orphan");
        assert_eq!(standin.show("puppet", "StatusText"), "orphan");
        assert_eq!(children(standin.pid()).len(), 2);
        orphan.exit(0);
        let until = Instant::now() + PATIENCE;
        while children(standin.pid()).len() != 1 {
            assert!(Instant::now() < until, "a zombie stays:\n{}", standin.log());
        }
        assert_eq!(standin.show("puppet", "ActiveState"), "active");
    }

    fn process_1_ends_well_by_each_signal_that_stops_a_container(way) {
        if !can_be_process_1() {
            return;
        }
        for name in ["TERM", "INT", "QUIT", "PWR", "RTMIN+3"] {
            let standin = Standin::new(way);
            standin.puppet_unit("Type=exec\n");
            let mut standin = standin.process_1().start();
            let main = standin.puppet();
            let pid = standin.pid().to_string();
            assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
            main.leaves();
            assert_eq!(standin.end(), 0, "{name}");
            standin.await_log("all services have stopped");
        }
    }

    fn process_1_passes_a_signal_on_to_those_whom_it_does_not_kill(way) {
        if !can_be_process_1() {
            return;
        }
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\n");
        standin.unit("other.service", "[Service]\nType=exec\nExecStart=/bin/sh -c 'cat @/pipe'\n");
        nix::unistd::mkfifo(&standin.path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let standin = standin.process_1().start();
        let mut main = standin.puppet();
        let other = standin.show("other", "MainPID");
        crate::standin::signal(standin.pid(), rustix::process::Signal::USR2);
        standin.await_log("SIGUSR2: no main process has a handler for it");
        assert_eq!(main.act("catch 10"), "ok");
        crate::standin::signal(standin.pid(), rustix::process::Signal::USR1);
        assert_eq!(main.act("await"), "10");
        assert_eq!(standin.show("other", "MainPID"), other);
    }

    fn process_1_forwards_sigterm_and_all_ends_well(way) {
        if !can_be_process_1() {
            return;
        }
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\nRuntimeDirectory=mine\nExecStopPost=/bin/sh -c 'echo $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS > @/end'\n");
        let mut standin = standin.process_1().start();
        let main = standin.puppet();
        assert_eq!(standin.stop(), 0);
        main.leaves();
        assert_eq!(std::fs::read_to_string(standin.path("end")).unwrap(), "success killed TERM\n");
        assert!(!standin.path("mine").exists() && !standin.path("handover").exists());
        standin.await_log("all services have stopped");
    }
}
