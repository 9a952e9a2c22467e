//! `handover run --strategy serial`: for programs of which there can be one only. Clients wait meanwhile, and
//! meet nobody who is not ready yet.

use crate::lab::Systemd;
use crate::load::Sight;
use crate::run::{App, CLIENTS, THREE};

/// Answers at once, but for a second only that it cannot serve yet.
const LOADS: &str = "\
import http.server as h, time
ready = time.monotonic() + 1
class Loads(h.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() > ready else 503)
        self.send_header('Content-Length', '6')
        self.end_headers()
        self.wfile.write(b'hello\\n')
h.ThreadingHTTPServer(('0.0.0.0', 8080), Loads).serve_forever()
";

impl App {
    /// A service of which there is one at a time, and which has to be asked whether it is ready.
    fn that_loads(systemd: Systemd) -> Self {
        let program = "/usr/bin/python3 /run/loads.py";
        let app = Self::prepare(systemd, THREE, "--strategy serial --probe http:/", program, "");
        app.machine.push("/run/loads.py", LOADS, 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        app
    }
}

on_every_systemd! {
    fn nobody_meets_a_generation_that_does_not_pass_its_probe_yet(systemd) {
        let app = App::that_loads(systemd);
        let load = app.load();
        for _ in 0..2 {
            app.upgrade();
            load.pass_each(2);
        }
        load.stop().assert_only_cut(2 * CLIENTS.len());
        assert!(!app.journal_has("are passed on"));
    }

    fn after_a_crash_only_those_meet_it_who_waited_before_that_was_noticed(systemd) {
        let app = App::that_loads(systemd);
        let (load, mark) = (app.load(), app.machine.mark());
        app.process(app.live()).signal(rustix::process::Signal::KILL);
        app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
        load.pass_each(2);
        let seen = load.stop();
        let none = |sight| seen.failures.iter().all(|loss| loss.sight != sight);
        assert!(none(Sight::Refused) && none(Sight::Late) && seen.failures.len() <= 2 * CLIENTS.len(), "{seen:?}");
    }

    fn a_door_that_a_killed_runner_has_left_shut_is_opened_by_the_next(systemd) {
        let app = App::that_loads(systemd);
        let (load, mark) = (app.load(), app.machine.mark());
        let reload = app.machine.spawn(&["timeout", "60", "systemctl", "reload", "app"]);
        app.machine.await_journal(&mark, &["-u", "app"], "run: generation 2 is process");
        app.process(app.machine.show("app", "MainPID").parse().unwrap()).signal(rustix::process::Signal::KILL);
        assert_ne!(crate::lab::finish(reload).status, 0);
        app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
        load.pass_each(2);
        load.stop().assert_only_cut(2 * CLIENTS.len());
    }
}
