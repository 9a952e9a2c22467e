//! What clients of unmodified programs lose at an upgrade, by three ways to upgrade: writes the table of
//! docs/programs.md. `cargo build && cargo run --example losses`; a number behind `--` is how many upgrades.
//!
//! It needs what the scenarios need: root, and a host on which `lab` runs machines.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program of the project's own"
)]

#[macro_use]
#[allow(dead_code, unused_imports, unused_macros, reason = "the scenarios need more of it")]
mod lab;
#[allow(dead_code, unused_imports, reason = "the scenarios need more of it")]
mod load;
#[allow(dead_code, reason = "the scenarios need more of it")]
mod progress;

#[path = "programs/list.rs"]
mod list;
#[path = "programs/service.rs"]
mod service;

use std::fmt::Write;

use lab::{Machine, Systemd};
use list::{ALL, Program};
use load::Tally;
use service::{Guests, Service, Way};

/// How often each program is upgraded in each way, if nobody says.
const UPGRADES: usize = 20;

/// Where the table is, in the repository.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/programs.md");

fn main() {
    let upgrades = std::env::args().nth(1).map(|number| number.parse().expect("a number of upgrades"));
    let upgrades = upgrades.unwrap_or(UPGRADES);
    let systemd = Machine::boot(Systemd::V257).succeed(&["systemctl", "--version"]);
    let systemd = systemd.split(['(', ')']).nth(1).expect("a version in brackets").to_owned();
    let mut page = head(upgrades, &systemd);
    for program in &ALL {
        let row = row(program, upgrades);
        println!("{row}");
        page += &row;
        page.push('\n');
    }
    std::fs::write(PAGE, page).expect("write the page");
}

/// What stands above the rows.
fn head(upgrades: usize, systemd: &str) -> String {
    let mut text = "\
# What clients lose when an unmodified program is upgraded

`cargo build && cargo run --example losses`, as root, writes this page anew.

"
    .to_owned();
    write!(
        text,
        "Each cell: {upgrades} upgrades in a row on systemd {systemd} as PID 1, all programs as Debian has \
         them, the configuration in `tests/programs/list.rs`. Four clients make a new connection every \
         4 ms; six keep theirs and pause for 80 to 130 ms; two keep theirs and pause for 2 ms. No client \
         retries. A kept connection that ends while nothing is asked on it is no loss.\n\n\
         A cell says what these three kinds have lost: **new / kept, pausing / kept, busy**, and how many \
         requests were answered.\n\n\
         * `handover run`: eight slots, `--idle 50ms --drain 2s`. Who keeps a connection and never pauses \
         may lose a request at the end of the drain, if the program does not finish it at its signal.\n\
         * SIGTERM overlap: the new one starts beside the old one on one socket that both have, then the \
         old one gets SIGTERM. This is `handover run` with a single `ListenStream=`.\n\
         * `systemctl restart`: a plain unit.\n\n\
         | program | version | `handover run` | SIGTERM overlap | `systemctl restart` |\n\
         |---|---|---|---|---|\n"
    )
    .expect("a text takes all");
    text
}

/// A program, upgraded in each way.
fn row(program: &'static Program, upgrades: usize) -> String {
    let mut row = String::new();
    for way in [Way::Run, Way::Overlap, Way::Restart] {
        let service = Service::start(Systemd::V257, program, way);
        if row.is_empty() {
            row = format!("| {} | {} |", program.name, service.version());
        }
        row += &format!(" {} |", cell(&measure(&service, upgrades)));
    }
    row
}

/// Upgrades it so often, and lets its clients come through between.
fn measure(service: &Service, upgrades: usize) -> Guests<Tally> {
    let guests = service.guests();
    for _ in 0..upgrades {
        service.upgrade();
        guests.pass_each();
    }
    guests.stop()
}

fn cell(seen: &Guests<Tally>) -> String {
    let all = [&seen.new, &seen.thinking, &seen.busy];
    let lost = all.map(|tally| tally.failures.len().to_string());
    let answered: u64 = all.iter().map(|tally| tally.requests).sum();
    format!("**{}** of {answered}", lost.join(" / "))
}
