//! The scenarios of `tests/`: how long all of them take on the stand-in, beside the same on a real systemd.
//!
//! As many run at once as the lab lets live: of the stand-ins more, because they keep no processor busy. What
//! a scenario itself waits for (a deadline, RestartSec=) is the same on both. So is what it takes to start a
//! program of other people's a hundred times: how long those scenarios take is told, and nothing promised.

use std::process::{Command, Output};
use std::time::Duration;

use crate::sample;
use crate::table::{Row, Table};

/// The modules that [`on_every_systemd`](../tests/lab/mod.rs) makes for them.
const STANDIN: &str = "::standin::";
const SYSTEMD: &str = "::v257::";

/// The scenarios with programs of other people's.
const PROGRAMS: &str = "programs::";

/// More than machines may live at once, so that it is the lab that says how many.
const THREADS: &str = "--test-threads=12";

/// All of it, or a line that says why not.
pub(crate) fn measure(table: &mut Table) {
    let lab = |words: &[&str]| Command::new(sample("lab")).args(words).output().expect("start lab");
    for words in [&["missing", "Standin"][..], &["missing", "V257"], &["missing", "V257", "--programs"]] {
        let missing = lab(words);
        if !missing.status.success() {
            return table.skip("scenarios in both worlds", String::from_utf8_lossy(&missing.stdout).trim());
        }
    }
    // Nobody is to wait for a root tree or a compiler while the time is taken.
    must(lab(&["build", "V257", "programs"]), "root trees of the lab");
    must(cargo(&["build", "--all-features", "--bins", "--examples"]), "a build of the programs");
    let names = list();
    let standin: Vec<_> = names.iter().filter(|name| name.contains(STANDIN)).collect();
    let (programs, ours): (Vec<_>, Vec<_>) = standin.into_iter().partition(|name| name.starts_with(PROGRAMS));
    compare(table, "all scenarios on the stand-in", &names, &ours, Some(0.25));
    compare(table, "with other people's programs", &names, &programs, None);
}

/// Runs what is for the stand-in there, then the same on a systemd; the stand-in may need less than `most` of
/// the time.
fn compare(table: &mut Table, what: &str, names: &[String], standin: &[&String], most: Option<f64>) {
    let same: Vec<_> = standin.iter().map(|name| name.replace(STANDIN, SYSTEMD)).collect();
    let alone = same.iter().find(|name| !names.contains(name));
    assert!(!same.is_empty() && alone.is_none(), "a scenario has no other world: {alone:?}");
    let (on_standin, on_systemd) = (run(standin), run(&same));
    let ratio = on_standin.as_secs_f64() / on_systemd.as_secs_f64();
    table.add(&Row {
        what,
        measured: format!("{:.1} s", on_standin.as_secs_f64()),
        beside: format!("{:.1} s on systemd 257, {} each", on_systemd.as_secs_f64(), same.len()),
        ratio: Some(ratio),
        bound: most.map(|most| ("< 0.25", ratio < most)),
    });
}

/// The names of all tests.
fn list() -> Vec<String> {
    let listed =
        must(cargo(&["test", "--all-features", "--test", "it", "--", "--list"]), "a list of the tests");
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Runs tests, all of which must pass; how long it took, as libtest says: `...; finished in 24.50s`.
fn run(names: &[impl AsRef<str>]) -> Duration {
    let mut words = vec!["test", "--all-features", "--test", "it", "--", "--quiet", THREADS, "--exact"];
    words.extend(names.iter().map(AsRef::as_ref));
    let said = must(cargo(&words), "scenarios that all pass");
    let took = said.rsplit_once("finished in ").and_then(|(_, rest)| rest.split('s').next()?.parse().ok());
    Duration::from_secs_f64(took.expect("libtest says how long it took"))
}

/// What a command printed that had to bring `what`.
fn must(done: Output, what: &str) -> String {
    let [said, complained] = [&done.stdout, &done.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(done.status.success(), "want {what}, found {}:\n{said}\n{complained}", done.status);
    said.into_owned()
}

/// In CI a scenario that cannot run fails: here, too, none may be as fast as that.
fn cargo(words: &[&str]) -> Output {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).env("CI", "true").env_remove("WORLD").current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().expect("start cargo")
}
