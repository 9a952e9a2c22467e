//! `handover run` whose runner is killed: what PID 1 keeps is enough to go on.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::load::Connection;
use crate::process::Process;
use crate::run::{ADDRESS, App, CLIENTS, NGINX, SCRIPT, STRANGER, THREE};

/// Tells whether the socket that listens at port 8080 does not block a process.
const FLAGS: &str = "\
import os, sys
folder = '/proc/' + sys.argv[1]
rows = [row.split() for row in open(folder + '/net/tcp').readlines()[1:]]
listening = {'socket:[%s]' % row[9] for row in rows if row[1].endswith(':1F90') and row[3] == '0A'}
fd = next(fd for fd in os.listdir(folder + '/fd') if os.readlink(folder + '/fd/' + fd) in listening)
flags = int(open(folder + '/fdinfo/' + fd).readlines()[1].split()[1], 8)
print('non-blocking' if flags & os.O_NONBLOCK else 'blocking')
";

/// Has PID 1 keep nonsense under the name of what a runner leaves there.
const FORGER: &str = "\
import os, signal, socket
memory = os.memfd_create('nonsense')
os.write(memory, b'nonsense')
name = os.environ['NOTIFY_SOCKET']
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(name.replace('@', '\\0', 1))
socket.send_fds(manager, [b'FDSTORE=1\\nFDNAME=handover.runner\\nFDPOLL=0'], [memory])
manager.send(b'READY=1')
signal.pause()
";

impl App {
    /// One whose generations outlive the runner.
    fn outliving(systemd: crate::lab::Systemd, options: &str, program: &str, more: &str) -> Self {
        let app = Self::prepare(systemd, THREE, options, program, &format!("KillMode=process\n{more}"));
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        app
    }

    fn kill_the_runner(&self) {
        self.process(self.machine.show("app", "MainPID").parse().unwrap()).signal(Signal::KILL);
    }

    /// Between which times the only generation that drains will have had its time, as `handover status` has it.
    fn end_of_drain(&self) -> [Instant; 2] {
        let begin = Instant::now();
        let told = self.machine.succeed(&["handover", "status", "--json", "app"]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let left = told["service"]["draining"][0]["seconds_left"].as_f64();
        let left = Duration::from_secs_f64(left.unwrap_or_else(|| panic!("nobody drains: {told}")));
        [begin + left, Instant::now() + left]
    }
}

on_every_systemd_with_programs! {
    fn a_drain_ends_when_it_would_have_ended_with_the_runner_that_was_killed(systemd) {
        let program = "/usr/bin/python3 -m http.server --protocol HTTP/1.1 8080";
        // Long enough to be told from a drain that begins anew.
        let app = App::outliving(systemd, "--drain 10min", program, "RestartSec=3s\n");
        let mut client = app.machine.enter_network(|| Connection::open(ADDRESS)).unwrap();
        assert_eq!(client.get("/", false).unwrap().body, "hello\n");
        let old = app.live();
        app.upgrade();
        for _ in 0..2 {
            let ([_, latest], mark) = (app.end_of_drain(), app.machine.mark());
            app.kill_the_runner();
            app.machine.await_journal(&mark, &["-u", "app"], "has outlived the runner, and serves on");
            app.machine.succeed(&["systemctl", "start", "app.service"]);
            let [earliest, _] = app.end_of_drain();
            assert!(earliest <= latest, "the drain has begun anew: {:?} later", earliest - latest);
            assert_eq!(client.get("/", false).unwrap().body, "hello\n");
        }
        let mark = app.machine.mark();
        app.process(old).signal(Signal::USR1);
        app.machine.await_journal(&mark, &["-u", "app"], "generation 1 has left");
    }

    fn a_program_that_cannot_start_is_tried_later_and_later_also_by_the_next_runner(systemd) {
        let app = App::outliving(systemd, "", SCRIPT, "");
        app.machine.push(SCRIPT, "#!/bin/sh\nexit 3\n", 0o755);
        let (live, mark) = (app.live(), app.machine.mark());
        app.process(live).signal(Signal::KILL);
        app.machine.await_journal(&mark, &["-u", "app"], "generation 3 is process");
        app.kill_the_runner();
        // With no count of what went before, the next runner would end with its first generation.
        app.machine.await_journal(&mark, &["-u", "app"], "generation 5 is process");
        assert_eq!(app.machine.show("app", "NRestarts"), "1");
        app.machine.push(SCRIPT, format!("#!/bin/sh\nexec {STRANGER}\n"), 0o755);
        app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        assert_eq!(app.machine.show("app", "NRestarts"), "1");
    }

    fn a_canary_whose_runner_is_killed_goes_on_to_its_end(systemd) {
        let app = App::outliving(systemd, "--canary 50%:5s", STRANGER, "");
        let (load, mark) = (app.load(), app.machine.mark());
        app.machine.succeed(&["systemctl", "reload", "--no-block", "app"]);
        app.machine.await_journal(&mark, &["-u", "app"], "gets 50 % of what is new");
        let killed = app.machine.mark();
        app.kill_the_runner();
        app.machine.await_journal(&killed, &["-u", "app"], "generation 2 goes on as a canary");
        app.machine.await_journal(&killed, &["-u", "app"], "generation 2 on slot 1 gets every new connection");
        app.machine.await_journal(&killed, &["-u", "app"], "generation 1 has left");
        load.pass_each(3);
        load.stop().assert_nothing_lost();
    }

    fn without_a_socket_unit_the_slots_are_made_and_outlive_a_killed_runner(systemd) {
        let app = App::boot(systemd, "", "", STRANGER);
        let load = app.load();
        app.upgrade();
        let (main, mark) = (app.machine.show("app", "MainPID").parse().unwrap(), app.machine.mark());
        app.process(main).signal(Signal::KILL);
        app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
        load.pass_each(3);
        app.upgrade();
        load.pass_each(3);
        load.stop().assert_only_cut(2 * CLIENTS.len());
    }

    fn programs_outlive_a_killed_runner_where_the_unit_wants_it(systemd) {
        let app = App::prepare(systemd, THREE, "", STRANGER, "KillMode=process\n");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let load = app.load();
        for _ in 0..3 {
            let (old, mark) = (app.live(), app.machine.mark());
            let main = app.machine.show("app", "MainPID").parse().unwrap();
            app.process(main).signal(Signal::KILL);
            app.machine.await_journal(&mark, &["-u", "app"], "has outlived the runner, and serves on");
            app.machine.succeed(&["systemctl", "start", "app.service"]);
            assert_eq!(app.live(), old);
            load.pass_each(3);
            app.upgrade();
        }
        load.stop().assert_nothing_lost();
        let mark = app.machine.mark();
        app.process(app.live()).signal(Signal::KILL);
        app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
        app.machine.succeed(&["systemctl", "stop", "app.service"]);
        assert_eq!(Process::others(&app.machine, "app.service", 0).len(), 0, "a stop leaves nobody behind");
    }

    fn a_program_keeps_its_kind_of_socket_when_pid_1_starts_the_next_runner(systemd) {
        let app = App::prepare(systemd, THREE, "", "/usr/sbin/nginx -c /run/nginx.conf", "KillMode=process\n");
        app.machine.push("/run/nginx.conf", NGINX, 0o644);
        app.machine.push("/run/flags.py", FLAGS, 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let flags = || app.machine.succeed(&["python3", "/run/flags.py", &app.live().to_string()]);
        let (before, load, mark) = (flags(), app.load(), app.machine.mark());
        assert_eq!(before.trim(), "non-blocking");
        app.process(app.machine.show("app", "MainPID").parse().unwrap()).signal(Signal::KILL);
        app.machine.await_journal(&mark, &["-u", "app"], "has outlived the runner, and serves on");
        assert_eq!(flags(), before, "PID 1 has made the slots blocking, as NonBlocking=no says");
        load.pass_each(20);
        load.stop().assert_nothing_lost();
    }

    fn a_plain_user_without_any_privilege_is_enough(systemd) {
        let more = "User=nobody\nNoNewPrivileges=yes\nProtectSystem=strict\nPrivateTmp=yes\nCapabilityBoundingSet=\n";
        let app = App::prepare(systemd, THREE, "--probe http:/ --idle 1s", STRANGER, more);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let load = app.load();
        for _ in 0..3 {
            let status = format!("/proc/{}/status", app.upgrade());
            let status = app.machine.succeed(&["grep", "-E", "^(Uid|NoNewPrivs|CapEff):", &status]);
            let words: Vec<_> = status.split_whitespace().collect();
            assert_eq!(words[..2], ["Uid:", "65534"]);
            assert!(words.contains(&"0000000000000000") && status.contains("NoNewPrivs:\t1"), "{status}");
            load.pass_each(3);
        }
        load.stop().assert_nothing_lost();
    }

    fn what_the_runner_before_has_left_is_not_believed_if_it_makes_no_sense(systemd) {
        let forged = "KillMode=process\nExecStart=\nExecStart=/usr/bin/python3 /run/forger.py\n";
        let app = App::prepare(systemd, THREE, "", STRANGER, forged);
        app.machine.push("/run/forger.py", FORGER, 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let run = format!("[Service]\nExecStart=\nExecStart=/usr/bin/handover run -- {STRANGER}\n");
        app.machine.unit("app.service.d/run.conf", &run);
        app.machine.succeed(&["systemctl", "restart", "app.service"]);
        assert!(app.journal_has("is not believed, drains and pauses begin anew: the state file cannot be used"));
        let (old, mark) = (app.live(), app.machine.mark());
        app.kill_the_runner();
        app.machine.await_journal(&mark, &["-u", "app"], "has outlived the runner, and serves on");
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        assert_eq!(app.live(), old);
        let believed = app.machine.journal(&["-u", "app", "-o", "cat"]).matches("is not believed").count();
        assert_eq!(believed, 1, "the nonsense is gone");
    }

    fn without_a_cgroup_a_generation_is_found_and_ended_whole_all_the_same(systemd) {
        let app = App::prepare(systemd, THREE, "", SCRIPT, "User=nobody\nDelegate=no\n");
        // What serves is in a session of its own, and has no parent but the runner.
        app.machine.push(SCRIPT, format!("#!/bin/sh\n(setsid {STRANGER} &)\nexec tail -f /dev/null\n"), 0o755);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        assert!(app.journal_has("no cgroup of their own"));
        let load = app.load();
        for number in 1..3 {
            let mark = app.machine.mark();
            app.upgrade();
            load.pass_each(3);
            app.machine.await_journal(&mark, &["-u", "app"], &format!("generation {number} has left"));
            let others = Process::others(&app.machine, "app.service", app.live());
            assert_eq!(others.len(), 2, "the runner, and what serves");
        }
        load.stop().assert_nothing_lost();
    }
}
