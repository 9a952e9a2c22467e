//! Whole units: from text to settings and back.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SHIPPED: [(&str, &str); 4] = [
    ("web.service", include_str!("../../units/web.service")),
    ("web.socket", include_str!("../../units/web.socket")),
    ("keeper.service", include_str!("../../units/keeper.service")),
    ("keeper.socket", include_str!("../../units/keeper.socket")),
];

fn read(name: &str, text: &[u8]) -> (Unit, Vec<Finding>) {
    let mut findings = Vec::new();
    let name = UnitName::parse(name).unwrap();
    let unit =
        Unit::read(name, Arc::new(Host::default()), &[("a.file".into(), text.to_vec())], &mut findings);
    (unit, findings)
}

fn service(text: &str) -> (Service, Vec<String>) {
    let (unit, mut findings) = read("web@blue.service", text.as_bytes());
    let service = Service::read(&unit, &mut findings);
    (service, findings.iter().map(Finding::to_string).collect())
}

fn socket(text: &str) -> (Socket, Vec<String>) {
    let (unit, mut findings) = read("web.socket", text.as_bytes());
    let socket = Socket::read(&unit, &mut findings);
    (socket, findings.iter().map(Finding::to_string).collect())
}

#[test]
fn the_shipped_units_are_understood_to_the_last_line() {
    for (name, text) in SHIPPED {
        let (unit, mut findings) = read(name, text.as_bytes());
        match name.ends_with("socket") {
            true => drop(Socket::read(&unit, &mut findings)),
            false => drop(Service::read(&unit, &mut findings)),
        }
        assert_eq!(findings, [], "{name}");
    }
    let (service, _) = service(SHIPPED[2].1);
    assert_eq!(service.kind, ServiceType::Notify);
    assert_eq!(service.exec_reload[0].words, ["/usr/bin/handover", "reload"]);
    assert_eq!((service.fd_store_max, service.fd_store_preserve), (512, FdStorePreserve::Yes));
    assert_eq!(service.restart_after, Some(Duration::from_millis(100)));
    assert!(service.common.start_limit.is_off() && service.non_blocking);
    assert_eq!(service.exec.limits, [(Resource::NoFile, Limit { soft: Some(65536), hard: Some(65536) })]);
    assert_eq!(service.exec.syslog_identifier.as_deref(), Some("web@blue"));
    let (socket, _) = socket(SHIPPED[3].1);
    let addresses: Vec<_> = socket.listen.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(addresses, ["[::]:7070", "/run/keeper.sock"]);
    assert!(socket.trigger_limit().is_off() && !socket.poll_limit().is_off());
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_what_was_wanted() {
    let (service, findings) = service(
        "[Service]\nExecStart=/bin/true\nRestart=allways\n\nExecStrat=/bin/false\n[Sevice]\nA=b\n[Unit]\nRestart=no\n",
    );
    assert_eq!(service.restart, Restart::No);
    assert_eq!(
        findings,
        [
            "a.file:5: warning: unknown directive ExecStrat= in [Service], it is ignored; is ExecStart= meant?",
            "a.file:6: warning: unknown section [Sevice], all of it is ignored; is [Service] meant?",
            "a.file:9: warning: unknown directive Restart= in [Unit], it is ignored; it belongs in [Service]",
            "a.file:3: warning: Restart=allways: wanted one of no, always, on-success, on-failure, on-abnormal, \
             on-abort, on-watchdog; it is ignored",
        ]
    );
}

#[test]
fn a_continued_line_is_named_by_its_first_and_passes_over_comments() {
    let (service, findings) =
        service("[Service]\nExecStart=/bin/a \\\n# not this\n  b \\\n\nRestart=\\\n nope\n");
    assert_eq!(service.exec_start[0].words, ["/bin/a", "b"]);
    assert_eq!(service.exec_start[0].place.line, 2);
    assert!(findings[0].starts_with("a.file:6: warning: Restart=nope: "), "{findings:?}");
}

#[test]
fn a_unit_that_systemd_refuses_has_an_error() {
    let errors = [
        ("", "neither ExecStart= nor ExecStop="),
        ("ExecStart=bin/web", "neither an absolute path nor a name"),
        ("ExecStart=/bin/a\nExecStart=/bin/b", "more than one ExecStart="),
        ("Type=oneshot\nRestart=always\nExecStart=/bin/a", "cannot be restarted"),
        ("ExecStart=/bin/a\nUser=a:b", "name or number of an account"),
        ("ExecStart=/bin/a \"b", "never closed"),
        ("ExecStart=/bin/a\n[oops", "wants to be a [Section]"),
    ];
    for (text, wanted) in errors {
        let (_, findings) = service(&format!("[Service]\n{text}\n"));
        assert!(
            findings.iter().any(|line| line.contains("error: ") && line.contains(wanted)),
            "{findings:?}"
        );
    }
    let (_, findings) = socket("[Socket]\nBacklog=5\n");
    assert_eq!(findings, ["error: a.file: the socket unit has no ListenStream= or other address"]);
}

#[test]
fn a_drop_in_adds_resets_and_cannot_break_the_unit() {
    let files = [
        ("web.service".into(), b"[Service]\nExecStart=/bin/old\nEnvironment=A=1\n".to_vec()),
        (
            "10.conf".into(),
            b"[Service]\nExecStart=\nExecStart=/bin/new\nEnvironment=B=2\n[oops\nNice=5".to_vec(),
        ),
    ];
    let mut findings = Vec::new();
    let name = UnitName::parse("web.service").unwrap();
    let unit = Unit::read(name, Arc::default(), &files, &mut findings);
    let service = Service::read(&unit, &mut findings);
    assert_eq!((service.exec_start.len(), &*service.exec_start[0].path), (1, "/bin/new"));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(service.exec.environment, [pair("A", "1"), pair("B", "2")]);
    assert_eq!(service.exec.nice, None);
    assert_eq!(unit.values("Service", "ExecStart").len(), 1);
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Warning));
    assert!(findings[0].to_string().starts_with("10.conf:5: "), "{}", findings[0]);
}

#[test]
fn escapes_that_make_bytes_of_no_text_are_refused_where_systemd_takes_them() {
    let (_, findings) = service("[Service]\nExecStart=/bin/echo a\\xffb\n");
    assert!(findings.iter().any(|line| line.contains("not UTF-8")), "{findings:?}");
    let (service, findings) = service("[Service]\nExecStart=/bin/echo \\xc3\\xa4\n");
    assert_eq!((service.exec_start[0].words[1].as_str(), findings.len()), ("\u{e4}", 0));
}

/// Lines of which some are sections, assignments, comments or continued, and some are nothing good.
fn texts() -> impl Strategy<Value = String> {
    let known: Vec<_> = directives().map(|(_, key, _)| key).collect();
    let line = prop_oneof![
        Just("[Service]".to_owned()),
        Just("[Socket]".to_owned()),
        Just("[Unit]".to_owned()),
        (
            prop::sample::select(known),
            "[-+@:!|]{0,3}(/bin/[a-z]{0,3}|[0-9.]{1,5}[smKG]?|yes|a b|\"q|\\PC{0,12})"
        )
            .prop_map(|(key, value)| format!("{key}={value}")),
        "[A-Za-z]{1,8} ?= ?[%$a-zA-Z0-9{}\\\\\"'; ]{0,20}\\\\?",
        "[#;].{0,10}",
        ".{0,20}",
    ];
    prop::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_every_finding_is_about_a_line_that_exists(text in texts(), name in 0..2_usize) {
        let (unit, mut findings) = read(["web@a-b.service", "web.socket"][name], text.as_bytes());
        Service::read(&unit, &mut findings);
        Socket::read(&unit, &mut findings);
        let lines = u32::try_from(text.split(['\n', '\r', '\0']).count()).unwrap();
        for finding in &findings {
            prop_assert!(finding.place.as_ref().is_none_or(|place| (1..=lines).contains(&place.line)), "{finding}");
        }
        for assignment in unit.assignments() {
            prop_assert!((1..=lines).contains(&assignment.place.line));
        }
    }

    #[test]
    fn bytes_of_any_kind_do_not_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (unit, mut findings) = read("web.service", &bytes);
        Service::read(&unit, &mut findings);
    }

    #[test]
    fn what_is_written_is_read_as_it_was(text in texts()) {
        // A mark at the beginning lets a line begin with what else were a comment.
        prop_assume!(!text.contains('\u{feff}'));
        let (unit, mut findings) = read("web.service", text.as_bytes());
        let (again, mut findings_again) = read("web.service", unit.to_string().as_bytes());
        let plain = |unit: &Unit| -> Vec<_> {
            unit.assignments().iter().map(|one| (one.section.clone(), one.key.clone(), one.value.clone())).collect()
        };
        prop_assert_eq!(plain(&unit), plain(&again));
        // Places differ, and nothing else.
        let (mut first, mut second) = (Service::read(&unit, &mut findings), Service::read(&again, &mut findings_again));
        for service in [&mut first, &mut second] {
            let place = Place { file: std::path::Path::new("").into(), line: 1 };
            let lists = [&mut service.exec_start, &mut service.exec_stop, &mut service.exec_reload];
            lists.into_iter().flatten().for_each(|command| command.place = place.clone());
        }
        prop_assert_eq!(first.exec_start, second.exec_start);
        prop_assert_eq!(first.exec, second.exec);
    }

    #[test]
    fn words_written_in_quotes_are_read_as_they_were(words in prop::collection::vec("[^\0\r]{0,12}", 1..6)) {
        let quote = |word: &String| {
            let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('\n', "\\n");
            format!("\"{word}\"")
        };
        let line = words.iter().map(quote).collect::<Vec<_>>().join(" ");
        let (service, findings) = service(&format!("[Service]\nExecStart=/bin/echo {line}\n"));
        prop_assert_eq!(&service.exec_start[0].words[1..], &words[..], "{:?}", findings);
    }
}
