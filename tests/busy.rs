//! `handover run` whose generations are in the way of each other, and who is told what of that.

use rustix::process::Signal;

use crate::lab::{Machine, Systemd, finish};
use crate::load::Connection;
use crate::run::{ADDRESS, App, CLIENTS, STRANGER, THREE};

/// What `systemctl reload` is, with a deadline.
const RELOAD: [&str; 5] = ["timeout", "60", "systemctl", "reload", "app"];

/// A client whose connection keeps a generation from being empty: it has not asked yet.
fn keep(app: &App) -> Connection {
    app.machine.enter_network(|| Connection::open(ADDRESS)).unwrap()
}

/// Asks, and is answered by the generation that it has waited at.
fn assert_served(mut client: Connection) {
    assert_eq!(client.get("/", true).unwrap().body, "hello\n");
}

/// A service with three generations, a client at each of the old ones, and the third one live.
fn full(systemd: Systemd, options: &str) -> (App, [Connection; 2]) {
    let app = App::boot(systemd, THREE, options, STRANGER);
    let first = keep(&app);
    app.upgrade();
    let second = keep(&app);
    app.upgrade();
    (app, [first, second])
}

fn store(machine: &Machine) -> String {
    machine.show("app", "NFileDescriptorStore")
}

on_every_systemd! {
    fn when_every_slot_is_taken_an_upgrade_is_refused(systemd) {
        let (app, [first, second]) = full(systemd, "--on-busy refuse");
        let (status, _) = app.failed_upgrade();
        assert_eq!(status, "12");
        let mark = app.machine.mark();
        assert_served(first);
        app.machine.await_journal(&mark, &["-u", "app"], "generation 1 has left");
        app.upgrade();
        assert_served(second);
    }

    fn when_every_slot_is_taken_the_oldest_generation_is_killed(systemd) {
        let (app, [mut first, second]) = full(systemd, "--on-busy kill-oldest");
        let (load, mark) = (app.load(), app.machine.mark());
        app.upgrade();
        assert!(first.end().is_ok(), "it has been cut off");
        assert_served(second);
        let killed = "generation 1 did not leave in time, and was killed";
        app.machine.await_journal(&mark, &["-u", "app"], killed);
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }

    fn when_every_slot_is_taken_an_upgrade_waits_for_the_first_that_is_empty(systemd) {
        let (app, [first, second]) = full(systemd, "");
        let (live, load) = (app.live(), app.load());
        let reload = app.machine.spawn(&RELOAD);
        load.pass_each(3);
        assert_eq!(app.live(), live);
        drop(first);
        let done = finish(reload);
        assert!(done.status == 0 && app.live() != live, "{done:?}");
        assert_served(second);
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }

    fn a_generation_that_gets_its_signal_first_ends_by_itself_and_nobody_waits_until_it_is_empty(systemd) {
        let app = App::boot(systemd, THREE, "--signal-first", STRANGER);
        let mut client = keep(&app);
        let mark = app.machine.mark();
        app.upgrade();
        app.machine.await_journal(&mark, &["-u", "app"], "generation 1 has left");
        assert!(client.end().is_ok());
    }

    fn handover_upgrade_follows_until_the_old_generation_has_left(systemd) {
        let app = App::boot(systemd, THREE, "", STRANGER);
        let client = keep(&app);
        let old = app.process(app.live());
        let told = app.machine.spawn(&["timeout", "60", "handover", "upgrade", "--wait", "drained", "app"]);
        let mark = app.machine.mark();
        app.machine.await_journal(&mark, &["-u", "app"], "generation 2 on slot");
        assert!(!old.has_left(), "a client has a connection to it");
        drop(client);
        let told = finish(told);
        assert!(told.status == 0 && told.stdout.contains("was gone"), "{told:?}");
        assert!(old.has_left(), "{told:?}");
    }

    fn slots_without_a_socket_unit_outlive_a_restart(systemd) {
        let app = App::boot(systemd, "", "", STRANGER);
        let (load, kept) = (app.load(), store(&app.machine));
        for _ in 0..2 {
            app.machine.succeed(&["systemctl", "restart", "app.service"]);
            load.pass_each(3);
        }
        load.stop().assert_only_cut(2 * CLIENTS.len());
        assert_eq!(store(&app.machine), kept);
    }

    fn whoever_is_killed_at_whatever_moment_nobody_is_refused(systemd) {
        let app = App::prepare(systemd, THREE, "", STRANGER, "KillMode=process\n");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let rounds = if systemd == Systemd::V257 { 24 } else { 8 };
        // Numbers that have no order, and are the same each time.
        let mut numbers = std::iter::successors(Some(4711_u64), |last| Some(last * 6_364_136_223 % 1_000_003));
        let mut pick = |from: u64| numbers.next().unwrap() % from;
        for round in 0..rounds {
            let (load, live) = (app.load(), app.live());
            load.pass(pick(20));
            let mark = app.machine.mark();
            let cut = match round % 4 {
                runner @ (0 | 3) => {
                    // Between two upgrades, or in the middle of one.
                    let reload = (runner == 3).then(|| app.machine.spawn(&RELOAD));
                    load.pass(if runner == 3 { pick(200) } else { 0 });
                    app.process(app.machine.show("app", "MainPID").parse().unwrap()).signal(Signal::KILL);
                    reload.map(finish);
                    app.machine.await_journal(&mark, &["-u", "app"], "has outlived the runner, and serves on");
                    app.machine.succeed(&["systemctl", "start", "app.service"]);
                    // Nobody has lost the process that it talks to.
                    0
                }
                1 => {
                    app.process(live).signal(Signal::KILL);
                    app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
                    CLIENTS.len()
                }
                _ => {
                    let old = app.process(live);
                    app.upgrade();
                    load.pass(pick(6));
                    old.signal(Signal::KILL);
                    CLIENTS.len()
                }
            };
            load.pass_each(2);
            // What a killed process had accepted is cut, one connection a client at most, and nothing else.
            load.stop().assert_only_cut(cut);
        }
    }
}
