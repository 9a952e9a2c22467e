//! `handover init`: what it writes is what systemd takes without a word, and works as it is.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::lab::{Machine, Systemd};
use crate::load::Load;
use crate::run::{CLIENTS, PYTHON, TAKER};
use crate::web::binary;

const ADDRESS: &str = "127.0.0.1:8080";

/// Where units are that people make.
const HOME: &str = "/etc/systemd/system";

/// A machine with the units of a service `web` in it, as `handover init` has written them.
fn init(systemd: Systemd, flags: &[&str]) -> Machine {
    let machine = Machine::with(systemd)
        .bind(env!("CARGO_BIN_EXE_handover"), "/usr/bin/handover")
        .copy(binary(), "/usr/bin/web")
        .boot();
    machine.push("/usr/share/taker.py", TAKER, 0o644);
    machine.succeed(&[&["handover", "init", "web", "--dir", HOME], flags].concat());
    machine.succeed(&["systemctl", "daemon-reload"]);
    machine
}

/// The units pass for good ones, start, and are upgraded under load.
fn works(systemd: Systemd, kind: &str, exec: &str, more: &[&str]) {
    let flags = ["--kind", kind, "--exec", exec, "--listen", "0.0.0.0:8080"];
    // The stand-in has no users to give.
    let bare: &[_] = if systemd == Systemd::Standin { &["--no-hardening"] } else { &[] };
    let machine = init(systemd, &[&flags, more, bare].concat());
    if systemd != Systemd::Standin {
        let units = ["socket", "service"].map(|kind| format!("{HOME}/web.{kind}"));
        let said = machine.run(&["systemd-analyze", "verify", "--recursive-errors=no", &units[0], &units[1]]);
        assert!(said.status == 0 && said.stderr.is_empty() && said.stdout.is_empty(), "{said:?}");
    }
    let checked = machine.run(&["handover", "check", "web"]);
    assert!(checked.status == 0, "{checked:?}");
    // The service brings its sockets along.
    machine.succeed(&["systemctl", "start", "web.service"]);
    assert_eq!(machine.show("web.socket", "SubState"), "running");
    let load = Load::start(&machine, ADDRESS, &CLIENTS);
    for _ in 0..3 {
        let serving = serving(&machine);
        let done = machine.run(&["timeout", "60", "systemctl", "reload", "web"]);
        assert_eq!(done.status, 0, "{done:?}\n{}", machine.journal(&["-u", "web", "-n", "30"]));
        assert_ne!(self::serving(&machine), serving, "a new process");
        load.pass_each(3);
    }
    load.stop().assert_nothing_lost();
    assert!(!machine.journal(&["-u", "web"]).contains("can have no second socket"));
    machine.succeed(&["systemctl", "stop", "web.service"]);
    assert_eq!(machine.show("web", "Result"), "success");
}

/// Who serves: the main process, or what a runner says of its generation.
fn serving(machine: &Machine) -> String {
    let status = machine.show("web", "StatusText");
    let generation = status.split_once("(process ").and_then(|(_, rest)| rest.split_once(')'));
    generation.map_or_else(|| machine.show("web", "MainPID"), |(pid, _)| pid.to_owned())
}

on_every_systemd! {
    fn the_units_of_a_program_built_on_the_library_work_as_they_are(systemd) {
        works(systemd, "library", "/usr/bin/web", &[]);
    }

    fn the_units_of_a_program_that_takes_its_sockets_work_as_they_are(systemd) {
        works(systemd, "activation", "/usr/bin/python3 /usr/share/taker.py", &[]);
    }

    fn the_units_of_a_program_that_knows_nothing_work_as_they_are(systemd) {
        works(systemd, "unmodified", PYTHON, &[]);
    }

    fn without_a_sandbox_they_work_as_well(systemd) {
        works(systemd, "unmodified", PYTHON, &["--no-hardening"]);
    }
}

/// There is no such thing under the stand-in.
mod users {
    use super::*;

    on_real_systemd! {
        fn the_units_for_a_users_own_manager_work_there(systemd) {
            let machine = init(systemd, &["--kind", "library", "--exec", "/usr/bin/web", "--listen", "8080"]);
            machine.linger("tester");
            let tester = |words: &[&str]| {
                let done = machine.run_as("tester", words);
                assert_eq!(done.status, 0, "{words:?}: {done:?}\n{}", machine.journal(&["-n", "30"]));
                done.stdout
            };
            let home = "/home/tester/.config/systemd/user";
            tester(&["mkdir", "-p", home]);
            tester(&["handover", "init", "web", "--user", "--kind", "library", "--exec", "/usr/bin/web", "--listen", "8081", "--dir", home]);
            tester(&["systemctl", "--user", "daemon-reload"]);
            tester(&["systemctl", "--user", "enable", "--now", "web.service"]);
            let load = Load::start(&machine, "127.0.0.1:8081", &CLIENTS);
            assert!(tester(&["handover", "upgrade", "--user", "web"]).contains(" switched in "));
            load.pass_each(3);
            load.stop().assert_nothing_lost();
        }
    }
}

#[test]
fn nothing_is_overwritten_and_stdout_needs_no_folder() {
    let dir = std::env::temp_dir().join(format!("handover-init-twice-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let flags = [
        "init",
        "web",
        "--kind",
        "library",
        "--exec",
        "/usr/bin/web",
        "--listen",
        "8080",
        "--handover=/usr/bin/handover",
    ];
    let handover = |more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_handover"))
            .args(flags)
            .args(more)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let to = ["--dir", dir.to_str().unwrap()];
    assert!(handover(&to).status.success());
    let again = handover(&to);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(again.status.code() == Some(1) && said.contains("nothing is overwritten"), "{said}");
    let read = |kind: &str| std::fs::read_to_string(dir.join(format!("web.{kind}"))).unwrap();
    let printed = String::from_utf8(handover(&["--print"]).stdout).unwrap();
    assert_eq!(printed, format!("{}\n{}", read("socket"), read("service")));
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn who_sits_at_a_terminal_is_asked_for_what_is_missing() {
    // script(1) gives it a terminal.
    let inside = format!("{} init web --print --handover /usr/bin/handover", env!("CARGO_BIN_EXE_handover"));
    let mut script = Command::new("script")
        .args(["-qec", &inside, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answers = script.stdin.take().unwrap();
    answers.write_all(b"what?\n1\n/opt/web --fast\n8080 /run/web.sock\nn\n").unwrap();
    let said = String::from_utf8(script.wait_with_output().unwrap().stdout).unwrap();
    drop(answers);
    for wanted in ["1, 2 or 3 [3]", "ExecStart=/opt/web --fast\r\n", "ListenStream=/run/web.sock\r\n"] {
        assert!(said.contains(wanted), "{said}");
    }
    assert!(!said.contains("DynamicUser="), "{said}");
}

#[test]
fn what_is_written_passes_the_check_for_every_systemd() {
    for kind in ["library", "activation", "unmodified"] {
        for more in ["--hardening", "--no-hardening", "--user"] {
            let dir = std::env::temp_dir().join(format!("handover-init-{kind}{more}-{}", std::process::id()));
            std::fs::create_dir(&dir).unwrap();
            let run = |arguments: &[&str]| {
                Command::new(env!("CARGO_BIN_EXE_handover"))
                    .args(arguments)
                    .stdin(Stdio::null())
                    .output()
                    .unwrap()
            };
            let (flags, to) = (["--exec", "/usr/bin/env", "--listen", "0.0.0.0:8080"], dir.to_str().unwrap());
            let flags =
                [&flags[..], &["--kind", kind, more, "--dir", to, "--handover=/usr/bin/env"]].concat();
            assert!(run(&[&["init", "web"], &flags[..]].concat()).status.success());
            for version in ["252", "257", "262"] {
                let checked = run(&[
                    "check",
                    "--systemd",
                    version,
                    &format!("{to}/web.socket"),
                    &format!("{to}/web.service"),
                ]);
                let said = String::from_utf8(checked.stdout).unwrap();
                assert_eq!(checked.status.code(), Some(0), "{kind} {more} {version}: {said}");
            }
            std::fs::remove_dir_all(dir).unwrap();
        }
    }
}
