//! Programs that nobody has changed, upgraded a hundred times by `handover run` under load.
//!
//! What keep-alive clients lose is told, and depends on the program; a request on a connection of its own
//! is never lost.

mod everywhere;
mod list;
#[expect(dead_code, reason = "the table needs more of it: losses.rs")]
mod service;

use std::time::Duration;

use self::list::{ADDRESS, Program};
use self::service::{Service, Way};
use crate::lab::Systemd;
use crate::load::guest::{Guest, Talk};
use crate::load::{Client, Load};
use crate::run::{App, THREE};

/// As Debian has it; it may be told to make up data.
const REDIS: &str = "/usr/bin/redis-server --bind 0.0.0.0 --port 8080 --protected-mode no --dir /srv --save '' \
                     --enable-debug-command local --supervised systemd";

/// Where all programs are, it is a hundred times.
fn upgrades(systemd: Systemd) -> usize {
    match systemd {
        Systemd::V257 | Systemd::Standin => 100,
        Systemd::V252 | Systemd::V262 => 5,
    }
}

/// Upgrades it so often, and no request on a connection of its own is lost.
fn upgrade_again_and_again(systemd: Systemd, program: &'static Program) {
    let service = Service::start(systemd, program, Way::Run);
    let guests = service.guests();
    for _ in 0..upgrades(systemd) {
        service.upgrade();
        guests.new.pass_each(1);
    }
    guests.pass_each();
    let seen = guests.stop();
    let losses = |tally: &crate::load::Tally| format!("{} of {}", tally.failures.len(), tally.requests);
    let [thinking, busy] = [&seen.thinking, &seen.busy].map(losses);
    println!("{}: {}; keep-alive lost {thinking}, {busy} if busy", program.name, seen.new.requests);
    seen.new.assert_nothing_lost();
}

where_all_programs_are! {
    fn gunicorn_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::GUNICORN);
    }

    fn uvicorn_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::UVICORN);
    }

    fn node_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::NODE);
    }

    fn a_static_go_server_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::GO);
    }

    fn javas_server_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::JAVA);
    }

    fn redis_which_cannot_run_twice_loses_no_new_request(systemd) {
        upgrade_again_and_again(systemd, &list::REDIS);
    }

    fn redis_with_a_file_of_data_meets_its_clients_only_when_it_has_read_that(systemd) {
        // While it reads, it answers with `-LOADING` whoever gets in.
        let app = App::boot(systemd, THREE, "--strategy serial --notify --stop-timeout 30s", REDIS);
        let redis = |words: &[&str]| app.machine.succeed(&[&["redis-cli", "-p", "8080"], words].concat());
        redis(&["debug", "populate", "400000"]);
        redis(&["save"]);
        let guest = Client::Guest(Guest { talk: Talk::Redis, keeps: false, pause: Duration::from_millis(4) });
        let load = Load::start(&app.machine, ADDRESS, &[guest; 4]);
        for _ in 0..upgrades(systemd) / 10 {
            app.upgrade();
            load.pass_each(1);
        }
        load.stop().assert_nothing_lost();
        assert_eq!(redis(&["dbsize"]).trim(), "400000");
    }
}

#[test]
fn the_page_has_a_row_for_every_program() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/programs.md");
    let page = std::fs::read_to_string(page).unwrap();
    for program in &list::ALL {
        assert!(page.contains(&format!("| {} |", program.name)), "no row for {}", program.name);
    }
}
