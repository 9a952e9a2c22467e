//! The record: which generation serves, how the last upgrade went, who drains. PID 1 keeps it.

use super::Keeper;
use crate::gate::soon;

impl Keeper {
    /// Waits until a new process has said so much of the record.
    fn tells(&self, what: &str) {
        soon(what, || self.journal().contains(what));
    }
}

on_every_systemd! {
    fn the_record_goes_on_over_upgrades_crashes_and_a_new_pid_1(systemd) {
        let keeper = Keeper::boot(systemd, "");
        keeper.tells("generation 1, never upgraded");
        keeper.upgrade();
        keeper.tells("generation 2, upgraded");
        keeper.kill();
        keeper.tells("generation 3, upgraded");
        keeper.fail("init-error");
        keeper.failed_upgrade();
        keeper.fail("");
        keeper.systemctl("restart");
        keeper.tells("generation 4, last upgrade failed (init-failed)");
        for verb in ["daemon-reload", "daemon-reexec"] {
            keeper.begin_anew(verb);
        }
        keeper.kill();
        keeper.tells("generation 5, last upgrade failed (init-failed)");
        keeper.upgrade();
        keeper.tells("generation 6, upgraded");
        keeper.assert_calm();
    }

    fn a_process_that_still_drains_is_in_the_record_of_whoever_serves_next(systemd) {
        let keeper = Keeper::boot(systemd, "KillMode=process\n");
        let (mut busy, old) = (keeper.talk().served(), keeper.main_pid());
        busy.send("SLEEP 60000\n").unwrap();
        // The line is being served when the next session is: they share a thread.
        let mut other = keeper.talk().served();
        keeper.upgrade();
        keeper.kill();
        keeper.tells(&format!("{old} drains"));
        // It is the older process's, which is alive; and the other one goes on.
        assert_eq!(other.ask("GET a"), "value 1");
        assert_eq!(keeper.stored(), 4, "the state, the record, and two sessions");
    }
}
