//! How long `handover check` takes: for the units of one service, and for those of a whole system.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::HANDOVER;
use crate::table::{Row, Table, median, milliseconds};

/// How often each is measured.
const ROUNDS: usize = 21;
const WHOLE_ROUNDS: usize = 5;

/// How many units a system has.
const UNITS: usize = 1000;

/// Both.
pub(crate) fn measure(table: &mut Table) {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("units");
    let pair = [units.join("web.service"), units.join("web.socket")];
    let took = check(&pair, ROUNDS);
    table.add(&Row {
        what: "check: a service and its socket",
        measured: milliseconds(took),
        beside: "the whole process".into(),
        ratio: None,
        bound: Some(("10 ms", took < Duration::from_millis(10))),
    });
    let folder = std::env::temp_dir().join(format!("handover-bench-check-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("make a folder");
    for number in 0..UNITS / 2 {
        for (file, kind) in pair.iter().zip(["service", "socket"]) {
            std::fs::copy(file, folder.join(format!("web-{number}.{kind}"))).expect("copy a unit");
        }
    }
    let took = check(std::slice::from_ref(&folder), WHOLE_ROUNDS);
    std::fs::remove_dir_all(&folder).expect("remove the folder");
    table.add(&Row {
        what: "check: 1000 units",
        measured: milliseconds(took),
        beside: "the whole process".into(),
        ratio: None,
        bound: Some(("2 s", took < Duration::from_secs(2))),
    });
}

/// The time from the start of the program to its end.
fn check(paths: &[PathBuf], rounds: usize) -> Duration {
    let once = || {
        let mut command = Command::new(HANDOVER);
        command.arg("check").args(paths).stdout(Stdio::null()).stderr(Stdio::null());
        let begin = Instant::now();
        let done = command.status().expect("start handover");
        assert!(done.success(), "the units are clean: {done}");
        begin.elapsed()
    };
    median(&(0..rounds).map(|_| once()).collect::<Vec<_>>())
}
