//! Ten thousand idle clients, each logged in by a name of its own: an upgrade that succeeds, and what becomes
//! of them when it fails on the way, or when the new program does not want them.

use std::time::Instant;

use rustix::process::Signal;

use crate::crowd::{MANY, Stopped, gather, helper, room, successor};
use crate::gate::soon;
use crate::lab::finish;
use crate::load::Connection;
use crate::web::{ADDRESS, FAIL_BY_FILE, RELOAD, Web};

const SERVICE: &str = "web.service";
const WEB: &str = "/usr/bin/web";

on_every_systemd! {
    fn ten_thousand_idle_clients_move_and_are_still_logged_in(systemd) {
        let _room = room();
        let web = Web::boot(systemd);
        let timed = || {
            let begin = Instant::now();
            web.upgrade();
            begin.elapsed()
        };
        let alone = (0..3).map(|_| timed()).min().unwrap();
        let mut crowd = Crowd::gather(&web);
        let old = web.main();
        let took = timed();
        crowd.is_served_by(web.main_pid());
        old.leaves();
        println!("{systemd}: an upgrade takes {alone:?} without clients, {took:?} with {MANY}");
    }

    fn an_upgrade_that_fails_in_any_phase_leaves_every_client_where_it_was(systemd) {
        let _room = room();
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        let mut crowd = Crowd::gather(&web);
        let main = web.main_pid();

        for how in ["init-exit", "init-error"] {
            web.fail(how);
            web.failed_upgrade();
            crowd.is_served_by(main);
        }
        web.fail("");

        // The successor is killed as soon as it runs, in the middle, and when all is done but for the word of
        // PID 1, which stands still meanwhile. The old process does until it does.
        let old = web.main();
        for moved in [0, 3000, MANY] {
            old.signal(Signal::STOP);
            let reload = web.machine.spawn(&RELOAD);
            helper(&web.machine, SERVICE);
            let pid_1 = Stopped::pid_1(&web.machine);
            old.signal(Signal::CONT);
            let successor = successor(&web.machine, SERVICE, WEB, main);
            soon("connections move", || successor.descriptors() >= moved);
            successor.signal(Signal::KILL);
            successor.leaves();
            drop(pid_1);
            assert_ne!(finish(reload).status, 0);
            assert_eq!(web.main_pid(), main);
            crowd.is_served_by(main);
        }

        // The command of ExecReload= is killed in the middle: it may be too late for an abort, but each is
        // served by one process.
        old.signal(Signal::STOP);
        let reload = web.machine.spawn(&RELOAD);
        let helper = helper(&web.machine, SERVICE);
        old.signal(Signal::CONT);
        let successor = successor(&web.machine, SERVICE, WEB, main);
        soon("connections move", || successor.descriptors() >= 1000 || successor.has_left());
        helper.signal(Signal::KILL);
        finish(reload);
        crowd.pids();
        soon("it is decided", || successor.has_left() || web.main_pid() == successor.pid);
        crowd.is_served_by(web.main_pid());

        // There is no room for all in the successor.
        let main = web.main_pid();
        web.drop_in(&format!("{FAIL_BY_FILE}LimitNOFILE=3000\n"));
        assert!(web.failed_upgrade().contains("LimitNOFILE="));
        crowd.is_served_by(main);
        web.drop_in(FAIL_BY_FILE);
        let new = web.upgrade();
        crowd.is_served_by(new);
    }

    fn a_program_that_cannot_read_what_belongs_to_connections_gets_none(systemd) {
        let web = Web::boot_with(systemd, "[Service]\nEnvironment=WEB_STATE=3:3\n");
        let (old, mut clients) = (web.main(), [web.connect(), web.connect(), web.connect()]);
        log_in(&mut clients);
        web.drop_in("[Service]\nEnvironment=WEB_STATE=2:1\n");
        let new = web.upgrade();
        assert_eq!(web.get("/").pid(), Some(new));
        ask_who(&mut clients);
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(hear_who(number, client).0, old.pid, "it stays with who can read it");
        }
        drop(clients);
        old.leaves();
    }
}

/// The clients, idle but when they ask.
struct Crowd(Vec<Connection>);

impl Crowd {
    fn gather(web: &Web) -> Self {
        let mut clients = gather(&web.machine, || Connection::open(ADDRESS));
        log_in(&mut clients);
        Self(clients)
    }

    /// Every one is who it was; who serves each.
    fn pids(&mut self) -> Vec<u32> {
        ask_who(&mut self.0);
        let hear = |(number, client): (usize, &mut Connection)| {
            let (pid, last) = hear_who(number, client);
            assert!(!last, "client {number} is sent away");
            pid
        };
        self.0.iter_mut().enumerate().map(hear).collect()
    }

    /// The same, and one process serves all.
    fn is_served_by(&mut self, pid: u32) {
        assert!(self.pids().into_iter().all(|found| found == pid), "not all are served by {pid}");
    }
}

/// Each gets a name.
fn log_in(clients: &mut [Connection]) {
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("/login?name=client{number}"), false).unwrap();
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.answer().unwrap();
        assert_eq!(answer.body, format!("hello client{number}\n"));
    }
}

/// Each asks who it is.
fn ask_who(clients: &mut [Connection]) {
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("/whoami?number={number}"), false).unwrap();
    }
}

/// The client with this number is still known by its name; who serves it, and whether that was the last time.
fn hear_who(number: usize, client: &mut Connection) -> (u32, bool) {
    let answer = client.answer().unwrap();
    assert_eq!(answer.body.lines().next(), Some(&*format!("client{number}")), "{answer:?}");
    assert_eq!(answer.value("number"), Some(&*number.to_string()));
    (answer.pid().unwrap(), answer.last)
}
