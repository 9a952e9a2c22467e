//! A hundred upgrades under clients that keep their connections, hurried ones and idle ones, and clients
//! that come anew: nobody sees anything.

use std::time::{Duration, Instant};

use crate::load::{Client, Load};
use crate::web::{ADDRESS, Web};

const UPGRADES: usize = 100;

/// Milliseconds between an answer and the next request, of 16 clients each.
const THINK: [u64; 4] = [0, 1, 40, 2000];

/// 64 that keep their connections, and 16 that do not.
pub(super) fn clients() -> Vec<Client> {
    let thinking = THINK.map(|time| [Client::Thinking(Duration::from_millis(time)); 16]);
    [thinking.as_flattened(), &[Client::NewConnection; 16]].concat()
}

on_every_systemd! {
    fn nobody_notices_a_hundred_upgrades(systemd) {
        let web = Web::boot(systemd);
        let load = Load::start(&web.machine, ADDRESS, &clients());
        let mut old = web.main();
        let mut left = Vec::new();
        for _ in 0..UPGRADES {
            web.upgrade();
            old.leaves();
            left.push((old.pid, Instant::now()));
            old = web.main();
        }
        let tally = load.stop();
        tally.assert_nothing_noticed();
        let mut late: Vec<_> = left.iter().filter_map(|(pid, left)| {
            Some(left.saturating_duration_since(*tally.pids.get(pid)?))
        }).collect();
        late.sort();
        println!(
            "{systemd}: {} answers by {} processes, the slowest after {:?}; an old one left {:?} after its last \
             answer, at most {:?}", tally.requests, tally.pids.len(), tally.slowest, late[late.len() / 2],
            late[late.len() - 1]
        );
        // A machine under load may be late now and then; a process that waits for something always is.
        assert!(late[late.len() * 9 / 10] < Duration::from_millis(100), "{late:?}");
    }
}
