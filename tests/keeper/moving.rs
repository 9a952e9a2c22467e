//! Ten thousand idle connections, moved in one upgrade; and what becomes of them when it fails on the way.

use std::time::Instant;

use rustix::process::Signal;

use super::talk::{self, Talk};
use super::{Keeper, RELOAD, TCP};
use crate::crowd::{MANY, Stopped, gather, helper, room, successor};
use crate::gate::soon;
use crate::lab::finish;

const SERVICE: &str = "keeper.service";
const KEEPER: &str = "/usr/bin/keeper";

/// Not stashed: PID 1 compares each with all that it holds already, which takes it seconds for so many.
const SETTINGS: &str = "Environment=KEEPER_STASH=no\n";

on_every_systemd! {
    fn ten_thousand_connections_move_in_one_upgrade(systemd) {
        let _room = room();
        let keeper = Keeper::boot(systemd, SETTINGS);
        let timed = || {
            let begin = Instant::now();
            keeper.upgrade();
            begin.elapsed()
        };
        let alone = (0..3).map(|_| timed()).min().unwrap();
        let mut crowd = Crowd::gather(&keeper);
        let mut old = keeper.process(keeper.main_pid());
        for _ in 0..2 {
            let took = timed();
            let new = keeper.process(keeper.main_pid());
            assert_ne!(new.pid, old.pid);
            crowd.is_served_by(new.pid);
            old.leaves();
            old = new;
            println!(
                "{systemd}: an upgrade takes {alone:?} without connections, {took:?} with {MANY}: \
                 {:?} for a thousand", took.saturating_sub(alone) / 10
            );
        }
        keeper.assert_calm();
    }

    fn an_upgrade_that_fails_in_any_phase_leaves_every_connection_where_it_was(systemd) {
        let _room = room();
        let keeper = Keeper::boot(systemd, SETTINGS);
        let mut crowd = Crowd::gather(&keeper);
        let main = keeper.main_pid();

        for how in ["init-exit", "init-error"] {
            keeper.fail(how);
            keeper.failed_upgrade();
            crowd.is_served_by(main);
        }
        keeper.fail("never-ready");
        let mark = keeper.machine.mark();
        let reload = keeper.machine.spawn(&RELOAD);
        let said = keeper.machine.await_journal(&mark, &["-u", "keeper", "-o", "cat"], "hangs as told");
        keeper.machine.succeed(&["kill", "-9", said.split(' ').next().unwrap()]);
        assert_ne!(finish(reload).status, 0);
        crowd.is_served_by(main);
        keeper.fail("");

        // The successor is killed as soon as it runs, in the middle, and when all is done but for the word of
        // PID 1, which stands still meanwhile. The old process does until it does.
        let old = keeper.process(main);
        for moved in [0, 3000, MANY] {
            old.signal(Signal::STOP);
            let reload = keeper.machine.spawn(&RELOAD);
            helper(&keeper.machine, SERVICE);
            let pid_1 = Stopped::pid_1(&keeper.machine);
            old.signal(Signal::CONT);
            let successor = successor(&keeper.machine, SERVICE, KEEPER, main);
            soon("connections move", || successor.descriptors() >= moved);
            successor.signal(Signal::KILL);
            successor.leaves();
            drop(pid_1);
            assert_ne!(finish(reload).status, 0);
            assert_eq!(keeper.main_pid(), main);
            crowd.is_served_by(main);
        }

        // The command of ExecReload= is killed in the middle, and nobody waits for the end of that: it may be
        // too late for an abort, but each is served by one process.
        old.signal(Signal::STOP);
        let reload = keeper.machine.spawn(&RELOAD);
        let helper = helper(&keeper.machine, SERVICE);
        old.signal(Signal::CONT);
        let successor = successor(&keeper.machine, SERVICE, KEEPER, main);
        soon("connections move", || successor.descriptors() >= 1000 || successor.has_left());
        helper.signal(Signal::KILL);
        finish(reload);
        crowd.pids();
        soon("it is decided", || successor.has_left() || keeper.main_pid() == successor.pid);
        crowd.is_served_by(keeper.main_pid());

        // There is no room for all in the successor, and it finds out in the middle.
        let main = keeper.main_pid();
        keeper.drop_in(&format!("{SETTINGS}LimitNOFILE=3000\n"));
        keeper.failed_upgrade();
        let status = keeper.machine.show("keeper", "StatusText");
        assert!(status.contains("LimitNOFILE="), "{status}");
        crowd.is_served_by(main);
        keeper.drop_in(SETTINGS);
        let new = keeper.upgrade();
        crowd.is_served_by(new);
        keeper.assert_calm();
    }
}

/// The connections, idle but when they are asked. Each has a value of its own.
struct Crowd(Vec<Talk>);

impl Crowd {
    fn gather(keeper: &Keeper) -> Self {
        let mut crowd = gather(&keeper.machine, || Talk::open(&TCP));
        for (number, talk) in crowd.iter_mut().enumerate() {
            talk.say(&[format!("SET n {number}")]);
        }
        for talk in &mut crowd {
            assert_eq!(talk.hear(), ["ok"]);
        }
        Self(crowd)
    }

    /// Every one works and has lost nothing; who serves each. All are asked at once: one after another they
    /// would take most of the scenario's time.
    fn pids(&mut self) -> Vec<u32> {
        self.0.iter_mut().for_each(|talk| talk.say(&["GET n".into(), "PID".into()]));
        let hear = |(number, talk): (usize, &mut Talk)| {
            let [value, who] = talk.hear();
            assert_eq!(value, format!("value {number}"));
            talk::pid(&who)
        };
        self.0.iter_mut().enumerate().map(hear).collect()
    }

    /// The same, and one process serves all.
    fn is_served_by(&mut self, pid: u32) {
        assert!(self.pids().into_iter().all(|found| found == pid), "not all are served by {pid}");
    }
}
