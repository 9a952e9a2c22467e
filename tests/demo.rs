//! `handover demo`: the first thing that people try. It works for everybody, tells the truth, and leaves
//! nothing behind.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, poll};
use nix::unistd::geteuid;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};

use crate::lab::{Output, finish};

/// Milliseconds between two steps: quick enough for a test, and long enough that clients get on with it.
const BEAT: &str = "100";

/// Somebody who may do nothing but what everybody may.
const NOBODY: u32 = 65534;

/// A folder for what is temporary, in it a program that nobody else runs.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("handover-test-{name}-{}", std::process::id()));
        fs::create_dir_all(home.join("tmp")).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(home.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_handover"), home.join("handover")).unwrap();
        Self(home)
    }

    fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("handover"));
        command.args(["demo", "--beat", BEAT]).args(arguments).env_clear().env("TMPDIR", self.0.join("tmp"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A show that somebody watches: until it has said that the service was upgraded.
    fn watched(&self) -> Child {
        let mut demo = self.demo(&[]).spawn().unwrap();
        let mut lines = BufReader::new(demo.stdout.as_mut().unwrap());
        let mut line = String::new();
        while !line.contains("upgrade 1") {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended before");
        }
        demo
    }

    /// The processes that run our program, with what they were started with.
    fn processes(&self) -> Vec<(Pid, String)> {
        let program = self.0.join("handover");
        let ours = |entry: fs::DirEntry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let same = fs::read_link(entry.path().join("exe")).ok()? == program;
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?.replace('\0', " ");
            same.then_some((pid, line))
        };
        fs::read_dir("/proc").unwrap().filter_map(|entry| ours(entry.unwrap())).collect()
    }

    fn assert_nothing_is_left(&self) {
        let files: Vec<_> =
            fs::read_dir(self.0.join("tmp")).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.is_empty(), "{files:?}");
        let processes = self.processes();
        assert!(processes.is_empty(), "{processes:?}");
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The one line that a program reads.
fn record(told: &Output) -> Value {
    assert_eq!(told.stdout.lines().count(), 1, "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

/// The whole show; what it told.
fn show(home: &Home, mut demo: Command) -> Value {
    let told = finish(demo.spawn().unwrap());
    assert_eq!((told.status, &*told.stderr), (0, ""), "{told:?}");
    let record = record(&told);
    let figures = ["ok", "failures", "losses", "upgrades", "trouble"].map(|figure| &record[figure]);
    assert_eq!(json!(figures), json!([true, 0, [], 6, null]));
    assert!(record["requests"].as_u64().is_some_and(|requests| requests > 1000), "{record}");
    assert_eq!(record["pids"].as_array().unwrap().len(), 8, "one at first, 6 by upgrade, one after the kill");
    let events = record["events"].as_array().unwrap().iter();
    let bad: Vec<_> = events.filter(|event| !event["reason"].is_null()).collect();
    assert!(
        bad.len() == 1 && bad[0]["what"] == "failed" && bad[0]["reason"] == "successor-exited",
        "{bad:?}"
    );
    home.assert_nothing_is_left();
    record
}

#[test]
fn nothing_is_lost_and_nothing_is_left_also_for_somebody_without_any_rights() {
    let home = Home::new("demo");
    let picture = home.0.join("show.svg");
    show(&home, home.demo(&["--json", "--report", picture.to_str().unwrap()]));
    let picture = fs::read_to_string(picture).unwrap();
    assert!(roxmltree::Document::parse(&picture).is_ok() && picture.contains(">kill -9</text>"));
    if geteuid().is_root() {
        let mut demo = home.demo(&["--json"]);
        show(&home, {
            demo.uid(NOBODY).gid(NOBODY);
            demo
        });
    }
}

#[test]
fn a_connection_that_is_lost_is_told_and_nothing_is_left() {
    let home = Home::new("sabotage");
    let told = finish(home.demo(&["--json", "--sabotage"]).spawn().unwrap());
    let record = record(&told);
    assert_eq!((told.status, &record["ok"], &record["trouble"]), (1, &json!(false), &json!(null)));
    let losses = record["losses"].as_array().unwrap();
    assert_eq!(record["failures"], losses.len());
    assert!(losses[0].as_str().unwrap().contains("the connection ended"), "{losses:?}");
    home.assert_nothing_is_left();
}

#[test]
fn a_stand_in_that_is_killed_is_told_and_nothing_is_left() {
    let home = Home::new("killed");
    let demo = home.watched();
    let processes = home.processes();
    let (standin, _) = processes.iter().find(|(_, line)| line.contains(" --pid1 ")).unwrap();
    kill_process(*standin, Signal::KILL).unwrap();
    let told = finish(demo);
    assert_eq!(told.status, 1, "{told:?}");
    assert!(told.stdout.contains("\nthe stand-in ended before its time\n"), "{told:?}");
    home.assert_nothing_is_left();
}

#[test]
fn a_show_that_is_killed_leaves_nothing_either() {
    let home = Home::new("slain");
    let mut demo = home.watched();
    demo.kill().unwrap();
    demo.wait().unwrap();
    loop {
        let left = home.processes();
        // One that has gone by now is not waited for.
        let open = |(pid, _): &(Pid, String)| pidfd_open(*pid, PidfdFlags::empty()).ok();
        let pidfds: Vec<_> = left.iter().filter_map(open).collect();
        if left.is_empty() {
            break;
        }
        let mut ends: Vec<_> = pidfds.iter().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)).collect();
        assert!(ends.is_empty() || poll(&mut ends, 20_000_u16).unwrap() > 0, "{left:?}");
    }
    home.assert_nothing_is_left();
}

#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    let home = Home::new("interrupted");
    let demo = home.watched();
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    let told = finish(demo);
    assert_eq!((told.status, &*told.stderr), (1, "handover demo: interrupted\n"));
    home.assert_nothing_is_left();
}
