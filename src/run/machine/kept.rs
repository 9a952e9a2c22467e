//! The machine as it goes along to the next runner, and back: times are spans, for no clock goes along.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Generation, Limits, Machine, State};

/// What a machine knows while nothing comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Those who are there.
    pub(crate) generations: Vec<KeptGeneration>,
    /// The highest number there was.
    pub(crate) last: u64,
    /// Where new connections go.
    pub(crate) home: usize,
    /// In which slot to start the program again, and in how many milliseconds.
    pub(crate) restart: Option<(usize, u64)>,
    /// Crashes in a row.
    pub(crate) crashes: u32,
}

/// A generation, and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptGeneration {
    /// Its number.
    pub(crate) number: u64,
    /// Its slot.
    pub(crate) slot: usize,
    /// How it is.
    pub(crate) phase: Phase,
}

/// How a generation is that does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// It serves, and was there before any runner that is known of.
    Survivor,
    /// It has served for so many milliseconds.
    Live { for_ms: u64 },
    /// It has drained for so many milliseconds.
    Draining { for_ms: u64 },
    /// It is killed in so many milliseconds.
    Stopping { in_ms: u64 },
    /// It has been killed.
    Killed,
}

impl Machine {
    /// What is to go along; `None` while a generation comes, somebody waits for one, or the end has begun.
    pub(crate) fn keep(&self, now: Instant) -> Option<Kept> {
        if !self.serving || self.stopping || self.wish.is_some() {
            return None;
        }
        let since = |then: Instant| ms(now.saturating_duration_since(then));
        let until = |then: Instant| ms(then.saturating_duration_since(now));
        let keep = |one: &Generation| {
            let phase = match one.state {
                State::Survivor => Phase::Survivor,
                State::Live { since: then } => Phase::Live { for_ms: since(then) },
                State::Draining { since: then } => Phase::Draining { for_ms: since(then) },
                State::Stopping { until: then } => Phase::Stopping { in_ms: until(then) },
                State::Killed => Phase::Killed,
                State::Starting { .. }
                | State::Probing { .. }
                | State::Settling { .. }
                | State::Canary { .. }
                | State::Failed(_)
                | State::Replaced => return None,
            };
            Some(KeptGeneration { number: one.number, slot: one.slot, phase })
        };
        Some(Kept {
            generations: self.generations.iter().map(keep).collect::<Option<_>>()?,
            last: self.last,
            home: self.home,
            restart: self.restart.map(|(slot, at)| (slot, until(at))),
            crashes: self.crashes,
        })
    }

    /// The machine that goes on where that one was.
    pub(crate) fn revive(limits: Limits, kept: &Kept, now: Instant) -> Self {
        let since = |ms: u64| now.checked_sub(Duration::from_millis(ms)).unwrap_or(now);
        let until = |ms: u64| now.checked_add(Duration::from_millis(ms)).unwrap_or(now);
        let revive = |one: &KeptGeneration| {
            let state = match one.phase {
                Phase::Survivor => State::Survivor,
                Phase::Live { for_ms } => State::Live { since: since(for_ms) },
                Phase::Draining { for_ms } => State::Draining { since: since(for_ms) },
                Phase::Stopping { in_ms } => State::Stopping { until: until(in_ms) },
                Phase::Killed => State::Killed,
            };
            Generation { number: one.number, slot: one.slot, state }
        };
        let mut this = Self::new(limits, kept.home, &[], now);
        this.generations = kept.generations.iter().map(revive).collect();
        this.restart = kept.restart.map(|(slot, ms)| (slot, until(ms)));
        (this.last, this.crashes, this.serving) = (kept.last, kept.crashes, true);
        this
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
