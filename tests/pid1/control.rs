//! The control socket, and who the stand-in itself depends on: changes that are waited for, signals that
//! were blocked, a parent that is gone.

use std::process::{Command, Stdio};

use rustix::process::{PidfdFlags, pidfd_open};

use crate::standin::{Standin, Way, gone, run};

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
