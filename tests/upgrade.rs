//! `handover upgrade`: whoever asks learns the truth, by the exit status, in words and in JSON.

use std::io::{BufRead, BufReader};
use std::process::Child;

use serde_json::{Value, json};

use crate::gate::{Gate, soon};
use crate::lab::{Output, Systemd, finish};
use crate::web::{FAIL_BY_FILE, Web};

/// A service without ExecReload=.
const PLAIN: &str = "[Service]\nExecStart=sleep infinity\n";

/// The command, and no endless wait for it.
const UPGRADE: [&str; 4] = ["timeout", "60", "handover", "upgrade"];

on_every_systemd! {
    fn a_switch_is_told_with_both_processes(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        let old = web.main_pid();
        let told = upgrade(&web, &["web"]);
        let new = web.main_pid();
        assert_eq!((told.status, &*told.stderr), (0, ""));
        assert!(told.stdout.starts_with(&format!("web.service: {old} -> {new} switched in ")), "{told:?}");
        assert_eq!(told.stdout.lines().count(), 1);
        let told = upgrade(&web, &["--json", "web.service"]);
        assert_eq!((told.status, &*told.stderr), (0, ""));
        let record = record(&told);
        let newer = web.main_pid();
        assert_eq!(
            fields(&record, &["unit", "outcome", "exit_status", "old_pid", "new_pid", "serving_pid", "reason", "drained"]),
            json!(["web.service", "switched", 0, new, newer, newer, null, null])
        );
        assert!(record["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{record}");
        load.stop().assert_nothing_lost();
    }

    fn a_store_that_takes_no_more_is_told(systemd) {
        // The record alone fills it. 252 does not tell the service how much it takes.
        let web = Web::boot_with(systemd, "[Service]\nFileDescriptorStoreMax=1\nEnvironment=FDSTORE=1\n");
        let told = upgrade(&web, &["--json", "web"]);
        assert_eq!(told.status, 0, "{told:?}");
        assert!(told.stderr.contains("web.service: its FD store is full (1 of 1)"), "{told:?}");
        assert_eq!(fields(&record(&told), &["stored", "store_limit"]), json!([1, 1]));
    }

    fn drained_is_told_once_the_old_process_has_gone(systemd) {
        let web = Web::boot(systemd);
        let old = web.main();
        let mut connection = web.connect_to(&old);
        connection.send("/slow?ms=25000", false).unwrap();
        let mut told = start(&web, &["--wait=drained", "--json", "web"]);
        soon("a new main process", || web.main_pid() != old.pid);
        assert!(told.try_wait().unwrap().is_none(), "the old one has a request in flight");
        drop(connection);
        let told = finish(told);
        assert_eq!(told.status, 0, "{told:?}");
        let record = record(&told);
        assert_eq!(fields(&record, &["outcome", "old_pid", "drained"]), json!(["switched", old.pid, true]));
        assert!(old.has_left());
    }

    fn a_failure_is_told_with_its_reason_and_with_who_serves(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        let main = web.main_pid();
        web.drop_in("[Service]\nEnvironment=WEB_FAIL=init-error\n");
        let told = upgrade(&web, &["web"]);
        assert_eq!((told.status, &*told.stderr), (23, ""));
        let words = "web.service: upgrade failed (init-failed): the sample was told to fail";
        assert!(told.stdout.starts_with(words), "{told:?}");
        assert!(told.stdout.ends_with(&format!("; {main} is still serving\n")), "{told:?}");
        // The same once more: what the service said of the first one does not count for the second.
        let told = upgrade(&web, &["--json", "web"]);
        assert_eq!(told.status, 23);
        let names = ["outcome", "exit_status", "old_pid", "new_pid", "serving_pid", "reason", "helper_status", "status_is_new"];
        let failed = |code: i32, reason| json!(["failed", code, main, null, main, reason, code, true]);
        assert_eq!(fields(&record(&told), &names), failed(23, "init-failed"));
        web.drop_in("");
        web.machine.succeed(&["mv", "/usr/bin/web", "/usr/bin/web.old"]);
        let told = upgrade(&web, &["--json", "web"]);
        assert_eq!(told.status, 21);
        assert_eq!(fields(&record(&told), &names), failed(21, "exec-failed"));
        web.machine.succeed(&["mv", "/usr/bin/web.old", "/usr/bin/web"]);
        assert_eq!(upgrade(&web, &["web"]).status, 0);
        load.stop().assert_nothing_lost();
    }

    fn when_the_time_is_up_the_upgrade_goes_on_and_that_is_told(systemd) {
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        let (old, gate) = (web.main_pid(), Gate::shut(&web.machine));
        let told = upgrade(&web, &["--timeout=300ms", "web"]);
        let successor = gate.arrival();
        assert_eq!(told.status, 9, "{told:?}");
        let helper = web.machine.show("web", "ControlPID");
        let words = format!(" s, helper {helper} is at work; {old} is still serving\n");
        assert!(told.stdout.starts_with("web.service: still reloading after ") && told.stdout.ends_with(&words), "{told:?}");
        drop((successor, gate));
        soon("a new main process", || web.main_pid() != old);
        let main = web.main();
        let mut connection = web.connect_to(&main);
        connection.send("/slow?ms=25000", false).unwrap();
        let told = upgrade(&web, &["--wait=drained", "--timeout=1s", "--json", "web"]);
        assert_eq!(told.status, 9, "{told:?}");
        let record = record(&told);
        assert_eq!(fields(&record, &["outcome", "old_pid", "serving_pid", "drained"]), json!(["switched", main.pid, web.main_pid(), false]));
    }

    fn of_several_units_the_first_failure_is_the_answer_and_those_behind_it_are_not_tried(systemd) {
        let web = Web::boot(systemd);
        web.machine.unit("plain.service", PLAIN);
        web.machine.succeed(&["systemctl", "start", "plain"]);
        let old = web.main_pid();
        let told = upgrade(&web, &["web", "plain", "gone"]);
        assert_eq!(told.status, 3, "{told:?}");
        assert!(told.stdout.starts_with(&format!("web.service: {old} -> {} ", web.main_pid())), "{told:?}");
        let lines: Vec<_> = told.stderr.lines().map(|line| line.split_once(": ").unwrap()).collect();
        assert_eq!(lines[1], ("gone.service", "not tried, for another one failed"));
        assert_eq!((lines.len(), lines[0].0), (2, "plain.service"));
        let told = upgrade(&web, &["--json", "web", "gone", "plain"]);
        assert_eq!(told.status, 5, "{told:?}");
        let outcomes: Vec<_> = ended(&told).iter().map(|record| record["outcome"].clone()).collect();
        assert_eq!(outcomes, ["switched", "refused", "not-tried"]);
    }

    fn several_at_a_time_are_upgraded_together(systemd) {
        let web = Web::boot(systemd);
        let socket = include_str!("../units/web.socket").replace("8080", "8081").replace("Sockets of web", "more");
        let service = include_str!("../units/web.service").replace("Sockets=web.socket", "Sockets=more.socket");
        web.machine.units(&[("more.socket", &socket), ("more.service", &service)]);
        web.machine.succeed(&["systemctl", "start", "more.socket", "more.service"]);
        let load = web.load();
        let told = upgrade(&web, &["--parallel=2", "--json", "web", "more"]);
        assert_eq!(told.status, 0, "{told:?}");
        let mut units: Vec<_> = ended(&told).iter().map(|record| record["unit"].as_str().unwrap().to_owned()).collect();
        units.sort();
        assert_eq!(units, ["more.service", "web.service"]);
        load.stop().assert_nothing_lost();
    }

    fn before_anything_is_touched_the_unit_is_checked_and_the_new_program_checks_itself(systemd) {
        let web = Web::boot_with(systemd, "[X-Handover]\nCheck=/bin/sh -c 'echo port %p is taken >&2; exit 3'\n");
        let main = web.main_pid();
        let told = upgrade(&web, &["--pre-flight", "web"]);
        assert_eq!((told.status, &*told.stdout), (42, ""), "{told:?}");
        assert!(told.stderr.contains("exit status: 3: port web is taken"), "{told:?}");
        web.drop_in("[Service]\nKillMode=none\n[X-Handover]\nCheck=/bin/true\n");
        let told = upgrade(&web, &["--pre-flight", "--json", "web"]);
        assert_eq!((told.status, &ended(&told)[0]["outcome"]), (42, &json!("pre-flight")), "{told:?}");
        assert_eq!(web.main_pid(), main, "nothing was touched");
        web.drop_in("[X-Handover]\nCheck=/bin/true\n");
        assert_eq!(upgrade(&web, &["--pre-flight", "web"]).status, 0);
    }

    fn an_upgrade_is_told_in_events_while_it_happens(systemd) {
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        let (old, gate) = (web.main(), Gate::shut(&web.machine));
        let mut busy = web.connect_to(&old);
        busy.send("/slow?ms=25000", false).unwrap();
        let mut told = start(&web, &["--json", "--wait=drained", "web"]);
        let mut events = BufReader::new(told.stdout.take().unwrap()).lines();
        let mut any = |what: &[&str]| loop {
            let line = events.next().unwrap_or_else(|| panic!("no event of {what:?}")).unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            if what.iter().any(|what| event["event"] == *what) {
                return event;
            }
        };
        assert_eq!(any(&["begun"])["pid"], json!(old.pid));
        let arrival = gate.arrival();
        assert_eq!(any(&["phase"])["text"], "upgrading");
        drop((arrival, gate));
        // The old process says that it drains a moment before PID 1 says who serves.
        let (mut switched, mut drains) = (false, false);
        while !(switched && drains) {
            let event = any(&["switched", "draining"]);
            switched |= event["event"] == "switched" && event["pid"] != json!(old.pid);
            drains |= event["draining"][0][0] == json!(old.pid);
        }
        drop(busy);
        assert_eq!(any(&["ended"])["drained"], json!(true));
        assert_eq!(told.wait().unwrap().code(), Some(0));
    }

    fn ctrl_c_ends_the_command_and_not_the_upgrade(systemd) {
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        let (old, gate) = (web.main_pid(), Gate::shut(&web.machine));
        let told = web.machine.spawn(&["timeout", "--signal=INT", "--preserve-status", "--foreground", "1", "handover", "upgrade", "web"]);
        let arrival = gate.arrival();
        let told = finish(told);
        assert_eq!(told.status, 43, "{told:?}");
        assert!(told.stderr.contains("goes on without this command"), "{told:?}");
        assert_eq!(web.main_pid(), old);
        drop((arrival, gate));
        soon("a new main process", || web.main_pid() != old);
    }

    fn what_cannot_be_upgraded_is_refused_with_what_to_do(systemd) {
        let web = Web::boot(systemd);
        web.machine.units(&[("plain.service", PLAIN), ("idle.service", PLAIN), ("masked.service", PLAIN)]);
        web.machine.succeed(&["systemctl", "start", "plain"]);
        web.machine.succeed(&["rm", "/etc/systemd/system/masked.service"]);
        web.machine.succeed(&["ln", "-s", "/dev/null", "/etc/systemd/system/masked.service"]);
        web.machine.succeed(&["systemctl", "daemon-reload"]);
        let systemctl = if systemd == Systemd::Standin { "handover ctl" } else { "systemctl" };
        let idle = format!("idle.service: it is not active but inactive: start it first: {systemctl} start idle.service");
        let cases = [
            ("idle", 7, &*idle),
            ("gone", 5, "gone.service: there is no such unit"),
            ("plain", 3, "plain.service: it has no way to reload: add ExecReload=/usr/bin/handover reload"),
            ("web.socket", 3, "web.socket: this is no service"),
            ("no unit", 2, "no unit.service: no unit can have this name"),
        ];
        for (unit, status, words) in cases {
            let told = upgrade(&web, &[unit]);
            assert_eq!((told.status, &*told.stdout), (status, ""), "{told:?}");
            assert!(told.stderr.starts_with(words), "{told:?}");
        }
        let told = upgrade(&web, &["masked"]);
        differs_on_standin!("what is masked is not there: its log says so", assert_eq!(told.status, 6, "{told:?}"));
        let words = "masked.service: it is masked: first systemctl unmask masked.service";
        differs_on_standin!("the same", assert!(told.stderr.starts_with(words), "{told:?}"));
    }

    fn who_may_not_is_told_so_and_how_to_be_allowed(systemd) {
        let web = Web::boot(systemd);
        let main = web.main_pid();
        let told = web.machine.run_as("tester", &["handover", "upgrade", "web"]);
        assert_eq!((told.status, &*told.stdout), (4, ""), "{told:?}");
        assert!(told.stderr.starts_with("web.service: the reload is not allowed: "), "{told:?}");
        let allow = told.stderr.contains("/etc/polkit-1/rules.d/");
        differs_on_standin!("it asks no polkit: its own user may, and root", assert!(allow, "{told:?}"));
        let told = web.machine.run_as("tester", &["handover", "upgrade", "--json", "web"]);
        assert_eq!(fields(&record(&told), &["outcome", "exit_status", "reason"]), json!(["error", 4, "access-denied"]));
        assert_eq!(web.main_pid(), main);
    }

    fn a_service_that_dies_during_its_upgrade_is_told_to_have_died(systemd) {
        let web = Web::boot_with(systemd, FAIL_BY_FILE);
        let (told, old) = killed_during_an_upgrade(&web);
        assert_eq!(told.status, 8, "{told:?}");
        let restarted = fields(&record(&told), &["outcome", "old_pid", "serving_pid"]);
        assert_eq!(restarted, json!(["restarted", old, web.main_pid()]));
        web.drop_in(&format!("{FAIL_BY_FILE}Restart=no\n"));
        let (told, old) = killed_during_an_upgrade(&web);
        assert_eq!(told.status, 8, "{told:?}");
        let names = ["outcome", "old_pid", "new_pid", "serving_pid", "reason"];
        assert_eq!(fields(&record(&told), &names), json!(["died", old, null, null, "signal"]));
    }
}

/// `handover upgrade` with these words behind it, in the background.
fn start(web: &Web, words: &[&str]) -> Child {
    web.machine.spawn(&[&UPGRADE, words].concat())
}

/// `handover upgrade` with these words behind it.
fn upgrade(web: &Web, words: &[&str]) -> Output {
    web.machine.run(&[&UPGRADE, words].concat())
}

/// What an upgrade with `--json` tells whose old process is killed in the middle of it; and that process.
fn killed_during_an_upgrade(web: &Web) -> (Output, u32) {
    let (old, gate) = (web.main_pid(), Gate::shut(&web.machine));
    let told = start(web, &["--json", "web"]);
    let successor = gate.arrival();
    // The next one is not to wait.
    drop(gate);
    web.machine.succeed(&["systemctl", "kill", "-s", "KILL", "--kill-whom=main", "web"]);
    let told = finish(told);
    drop(successor);
    (told, old)
}

/// How the only unit ended.
fn record(told: &Output) -> Value {
    let mut ended = ended(told);
    assert_eq!(ended.len(), 1, "{told:?}");
    ended.remove(0)
}

/// How each unit ended.
fn ended(told: &Output) -> Vec<Value> {
    let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    told.stdout.lines().map(read).filter(|event: &Value| event["event"] == "ended").collect()
}

fn fields(record: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| record[name].clone()).collect()
}
