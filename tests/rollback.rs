//! `handover run` and a new version that looks good at first.

use crate::run::{App, CLIENTS, SCRIPT, THREE};

on_every_systemd! {
    fn a_new_version_that_ends_soon_after_it_is_ready_has_had_no_client(systemd) {
        let app = App::boot(systemd, THREE, "--settle 2s", SCRIPT);
        let load = app.load();
        for (script, words) in [
            ("exec timeout 1 stranger 8080", "exited with status 124"),
            ("exec timeout -s KILL 1 stranger 8080", "was killed by SIGKILL"),
        ] {
            app.machine.push(SCRIPT, format!("#!/bin/sh\n{script}\n"), 0o755);
            let (status, text) = app.failed_upgrade();
            assert!(status == "22" && text.contains(words), "{status} {text}");
            load.pass_each(2);
        }
        load.stop().assert_nothing_lost();
    }

    fn a_canary_whose_probe_fails_loses_its_share_at_once(systemd) {
        let app = App::prepare(systemd, THREE, "--canary 20%:60s --probe http:/health", SCRIPT, "");
        app.machine.push("/srv/health", "well\n", 0o644);
        app.machine.succeed(&["systemctl", "start", "app.service"]);
        app.machine.succeed(&["cp", "-r", "/srv", "/run/two"]);
        app.machine.push(SCRIPT, "#!/bin/sh\ncd /run/two && exec stranger 8080\n", 0o755);
        let (load, mark, live) = (app.load(), app.machine.mark(), app.live());
        let reload = app.machine.spawn(&["timeout", "60", "systemctl", "reload", "app"]);
        app.machine.await_journal(&mark, &["-u", "app"], "gets 20 % of what is new");
        load.pass_each(3);
        app.machine.succeed(&["rm", "/run/two/health"]);
        assert_ne!(crate::lab::finish(reload).status, 0);
        let text = app.machine.show("app", "StatusText");
        assert!(text.starts_with("upgrade failed: probe-failed: ") && app.live() == live, "{text}");
        load.pass_each(3);
        // It is killed with what it had accepted.
        load.stop().assert_only_cut(CLIENTS.len());
    }
}
