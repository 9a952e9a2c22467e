//! Sockets: open before anything runs, passed in their order, and in nobody's way.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::standin::{Standin, free_port};

/// A connection in whole messages.
fn sequential_packet(path: &Path) -> OwnedFd {
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(client.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    client
}

in_both_ways! {
    fn traffic_starts_the_service_and_a_stop_does_not_end_that(way) {
        let standin = Standin::new(way);
        let port = free_port();
        standin.unit("puppet.socket", &format!("[Socket]\nListenStream=127.0.0.1:{port}\nListenStream=@/sock\nFileDescriptorName=web\n"));
        standin.puppet_unit("Type=exec\nNonBlocking=yes\n");
        let standin = standin.start();
        assert_eq!(standin.show("puppet", "ActiveState"), "inactive");
        assert_eq!(standin.show("puppet.socket", "SubState"), "listening");
        let _waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut puppet = standin.puppet();
        assert_eq!(puppet.act("env LISTEN_FDNAMES"), "web:web");
        assert_eq!(puppet.act("env LISTEN_PID"), puppet.pid.to_string());
        assert_eq!(standin.show("puppet.socket", "SubState"), "running");
        // Who still waits starts it again.
        standin.succeed(&["stop", "puppet"]);
        let again = standin.puppet();
        assert_ne!(again.pid, puppet.pid);
    }

    fn every_kind_of_socket_starts_its_service(way) {
        for (line, send) in [
            ("ListenStream=@/s", (|path| drop(UnixStream::connect(path).unwrap())) as fn(&Path)),
            ("ListenDatagram=@/s", |path| assert_eq!(UnixDatagram::unbound().unwrap().send_to(b"x", path).unwrap(), 1)),
            ("ListenSequentialPacket=@/s", |path| drop(sequential_packet(path))),
            ("ListenFIFO=@/s", |path| std::fs::File::options().write(true).open(path).unwrap().write_all(b"x").unwrap()),
        ] {
            let standin = Standin::new(way);
            standin.unit("puppet.socket", &format!("[Socket]\n{line}\nSocketMode=0600\n"));
            standin.puppet_unit("Type=exec\n");
            let standin = standin.start();
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(standin.path("s")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{line}");
            send(&standin.path("s"));
            assert_eq!(standin.puppet().act("env LISTEN_FDNAMES"), "puppet.socket", "{line}");
        }
    }

    fn one_address_several_times_is_as_many_sockets(way) {
        let standin = Standin::new(way);
        let line = format!("ListenStream=127.0.0.1:{}\n", free_port());
        standin.unit("puppet.socket", &format!("[Socket]\n{}ReusePort=yes\nFileDescriptorName=slot\n", line.repeat(3)));
        standin.puppet_unit("Type=exec\n");
        let standin = standin.argument("--now").start();
        assert_eq!(standin.puppet().act("env LISTEN_FDNAMES"), "slot:slot:slot");
    }

    fn an_address_in_use_is_said_with_both_sides_and_the_others_run(way) {
        let standin = Standin::new(way);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let (one, two) = (free_port(), format!("[Socket]\nListenStream=127.0.0.1:{port}\n"));
        standin.unit("a.socket", &format!("[Socket]\nListenStream=127.0.0.1:{one}\n"));
        standin.unit("b.socket", &format!("[Socket]\nListenStream={one}\n"));
        standin.unit("c.socket", &two);
        for name in ["a", "b", "c"] {
            standin.unit(&format!("{name}.service"), "[Service]\nExecStart=/bin/cat\n[Install]\nWantedBy=x.target\n");
        }
        standin.puppet_unit("Type=exec\n");
        let standin = standin.start();
        let _puppet = standin.puppet();
        let line = standin.await_log("b.socket: ");
        assert!(line.contains("b.socket:2") && line.contains("in use: a.socket (") && line.contains("a.socket:2"), "{line}");
        let line = standin.await_log("c.socket: ");
        assert!(line.contains("c.socket:2") && line.contains("in use"), "{line}");
        standin.await_log("c.service: it is not started");
        assert_eq!(standin.show("b.socket", "ActiveState"), "failed");
        assert_eq!(standin.show("a.socket", "ActiveState"), "active");
    }

    fn two_units_that_may_share_an_address_are_told_of_each_other(way) {
        let standin = Standin::new(way);
        let line = format!("[Socket]\nListenDatagram=127.0.0.1:{}\n", free_port());
        for name in ["a", "b"] {
            standin.unit(&format!("{name}.socket"), &line);
            standin.unit(&format!("{name}.service"), "[Service]\nExecStart=/bin/cat\n");
        }
        let standin = standin.start();
        let told = standin.await_log("has an address of this, too");
        assert!(told.contains("b.socket: a.socket (") && told.contains("a.socket:2)"), "{told}");
    }

    fn a_service_that_dies_too_often_takes_its_sockets_along(way) {
        let standin = Standin::new(way);
        standin.unit("crash.socket", "[Socket]\nListenStream=@/s\n");
        standin.unit("crash.service", "[Service]\nType=exec\nExecStart=/bin/false\nRestart=always\nRestartSec=0\n");
        let standin = standin.start();
        let _waiting = UnixStream::connect(standin.path("s")).unwrap();
        standin.await_property("crash.socket", "Result", "service-start-limit-hit");
        assert!(UnixStream::connect(standin.path("s")).is_err());
        standin.succeed(&["reset-failed"]);
        standin.succeed(&["start", "crash.socket"]);
        let _again = UnixStream::connect(standin.path("s")).unwrap();
    }

    fn traffic_that_nobody_takes_is_limited(way) {
        let standin = Standin::new(way);
        standin.unit("lazy.socket", "[Socket]\nListenStream=@/s\nTriggerLimitBurst=3\nTriggerLimitIntervalSec=60\n");
        standin.unit("lazy.service", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=exec\nExecStart=/bin/true\n");
        let standin = standin.start();
        let _waiting = UnixStream::connect(standin.path("s")).unwrap();
        standin.await_property("lazy.socket", "Result", "trigger-limit-hit");
    }

    fn a_socket_of_a_service_that_runs_is_not_opened_again(way) {
        let standin = Standin::new(way);
        standin.unit("puppet.socket", "[Socket]\nListenStream=@/s\n");
        standin.puppet_unit("Type=exec\n");
        let standin = standin.argument("--now").start();
        let _puppet = standin.puppet();
        assert_eq!(standin.ctl(&["restart", "puppet.socket"]).status, 1);
        assert_eq!(standin.show("puppet.socket", "ActiveState"), "failed");
        standin.succeed(&["restart", "puppet.socket", "puppet.service"]);
        assert_eq!(standin.puppet().act("env LISTEN_FDS"), "1");
    }

    fn units_that_come_later_are_read_by_a_daemon_reload(way) {
        let standin = Standin::new(way).start();
        standin.await_log("there are no units yet");
        standin.unit("puppet.socket", "[Socket]\nListenStream=@/s\n");
        standin.puppet_unit("Type=exec\n");
        standin.succeed(&["daemon-reload"]);
        assert_eq!(standin.show("puppet.socket", "ActiveState"), "inactive");
        standin.succeed(&["start", "puppet.service", "puppet.socket"]);
        let mut puppet = standin.puppet();
        assert_eq!(puppet.act("env LISTEN_FDS"), "1");
        assert_eq!(standin.show("puppet", "NeedDaemonReload"), "no");
        standin.unit("puppet.service.d/more.conf", "[Service]\nEnvironment=MORE=1\n");
        assert_eq!(standin.show("puppet", "NeedDaemonReload"), "yes");
        std::fs::remove_file(standin.path("units/puppet.service")).unwrap();
        crate::standin::signal(standin.pid(), rustix::process::Signal::HUP);
        standin.await_property("puppet", "LoadState", "not-found");
        assert_eq!(standin.show("puppet", "ActiveState"), "active");
    }

    fn a_client_that_says_half_a_word_keeps_nobody_waiting(way) {
        let standin = Standin::new(way).start();
        let control = standin.path("handover/control");
        let silent: Vec<_> = (0..100).map(|_| UnixStream::connect(&control).unwrap()).collect();
        let mut half = UnixStream::connect(&control).unwrap();
        half.write_all(b"{\"verb\":\"li").unwrap();
        standin.succeed(&["list-units"]);
        let mut long = UnixStream::connect(&control).unwrap();
        // It may be cut off before it has said everything.
        let _ = long.write_all(&[b'x'; 10_000]);
        let mut answer = String::new();
        let _ = std::io::Read::read_to_string(&mut long, &mut answer);
        assert!(answer.is_empty() || answer.contains("bad-request"), "{answer}");
        standin.succeed(&["list-units"]);
        drop(silent);
    }
}
