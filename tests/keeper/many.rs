//! More sessions than PID 1 is sent before it is waited for, and than the usual limit of descriptors: all
//! at once.

use super::Keeper;

/// 252 is told how many it takes: it would prove each place first.
const SETTINGS: &str = "FileDescriptorStoreMax=1500\nEnvironment=FDSTORE=1500\n";
const MANY: usize = 1200;

on_every_systemd! {
    fn a_thousand_sessions_that_come_at_once_are_stashed_and_go_on_after_a_kill(systemd) {
        let keeper = Keeper::boot(systemd, SETTINGS);
        let sessions = keeper.sessions(MANY / 2, MANY / 2);
        assert!(keeper.stored() >= MANY);
        for _ in 0..2 {
            keeper.kill();
            sessions.pass_each(2);
            keeper.upgrade();
            sessions.pass_each(2);
        }
        let tally = sessions.stop();
        println!("{systemd}: {MANY} sessions, the longest stall: {:?}", tally.stall);
        tally.assert_nothing_lost();
        keeper.assert_calm();
    }
}
