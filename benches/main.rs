//! The bounds that handover promises, measured side by side in one run: `cargo bench`; or only some of
//! the groups of them: `cargo bench -- moving weight`.
//!
//! Ratios and medians, so that a slow or busy machine changes little; what is compared is measured in
//! turns. It says what it saw, also where that is more than the bound; then it exits with 1. No test
//! depends on it, and but for `worlds` it needs neither root nor systemd: it is itself the service manager that
//! starts processes, hears READY=1 and reaps. Instructions are counted by valgrind; without it, the time of a
//! request is held to the same bound, which wants a machine with nothing else to do.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a benchmark: what fails, ends it")]

mod check;
mod client;
mod http;
mod moving;
mod request;
mod restoring;
mod run;
mod service;
mod standin;
mod stashing;
mod status;
mod store;
mod table;
mod upgrade;
mod weight;
mod worlds;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// A group by its name on the command line, and what measures it.
type Group = (&'static str, fn(&mut table::Table));

const GROUPS: [Group; 12] = [
    ("upgrade", upgrade::measure),
    ("request", request::measure),
    ("http", http::measure),
    ("weight", weight::measure),
    ("moving", moving::measure),
    ("stashing", stashing::measure),
    ("restoring", restoring::measure),
    ("standin", standin::measure),
    ("check", check::measure),
    ("worlds", worlds::measure),
    ("run", run::measure),
    ("status", status::measure),
];

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(service::HELPER) => return service::help(),
        Some(moving::RECEIVER) => return moving::receive(),
        Some(store::STARTER) => return store::start(),
        Some(stashing::STASHER) => return stashing::stash(),
        Some(standin::FILLER) => return standin::fill(),
        Some(run::BINDER) => return run::bind(),
        Some(status::ASKER) => return status::ask(),
        _ => {}
    }
    // Cargo adds an option of its own.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let known = GROUPS.map(|(name, _)| name);
    for name in &chosen {
        assert!(known.contains(&name.as_str()), "there is no group {name}, but there are {known:?}");
    }
    build_all();
    let mut table = table::Table::begin();
    moving::raise_limit();
    for (name, measure) in GROUPS {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            measure(&mut table);
        }
    }
    if table.all_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Cargo builds no examples for a benchmark, and a program that is not the one that people install: that is
/// small, the samples are fast.
fn build_all() {
    let examples =
        ["plain", "paved", "axum_plain", "axum_moving", "live", "lab"].map(|name| ["--example", name]);
    build(&[&["--profile", "bench"], examples.as_flattened()].concat());
    build(&["--release", "--bin", "handover"]);
}

/// Has cargo build something.
fn build(what: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo.args(["build", "--quiet"]).args(what).current_dir(env!("CARGO_MANIFEST_DIR"));
    assert!(cargo.status().expect("start cargo").success(), "{what:?} cannot be built");
}

/// A sample service, as cargo built it beside this program.
fn sample(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("name of this program");
    let folder = this.parent().expect("this program is in a folder");
    folder.with_file_name("examples").join(name)
}

/// The `handover` program, as people install it: built last, it lies where cargo put its own.
const HANDOVER: &str = env!("CARGO_BIN_EXE_handover");
