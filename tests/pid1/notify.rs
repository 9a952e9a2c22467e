//! Who may say what: NotifyAccess=, MAINPID=, barriers, bounds.

use crate::standin::run;

in_both_ways! {
    fn notify_access_says_whose_messages_count(way) {
        for (access, child_counts) in [("main", false), ("all", true), ("none", false)] {
            let (standin, mut main) = run(way, &format!("Type=exec\nNotifyAccess={access}\n"));
            let said = main.act("env NOTIFY_SOCKET");
            if access == "none" {
                assert_eq!(said, "");
                continue;
            }
            main.tell("say STATUS=main");
            assert_eq!(standin.show("puppet", "StatusText"), "main");
            assert!(main.act("fork").starts_with("pid "));
            let mut child = standin.puppet();
            child.tell("say STATUS=child");
            let expected = if child_counts { "child" } else { "main" };
            assert_eq!(standin.show("puppet", "StatusText"), expected, "NotifyAccess={access}");
            if !child_counts {
                standin.await_log("do not count: NotifyAccess=main");
                main.tell("say NOTIFYACCESS=all");
                child.tell("say STATUS=child");
                assert_eq!(standin.show("puppet", "StatusText"), "child");
            }
        }
    }

    fn a_main_process_hands_over_to_a_child_in_one_message(way) {
        let (standin, mut old) = run(way, "Type=notify\nNotifyAccess=main\n");
        old.tell("say READY=1");
        old.act("fork");
        let mut new = standin.puppet();
        new.tell("say STATUS=too early");
        old.tell(&format!("say MAINPID={}\\nREADY=1\\nSTATUS=over", new.pid));
        assert_eq!(standin.show("puppet", "MainPID"), new.pid.to_string());
        standin.await_log("not our child");
        old.tell("say STATUS=too late");
        assert_eq!(standin.show("puppet", "StatusText"), "over");
        new.tell("say STATUS=heard");
        assert_eq!(standin.show("puppet", "StatusText"), "heard");
        old.exit(0);
        assert_eq!(standin.show("puppet", "ActiveState"), "active");
        new.exit(0);
        standin.await_property("puppet", "ActiveState", "inactive");
    }

    fn a_main_process_is_a_process_of_the_service_and_no_other(way) {
        let (standin, mut puppet) = run(way, "Type=exec\nNotifyAccess=main\n");
        let own = puppet.pid.to_string();
        for other in [1, standin.pid(), std::process::id(), u32::MAX / 2, 0] {
            puppet.tell(&format!("say MAINPID={other}"));
            assert_eq!(standin.show("puppet", "MainPID"), own, "MAINPID={other}");
        }
        standin.await_log("is refused: it is not a living process of this service");
        standin.await_log("is refused: that is the service manager");
    }

    fn who_lost_all_parents_is_still_of_the_service(way) {
        let (standin, mut main) = run(way, "Type=exec\nNotifyAccess=all\n");
        assert_eq!(main.act("double-fork"), "ok");
        let mut orphan = standin.puppet();
        orphan.tell("say STATUS=orphan");
        assert_eq!(standin.show("puppet", "StatusText"), "orphan");
        standin.succeed(&["stop", "puppet"]);
        orphan.leaves();
    }

    fn a_message_that_is_too_long_is_dropped_and_a_flood_keeps_nobody_waiting(way) {
        let (standin, mut puppet) = run(way, "Type=exec\nNotifyAccess=main\n");
        puppet.tell("say STATUS=short");
        puppet.tell("big 5000");
        standin.await_log("is longer than 4096 bytes");
        assert_eq!(standin.show("puppet", "StatusText"), "short");
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| puppet.tell("flood 20000"));
            let mut asked = 0;
            while !flood.is_finished() {
                assert_eq!(standin.show("puppet", "ActiveState"), "active");
                asked += 1;
            }
            assert!(asked > 0);
        });
        assert_eq!(standin.show("puppet", "StatusText"), "19999");
    }

    fn a_process_that_is_no_service_s_is_not_heard(way) {
        let (standin, _puppet) = run(way, "Type=exec\nNotifyAccess=all\n");
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        socket.connect(standin.path("handover/notify")).unwrap();
        socket.send(b"STATUS=a stranger\nMAINPID=1").unwrap();
        standin.await_log("which is no service's, is dropped");
        assert_eq!(standin.show("puppet", "StatusText"), "");
    }

    fn a_reload_by_signal_needs_a_handler_a_time_and_an_end(way) {
        let (standin, mut puppet) = run(way, "Type=notify-reload\nTimeoutStartSec=1s\n");
        puppet.tell("catch 1");
        puppet.tell("say READY=1");
        standin.await_property("puppet", "SubState", "running");
        std::thread::scope(|scope| {
            let reload = scope.spawn(|| standin.ctl(&["reload", "puppet"]).status);
            standin.await_property("puppet", "SubState", "reload-signal");
            puppet.tell("say RELOADING=1\\nMONOTONIC_USEC=1");
            assert_eq!(standin.show("puppet", "SubState"), "reload-signal");
            puppet.tell("say RELOADING=1\\nMONOTONIC_USEC=18446744073709551615");
            assert_eq!(standin.show("puppet", "ActiveState"), "reloading");
            puppet.tell("say READY=1");
            assert_eq!(reload.join().unwrap(), 0);
        });
        // And one that never ends.
        assert_eq!(standin.ctl(&["reload", "puppet"]).status, 1);
        assert_eq!(standin.show("puppet", "ReloadResult"), "timeout");
        assert_eq!(standin.show("puppet", "ActiveState"), "active");
    }

    fn a_service_that_its_reload_signal_would_kill_does_not_start(way) {
        let (standin, mut puppet) = run(way, "Type=notify-reload\n");
        puppet.act("say READY=1");
        puppet.leaves();
        standin.await_property("puppet", "ActiveState", "failed");
        assert_eq!(standin.show("puppet", "Result"), "protocol");
    }

    fn a_silent_service_is_ended_by_its_watchdog(way) {
        let (standin, mut puppet) =
            run(way, "Type=notify\nWatchdogSec=500ms\nWatchdogSignal=SIGKILL\nRestart=on-watchdog\nRestartSec=0\n");
        assert_eq!(puppet.act("env WATCHDOG_USEC"), "500000");
        assert_eq!(puppet.act("env WATCHDOG_PID"), puppet.pid.to_string());
        puppet.tell("say READY=1");
        for _ in 0..20 {
            puppet.tell("say WATCHDOG=1");
        }
        puppet.leaves();
        let _again = standin.puppet();
        assert_eq!(standin.show("puppet", "NRestarts"), "1");
    }

    fn a_timeout_moves_when_the_service_asks_for_it(way) {
        let (standin, mut puppet) = run(way, "Type=notify\nTimeoutStartSec=300ms\n");
        puppet.tell("say EXTEND_TIMEOUT_USEC=20000000");
        puppet.act("env PATH");
        assert_eq!(standin.show("puppet", "SubState"), "start");
        puppet.tell("say READY=1");
        assert_eq!(standin.show("puppet", "SubState"), "running");
        standin.succeed(&["stop", "puppet"]);
        standin.succeed(&["start", "--no-block", "puppet"]);
        standin.puppet().leaves();
        standin.await_property("puppet", "Result", "timeout");
    }
}
