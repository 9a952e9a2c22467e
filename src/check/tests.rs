//! Whatever stands in the files, there is an answer, and it has a place.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::unit::{self, Host};

/// Values that some directive somewhere understands, or nearly.
const VALUES: &str = "yes|no|||none|0|1|infinity|5s|-1|99999999999999999999|notify|notify-reload|simple|forking|oneshot|\
    always|on-failure|all|main|mixed|process|control-group|SIGTERM|SIGKILL|8080|0.0.0.0:8080|/run/web.sock|@web|\
    ~AF_UNIX|AF_INET|@system-service|~@ipc|/run|/run:ro|web.service|web.socket|other.socket|%i|%|\"|\\|web-\u{e9}|\
    /usr/bin/handover run -- /bin/x|/usr/bin/handover run --ready-timeout|-/usr/bin/handover reload|\
    +/usr/bin/handover reload|/bin/sh -c \"a; b\"|/bin/sh -c \"\u{e9};\"|/bin/kill -HUP $MAINPID|on-success|reboot";

fn line() -> impl Strategy<Value = String> {
    let keys: Vec<_> = unit::directives().map(|(_, key, _)| key).collect();
    let values: Vec<_> = VALUES.split('|').collect();
    let section = prop::sample::select(vec!["[Unit]\n", "[Service]\n", "[Socket]\n", "", "", ""]);
    (section, prop::sample::select(keys), prop::sample::select(values))
        .prop_map(|(section, key, value)| format!("{section}{key}={value}\n"))
}

/// Checks two files, and says what was found.
fn checked(service: &[u8], socket: &[u8], version: u16) -> Vec<Finding> {
    // Two tests write there at the same time.
    let whose = format!("{}-{:?}", std::process::id(), std::thread::current().id());
    let folder = std::env::temp_dir().join(format!("handover-any-check-{whose}"));
    std::fs::create_dir_all(&folder).unwrap();
    let files = [("web.service", service), ("web.socket", socket)];
    let write = |(name, text): (&str, &[u8])| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let paths = files.map(write);
    let units = Units::of(unit::survey(&paths, Host::default()), Vec::new());
    std::fs::remove_dir_all(folder).unwrap();
    check(&units, Version::parse(&version.to_string()).unwrap())
}

proptest! {
    #[test]
    fn any_bytes_are_answered(
        service in prop::collection::vec(any::<u8>(), 0..200),
        socket in prop::collection::vec(any::<u8>(), 0..200),
        version in 1..400u16,
    ) {
        checked(&service, &socket, version);
    }

    #[test]
    fn any_directives_are_answered_and_each_finding_has_its_line(
        ours in prop::bool::ANY,
        service in prop::collection::vec(line(), 0..30),
        socket in prop::collection::vec(line(), 0..15),
        version in 240..270u16,
    ) {
        let reload = if ours { "ExecReload=/usr/bin/handover reload\n" } else { "" };
        let service = format!("[Service]\nExecStart=/bin/x\n{reload}{}", service.concat());
        let socket = format!("[Socket]\nListenStream=80\n{}", socket.concat());
        for finding in checked(service.as_bytes(), socket.as_bytes(), version) {
            let text = if finding.unit == "web.service" { &service } else { &socket };
            let lines = text.lines().count();
            prop_assert!(finding.line.is_none_or(|line| (1..=lines).contains(&(line as usize))), "{finding}");
            prop_assert!(!finding.why.is_empty() && rules().any(|rule| rule.name == finding.rule));
        }
    }
}
