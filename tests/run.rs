//! `handover run`: programs that know nothing of handover are upgraded, and nothing is lost.

use rustix::process::Signal;

use crate::lab::{Machine, Output, Systemd, executable};
use crate::load::{BREATH, Client, Connection, Load};
use crate::process::Process;

pub(crate) const ADDRESS: &str = "127.0.0.1:8080";

/// Four at a time: enough to meet every moment of an upgrade on two cores. Calmer ones than of our own
/// services: an answer of python's server takes a millisecond or two of a processor.
pub(crate) const CLIENTS: [Client; 4] = [Client::Stranger(BREATH.saturating_mul(5)); 4];

/// python's own server, as it is.
pub(crate) const PYTHON: &str = "/usr/bin/python3 -m http.server 8080";

/// A server of ours that knows nothing either, and starts at once.
pub(crate) const STRANGER: &str = "/usr/bin/stranger 8080";

/// The same, started by a script that a test can replace.
pub(crate) const SCRIPT: &str = "/run/program";

/// Three slots at one address.
pub(crate) const THREE: &str =
    "ListenStream=0.0.0.0:8080\nListenStream=0.0.0.0:8080\nListenStream=0.0.0.0:8080\nReusePort=yes\n";

/// Two workers, and what nginx needs to be told.
pub(crate) const NGINX: &str = "daemon off; worker_processes 2; pid /run/nginx.pid; error_log /dev/null;
events { } http { access_log off; server { listen 0.0.0.0:8080; root /srv; } }";

/// A server on the socket that it is passed, which says when it is ready.
pub(crate) const TAKER: &str = "\
import http.server as h, os, socket
assert os.environ['LISTEN_PID'] == str(os.getpid())
server = h.ThreadingHTTPServer(('', 0), h.SimpleHTTPRequestHandler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:])
manager.sendall(b'STATUS=warm\\nREADY=1')
server.serve_forever()
";

/// Answers every datagram with its pid.
const DATAGRAMS: &str = "\
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 8080))
while True:
    s.sendto(str(os.getpid()).encode(), s.recvfrom(99)[1])
";

/// A machine with a service `app` in it that runs a program under `handover run`.
pub(crate) struct App {
    pub(crate) machine: Machine,
}

impl App {
    pub(crate) fn boot(systemd: Systemd, sockets: &str, options: &str, program: &str) -> Self {
        let app = Self::prepare(systemd, sockets, options, program, "");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        app
    }

    /// Installs the units and starts the sockets, if there are any.
    pub(crate) fn prepare(systemd: Systemd, sockets: &str, options: &str, program: &str, more: &str) -> Self {
        let machine = Machine::with(systemd).with_programs();
        let machine = machine.bind(env!("CARGO_BIN_EXE_handover"), "/usr/bin/handover");
        let machine = machine.bind(executable().with_file_name("stranger"), "/usr/bin/stranger").boot();
        machine.push("/srv/index.html", "hello\n", 0o644);
        machine.push(SCRIPT, format!("#!/bin/sh\nexec {STRANGER}\n"), 0o755);
        let service = format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nNotifyAccess=main\nDelegate=yes\n\
             ExecStart=/usr/bin/handover run {options} -- {program}\nExecReload=/usr/bin/handover reload\n\
             SyslogIdentifier=%N\nWorkingDirectory=/srv\nKillMode=mixed\nRestart=always\nRestartSec=100ms\n\
             FileDescriptorStoreMax=16\nStandardError=null\n{more}"
        );
        let socket = format!("[Socket]\n{sockets}TriggerLimitIntervalSec=0\n");
        machine.units(&[("app.service", &service)]);
        if !sockets.is_empty() {
            machine.unit("app.socket", &socket);
            machine.succeed(&["systemctl", "start", "app.socket"]);
        }
        Self { machine }
    }

    pub(crate) fn load(&self) -> Load {
        Load::start(&self.machine, ADDRESS, &CLIENTS)
    }

    pub(crate) fn reload(&self) -> Output {
        self.machine.run(&["timeout", "60", "systemctl", "reload", "app"])
    }

    /// A reload that must succeed; the pid of the new generation.
    pub(crate) fn upgrade(&self) -> u32 {
        let done = self.reload();
        assert_eq!(done.status, 0, "{done:?}\n{}", self.machine.journal(&["-u", "app", "-n", "30"]));
        self.live()
    }

    /// A reload that must fail; the exit status of `handover reload` and STATUS=.
    pub(crate) fn failed_upgrade(&self) -> (String, String) {
        let live = self.live();
        assert_ne!(self.reload().status, 0, "the reload must fail");
        assert_eq!(self.live(), live, "the old generation serves");
        let text = self.machine.show("app", "ExecReload");
        let status = text.split("status=").nth(1).unwrap_or_default();
        let status = status.chars().take_while(char::is_ascii_digit).collect();
        (status, self.machine.show("app", "StatusText"))
    }

    /// The process of the generation that serves, as STATUS= has it.
    pub(crate) fn live(&self) -> u32 {
        let status = self.machine.show("app", "StatusText");
        let pid = status.split("(process ").nth(1).and_then(|rest| rest.split(')').next());
        pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("nobody serves: {status:?}"))
    }

    pub(crate) fn process(&self, pid: u32) -> Process {
        Process::find(&self.machine, "app.service", pid)
    }

    pub(crate) fn journal_has(&self, text: &str) -> bool {
        self.machine.journal(&["-u", "app", "-o", "cat"]).contains(text)
    }
}

on_every_systemd_with_programs! {
    fn pythons_own_server_is_upgraded_again_and_again_and_no_request_is_lost(systemd) {
        let app = App::boot(systemd, THREE, "", PYTHON);
        let (main, load) = (app.machine.show("app", "MainPID"), app.load());
        let mut pids = std::collections::BTreeSet::from([app.live()]);
        // Each old generation drains for a second: the third upgrade in that time waits for a slot.
        let upgrades = if systemd == Systemd::V257 { 12 } else { 4 };
        for _ in 0..upgrades {
            assert!(pids.insert(app.upgrade()), "a new process each time");
            load.pass_each(3);
        }
        load.stop().assert_nothing_lost();
        assert_eq!(app.machine.show("app", "MainPID"), main, "the runner is the main process for good");
        assert!(!app.journal_has("are passed on"), "nothing went astray");
    }

    fn a_new_version_that_is_no_good_is_rolled_back_and_the_reload_says_why(systemd) {
        let app = App::boot(systemd, THREE, "--ready-timeout 2s", SCRIPT);
        let load = app.load();
        let python = |code: &str| format!("exec python3 -c 'import select, socket; s = socket.socket(); {code}'");
        let never_listens = python("s.bind((\"0.0.0.0\", 8080)); select.select([], [], [])");
        let versions = [
            ("exit 3", "22", "exited with status 3"),
            ("exec stranger 8081", "30", "it binds 0.0.0.0:8081, where no slot is"),
            ("exec python3 -m http.server --bind :: 8080", "22", "write ListenStream=[::]:8080"),
            ("exec cat /dev/fd/1", "22", "exited"),
            ("exec tail -f /dev/null", "25", "nobody in it waits on all of its sockets"),
            (&never_listens, "25", "nobody in it waits"),
        ];
        for (script, code, words) in versions {
            app.machine.push(SCRIPT, format!("#!/bin/sh\n{script}\n"), 0o755);
            let (status, text) = app.failed_upgrade();
            assert!(status == code && text.contains(words), "{script}: {status} {text}");
            load.pass_each(1);
        }
        app.machine.push(SCRIPT, "no program", 0o644);
        assert_eq!(app.failed_upgrade().0, "21");
        app.machine.push(SCRIPT, format!("#!/bin/sh\nexec {STRANGER}\n"), 0o755);
        app.upgrade();
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }

    fn a_killed_program_is_started_again_in_its_slot_and_nobody_is_refused(systemd) {
        let app = App::boot(systemd, THREE, "", STRANGER);
        let load = app.load();
        for _ in 0..3 {
            let (live, mark) = (app.live(), app.machine.mark());
            app.process(live).signal(Signal::KILL);
            app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
            load.pass_each(3);
        }
        let tally = load.stop();
        tally.assert_only_cut(3 * CLIENTS.len());
        assert!(app.journal_has("was killed by SIGKILL; it is started again"));
        assert!(!app.journal_has("are passed on"), "what waited was in the right slot");
    }

    fn nginx_with_its_workers_is_upgraded_and_no_request_is_lost(systemd) {
        let app = App::prepare(systemd, THREE, "", "/usr/sbin/nginx -c /run/nginx.conf", "");
        app.machine.push("/run/nginx.conf", NGINX, 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let load = app.load();
        for _ in 0..if systemd == Systemd::V257 { 8 } else { 3 } {
            app.upgrade();
            load.pass_each(20);
        }
        load.stop().assert_nothing_lost();
        let master = app.process(app.live());
        app.machine.succeed(&["systemctl", "stop", "app.service"]);
        assert_eq!(master.descriptors(), 0);
        assert!(!app.journal_has("was killed"), "every generation left by itself");
    }

    fn on_a_single_socket_it_works_and_the_journal_says_what_that_costs(systemd) {
        let app = App::boot(systemd, "ListenStream=0.0.0.0:8080\n", "", STRANGER);
        assert!(app.journal_has("can have no second socket"));
        let load = app.load();
        let first = app.live();
        for _ in 0..2 {
            app.upgrade();
            load.pass_each(3);
        }
        assert_ne!(app.live(), first);
        load.stop().assert_only_cut(2 * CLIENTS.len());
    }

    fn a_program_that_takes_listen_fds_and_says_that_it_is_ready_gets_its_slot(systemd) {
        let app = App::prepare(systemd, THREE, "--notify", "/usr/bin/python3 /run/taker.py", "");
        app.machine.push("/run/taker.py", TAKER, 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        assert!(app.machine.show("app", "StatusText").contains("serves: warm"));
        let load = app.load();
        for _ in 0..3 {
            app.upgrade();
            load.pass_each(3);
        }
        load.stop().assert_nothing_lost();
    }

    fn a_new_version_that_does_not_pass_its_probe_gets_no_client(systemd) {
        let app = App::boot(systemd, THREE, "--probe http:/index.html --ready-timeout 2s", SCRIPT);
        let load = app.load();
        app.machine.push(SCRIPT, "#!/bin/sh\ncd /usr && exec stranger 8080\n", 0o755);
        let (status, text) = app.failed_upgrade();
        assert!(status == "31" && text.contains("GET /index.html was answered with"), "{status} {text}");
        app.machine.push(SCRIPT, format!("#!/bin/sh\nexec {STRANGER}\n"), 0o755);
        app.upgrade();
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }

    fn a_canary_has_its_share_for_its_time_and_goes_if_it_fails(systemd) {
        let app = App::boot(systemd, THREE, "--canary 30%:2s", SCRIPT);
        let load = app.load();
        app.upgrade();
        load.pass_each(2);
        app.machine.push(SCRIPT, "#!/bin/sh\nexec timeout 1 stranger 8080\n", 0o755);
        let (status, text) = app.failed_upgrade();
        assert!(status == "22" && app.journal_has("gets 30 % of what is new"), "{status} {text}");
        load.pass_each(2);
        load.stop().assert_only_cut(CLIENTS.len());
    }

    fn a_canary_that_does_not_pass_its_probe_any_more_goes_at_once(systemd) {
        let options = "--canary 30%:60s --probe http:/health --ready-timeout 20s";
        let app = App::prepare(systemd, THREE, options, STRANGER, "");
        app.machine.push("/srv/health", "well\n", 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let (live, load, mark) = (app.live(), app.load(), app.machine.mark());
        let reload = app.machine.spawn(&["timeout", "50", "systemctl", "reload", "app"]);
        app.machine.await_journal(&mark, &["-u", "app"], "gets 30 % of what is new");
        load.pass_each(2);
        app.machine.succeed(&["rm", "/srv/health"]);
        assert_eq!(crate::lab::finish(reload).status, 1, "long before its time is up");
        let status = app.machine.show("app", "StatusText");
        assert!(app.live() == live && status.contains("GET /health was answered with"), "{status}");
        load.pass_each(2);
        load.stop().assert_only_cut(CLIENTS.len());
    }

    fn under_serial_the_old_one_stops_first_and_clients_only_wait(systemd) {
        let app = App::boot(systemd, THREE, "--strategy serial", STRANGER);
        let load = app.load();
        for _ in 0..2 {
            app.upgrade();
            assert_eq!(Process::others(&app.machine, "app.service", app.live()).len(), 1, "and the runner");
            load.pass_each(3);
        }
        load.stop().assert_only_cut(2 * CLIENTS.len());
        assert!(!app.journal_has("are passed on"), "what waited was in the right slot");
    }

    fn a_program_that_leaves_a_daemon_behind_is_kept_by_its_cgroup(systemd) {
        let app = App::prepare(systemd, THREE, "", SCRIPT, "");
        app.machine.push(SCRIPT, format!("#!/bin/sh\n{STRANGER} &\n"), 0o755);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let load = app.load();
        app.upgrade();
        load.pass_each(3);
        load.stop().assert_nothing_lost();
        app.machine.succeed(&["systemctl", "stop", "app.service"]);
        assert_eq!(Process::others(&app.machine, "app.service", 0).len(), 0);
    }

    fn it_works_without_privileges_in_a_strict_sandbox(systemd) {
        let more = "DynamicUser=yes\nNoNewPrivileges=yes\nProtectSystem=strict\nPrivateTmp=yes\n\
                    CapabilityBoundingSet=\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n\
                    SystemCallFilter=@system-service pidfd_getfd seccomp\nProtectProc=invisible\nProcSubset=pid\n";
        differs_on_standin!("it makes no users: DynamicUser=");
        let app = App::prepare(systemd, THREE, "--probe http:/", STRANGER, more);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let load = app.load();
        for _ in 0..2 {
            app.upgrade();
            load.pass_each(3);
        }
        load.stop().assert_nothing_lost();
        assert!(!app.journal_has("no cgroup of their own"), "a delegated cgroup is the user's own");
    }

    fn datagrams_go_to_the_new_generation_from_the_switch_on(systemd) {
        let app = App::prepare(systemd, &THREE.replace("Stream", "Datagram"), "", "/usr/bin/python3 /run/udp.py", "");
        app.machine.push("/run/udp.py", DATAGRAMS, 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let ask = || app.machine.enter_network(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
            socket.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
            socket.send_to(b"who", ADDRESS)?;
            let mut answer = [0; 16];
            let len = socket.recv(&mut answer)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer[..len]).into_owned())
        });
        for _ in 0..3 {
            let live = app.upgrade().to_string();
            assert!((0..20).all(|_| ask().unwrap() == live), "{live}");
        }
    }

    fn a_program_that_cannot_serve_fails_the_start_with_its_reason(systemd) {
        let app = App::prepare(systemd, THREE, "--ready-timeout 1s", SCRIPT, "Restart=no\n");
        for (script, mode, status) in [
            ("exit 3", 0o755, "22"),
            ("exec stranger 8081", 0o755, "30"),
            ("exec tail -f /dev/null", 0o755, "25"),
            ("", 0o644, "21"),
        ] {
            app.machine.push(SCRIPT, format!("#!/bin/sh\n{script}\n"), mode);
            assert_ne!(app.machine.run(&["systemctl", "start", "app.service"]).status, 0);
            assert_eq!(app.machine.show("app", "ExecMainStatus"), status, "{script}");
        }
    }

    fn handover_upgrade_sees_the_generations_and_a_probe_may_be_a_command(systemd) {
        let check = "exec:python3 -c \\'import socket, os; \
                     s = socket.create_connection((\"127.0.0.1\", 8080), 5, (os.environ[\"HANDOVER_PROBE_SOURCE\"], 0)); \
                     s.sendall(b\"GET / HTTP/1.0\\\\r\\\\n\\\\r\\\\n\"); assert s.recv(99)\\'";
        let app = App::boot(systemd, THREE, &format!("--probe '{check}'"), SCRIPT);
        let old = app.live();
        let told = app.machine.succeed(&["handover", "upgrade", "app"]);
        assert!(told.contains(&format!("app.service: {old} -> {} switched", app.live())), "{told}");
        app.machine.push(SCRIPT, "#!/bin/sh\nexit 3\n", 0o755);
        let failed = app.machine.run(&["handover", "upgrade", "app"]);
        assert!(failed.status == 22 && failed.stdout.contains("(successor-exited)"), "{failed:?}");
    }

    fn a_program_is_explained_without_a_client_of_its_address(systemd) {
        let app = App::boot(systemd, "ListenStream=0.0.0.0:8080\n", "", STRANGER);
        let load = app.load();
        // Nobody else could bind that address.
        let told = app.machine.succeed(&["handover", "run", "--explain", "--", "python3", "-m", "http.server", "8080"]);
        for wanted in ["binds    ListenStream=0.0.0.0:8080", "it waits on what it has bound", "after SIGTERM"] {
            assert!(told.contains(wanted), "{told}");
        }
        load.pass_each(2);
        load.stop().assert_nothing_lost();
    }

    fn an_idle_keep_alive_connection_ends_politely_and_does_not_hold_up_the_drain(systemd) {
        let program = "/usr/bin/python3 -m http.server --protocol HTTP/1.1 8080";
        let app = App::boot(systemd, THREE, "--idle 300ms", program);
        let mut client = app.machine.enter_network(|| Connection::open(ADDRESS)).unwrap();
        assert_eq!(client.get("/", false).unwrap().body, "hello\n");
        let mark = app.machine.mark();
        app.upgrade();
        assert_eq!(client.end().unwrap(), "");
        app.machine.await_journal(&mark, &["-u", "app"], "generation 1 has left");
    }
}
