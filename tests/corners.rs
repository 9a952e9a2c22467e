//! Reloads at awkward moments, in other types of units, in a sandbox, and by a user's own manager.

use crate::gate::{Gate, soon};
use crate::lab::{Output, Systemd, finish};
use crate::web::{FAIL_BY_FILE, RELOAD, Web};

/// Everything that a careful packager puts into a unit.
const SANDBOX: &str = "[Service]
DynamicUser=yes
ProtectSystem=strict
PrivateTmp=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallFilter=@system-service
NoNewPrivileges=yes
ProtectProc=invisible
ProcSubset=pid
PrivateUsers=yes
CapabilityBoundingSet=
";

on_every_systemd! {
    fn while_an_upgrade_is_under_way_another_waits_and_one_by_hand_is_refused(systemd) {
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        let load = web.load();
        let old = web.main_pid();
        let gate = Gate::shut(&web.machine);
        let first = web.machine.spawn(&RELOAD);
        let successor = gate.arrival();
        let by_hand = reload_by_hand(&web, old);
        assert_eq!(by_hand.status, 11, "{by_hand:?}");
        assert!(by_hand.stderr.contains("under-way"), "{by_hand:?}");
        web.machine.succeed(&["systemctl", "reload", "--no-block", "web"]);
        load.pass(20);
        assert_eq!(web.main_pid(), old, "nobody has taken over yet");
        drop(successor);
        // PID 1 runs the job once more, for the one who asked meanwhile; the first waits for that, too.
        let second = gate.arrival();
        let middle = web.main_pid();
        assert_ne!(middle, old);
        load.pass(20);
        drop(second);
        let done = finish(first);
        assert_eq!(done.status, 0, "{done:?}");
        load.pass(20);
        let last = web.main_pid();
        let tally = load.stop();
        tally.assert_nothing_lost();
        assert_eq!(tally.pids, [old, middle, last].into());
    }

    fn three_reloads_at_once_lose_nothing(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        let (old, invocation) = (web.main_pid(), web.machine.show("web", "InvocationID"));
        let reloads = [(); 3].map(|()| web.machine.spawn(&RELOAD));
        for reload in reloads {
            let done = finish(reload);
            assert_eq!(done.status, 0, "{done:?}");
        }
        assert_ne!(web.main_pid(), old);
        assert_eq!(web.machine.show("web", "InvocationID"), invocation);
        web.upgrade();
        load.stop().assert_nothing_lost();
    }

    fn a_reload_before_the_service_is_ready_waits_for_that_and_harms_nobody(systemd) {
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        let load = web.load();
        let gate = Gate::shut(&web.machine);
        web.machine.succeed(&["systemctl", "restart", "--no-block", "web"]);
        let service = gate.arrival();
        let main = web.main_pid();
        let refused = web.machine.run(&["handover", "upgrade", "web"]);
        assert_eq!(refused.status, 7, "{refused:?}");
        assert!(refused.stderr.contains("it is activating: wait until it is active"), "{refused:?}");
        let by_hand = reload_by_hand(&web, main);
        assert_eq!(by_hand.status, 10, "it is not ready, so it cannot be asked: {by_hand:?}");
        web.machine.succeed(&["systemctl", "reload", "--no-block", "web"]);
        drop((service, gate));
        // PID 1 takes reload and start for one job, and that a service which starts is as new as can be.
        web.machine.succeed(&["systemctl", "start", "web"]);
        assert_eq!(web.main_pid(), main);
        assert_ne!(web.upgrade(), main);
        load.stop().assert_nothing_lost();
    }

    fn sighup_alone_upgrades(systemd) {
        let web = Web::boot_with(systemd, "[Service]\nExecReload=\n");
        let invocation = web.machine.show("web", "InvocationID");
        let load = web.load();
        for _ in 0..3 {
            let old = web.main_pid();
            web.machine.succeed(&["systemctl", "kill", "-s", "HUP", "--kill-whom=main", "web"]);
            soon("a new main process", || web.main_pid() != old);
            load.pass(20);
        }
        load.stop().assert_nothing_lost();
        assert_eq!(web.machine.show("web", "InvocationID"), invocation);
        assert!(!web.journal_has("which is not our child"));
    }

    fn notify_reload_returns_when_the_new_process_serves_or_the_old_one_serves_on(systemd) {
        if systemd == Systemd::V252 {
            // Type=notify-reload came with 253.
            return;
        }
        let web = Web::boot_with(systemd, &format!("{FAIL_BY_FILE}Type=notify-reload\nExecReload=\n"));
        let load = web.load();
        let reload = || {
            web.machine.succeed(&RELOAD);
            web.main_pid()
        };
        for _ in 0..3 {
            let old = web.main_pid();
            assert_ne!(reload(), old);
            load.pass(20);
        }
        let old = web.main_pid();
        web.fail("init-exit");
        assert_eq!(reload(), old, "this type of unit cannot fail to reload");
        assert_eq!(web.machine.show("web", "ActiveState"), "active");
        let status = web.status();
        assert!(status.starts_with("upgrade failed: successor-exited: "), "{status}");
        let told = web.machine.run(&["handover", "upgrade", "web"]);
        assert_eq!(told.status, 1, "{told:?}");
        assert!(told.stdout.contains("(successor-exited)"), "{told:?}");
        web.fail("");
        assert_ne!(reload(), old);
        load.stop().assert_nothing_lost();
    }

    fn notify_reload_with_a_helper_is_one_upgrade_and_not_two(systemd) {
        if systemd == Systemd::V252 {
            // Type=notify-reload came with 253.
            return;
        }
        let web = Web::boot_with(systemd, &format!("{FAIL_BY_FILE}Type=notify-reload\n"));
        let load = web.load();
        for _ in 0..3 {
            let old = web.main_pid();
            assert_ne!(web.upgrade(), old);
            load.pass(20);
        }
        let gate = Gate::shut(&web.machine);
        let (old, reload) = (web.main_pid(), web.machine.spawn(&RELOAD));
        let mut successor = gate.arrival();
        if systemd == Systemd::V257 {
            // Up to 258 PID 1 sends SIGHUP before it runs ExecReload=: the helper's successor replaces the
            // signal's.
            successor = gate.arrival();
        }
        drop((successor, gate));
        let done = finish(reload);
        assert_eq!(done.status, 0, "{done:?}");
        assert_ne!(web.main_pid(), old);
        load.stop().assert_nothing_lost();
        // Whoever leaves has written its last entry, and whoever is to come has been started.
        let processes = "/sys/fs/cgroup/system.slice/web.service/cgroup.procs";
        soon("one process is left", || web.machine.succeed(&["cat", processes]).lines().count() == 1);
        assert_eq!(phases(&web, "switched"), 4);
    }

    fn a_sandbox_with_a_user_of_its_own_is_no_obstacle(systemd) {
        differs_on_standin!("it has no sandbox, and says so of every setting");
        let web = Web::boot_with(systemd, SANDBOX);
        let load = web.load();
        for _ in 0..3 {
            let old = web.main_pid();
            let new = web.upgrade();
            assert_ne!(new, old);
            let status = web.machine.succeed(&["cat", &format!("/proc/{new}/status")]);
            let line = |name| status.lines().find(|line| line.starts_with(name)).unwrap();
            assert_ne!(line("Uid:").split_whitespace().nth(1), Some("0"), "the user is the unit's own");
            for confined in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
                assert!(status.contains(confined), "no {confined} in {status}");
            }
            load.pass(20);
        }
        web.drop_in(&format!("{SANDBOX}Environment=WEB_FAIL=init-exit\n"));
        web.failed_upgrade();
        assert_eq!(web.helper_status(), "22");
        load.stop().assert_nothing_lost();
        assert!(!web.journal_has("which is not our child"));
        web.machine.succeed(&["systemctl", "stop", "web"]);
        assert_eq!(web.machine.show("web", "Result"), "success");
    }

    fn a_user_manager_upgrades_as_pid_1_does(systemd) {
        let web = Web::boot(systemd);
        let machine = &web.machine;
        differs_on_standin!("a user has a stand-in by starting it");
        // The same units and the same port: only the manager is another.
        machine.succeed(&["systemctl", "stop", "web.socket", "web.service"]);
        machine.succeed(&["sh", "-c", "cp -r /etc/systemd/system/web.* /etc/systemd/user"]);
        machine.linger("tester");
        let user = |words: &[&str]| {
            let done = machine.run_as("tester", words);
            assert_eq!(done.status, 0, "{words:?}: {done:?}");
            done.stdout.trim_end().to_owned()
        };
        let main = || user(&["systemctl", "--user", "show", "-P", "MainPID", "web"]);
        user(&["systemctl", "--user", "start", "web.socket", "web.service"]);
        let load = web.load();
        for _ in 0..3 {
            let old = main();
            user(&["systemctl", "--user", "reload", "web"]);
            let middle = main();
            let told = user(&["handover", "upgrade", "--user", "web"]);
            let switched = format!("web.service: {middle} -> {} switched in ", main());
            assert!(told.starts_with(&switched), "{told}, and not {switched}");
            assert_ne!(middle, old);
            load.pass(20);
        }
        load.stop().assert_nothing_lost();
        assert!(!machine.journal(&["-o", "cat"]).contains("which is not our child"));
        user(&["systemctl", "--user", "stop", "web"]);
        assert_eq!(user(&["systemctl", "--user", "show", "-P", "Result", "web"]), "success");
    }

    fn as_many_older_processes_as_allowed_may_drain_and_then_one_has_to_leave(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        let mut slow = Vec::new();
        for _ in 0..4 {
            let mut connection = web.connect_to(&web.main());
            connection.send("/slow?ms=25000", false).unwrap();
            slow.push(connection);
            web.upgrade();
        }
        let draining = || web.status().matches(" drains (").count();
        assert_eq!(draining(), 4);
        let status = web.failed_upgrade();
        assert_eq!(web.helper_status(), "12");
        assert!(status.starts_with("upgrade failed: too-many-draining: 4 older processes still drain"), "{status}");
        load.pass(20);
        // Its client goes away, and with it all that the second of them has left to do.
        drop(slow.remove(1));
        soon("one of four has left", || draining() == 3);
        web.upgrade();
        load.stop().assert_nothing_lost();
    }
}

/// `handover reload` in the conditions of ExecReload=, but not by the hand of PID 1; no endless wait for it.
fn reload_by_hand(web: &Web, main: u32) -> Output {
    web.machine.run(&["timeout", "20", "env", &format!("MAINPID={main}"), "handover", "reload"])
}

/// How many entries the journal has of this phase of an upgrade.
fn phases(web: &Web, phase: &str) -> usize {
    web.machine.journal(&["-q", "-o", "cat", &format!("HANDOVER_PHASE={phase}")]).lines().count()
}
