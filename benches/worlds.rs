//! The scenarios of `tests/`: how long all of them take on the stand-in, beside the same on a real systemd.
//!
//! As many run at once as the lab lets live: of the stand-ins more, because they keep no processor busy. What
//! a scenario itself waits for (a deadline, RestartSec=) is the same on both.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::sample;
use crate::table::{Row, Table};

/// The modules that [`on_every_systemd`](../tests/lab/mod.rs) makes for them.
const STANDIN: &str = "::standin::";
const SYSTEMD: &str = "::v257::";

/// More than machines may live at once, so that it is the lab that says how many.
const THREADS: &str = "--test-threads=12";

/// All of it, or a line that says why not.
pub(crate) fn measure(table: &mut Table) {
    let missing = Command::new(sample("lab")).arg("missing").output().expect("start lab");
    if !missing.status.success() {
        return println!("worlds: skipped: {}", String::from_utf8_lossy(&missing.stdout).trim());
    }
    let built = cargo(&["build", "--quiet", "--all-features", "--bins", "--examples"]);
    assert!(built.status.success(), "the programs of the scenarios cannot be built");
    let names = list();
    let standin: Vec<_> = names.iter().filter(|name| name.contains(STANDIN)).cloned().collect();
    // Some are only for a systemd.
    let same: Vec<_> = standin.iter().map(|name| name.replace(STANDIN, SYSTEMD)).collect();
    assert!(
        !same.is_empty() && same.iter().all(|name| names.contains(name)),
        "a scenario has no other world"
    );
    let (on_standin, on_systemd) = (run(&standin), run(&same));
    let ratio = on_standin.as_secs_f64() / on_systemd.as_secs_f64();
    table.add(&Row {
        what: "all scenarios on the stand-in",
        measured: format!("{:.1} s", on_standin.as_secs_f64()),
        beside: format!("{:.1} s on systemd 257, {} each", on_systemd.as_secs_f64(), same.len()),
        ratio: Some(ratio),
        bound: Some(("< 0.25", ratio < 0.25)),
    });
}

/// The names of all tests.
fn list() -> Vec<String> {
    let listed = cargo(&["test", "--quiet", "--all-features", "--test", "it", "--", "--list"]);
    assert!(listed.status.success(), "the tests cannot be built");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Runs tests, all of which must pass; how long it took, as libtest says: `...; finished in 24.50s`.
fn run(names: &[String]) -> Duration {
    let mut words = vec!["test", "--quiet", "--all-features", "--test", "it", "--", THREADS, "--exact"];
    words.extend(names.iter().map(String::as_str));
    let done = cargo(&words);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "a scenario failed:\n{said}");
    let took = said.rsplit_once("finished in ").and_then(|(_, rest)| rest.split('s').next()?.parse().ok());
    Duration::from_secs_f64(took.expect("libtest says how long it took"))
}

fn cargo(words: &[&str]) -> Output {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).current_dir(Path::new(env!("CARGO_MANIFEST_DIR"))).output().expect("start cargo")
}
