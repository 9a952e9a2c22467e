//! `handover run` whose runner is killed: what PID 1 keeps is enough to go on.

use rustix::process::Signal;

use crate::process::Process;
use crate::run::{App, CLIENTS, NGINX, PYTHON, THREE};

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

on_every_systemd_with_programs! {
    fn without_a_socket_unit_the_slots_are_made_and_outlive_a_killed_runner(systemd) {
        let app = App::boot(systemd, "", "", PYTHON);
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
        let app = App::prepare(systemd, THREE, "", PYTHON, "KillMode=process\n");
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
        let app = App::prepare(systemd, THREE, "--probe http:/ --idle 1s", PYTHON, more);
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
}
