//! The units as they are shipped: what systemd itself says about them, and that they install so.

use crate::lab::{Machine, Systemd};
use crate::web::{Web, binary};

const UNITS: [(&str, &str); 2] = [
    ("/usr/lib/systemd/system/web.socket", include_str!("../units/web.socket")),
    ("/usr/lib/systemd/system/web.service", include_str!("../units/web.service")),
];

on_every_systemd! {
    fn systemd_finds_nothing_to_complain_about(systemd) {
        let machine = installed(systemd);
        differs_on_standin!("there is no systemd-analyze");
        let done = machine.run(&["systemd-analyze", "verify", UNITS[0].0, UNITS[1].0]);
        assert_eq!((done.status, &*done.stdout, &*done.stderr), (0, "", ""));
    }

    fn enabled_as_they_are_they_serve_and_upgrade(systemd) {
        let web = Web { machine: installed(systemd) };
        web.machine.succeed(&["systemctl", "enable", "--now", "web.socket", "web.service"]);
        assert_eq!(web.get("/").pid(), Some(web.main_pid()));
        assert_eq!(web.machine.succeed(&["systemctl", "is-enabled", "web.socket", "web.service"]), "enabled\nenabled\n");
        let new = web.upgrade();
        assert_eq!(web.get("/").pid(), Some(new));
        assert!(!web.machine.journal(&["-p", "warning", "-u", "web.service", "-u", "web.socket", "-o", "cat", "-q"])
            .contains("web."));
    }

    fn the_socket_alone_starts_the_service_for_its_first_client(systemd) {
        let web = Web { machine: installed(systemd) };
        web.machine.succeed(&["systemctl", "enable", "--now", "web.socket"]);
        assert_eq!(web.machine.show("web", "ActiveState"), "inactive");
        assert_eq!(web.get("/").pid(), Some(web.main_pid()));
    }
}

/// A machine with the files of the package where the package has them.
fn installed(systemd: Systemd) -> Machine {
    let handover = env!("CARGO_BIN_EXE_handover");
    let machine =
        Machine::with(systemd).bind(handover, "/usr/bin/handover").copy(binary(), "/usr/bin/web").boot();
    for (path, text) in UNITS {
        machine.push(path, text, 0o644);
    }
    machine.succeed(&["systemctl", "daemon-reload"]);
    machine
}
