//! `systemctl reload web`: one process after the other, and nothing is lost.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::load::Connection;
use crate::process::Process;
use crate::web::Web;

on_every_systemd! {
    fn ten_reloads_in_a_row_lose_nothing(systemd) {
        let web = Web::boot(systemd);
        let invocation = web.machine.show("web", "InvocationID");
        let load = web.load();
        let mut pids = BTreeSet::from([web.main_pid()]);
        for _ in 0..10 {
            assert!(pids.insert(web.upgrade()), "a new main process each time");
            load.pass(20);
        }
        let tally = load.stop();
        tally.assert_nothing_lost();
        let who = tally.pids;
        assert!(who.is_subset(&pids) && who.len() > 8, "{who:?} answered of {pids:?}");
        assert_eq!(web.machine.show("web", "InvocationID"), invocation, "the unit has never left `active`");
        assert!(!web.journal_has("which is not our child"), "every main process is PID 1's own child");
    }

    fn a_stop_after_ten_reloads_is_graceful(systemd) {
        let web = Web::boot(systemd);
        for kill_mode in ["control-group", "mixed"] {
            web.drop_in(&format!("[Service]\nKillMode={kill_mode}\n"));
            web.machine.succeed(&["systemctl", "start", "web.service"]);
            let load = web.load();
            for _ in 0..10 {
                web.upgrade();
            }
            load.stop().assert_nothing_lost();
            // No daemon-reload until here: it would heal a main process that PID 1 took for another's.
            stop_gracefully(&web, vec![in_flight(&web, "/")]);

            for daemon_reload in [false, true] {
                web.machine.succeed(&["systemctl", "start", "web.service"]);
                let last = in_flight(&web, "/slow?ms=300");
                web.upgrade();
                if daemon_reload {
                    web.machine.succeed(&["systemctl", "daemon-reload"]);
                }
                // The older process is the last to be done: KillMode=mixed would kill it after the main one.
                stop_gracefully(&web, vec![in_flight(&web, "/"), last]);
            }
        }
        for trouble in ["SIGKILL", "Killing process", "timed out", "which is not our child"] {
            assert!(!web.journal_has(trouble), "{trouble}");
        }
    }

    fn a_changed_unit_is_what_the_new_process_runs_with(systemd) {
        let web = Web::boot_with(systemd, "[Service]\nEnvironment=WEB_VERSION=1\nLimitNOFILE=4000\n");
        let load = web.load();
        let old = web.main();
        assert_eq!(web.get("/").value("version"), Some("1"));
        assert_eq!(old.limits("Max open files"), ["4000", "4000"]);

        web.drop_in("[Service]\nEnvironment=WEB_VERSION=2\nLimitNOFILE=5000:6000\n");
        assert_eq!(web.get("/").value("version"), Some("1"), "not before the reload");
        let mut client = web.connect_to(&old);
        web.upgrade();
        assert_eq!(web.get("/").value("version"), Some("2"));
        assert_eq!(web.main().limits("Max open files"), ["5000", "6000"]);
        assert_eq!(client.get("/", false).unwrap().value("version"), Some("2"), "on old connections, too");
        load.stop().assert_nothing_lost();
    }

    fn a_replaced_program_is_what_runs_after_the_reload(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        let replace = |commands| {
            let old = web.main();
            let held = in_flight(&web, "/");
            web.machine.succeed(&["sh", "-euc", commands]);
            web.upgrade();
            let programs = [&old, &web.main()].map(Process::program);
            drop(held);
            programs
        };
        // As a package manager does.
        let programs = replace("cp /usr/bin/web /usr/bin/web.new; mv /usr/bin/web.new /usr/bin/web");
        assert_eq!(programs, ["/usr/bin/web (deleted)", "/usr/bin/web"]);
        // As those do who keep several versions.
        let programs = replace(
            "mkdir /opt/1 /opt/2; cp /usr/bin/web /opt/1; cp /usr/bin/web /opt/2
             ln -s /opt/1/web /usr/bin/web.new; mv /usr/bin/web.new /usr/bin/web",
        );
        assert_eq!(programs, ["/usr/bin/web (deleted)", "/opt/1/web"]);
        let programs = replace("ln -s /opt/2/web /usr/bin/web.new; mv /usr/bin/web.new /usr/bin/web");
        assert_eq!(programs, ["/opt/1/web", "/opt/2/web"]);
        load.stop().assert_nothing_lost();
    }

    fn the_new_process_is_started_as_pid_1_starts_one(systemd) {
        let web = Web::boot_with(systemd, "[Service]\nWatchdogSec=30\nFileDescriptorStoreMax=4\nEnvironment=A=b\n");
        let load = web.load();
        let mut wanted = web.main().environment();
        assert!(wanted.contains_key("NOTIFY_SOCKET") && wanted.contains_key("WATCHDOG_USEC"), "{wanted:?}");
        web.upgrade();
        let new = web.main();
        assert_eq!(new.parent(), web.machine.pid1());

        // All that PID 1 gave to the first process, but what is about that very process.
        let own = new.pid.to_string();
        for (name, value) in [
            ("LISTEN_FDS", "4"),
            ("LISTEN_FDNAMES", "web:handover.state:handover.record:handover.link"),
            ("LISTEN_PID", &own),
            ("SYSTEMD_EXEC_PID", &own),
            ("WATCHDOG_PID", &own),
        ] {
            assert!(wanted.insert(name.into(), value.into()).is_some(), "PID 1 sets {name}");
        }
        wanted.remove("LISTEN_PIDFDID");
        wanted.extend(new.pidfd_id().map(|id| ("LISTEN_PIDFDID".into(), id.to_string())));
        let mut found = new.environment();
        // Each has a stream to the journal of its own.
        differs_on_standin!("it has no journal, but its own output", {
            let stream = wanted.remove("JOURNAL_STREAM");
            assert!(stream.is_some_and(|stream| found.remove("JOURNAL_STREAM") != Some(stream)));
        });
        assert_eq!(found, wanted);
        load.stop().assert_nothing_lost();
    }

    fn the_watchdog_hears_of_every_new_process(systemd) {
        let web = Web::boot_with(systemd, "[Service]\nWatchdogSec=2\n");
        let load = web.load();
        for _ in 0..3 {
            web.upgrade();
        }
        let new = web.main();
        let heard = || web.machine.show("web", "WatchdogTimestampMonotonic").parse::<u64>().unwrap();
        let before = heard();
        // Longer than PID 1 has patience, and cut if it loses it.
        let answer = web.connect_to(&new).get("/stream?ms=2500", true).unwrap();
        assert!(answer.body.lines().count() > 20, "{answer:?}");
        assert!(heard() > before + 1_000_000, "told again and again");
        assert_eq!(web.main_pid(), new.pid);
        assert_eq!(web.machine.show("web", "NRestarts"), "0");
        load.stop().assert_nothing_lost();
    }
}

/// A client in the middle of a request to the main process.
fn in_flight(web: &Web, path: &str) -> Connection {
    let mut client = web.connect_to(&web.main());
    client.begin(path).unwrap();
    client
}

/// Stops the service, and lets the clients finish their requests once it has begun to.
fn stop_gracefully(web: &Web, clients: Vec<Connection>) {
    web.machine.succeed(&["systemctl", "stop", "--no-block", "web.service"]);
    let until = Instant::now() + Duration::from_secs(10);
    while !web.status().starts_with("stopping") {
        assert!(Instant::now() < until, "it does not stop: {}", web.status());
    }
    for mut client in clients {
        client.finish().unwrap();
    }
    web.machine.succeed(&["systemctl", "stop", "web.service"]);
    let state = ["ActiveState", "Result"].map(|property| web.machine.show("web", property));
    assert_eq!(state, ["inactive", "success"]);
}
