//! Sessions through a storm: upgrades, restarts and kills at random, and none of them notices more than
//! that an answer took its time.

use std::time::UNIX_EPOCH;

use super::{Keeper, RELOAD};
use crate::lab::finish;

const UPGRADES: usize = 20;
const RESTARTS: usize = 20;
const KILLS: usize = 100;

/// Of the kills, those that come while an upgrade is under way.
const KILLS_IN_UPGRADES: usize = 20;

on_every_systemd! {
    fn two_hundred_sessions_go_on_through_upgrades_restarts_and_kills(systemd) {
        let seed = std::env::var("KEEPER_SEED").map_or_else(
            |_| u64::from(UNIX_EPOCH.elapsed().unwrap().subsec_nanos()),
            |seed| seed.parse().unwrap(),
        );
        println!("{systemd}: KEEPER_SEED={seed}");
        let mut chance = Chance(seed);
        let keeper = Keeper::boot(systemd, "");
        let sessions = keeper.sessions(100, 100);
        let mut main = keeper.main_pid();
        for blow in chance.blows() {
            match blow {
                Blow::Upgrade => _ = keeper.upgrade(),
                Blow::Restart => keeper.systemctl("restart"),
                Blow::Kill => keeper.kill(),
                Blow::KillInUpgrade => {
                    let reload = keeper.machine.spawn(&RELOAD);
                    sessions.pass(chance.below(200));
                    keeper.kill();
                    // It succeeded if it was over before, or the killed one was the old one's successor.
                    finish(reload);
                }
            }
            // Whatever an answer was on its way, the second one is from after the blow.
            sessions.pass_each(2);
            // It serves, but PID 1 may not have noticed.
            keeper.systemctl("start");
            let new = keeper.main_pid();
            assert_ne!(new, main, "after {blow:?}");
            main = new;
            sessions.pass(chance.below(500));
        }
        let tally = sessions.stop();
        println!(
            "{systemd}: {} answers by {} processes, {} of them twice; the longest stall: {:?}",
            tally.answers, tally.pids.len(), tally.repeated, tally.stall
        );
        tally.assert_nothing_lost();
        keeper.assert_calm();
    }
}

/// What happens to the service.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Upgrade,
    Restart,
    Kill,
    KillInUpgrade,
}

/// SplitMix64: the same numbers for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// All blows, shuffled.
    fn blows(&mut self) -> Vec<Blow> {
        let mut blows = [vec![Blow::Upgrade; UPGRADES], vec![Blow::Restart; RESTARTS]].concat();
        blows.extend([Blow::Kill; KILLS - KILLS_IN_UPGRADES]);
        blows.extend([Blow::KillInUpgrade; KILLS_IN_UPGRADES]);
        for last in (1..blows.len()).rev() {
            let other = self.below(last as u64 + 1);
            blows.swap(last, usize::try_from(other).unwrap());
        }
        blows
    }
}
