//! The shipped units under the stand-in: upgrades, failed ones, crashes, and sessions that outlive them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use crate::load::Connection;
use crate::standin::{PATIENCE, Standin, Way, example, free_port, signal};

const SOCKET: &str = include_str!("../../units/web.socket");
const SERVICE: &str = include_str!("../../units/web.service");
const KEEPER_SOCKET: &str = include_str!("../../units/keeper.socket");
const KEEPER: &str = include_str!("../../units/keeper.service");

/// The shipped units of a service, at an address and with programs of this test's own.
fn shipped(way: Way, name: &str, listen: &[(&str, &str)], drop_in: &str) -> Standin {
    let standin = Standin::new(way);
    let (socket, service) = if name == "web" { (SOCKET, SERVICE) } else { (KEEPER_SOCKET, KEEPER) };
    let socket = listen.iter().fold(socket.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours));
    let program = example(name).display().to_string();
    let service = service
        .replace(&format!("/usr/bin/{name}"), &program)
        .replace("/usr/bin/handover", env!("CARGO_BIN_EXE_handover"));
    standin.unit(&format!("{name}.socket"), &socket);
    standin.unit(&format!("{name}.service"), &service);
    standin.unit(&format!("{name}.service.d/test.conf"), drop_in);
    standin
}

/// `web`, and where it listens.
fn web(way: Way, drop_in: &str) -> (Standin, String) {
    let address = format!("127.0.0.1:{}", free_port());
    (shipped(way, "web", &[("ListenStream=8080", &format!("ListenStream={address}"))], drop_in), address)
}

fn get(address: &str) -> u32 {
    Connection::open(address).unwrap().get("/", true).unwrap().pid().unwrap()
}

in_both_ways! {
    fn web_starts_on_traffic_and_is_upgraded_again_and_again(way) {
        let (standin, address) = web(way, "[Service]\nEnvironment=WEB_VERSION=1\n");
        let standin = standin.argument("--on-traffic").start();
        assert_eq!(standin.show("web", "ActiveState"), "inactive");
        let mut old = get(&address);
        let invocation = standin.show("web", "InvocationID");
        for version in ["2", "3", "4"] {
            standin.unit("web.service.d/test.conf", &format!("[Service]\nEnvironment=WEB_VERSION={version}\n"));
            standin.succeed(&["daemon-reload"]);
            let done = standin.handover("upgrade", &["--wait=drained", "web"]);
            assert_eq!(done.status, 0, "{done:?}\n{}", standin.log());
            let answer = Connection::open(&address).unwrap().get("/", true).unwrap();
            let new = answer.pid().unwrap();
            assert!(done.stdout.contains(&format!("{old} -> {new} switched")), "{done:?}");
            assert_eq!((answer.value("version"), standin.show("web", "MainPID")), (Some(version), new.to_string()));
            old = new;
        }
        assert_eq!(standin.show("web", "InvocationID"), invocation);
        assert_eq!(standin.show("web", "NRestarts"), "0");
        assert!(!standin.log().contains("not our child"));
        standin.succeed(&["stop", "web.socket", "web.service"]);
        assert_eq!(standin.show("web", "Result"), "success");
        assert!(!standin.log().contains("SIGKILL"), "{}", standin.log());
    }

    fn an_upgrade_that_fails_says_why_and_the_old_one_serves(way) {
        let (standin, address) = web(way, "[Service]\nEnvironment=WEB_FAIL_FILE=@/fail WEB_INIT_MS=500\n");
        let standin = standin.start();
        let old = get(&address);
        for (how, reason) in [
            ("init-exit", "init-crashed"),
            ("init-error", "init-failed"),
            ("init-hang", "init-hung"),
            ("never-ready", "init-hung"),
        ] {
            std::fs::write(standin.path("fail"), how).unwrap();
            let done = standin.handover("upgrade", &["--json", "web"]);
            let words = format!("{done:?}\n{}", standin.log());
            assert!((10..40).contains(&done.status), "{how}: {words}");
            assert!(done.stdout.contains("\"outcome\":\"failed\""), "{how} ({reason}): {words}");
            assert!(done.stdout.contains(&format!("\"serving_pid\":{old}")), "{words}");
            assert_eq!(get(&address), old);
            assert_eq!(standin.ctl(&["reload", "web"]).status, 1);
            assert_eq!(standin.show("web", "ReloadResult"), "exit-code");
        }
        std::fs::write(standin.path("fail"), "").unwrap();
        assert_eq!(standin.handover("upgrade", &["web"]).status, 0);
        assert_ne!(get(&address), old);
    }

    fn a_reload_under_way_is_followed_by_the_next_under_the_same_job(way) {
        let (standin, address) = web(way, "");
        let standin = standin.start();
        get(&address);
        std::thread::scope(|scope| {
            let upgrades: Vec<_> =
                (0..3).map(|_| scope.spawn(|| standin.handover("upgrade", &["web"]).status)).collect();
            assert!(upgrades.into_iter().all(|upgrade| upgrade.join().unwrap() == 0), "{}", standin.log());
        });
    }

    fn a_kill_is_noticed_and_a_client_that_waits_is_served(way) {
        let (standin, address) = web(way, "");
        let standin = standin.start();
        get(&address);
        assert_eq!(standin.handover("upgrade", &["web"]).status, 0);
        let old = get(&address);
        signal(old, rustix::process::Signal::KILL);
        assert_ne!(get(&address), old);
        standin.await_property("web", "NRestarts", "1");
        standin.await_log("was killed by SIGKILL");
    }

    fn sessions_outlive_upgrade_restart_and_kill(way) {
        let port = format!("ListenStream=127.0.0.1:{}", free_port());
        let listen = [("ListenStream=7070", &*port), ("/run/keeper.sock", "@/keeper")];
        let standin = shipped(way, "keeper", &listen, "").start();
        let mut session = Session::open(&standin);
        assert_eq!(session.ask("SET word kept"), "ok");
        let mut pid = session.ask("PID");
        let acts: [&dyn Fn(); 4] = [
            &|| assert_eq!(standin.handover("upgrade", &["keeper"]).status, 0, "{}", standin.log()),
            &|| drop(standin.succeed(&["restart", "keeper"])),
            &|| drop(standin.succeed(&["kill", "-s", "KILL", "--kill-whom=main", "keeper"])),
            &|| {
                standin.succeed(&["stop", "keeper"]);
                standin.await_property("keeper", "SubState", "dead-resources-pinned");
                standin.succeed(&["start", "keeper"]);
            },
        ];
        for (number, act) in acts.into_iter().enumerate() {
            act();
            assert_eq!(session.ask("GET word"), "value kept", "{number}: {}", standin.log());
            let new = session.ask("PID");
            assert_ne!(new, pid);
            pid = new;
        }
        assert_eq!(session.ask("QUIT"), "bye");
    }

    fn an_upgrade_of_what_cannot_be_upgraded_is_refused_with_the_reason(way) {
        let standin = Standin::new(way);
        standin.puppet_unit("Type=exec\n");
        let standin = standin.start();
        let _puppet = standin.puppet();
        for (unit, status) in [("nobody", 5), ("puppet", 3), ("puppet.socket", 3)] {
            assert_eq!(standin.handover("upgrade", &[unit]).status, status, "{unit}");
        }
        standin.succeed(&["stop", "puppet"]);
        assert_eq!(standin.handover("upgrade", &["puppet"]).status, 7);
        let nobody = standin.path("nobody").display().to_string();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_handover"));
        let done = command.args(["upgrade", "--standin", &nobody, "web"]).output().unwrap();
        assert_eq!(done.status.code(), Some(40));
        assert!(String::from_utf8_lossy(&done.stderr).contains("no `handover pid1` answers at"));
    }

    fn a_link_called_systemctl_serves_scripts(way) {
        let (standin, address) = web(way, "");
        let standin = standin.start();
        get(&address);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_handover"), standin.path("systemctl")).unwrap();
        let systemctl = |words: &[&str]| {
            let mut command = std::process::Command::new(standin.path("systemctl"));
            command.arg("--standin").arg(standin.path("")).args(words).output().unwrap()
        };
        assert_eq!(systemctl(&["reload", "web"]).status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&systemctl(&["is-active", "web"]).stdout), "active\n");
        let shown = systemctl(&["show", "-p", "ActiveState,Type", "web"]).stdout;
        assert_eq!(String::from_utf8_lossy(&shown), "ActiveState=active\nType=notify\n");
        let reload = systemctl(&["show", "-P", "ExecReload", "web"]).stdout;
        assert!(String::from_utf8_lossy(&reload).contains("status=0"));
    }
}

/// A session with `keeper`, whose lines have tags: after a crash the last one may be answered twice.
struct Session(BufReader<UnixStream>, u32);

impl Session {
    fn open(standin: &Standin) -> Self {
        let stream = UnixStream::connect(standin.path("keeper")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream), 0)
    }

    fn ask(&mut self, line: &str) -> String {
        self.1 += 1;
        writeln!(self.0.get_mut(), "#{} {line}", self.1).unwrap();
        let tag = format!("#{} ", self.1);
        loop {
            let mut answer = String::new();
            assert_ne!(self.0.read_line(&mut answer).unwrap(), 0, "the session has ended");
            if let Some(answer) = answer.strip_prefix(&tag) {
                return answer.trim_end().to_owned();
            }
        }
    }
}
