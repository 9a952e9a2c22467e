//! A hundred upgrades under clients that keep their connections, hurried ones and idle ones, and clients
//! that come anew: nobody sees anything.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::load::{Client, Load};
use crate::web::{ADDRESS, Web};

const UPGRADES: usize = 100;

/// How long a process may be there when it has nothing left to do; but for a CPU that it waits for.
const LATE: Duration = Duration::from_millis(100);

/// The same where all of the machine's CPUs are busy.
const VERY_LATE: Duration = Duration::from_secs(1);

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
        let ((), stall) = with_longest_stall(|| for _ in 0..UPGRADES {
            let old = web.main();
            web.upgrade();
            old.leaves();
        });
        let tally = load.stop();
        tally.assert_nothing_noticed();
        // Not by the unit: journald may look for it when the process has gone.
        let journal = web.machine.journal(&["-o", "cat"]);
        let told = journal.lines().filter_map(|line| line.strip_prefix("parting: ")?.split(' ').next());
        let mut late: Vec<_> = told.map(|late| Duration::from_micros(late.parse().unwrap())).collect();
        late.sort();
        assert_eq!(late.len(), UPGRADES);
        println!(
            "{systemd}: {} answers by {} processes, the slowest after {:?}; an old one left {:?} after its last \
             request, at most {:?}, where who slept was woken {stall:?} too late", tally.requests,
            tally.pids.len(), tally.slowest, late[UPGRADES / 2], late[UPGRADES - 1]
        );
        // Others have a say in it, and may have to wait for a CPU, too: its successor above all, on which all
        // clients are. So a few may be late.
        assert!(late[UPGRADES * 95 / 100 - 1] < LATE + stall, "{stall:?}: {late:?}");
        assert!(late[UPGRADES - 1] < VERY_LATE + stall, "{stall:?}: {late:?}");
    }
}

/// Does `work`; and how long at most a thread that does nothing but sleep had to wait for a CPU meanwhile.
fn with_longest_stall<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    const NAP: Duration = Duration::from_millis(1);
    let (end, ended) = mpsc::channel::<()>();
    let doze = move || {
        let mut longest = Duration::ZERO;
        loop {
            let begin = Instant::now();
            if ended.recv_timeout(NAP) != Err(RecvTimeoutError::Timeout) {
                return longest;
            }
            longest = longest.max(begin.elapsed().saturating_sub(NAP));
        }
    };
    let dozing = std::thread::spawn(doze);
    let done = work();
    drop(end);
    (done, dozing.join().unwrap())
}
