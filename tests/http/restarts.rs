//! `systemctl restart` and kill -9: PID 1 holds idle connections while no process serves.

use crate::lab::Systemd;
use crate::load::{Connection, Load, Sight};
use crate::web::{ADDRESS, Web};

const RESTARTS: usize = 20;

on_every_systemd! {
    fn nobody_notices_twenty_restarts(systemd) {
        let web = Web::boot(systemd);
        let load = Load::start(&web.machine, ADDRESS, &super::upgrades::clients());
        for _ in 0..RESTARTS {
            let old = web.main();
            web.machine.succeed(&["timeout", "60", "systemctl", "restart", "web.service"]);
            assert!(old.has_left());
            load.pass(100);
        }
        let tally = load.stop();
        println!("{systemd}: {} answers by {} processes, the slowest after {:?}", tally.requests, tally.pids.len(), tally.slowest);
        tally.assert_nothing_noticed();
    }

    fn what_is_in_flight_is_answered_before_a_restart_and_logins_outlive_it(systemd) {
        let web = Web::boot(systemd);
        let old = web.main();
        let [mut idle, mut slow, mut fresh] = [(); 3].map(|()| web.connect());
        assert_eq!(idle.get("/login?name=me", false).unwrap().body, "hello me\n");
        slow.send("/slow?ms=500", false).unwrap();
        // It is under way: the service has looked at everything that came before this.
        web.connect_to(&old);
        web.machine.succeed(&["timeout", "60", "systemctl", "restart", "web.service"]);
        let new = web.main_pid();
        let answer = idle.get("/whoami", false).unwrap();
        assert!(answer.body.starts_with("me\n") && answer.pid() == Some(new), "{answer:?}");
        let answer = slow.answer().unwrap();
        assert!(answer.pid() == Some(old.pid) && !answer.last, "{answer:?}");
        assert_eq!(slow.get("/", false).unwrap().pid(), Some(new));
        assert_eq!(fresh.get("/", false).unwrap().pid(), Some(new));
    }

    fn a_crash_ends_what_the_service_did_not_ask_to_keep(systemd) {
        for (keep, kept) in [("none", [false, false]), ("idle:9", [true, false]), ("all:9", [true, true])] {
            let web = boot_keeping(systemd, keep);
            let old = web.main();
            let [mut idle, fresh, mut busy] = [(); 3].map(|()| web.connect());
            assert_eq!(idle.get("/login?name=me", false).unwrap().body, "hello me\n");
            busy.send("/slow?ms=60000", false).unwrap();
            // PID 1 has whatever came before what is answered now.
            let _others = [web.connect_to(&old), web.connect_to(&old)];
            idle.get("/", false).unwrap();
            crash(&web);
            for ((what, mut client), kept) in [("idle", idle), ("fresh", fresh)].into_iter().zip(kept) {
                if kept {
                    let name = if what == "idle" { "me" } else { "nobody" };
                    let answer = client.get("/whoami", false).unwrap();
                    assert_ne!(answer.pid(), Some(old.pid), "{keep}: {what}");
                    assert_eq!(answer.body.lines().next(), Some(name), "{keep}: {what}");
                } else {
                    assert!(ended(client), "{keep}: {what}");
                }
            }
            assert!(ended(busy), "{keep}: in flight");
        }
    }

    fn no_more_are_kept_than_the_service_asked_for(systemd) {
        for keep in ["idle:2", "all:2"] {
            let web = boot_keeping(systemd, keep);
            let mut clients = [(); 4].map(|()| web.connect_to(&web.main()));
            // Before a connection is served again PID 1 has it, if it is to.
            let rest = |one: &mut Connection| assert!([(); 2].iter().all(|()| !one.get("/", false).unwrap().last));
            let [first, second, ..] = &mut clients;
            rest(first);
            rest(second);
            // The first of them leaves, and another one has its place.
            assert!(first.get("/", true).unwrap().last && first.end().unwrap().is_empty());
            let mut later = web.connect_to(&web.main());
            rest(&mut later);
            crash(&web);
            let [_, second, third, fourth] = clients;
            for mut kept in [second, later] {
                assert_eq!(kept.get("/", false).unwrap().pid(), Some(web.main_pid()), "{keep}");
            }
            assert!(ended(third) && ended(fourth), "{keep}");
        }
    }
}

/// A service that asks PID 1 to keep such connections, and is back soon after a crash.
fn boot_keeping(systemd: Systemd, keep: &str) -> Web {
    Web::boot_with(systemd, &format!("[Service]\nRestartSec=10ms\nEnvironment=WEB_KEEP={keep}\n"))
}

/// kill -9 for the main process, and another one serves.
fn crash(web: &Web) {
    let old = web.main();
    web.machine.succeed(&["systemctl", "kill", "-s", "KILL", "--kill-whom=main", "web.service"]);
    old.leaves();
    assert_ne!(web.get("/").pid(), Some(old.pid));
}

/// Whether the connection is ended, in whichever way, and nothing came before that.
fn ended(mut connection: Connection) -> bool {
    connection.end().map_or_else(|loss| loss.sight == Sight::Reset, |rest| rest.is_empty())
}
