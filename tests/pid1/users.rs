//! Who is who: a stand-in without privileges, services of another user, and users who may not ask.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::load::Connection;
use crate::standin::{NOBODY, Standin, example, free_port};

const SOCKET: &str = include_str!("../../units/web.socket");
const SERVICE: &str = include_str!("../../units/web.service");

/// Skips where nobody else can be had; in CI that is a failure.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: this needs root");
        // Past the capture of passing tests' output: a skip must not look like a pass.
        let _ = writeln!(std::io::stderr(), "skipped: another user can only be had by root");
    }
    root
}

in_both_ways! {
    fn a_user_without_privileges_runs_and_upgrades_the_shipped_service(way) {
        if !is_root() {
            return;
        }
        let standin = Standin::new(way);
        let address = format!("127.0.0.1:{}", free_port());
        standin.unit("web.socket", &SOCKET.replace("ListenStream=8080", &format!("ListenStream={address}")));
        let service = SERVICE
            .replace("/usr/bin/web", &standin.copy(&example("web")))
            .replace("/usr/bin/handover", &standin.copy(env!("CARGO_BIN_EXE_handover").as_ref()));
        standin.unit("web.service", &service);
        standin.unit("other.service", "[Service]\nType=exec\nUser=root\nExecStart=/bin/cat\n");
        let standin = standin.unprivileged().start();
        let get = || Connection::open(&address).unwrap().get("/", true).unwrap().pid().unwrap();
        let old = get();
        let status = std::fs::read_to_string(format!("/proc/{old}/status")).unwrap();
        assert!(status.contains(&format!("\nUid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}\n")), "{status}");
        let done = standin.handover("upgrade", &["web"]);
        assert_eq!(done.status, 0, "{done:?}\n{}", standin.log());
        let new = get();
        assert_ne!(new, old);
        assert_eq!(standin.show("web", "MainPID"), new.to_string());
        crate::standin::signal(new, rustix::process::Signal::KILL);
        assert_ne!(get(), new);
        standin.await_log("can only be others than our own for root");
        assert_eq!(standin.show("other", "ActiveState"), "failed");
        assert!(standin.log().contains("processes are followed by session and parentage"), "{}", standin.log());
    }

    fn a_service_of_another_user_is_that_user_and_has_its_folder(way) {
        if !is_root() {
            return;
        }
        let standin = Standin::new(way);
        standin.unit(
            "who.service",
            "[Service]\nType=oneshot\nRemainAfterExit=yes\nUser=nobody\nSupplementaryGroups=daemon\nRuntimeDirectory=mine\n\
             ExecStartPre=+/bin/sh -c 'echo before: $(id -un)'\n\
             ExecStart=/bin/sh -c 'echo I am $(id -un), in $(id -Gn), $USER at $HOME'\n\
             ExecStart=/bin/sh -c 'echo mine > $RUNTIME_DIRECTORY/file && stat -c \"it is %%U\\'s\" $RUNTIME_DIRECTORY/file'\n",
        );
        standin.unit("nobody-else.service", "[Service]\nType=exec\nUser=is-not-there\nExecStart=/bin/cat\n");
        let standin = standin.start();
        standin.await_property("who", "ActiveState", "active");
        let nobody = nix::unistd::User::from_uid(NOBODY.into()).unwrap().unwrap();
        let line = format!("I am nobody, in nogroup daemon, nobody at {}", nobody.dir.display());
        for said in ["before: root", &*line, "it is nobody's"] {
            standin.await_log(said);
        }
        standin.await_log("User=is-not-there: there is no such user");
        assert_eq!(standin.show("nobody-else", "ActiveState"), "failed");
    }

    fn another_user_may_not_ask(way) {
        if !is_root() {
            return;
        }
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\n");
        let handover = standin.copy(env!("CARGO_BIN_EXE_handover").as_ref());
        let standin = standin.start();
        let _puppet = standin.puppet();
        for words in [&["ctl", "stop", "puppet"][..], &["ctl", "show", "puppet"], &["upgrade", "puppet"]] {
            let (verb, rest) = words.split_first().unwrap();
            let mut command = Command::new(&handover);
            command.arg(verb).arg("--standin").arg(standin.path("")).args(rest).uid(NOBODY).gid(NOBODY);
            let done = command.output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr);
            assert_eq!(done.status.code(), Some(4), "{words:?}: {said}");
            assert!(said.contains("this is user 0's stand-in, and user 65534 asks"), "{said}");
        }
        assert_eq!(standin.show("puppet", "ActiveState"), "active");
    }
}
