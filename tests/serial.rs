//! `handover run --strategy serial`: for programs of which there can be one only. Clients wait meanwhile, and
//! meet nobody who is not ready yet.

use crate::run::{App, CLIENTS, SCRIPT, THREE};

/// Serves at once, but has something to serve a second later only.
const LOADS: &str = "#!/bin/sh
cd /run && mkdir -p data.$$ && cd data.$$ && (sleep 1; echo hello > index.html) &
cd /run/data.$$ 2>/dev/null || { mkdir -p /run/data.$$ && cd /run/data.$$; }
exec /usr/bin/python3 -m http.server 8080
";

on_every_systemd! {
    fn nobody_meets_a_generation_that_does_not_pass_its_probe_yet(systemd) {
        let app = App::prepare(systemd, THREE, "--strategy serial --probe http:/index.html", SCRIPT, "");
        app.machine.push(SCRIPT, LOADS, 0o755);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        let load = app.load();
        for _ in 0..2 {
            app.upgrade();
            load.pass_each(2);
        }
        // Nor one that is started again after a crash.
        let mark = app.machine.mark();
        app.process(app.live()).signal(rustix::process::Signal::KILL);
        app.machine.await_journal(&mark, &["-u", "app"], "gets every new connection");
        load.pass_each(2);
        load.stop().assert_only_cut(3 * CLIENTS.len());
        assert!(!app.journal_has("are passed on"));
    }

    fn a_door_that_a_killed_runner_has_left_shut_is_opened_by_the_next(systemd) {
        let app = App::prepare(systemd, THREE, "--strategy serial --probe http:/index.html", SCRIPT, "");
        app.machine.push(SCRIPT, LOADS, 0o755);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
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
