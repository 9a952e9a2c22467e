//! How long `handover status` takes, and what `--watch` costs PID 1: on a real systemd, in a machine of the lab.
//! Where there can be none, the table says why.

use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::table::{Row, Table, median, milliseconds};
use crate::{HANDOVER, sample};

/// The argument by which this program is the one inside who asks.
pub(crate) const ASKER: &str = "asker";

/// How often it is asked, and for how long it is watched.
const ROUNDS: usize = 41;
const WATCHED: Duration = Duration::from_secs(10);

/// Both.
pub(crate) fn measure(table: &mut Table) {
    for systemd in ["V257", "V262", "V252"] {
        match in_machine(systemd) {
            Ok(said) => rows(table, systemd, &said),
            Err(why) => table.skip(&format!("status, on {systemd}"), &why),
        }
    }
}

fn in_machine(systemd: &str) -> Result<String, String> {
    let lab = sample("lab");
    let missing = Command::new(&lab).arg("missing").output().map_err(|error| error.to_string())?;
    if !missing.status.success() {
        return Err(String::from_utf8_lossy(&missing.stdout).trim().to_owned());
    }
    let this = std::env::current_exe().expect("name of this program");
    let mut command = Command::new(&lab);
    command.args(["run", systemd]);
    for (host, inside) in [(this, "bounds"), (HANDOVER.into(), "handover"), (sample("paved"), "hello")] {
        command.args(["--bind", &format!("{}:/usr/bin/{inside}", host.display())]);
    }
    let done =
        command.args(["--", "/usr/bin/bounds", ASKER]).stdin(Stdio::null()).output().expect("start lab");
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => Err(format!("the lab says: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

fn rows(table: &mut Table, systemd: &str, said: &str) {
    let figures: Vec<f64> = said.split_whitespace().map(|word| word.parse().expect("a figure")).collect();
    let [took, watched, idle] = figures[..] else { panic!("the asker says three figures: {said}") };
    let took = Duration::from_secs_f64(took);
    table.add(&Row {
        what: &format!("status of a service, on {systemd}"),
        measured: milliseconds(took),
        beside: "the whole process".into(),
        ratio: None,
        bound: Some(("< 50 ms", took < Duration::from_millis(50))),
    });
    let second = |time: f64| Duration::from_secs_f64((time / WATCHED.as_secs_f64()).max(0.0));
    table.add(&Row {
        what: "  PID 1's time for a second of --watch",
        measured: milliseconds(second(watched)),
        beside: format!("{} without", milliseconds(second(idle))),
        ratio: None,
        bound: Some(("< 1 ms", second(watched - idle) < Duration::from_millis(1))),
    });
}

/// Inside: asks again and again, then watches PID 1 while somebody watches the service.
pub(crate) fn ask() -> ExitCode {
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let done = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(done.expect("start a command").success(), "{program} {arguments:?}");
    };
    let units =
        ["--kind", "library", "--exec", "/usr/bin/hello", "--listen", "8080", "--dir", "/etc/systemd/system"];
    run("handover", &[&["init", "hello"], &units[..]].concat());
    run("systemctl", &["daemon-reload"]);
    run("systemctl", &["start", "hello"]);
    let times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            run("handover", &["status", "hello"]);
            begin.elapsed().as_secs_f64()
        })
        .collect();
    let watcher =
        || Command::new("handover").args(["status", "--watch", "hello"]).stdout(Stdio::null()).spawn();
    let mut watcher = watcher().expect("start a watch");
    // Its first look is one of those above.
    std::thread::sleep(Duration::from_secs(1));
    let watched = spent();
    watcher.kill().and_then(|()| watcher.wait()).expect("end the watch");
    let idle = spent();
    println!("{} {watched} {idle}", median(&times));
    ExitCode::SUCCESS
}

/// Seconds on a processor that PID 1 spends from now on: proc_pid_schedstat(5).
fn spent() -> f64 {
    let so_far = || -> f64 {
        let text = fs::read_to_string("/proc/1/schedstat").expect("read schedstat");
        text.split_whitespace().next().and_then(|word| word.parse().ok()).expect("nanoseconds")
    };
    let begin = so_far();
    std::thread::sleep(WATCHED);
    (so_far() - begin) / 1e9
}
