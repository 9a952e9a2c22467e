//! Clients of sd_notify(3) and sd_listen_fds(3) that are not ours: systemd-notify, python's two, and a
//! program on libsystemd.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::standin::{Standin, Way};

/// Skips with a reason where something is missing; in CI that is a failure.
fn has(what: &str, found: bool) -> bool {
    if !found {
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: no {what}");
        // Past the capture of passing tests' output: a skip must not look like a pass.
        let _ = writeln!(std::io::stderr(), "skipped: no {what}");
    }
    found
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let silent = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// A service that runs a script, with a socket; it is to say READY=1, a status, and to store a descriptor
/// that it finds again after a restart.
fn judge(way: Way, exec: &str, script: &str) {
    let standin = Standin::new(way);
    std::fs::write(standin.path("script"), script).unwrap();
    standin.unit("other.socket", "[Socket]\nListenStream=@/s\nFileDescriptorName=theirs\n");
    standin.unit(
        "other.service",
        &format!("[Service]\nType=notify\nNotifyAccess=all\nFileDescriptorStoreMax=4\nExecStart={exec}\nRestart=always\nRestartSec=0\n"),
    );
    let standin = standin.argument("--now").start();
    standin.await_property("other", "StatusText", "first");
    standin.await_property("other", "ActiveState", "active");
    standin.await_property("other", "NFileDescriptorStore", "1");
    standin.succeed(&["kill", "-s", "KILL", "other"]);
    standin.await_property("other", "StatusText", "again with theirs:kept");
    assert_eq!(standin.show("other", "NFileDescriptorStore"), "1");
}

in_both_ways! {
    fn systemd_notify_speaks_for_a_shell_script(way) {
        if !has("systemd-notify", runs("systemd-notify", &["--version"])) {
            return;
        }
        let standin = Standin::new(way);
        // It speaks for the shell that started it, and waits for a barrier.
        standin.unit(
            "script.service",
            "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/bin/sh -c 'systemd-notify --ready --status=\"up and away\"; exec cat @/fifo'\n",
        );
        nix::unistd::mkfifo(&standin.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let standin = standin.start();
        standin.await_property("script", "ActiveState", "active");
        assert_eq!(standin.show("script", "StatusText"), "up and away");
        assert_ne!(standin.show("script", "MainPID"), "0");
    }

    fn python_sdnotify_is_heard(way) {
        if !has("python3-sdnotify", runs("/usr/bin/python3", &["-c", "import sdnotify"])) {
            return;
        }
        let standin = Standin::new(way);
        std::fs::write(
            standin.path("script"),
            "import sdnotify, signal\nn = sdnotify.SystemdNotifier()\nn.notify('READY=1')\nn.notify('STATUS=by python')\nsignal.pause()\n",
        )
        .unwrap();
        standin.unit("py.service", "[Service]\nType=notify\nExecStart=/usr/bin/python3 @/script\n");
        let standin = standin.start();
        standin.await_property("py", "StatusText", "by python");
        assert_eq!(standin.show("py", "ActiveState"), "active");
        standin.succeed(&["stop", "py"]);
    }

    fn python_systemd_finds_sockets_and_store(way) {
        if !has("python3-systemd", runs("/usr/bin/python3", &["-c", "import systemd.daemon"])) {
            return;
        }
        let script = "import os, signal\nfrom systemd import daemon\n\
            names = os.environ['LISTEN_FDNAMES']\nfds = daemon.listen_fds(False)\n\
            assert daemon.is_socket_unix(fds[0], listening=1)\n\
            if len(fds) == 1:\n\
            \x20   daemon.notify('FDSTORE=1\\nFDNAME=kept', False, 0, [os.eventfd(0)])\n    daemon.notify('READY=1\\nSTATUS=first')\n    signal.pause()\n\
            daemon.notify('READY=1\\nSTATUS=again with ' + names)\nsignal.pause()\n";
        judge(way, "/usr/bin/python3 @/script", script);
    }

    fn a_program_on_libsystemd_finds_sockets_and_store(way) {
        let header = Path::new("/usr/include/systemd/sd-daemon.h").exists();
        if !has("libsystemd-dev and cc", header && runs("cc", &["--version"])) {
            return;
        }
        let standin = Standin::new(way);
        let program = standin.path("program");
        let mut cc = Command::new("cc");
        cc.args(["-x", "c", "-", "-lsystemd", "-o"]).arg(&program).stdin(Stdio::piped());
        let mut cc = cc.spawn().unwrap();
        cc.stdin.take().unwrap().write_all(include_bytes!("client.c")).unwrap();
        assert!(cc.wait().unwrap().success());
        judge(way, &program.display().to_string(), "");
    }
}
