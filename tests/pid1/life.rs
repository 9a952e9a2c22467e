//! A service from its start to its end: commands, restarts, limits, signals, what it finds.

use std::time::{Duration, Instant};

use crate::standin::{Standin, run};

in_both_ways! {
    fn the_commands_run_in_order_and_find_what_they_need(way) {
        let standin = Standin::new(way);
        let note = |what: &str| format!("/bin/sh -c 'echo {what} >> @/notes'");
        standin.puppet_unit(&format!(
            "Type=notify\nWorkingDirectory=@\nRuntimeDirectory=mine\nEnvironmentFile=@/env\nUMask=0027\n\
             ExecStartPre={}\nExecStartPre=-/bin/false\nExecStartPost={}\nExecReload={}\nExecStop={}\nExecStopPost={}\n",
            note("pre $RUNTIME_DIRECTORY $FILE"), note("post $MAINPID"), note("reload $MAINPID"),
            note("stop $MAINPID"), note("stop-post $SERVICE_RESULT $EXIT_CODE $EXIT_STATUS"),
        ));
        std::fs::write(standin.path("env"), "FILE=from-file\n").unwrap();
        let standin = standin.start();
        let mut puppet = standin.puppet();
        assert_eq!(puppet.act("env FILE"), "from-file");
        assert_eq!(puppet.act("env SYSTEMD_EXEC_PID"), puppet.pid.to_string());
        assert_eq!(puppet.act("env INVOCATION_ID"), standin.show("puppet", "InvocationID"));
        assert!(standin.path("mine").is_dir());
        puppet.tell("say READY=1");
        standin.await_property("puppet", "ActiveState", "active");
        standin.succeed(&["reload", "puppet"]);
        standin.succeed(&["stop", "puppet"]);
        let (folder, pid) = (standin.path("").display().to_string(), puppet.pid);
        let expected = format!(
            "pre {folder}mine from-file\npost {pid}\nreload {pid}\nstop {pid}\nstop-post success killed TERM\n"
        );
        assert_eq!(std::fs::read_to_string(standin.path("notes")).unwrap(), expected);
        assert!(!standin.path("mine").exists());
    }

    fn restart_is_as_the_table_says(way) {
        for (restart, after_0, after_1, after_kill) in [
            ("no", false, false, false),
            ("always", true, true, true),
            ("on-success", true, false, false),
            ("on-failure", false, true, true),
            ("on-abnormal", false, false, true),
            ("on-abort", false, false, true),
        ] {
            for (end, again) in [(Some(0), after_0), (Some(1), after_1), (None, after_kill)] {
                let (standin, puppet) = run(way, &format!("Restart={restart}\nRestartSec=0\n"));
                match end {
                    Some(status) => puppet.exit(status),
                    None => puppet.kill(),
                }
                if again {
                    let _again = standin.puppet();
                    assert_eq!(standin.show("puppet", "NRestarts"), "1");
                } else {
                    let state = if end == Some(0) { "inactive" } else { "failed" };
                    standin.await_property("puppet", "ActiveState", state);
                }
            }
        }
    }

    fn too_many_starts_are_the_end_until_it_is_reset(way) {
        let standin = Standin::new(way);
        let limit = "[Unit]\nStartLimitBurst=3\n[Service]\nType=exec\nRestart=always\nRestartSec=0\nExecStart=/bin/false\n";
        standin.unit("crash.service", limit);
        let standin = standin.start();
        standin.await_property("crash", "Result", "start-limit-hit");
        assert_eq!(standin.show("crash", "ActiveState"), "failed");
        assert_eq!(standin.ctl(&["start", "crash"]).status, 1);
        assert_eq!(standin.ctl(&["is-failed", "crash"]).stdout, "failed\n");
        standin.succeed(&["reset-failed", "crash"]);
        assert_eq!(standin.show("crash", "ActiveState"), "inactive");
    }

    fn a_program_that_is_not_there_fails_the_start_with_its_line(way) {
        let standin = Standin::new(way);
        standin.unit("none.service", "[Service]\nType=exec\nExecStart=/nonexistent/program\n");
        let standin = standin.start();
        standin.await_log("/nonexistent/program cannot be run (");
        standin.await_log("none.service:3");
        standin.await_property("none", "ExecMainStatus", "203");
        assert_eq!(standin.show("none", "ActiveState"), "failed");
    }

    fn a_oneshot_is_started_when_all_its_commands_have_ended(way) {
        let standin = Standin::new(way);
        let note = |what: &str| format!("ExecStart=/bin/sh -c 'cat @/{what} && echo {what} >> @/notes'\n");
        let settings = "[Service]\nType=oneshot\nRemainAfterExit=yes\n";
        standin.unit("once.service", &format!("{settings}{}{}ExecStop=/bin/sh -c 'echo stop >> @/notes'\n", note("one"), note("two")));
        standin.unit("never.service", "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'exit 3'\nExecStart=/bin/sh -c 'echo >> @/notes'\n");
        for pipe in ["one", "two"] {
            nix::unistd::mkfifo(&standin.path(pipe), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let standin = standin.start();
        let notes = || std::fs::read_to_string(standin.path("notes")).unwrap_or_default();
        // Each command waits until somebody opens its pipe.
        let next = |pipe| drop(std::fs::File::options().write(true).open(standin.path(pipe)).unwrap());
        std::thread::scope(|scope| {
            let start = scope.spawn(|| standin.ctl(&["start", "once"]).status);
            assert_eq!(standin.show("once", "ActiveState"), "activating");
            next("one");
            assert_eq!(standin.show("once", "ActiveState"), "activating");
            next("two");
            assert_eq!(start.join().unwrap(), 0);
        });
        assert_eq!((notes(), standin.show("once", "SubState")), ("one\ntwo\n".into(), "exited".into()));
        standin.succeed(&["stop", "once"]);
        assert_eq!(notes(), "one\ntwo\nstop\n");
        assert_eq!(standin.ctl(&["start", "never"]).status, 1);
        assert_eq!(standin.show("never", "ExecMainStatus"), "3");
        assert_eq!(notes(), "one\ntwo\nstop\n");
    }

    fn a_stop_reaches_all_processes_and_kills_those_that_will_not(way) {
        let (standin, mut main) = run(way, "Type=exec\nTimeoutStopSec=300ms\n");
        main.act("catch 15");
        main.act("fork");
        let mut child = standin.puppet();
        child.act("catch 15");
        let begun = Instant::now();
        standin.succeed(&["stop", "puppet"]);
        assert!(begun.elapsed() >= Duration::from_millis(300));
        main.leaves();
        child.leaves();
        assert_eq!(standin.show("puppet", "Result"), "timeout");
    }

    fn kill_mode_says_who_is_reached(way) {
        for (mode, child_dies) in [("control-group", true), ("mixed", true), ("process", false)] {
            let (standin, mut main) = run(way, &format!("Type=exec\nKillMode={mode}\n"));
            main.act("fork");
            let mut child = standin.puppet();
            standin.succeed(&["stop", "puppet"]);
            if child_dies {
                child.leaves();
            } else {
                assert_eq!(child.act("print still here\\n"), "ok");
                standin.await_log(&format!("puppet[{}]: still here", child.pid));
                child.kill();
                child.leaves();
            }
        }
    }

    fn signals_can_be_sent_to_the_main_process_or_all(way) {
        let (standin, mut main) = run(way, "Type=exec\nRestart=always\nRestartSec=0\n");
        main.act("fork");
        let mut child = standin.puppet();
        assert_eq!(child.act("catch 10"), "ok");
        standin.succeed(&["kill", "-s", "SIGKILL", "--kill-whom=main", "puppet"]);
        main.leaves();
        child.leaves();
        let second = standin.puppet();
        standin.succeed(&["kill", "-s", "KILL", "puppet"]);
        second.leaves();
        let _third = standin.puppet();
        assert_eq!(standin.ctl(&["kill", "-s", "DANCE", "puppet"]).status, 2);
    }

    fn what_is_printed_is_shown_with_unit_and_pid_a_line_at_a_time(way) {
        let (standin, mut main) = run(way, "Type=exec\n");
        main.act("fork");
        let mut child = standin.puppet();
        main.act("print hal");
        child.act("print of the child\\n");
        main.act("print f a line\\nand no end");
        standin.await_log(&format!("puppet[{}]: half a line", main.pid));
        standin.await_log(&format!("puppet[{}]: of the child", child.pid));
        standin.succeed(&["stop", "puppet"]);
        let pid = main.pid;
        let mut standin = standin;
        standin.stop();
        standin.await_log(&format!("puppet[{pid}]: and no end"));
    }

    fn limits_are_set_also_those_that_cannot_be_had(way) {
        let (_standin, mut puppet) = run(way, "Type=exec\nLimitNOFILE=333\n");
        assert_eq!(puppet.act("limit"), "333");
        let (_standin, mut puppet) = run(way, "Type=exec\n");
        assert_eq!(puppet.act("limit"), "1024");
        let (_standin, mut puppet) = run(way, "Type=exec\nLimitNOFILE=1073741815\n");
        assert_ne!(puppet.act("limit"), "1024");
    }

    fn what_is_not_done_is_said_with_file_and_line_and_the_rest_is(way) {
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\nPrivateTmp=yes\nColour=red\nTimeoutStopSec=soon\n");
        standin.unit("fork.service", "[Service]\nType=forking\nExecStart=/bin/true\n");
        let standin = standin.start();
        let _puppet = standin.puppet();
        standin.await_log("puppet.service:5: PrivateTmp= is not done by handover pid1");
        standin.await_log("puppet.service:6");
        standin.await_log("puppet.service:7");
        standin.await_log("fork.service: it is not used: Type=forking");
    }

    fn a_job_that_is_replaced_is_told_and_two_of_a_kind_are_one(way) {
        let (standin, mut puppet) = run(way, "Type=notify\n");
        std::thread::scope(|scope| {
            let starts: Vec<_> = (0..2).map(|_| scope.spawn(|| standin.ctl(&["start", "puppet"]).status)).collect();
            puppet.tell("say READY=1");
            assert!(starts.into_iter().all(|start| start.join().unwrap() == 0));
        });
        std::thread::scope(|scope| {
            let restart = scope.spawn(|| standin.ctl(&["restart", "puppet"]));
            // It is never ready, so this start never ends by itself.
            let _second = standin.puppet();
            standin.succeed(&["stop", "puppet"]);
            let told = restart.join().unwrap();
            assert_eq!((told.status, &*told.stderr), (1, "Job for puppet.service canceled.\n"));
        });
        assert_eq!(standin.ctl(&["reload", "puppet"]).status, 3, "it has no way to reload");
        assert_eq!(standin.ctl(&["start", "nobody"]).status, 5);
        assert_eq!(standin.ctl(&["is-active", "puppet"]).status, 3);
    }

    fn whoever_ends_it_ends_all_of_it_and_nothing_is_left(way) {
        let (mut standin, mut main) = run(way, "Type=exec\nRuntimeDirectory=mine\n");
        main.act("double-fork");
        let orphan = standin.puppet();
        assert_eq!(standin.stop(), 0);
        main.leaves();
        orphan.leaves();
        assert!(!standin.path("mine").exists() && !standin.path("handover").exists());
    }

    fn a_second_one_in_the_same_folder_is_refused(way) {
        let (standin, _puppet) = run(way, "Type=exec\n");
        let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_handover"));
        let done = second.arg("pid1").arg("--runtime").arg(standin.path("")).arg(standin.path("units")).output().unwrap();
        assert_eq!(done.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&done.stderr).contains("another `handover pid1` uses"));
    }
}
