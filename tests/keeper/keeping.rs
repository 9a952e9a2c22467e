//! What an administrator does to PID 1 and to the unit: the sessions are kept, or end as the unit says.

use super::Keeper;
use super::talk::Talk;
use crate::gate::soon;
use crate::lab::Systemd;

on_every_systemd! {
    fn sessions_go_on_when_pid_1_reads_its_files_again_or_is_executed_again(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let sessions = keeper.sessions(10, 10);
        // Twice: each turns the order of the store.
        for verb in ["daemon-reload", "daemon-reexec", "daemon-reexec", "daemon-reload"] {
            keeper.begin_anew(verb);
            sessions.pass_each(2);
            keeper.kill();
            sessions.pass_each(2);
            keeper.begin_anew(verb);
            keeper.systemctl("restart");
            sessions.pass_each(2);
            keeper.upgrade();
            sessions.pass_each(2);
        }
        sessions.stop().assert_nothing_lost();
        keeper.assert_calm();
    }

    fn what_was_sent_before_is_answered_by_whoever_serves_after(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let change: [&dyn Fn(); 3] = [&|| _ = keeper.upgrade(), &|| keeper.systemctl("restart"), &|| keeper.kill()];
        for change in change {
            for mut talk in talks(&keeper) {
                // A request in flight, a whole one behind it, and half of a third.
                talk.send("#71 SLEEP 200\n#72 SET a 2\n#73 GET").unwrap();
                change();
                talk.send(" a\n").unwrap();
                let mut last = String::new();
                for answer in ["#71 ok", "#72 ok", "#73 value 2"] {
                    // The one before may come again.
                    let found = talk.answer().unwrap();
                    let found = if found == last { talk.answer().unwrap() } else { found };
                    assert_eq!(found, answer);
                    last = found;
                }
                assert_eq!(talk.ask("COUNT"), "count 5");
                soon("the new process serves it", || talk.pid() == keeper.main_pid());
            }
        }
        keeper.assert_calm();
    }

    fn what_rests_is_stashed_when_the_service_is_told_to_stop(systemd) {
        let keeper = Keeper::boot(systemd, "Environment=KEEPER_STASH=no\n");
        let mut talks: Vec<_> = (0..20).flat_map(|_| talks(&keeper)).collect();
        // The state, the record, and for a moment a canary.
        soon("no session is stored", || keeper.stored() == 2);
        keeper.systemctl("restart");
        for talk in &mut talks {
            assert_eq!(talk.pid(), keeper.main_pid());
            assert_eq!(talk.ask("GET a"), "value 1");
            assert_eq!(talk.ask("COUNT"), "count 4");
        }
        soon("all sessions are stored", || keeper.stored() == 2 + talks.len());
        keeper.assert_calm();
    }

    fn what_is_cut_at_the_drain_deadline_is_served_by_the_next_process(systemd) {
        let keeper = Keeper::boot(systemd, "Environment=KEEPER_DRAIN_MS=100\n");
        for mut talk in talks(&keeper) {
            talk.send("#71 SLEEP 2000\n").unwrap();
            // Whoever serves this one has begun with that one.
            keeper.talk().served();
            keeper.systemctl("restart");
            assert_eq!(talk.answer().unwrap(), "#71 ok");
            assert_eq!(talk.pid(), keeper.main_pid());
        }
        keeper.assert_calm();
    }

    fn a_stop_keeps_the_sessions_if_the_unit_says_so(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let mut talks = talks(&keeper);
        keeper.systemctl("stop");
        if systemd == Systemd::V252 {
            // FileDescriptorStorePreserve= is for 254 and newer.
            talks.into_iter().for_each(|talk| assert_eq!(talk.end(), ""));
            return;
        }
        for talk in &mut talks {
            talk.send("#71 GET a\n").unwrap();
        }
        keeper.systemctl("start");
        for talk in &mut talks {
            assert_eq!(talk.answer().unwrap(), "#71 value 1");
            assert_eq!(talk.ask("COUNT"), "count 3");
        }
        keeper.assert_calm();
    }

    fn a_stop_ends_the_sessions_if_the_unit_says_so(systemd) {
        if systemd == Systemd::V252 {
            // It has no such setting, and does this always.
            return;
        }
        for preserve in ["restart", "no"] {
            let keeper = Keeper::boot(systemd, &format!("FileDescriptorStorePreserve={preserve}\n"));
            let talks = talks(&keeper);
            keeper.systemctl("stop");
            talks.into_iter().for_each(|talk| assert_eq!(talk.end(), ""));
            keeper.systemctl("start");
            assert_eq!(keeper.talk().ask("COUNT"), "count 1");
            keeper.assert_calm();
        }
    }

    fn a_program_that_crashes_at_every_start_does_not_cost_the_sessions(systemd) {
        // Not as the unit says: that has no limit, for the sake of 252.
        let keeper = Keeper::boot(systemd, "[Unit]\nStartLimitIntervalSec=60\nStartLimitBurst=4\n");
        let mut talks = talks(&keeper);
        let machine = &keeper.machine;
        machine.succeed(&["mv", "/usr/bin/keeper", "/usr/bin/keeper.good"]);
        machine.push("/usr/bin/keeper", "#!/bin/sh\nexit 1\n", 0o755);
        keeper.kill();
        soon("PID 1 gives up", || {
            machine.show("keeper", "ActiveState") == "failed" && machine.show("keeper", "Job").is_empty()
        });
        if systemd == Systemd::V252 {
            // It has no FileDescriptorStorePreserve=.
            talks.into_iter().for_each(|talk| assert_eq!(talk.end(), ""));
            return;
        }
        machine.succeed(&["mv", "/usr/bin/keeper.good", "/usr/bin/keeper"]);
        machine.succeed(&["systemctl", "reset-failed", "keeper.socket", "keeper.service"]);
        machine.succeed(&["systemctl", "start", "keeper.socket", "keeper.service"]);
        for talk in &mut talks {
            assert_eq!(talk.ask("GET a"), "value 1");
            assert_eq!(talk.ask("COUNT"), "count 3");
        }
        keeper.assert_calm();
    }
}

/// A session of each kind, with one value.
fn talks(keeper: &Keeper) -> [Talk; 2] {
    [keeper.talk().served(), keeper.talk_unix().served()]
}
