//! `handover check`: what it finds in units, of files and of PID 1's, and that what it says mends them.

mod cases;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use handover::check::{self, Severity, Version};
use handover::unit::directive;

use crate::lab::Machine;
use crate::web::Web;
use cases::Folder;

#[test]
fn each_case_is_found_where_it_is_and_mended_by_its_lines() {
    let cases = cases::all();
    let wrong: Vec<_> = cases.iter().enumerate().filter_map(|(at, case)| case.try_it(at).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn every_rule_has_a_case_a_name_and_a_manual_page() {
    let cases: BTreeSet<_> = cases::all().into_iter().map(|case| case.rule).collect();
    // What only PID 1 can tell is in the scenarios below.
    let told = ["daemon-reload-needed", "loaded-otherwise", "socket-missing"];
    let mut names = BTreeSet::new();
    for rule in check::rules() {
        let kebab = rule.name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        assert!(kebab && names.insert(rule.name), "{}", rule.name);
        assert!(cases.contains(rule.name) || told.contains(&rule.name), "{} has no case", rule.name);
        let (page, what) = rule.manual.split_once(", ").unwrap_or((rule.manual, ""));
        let pages = "systemd.service(5) systemd.socket(5) systemd.unit(5) systemd.exec(5) systemd.kill(5) \
                     systemd.resource-control(5) systemd.syntax(7) systemctl(1) sd_listen_fds(3)";
        assert!(pages.split_whitespace().any(|known| known == page), "{}", rule.manual);
        if let Some(key) = what.strip_suffix('=') {
            let known = ["Unit", "Service", "Socket"].iter().any(|section| directive(section, key).is_some());
            assert!(known, "{}", rule.manual);
        }
        assert!(!rule.about.ends_with('.'), "{}", rule.about);
    }
    assert!(names.len() >= 40);
    assert!(cases.iter().all(|case| names.contains(case.as_str())), "a case of a rule that there is not");
}

#[test]
fn nothing_is_wrong_with_the_units_that_are_shipped() {
    let units = check::read(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("units")]);
    for major in [252, 253, 254, 257, 258, 259, 261, 262] {
        let version = Version::parse(&major.to_string()).unwrap();
        assert_eq!(check::check(&units, version), [], "systemd {major}");
    }
}

#[test]
fn nothing_is_wrong_with_the_units_of_the_readme() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let folder = Folder::with("readme", []);
    let mut pairs = 0;
    for block in readme.split("```ini\n").skip(1) {
        // A socket on the left, its service on the right.
        let block = block.split("```").next().unwrap();
        let right = block.find("# ").and_then(|at| block[at + 2..].find("# ")).unwrap() + 2;
        let column = |line: &str| {
            [line.get(..right).unwrap_or(line).trim().to_owned(), line.get(right..).unwrap_or("").to_owned()]
        };
        let columns: Vec<_> = block.lines().map(column).collect();
        for side in [0, 1] {
            let name = columns[0][side].trim_start_matches("# ").trim().to_owned();
            let text: String = columns[1..].iter().map(|line| format!("{}\n", line[side])).collect();
            folder.write(&name, &text);
        }
        pairs += 1;
    }
    assert_eq!(pairs, 2);
    for major in ["252", "257", "262"] {
        let findings = folder.check(Version::parse(major).unwrap());
        assert!(findings.iter().all(|finding| finding.severity == Severity::Note), "{findings:#?}");
    }
}

/// `handover check` of files, with no systemd and nobody at a terminal.
fn check(folder: &Folder, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    let done =
        command.arg("check").args(arguments).current_dir(&folder.0).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[test]
fn the_exit_status_tells_clean_from_warnings_from_errors_from_wrong_usage() {
    let unit = |more: &str| {
        format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nExecStart=/bin/x\nRestart=always\n\
                 ExecReload=/usr/bin/handover reload\n{more}"
        )
    };
    let (clean, warned, wrong) = (unit(""), unit("KillMode=mixed\n"), unit("KillMode=process\n"));
    let files = [("clean.service", &*clean), ("warned.service", &*warned), ("wrong.service", &*wrong)];
    let folder = Folder::with("exits", files);
    let status = |arguments: &[&str]| check(&folder, arguments).0;
    assert_eq!(status(&["clean.service"]), 0);
    assert_eq!(status(&["./clean.service", "./warned.service"]), 1);
    assert_eq!(status(&["./"]), 2);
    for usage in
        [&[][..], &["--systemd", "newest", "./"], &["--nothing"], &["--explain", "no-rule"], &["--yes", "./"]]
    {
        assert_eq!(status(usage), 64, "{usage:?}");
    }
    assert_eq!(status(&["./nowhere.service"]), 66);
    let (status, rules, _) = check(&folder, &["--rules"]);
    assert_eq!((status, rules.lines().count()), (0, check::rules().count()));
    assert!(check(&folder, &["--explain", "kill-mode-mixed"]).1.contains("systemd.kill(5), KillMode="));
}

#[test]
fn a_drop_in_is_shown_and_only_written_when_somebody_agrees() {
    let unit = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nExecStart=/bin/x\nRestart=always\n\
                ExecReload=/usr/bin/handover reload\nKillMode=mixed\n";
    let folder = Folder::with("agreed", [("web.service", unit)]);
    let drop_in = folder.0.join("web.service.d/50-handover.conf");
    let (status, shown, complaint) = check(&folder, &["--fix", "./web.service"]);
    assert!(status == 1 && complaint.contains("--yes was not given") && !drop_in.exists(), "{complaint}");
    assert!(shown.contains("    [Service]\n") && shown.contains("    KillMode=control-group\n"), "{shown}");
    assert_eq!(check(&folder, &["--fix", "--yes", "./web.service"]).0, 0);
    assert_eq!(check(&folder, &["./web.service"]).0, 0);
    assert_eq!(fs::read_to_string(folder.0.join("web.service")).unwrap(), unit);
    // A drop-in that is read later would win: its own line has to be changed.
    folder.write("web.service.d/60-local.conf", "[Service]\nSendSIGKILL=no\n");
    let (status, shown, _) = check(&folder, &["--fix", "--yes", "./web.service"]);
    assert!(status == 2 && shown.contains("SendSIGKILL=yes (in place of this line)"), "{shown}");
    assert!(shown.contains("nothing that a drop-in could mend"), "{shown}");
}

#[test]
fn programs_get_a_json_object_a_line_and_nobody_gets_colours_in_a_pipe() {
    let folder =
        Folder::with("json", [("web.service", "[Service]\nExecStart=/usr/bin/handover run -- /bin/x\n")]);
    let (_, lines, _) = check(&folder, &["--json", "--systemd", "257", "./"]);
    let rules: Vec<_> = lines.lines().map(|line| line.split_once(r#""rule":""#).unwrap().1).collect();
    assert!(
        rules.len() > 5
            && lines.lines().all(|line| line.starts_with('{') && line.ends_with(r#","systemd":257}"#))
    );
    assert!(!check(&folder, &["./"]).1.contains('\u{1b}'));
}

on_every_systemd! {
    fn a_unit_is_checked_as_pid_1_has_it(systemd) {
        let web = Web::boot(systemd);
        let done = web.machine.run(&["/usr/bin/handover", "check", "web"]);
        assert!(done.status == 0 && done.stdout.starts_with("2 units for systemd "), "{done:?}");
        // The unit that is installed is not the one of the sources, and has a drop-in.
        web.machine.unit(LOCAL, "[Service]\nKillMode=mixed\n");
        let record = found(&web, 1);
        assert!(record.contains(r#""rule":"kill-mode-mixed""#) && record.contains(r#"10-local.conf","line":2"#), "{record}");
        let other = web.machine.run(&["/usr/bin/handover", "check", "nobody", "web"]);
        assert_eq!(other.status, 66, "{other:?}");
        assert!(other.stderr.contains("nobody.service: there is no such unit"), "{other:?}");
        web.machine.unit(LOCAL, "[Service]\nSockets=web.socket nowhere.socket\n");
        let record = found(&web, 2);
        assert!(record.contains(r#""rule":"socket-missing""#) && record.contains(r#""lines":["Sockets=web.socket"]"#), "{record}");
    }

    fn what_the_manager_has_by_default_counts(systemd) {
        let web = Web::boot(systemd);
        // The lab's managers have less patience than others.
        web.machine.succeed(&["sed", "-i", "/^Timeout/d", "/etc/systemd/system/web.service"]);
        web.machine.succeed(&["systemctl", "daemon-reload"]);
        differs_on_standin!("it has no defaults but systemd's own");
        let record = found(&web, 1);
        assert!(record.contains(r#""rule":"start-timeout-too-short""#), "{record}");
        assert!(record.contains(r#"web.service","line":null"#), "{record}");
        // No systemd is asked for files, and then its defaults are the usual ones.
        let files = web.machine.run(&["/usr/bin/handover", "check", "/etc/systemd/system"]);
        assert_eq!(files.status, 0, "{files:?}");
    }

    fn files_that_pid_1_has_not_read_again_are_told(systemd) {
        let web = Web::boot(systemd);
        web.machine.unit(LOCAL, "[Service]\nFileDescriptorStoreMax=100\n");
        assert_eq!(found(&web, 0), "");
        // As `systemctl edit` does it, but for its daemon-reload.
        web.machine.push(&format!("/etc/systemd/system/{LOCAL}"), "[Service]\nFileDescriptorStoreMax=200\n", 0o644);
        let record = found(&web, 1);
        assert!(record.contains(r#""rule":"daemon-reload-needed""#), "{record}");
        assert!(record.contains("FileDescriptorStoreMax=200, and PID 1 has 100"), "{record}");
        web.machine.succeed(&["systemctl", "daemon-reload"]);
        assert_eq!(found(&web, 0), "");
    }

    fn no_unit_of_debians_is_accused(systemd) {
        differs_on_standin!("there are no units of Debian's in it");
        let machine = Machine::with(systemd).bind(env!("CARGO_BIN_EXE_handover"), "/usr/bin/handover").boot();
        let done = machine.run(&["/usr/bin/handover", "check", "/usr/lib/systemd/system", "/usr/lib/systemd/user"]);
        assert!(done.status == 0 && done.stderr.is_empty(), "{done:?}");
        let sum = done.stdout.lines().rev().find_map(|line| line.split_once(" units for systemd ")).unwrap();
        assert!(sum.0.parse::<u32>().unwrap() >= 90, "{done:?}");
    }

    fn what_is_wrong_is_mended_by_a_drop_in(systemd) {
        let web = Web::boot(systemd);
        web.machine.unit(LOCAL, "[Unit]\nStartLimitIntervalSec=10\n[Service]\nKillMode=mixed\nNonBlocking=no\n");
        let shown = web.machine.run(&["/usr/bin/handover", "check", "--fix", "web"]);
        assert!(shown.status == 2 && shown.stderr.contains("--yes"), "{shown:?}");
        assert!(shown.stdout.contains("    NonBlocking=yes\n"), "{shown:?}");
        let is_there = |web: &Web| web.machine.run(&["test", "-e", OURS]).status == 0;
        assert!(!is_there(&web));
        let written = web.machine.run(&["/usr/bin/handover", "check", "--fix", "--yes", "web"]);
        assert!(written.status == 0 && written.stdout.contains("daemon-reload` on"), "{written:?}");
        assert!(is_there(&web));
        web.machine.succeed(&["systemctl", "daemon-reload"]);
        assert_eq!(found(&web, 0), "");
        // It adds to what it has written, and leaves alone what others have.
        web.machine.unit(LOCAL, "[Service]\nKillMode=mixed\nSendSIGKILL=no\n");
        assert_eq!(web.machine.run(&["/usr/bin/handover", "check", "--fix", "--yes", "web"]).status, 0);
        web.machine.succeed(&["systemctl", "daemon-reload"]);
        assert_eq!(found(&web, 0), "");
        web.machine.unit("web.service.d/50-handover.conf", "[Service]\nRestart=no\n");
        let refused = web.machine.run(&["/usr/bin/handover", "check", "--fix", "--yes", "web"]);
        assert!(refused.status == 73 && refused.stderr.contains("is not ours to change"), "{refused:?}");
    }
}

/// A drop-in that is read before ours, and ours.
const LOCAL: &str = "web.service.d/10-local.conf";
const OURS: &str = "/etc/systemd/system/web.service.d/50-handover.conf";

/// What is found in the service and its socket, as JSON.
fn found(web: &Web, status: i32) -> String {
    let done = web.machine.run(&["/usr/bin/handover", "check", "--json", "web"]);
    assert_eq!(done.status, status, "{done:?}");
    done.stdout
}
