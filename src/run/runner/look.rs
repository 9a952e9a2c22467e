//! What nobody tells: whether a generation waits on its sockets, and whether one that drains is empty. Looked
//! for in /proc and by sock_diag(7), often while something is to happen and never else: a runner at rest does
//! not wake up. That nothing of a generation is left is told (SIGCHLD, cgroup.events), and looked for whenever
//! anything is.

use std::time::{Duration, Instant};

use super::Runner;
use crate::run::machine::Event;
use crate::sys::pages;

/// How soon to look again while a generation starts.
const OFTEN: Duration = Duration::from_millis(20);

/// While one drains, is killed, or has left others behind.
const NOW_AND_THEN: Duration = Duration::from_millis(100);

/// How many times longer than a look the pause after it is at least, on a host where looks take long.
const REST: u32 = 20;

impl Runner {
    /// Looks, and says when to look again.
    pub(super) fn look(&mut self) -> Vec<Event> {
        let begin = Instant::now();
        let mut events = self.look_for_the_gone();
        events.extend(self.look_for_the_ready());
        events.extend(self.look_for_the_empty());
        let pause = if self.machine.hurries() {
            Some(OFTEN)
        } else if self.machine.leaving() > 0
            || self.machine.doomed().next().is_some()
            || self.generations.values().any(|one| one.ended.is_some())
        {
            Some(NOW_AND_THEN)
        } else {
            None
        };
        // An upgrade is over, and most of what it needed is not needed for days: without this the runner would
        // have as much memory as a small server. What cannot be given back is no harm.
        if pause.is_none() && !self.rests {
            let _ = pages::give_back();
        }
        self.rests = pause.is_none();
        let (now, least) = (Instant::now(), begin.elapsed() * REST);
        self.next_look = pause.map(|pause| now + pause.max(least));
        events
    }

    /// Has the next look be soon.
    pub(super) fn look_soon(&mut self) {
        let soon = Instant::now() + OFTEN;
        self.next_look = Some(self.next_look.map_or(soon, |at| at.min(soon)));
    }

    fn look_for_the_gone(&mut self) -> Vec<Event> {
        let gone: Vec<u64> =
            self.generations.iter().filter(|(_, one)| one.is_gone()).map(|(number, _)| *number).collect();
        let mut events = Vec::new();
        for number in gone {
            let Some(generation) = self.generations.remove(&number) else { continue };
            if let Err(error) = generation.fence.remove() {
                self.warn(format!("the cgroup of generation {number} stays: {error}"));
            }
            let notes = generation.notes.text();
            let how = generation.ended.clone().unwrap_or_else(|| "ended".into());
            let how = if notes.is_empty() { how } else { format!("{how} ({notes})") };
            self.remember(number, &generation);
            events.push(Event::Gone { number, how });
        }
        events
    }

    fn look_for_the_ready(&self) -> Vec<Event> {
        if self.options.notify || self.slots.groups().is_empty() {
            return vec![];
        }
        let ready = |(number, one): (&u64, &super::Generation)| {
            let waits = self.machine.starts(*number) && one.unserved(&self.slots).is_empty();
            waits.then_some(Event::Ready { number: *number })
        };
        self.generations.iter().filter_map(ready).collect()
    }

    fn look_for_the_empty(&mut self) -> Vec<Event> {
        let draining: Vec<u64> = self.machine.draining().collect();
        if draining.is_empty() {
            return vec![];
        }
        let table = self.slots.sockets();
        if let Some(silent) = self.options.idle {
            for number in &draining {
                if let Some(generation) = self.generations.get_mut(number) {
                    generation.half_close(&table, silent);
                }
            }
        }
        let is_empty = |number: &u64| {
            self.generations.get(number).is_none_or(|one| one.load(&self.slots, &table) == (0, 0))
        };
        draining.into_iter().filter(is_empty).map(|number| Event::Empty { number }).collect()
    }
}
