//! The machine as the next runner gets it, and back: handed on by a runner that executes itself anew, or
//! found where one was killed.
//!
//! Times are milliseconds of CLOCK_MONOTONIC, which both have: a drain ends when it would have ended.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Generation, LONGEST_PAUSE, Limits, Machine, State};
use crate::upgrade::{Failure, Reason};

/// One reading of CLOCK_MONOTONIC, which this process and the next one have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// When it was read.
    pub(crate) at: Instant,
    /// What it said, in milliseconds.
    pub(crate) ms: u64,
}

impl Clock {
    fn ms(self, time: Instant) -> u64 {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match time.checked_duration_since(self.at) {
            Some(after) => self.ms.saturating_add(ms(after)),
            None => self.ms.saturating_sub(ms(self.at.saturating_duration_since(time))),
        }
    }

    /// That time; the time of the reading for one that cannot be.
    fn time(self, ms: u64) -> Instant {
        let span = Duration::from_millis(self.ms.abs_diff(ms));
        let time = if ms < self.ms { self.at.checked_sub(span) } else { self.at.checked_add(span) };
        time.unwrap_or(self.at)
    }
}

/// What a machine knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Those who are there.
    pub(crate) generations: Vec<KeptGeneration>,
    /// The highest number there was.
    pub(crate) last: u64,
    /// Where new connections go.
    pub(crate) home: usize,
    /// In which slot to start the program again, and when.
    pub(crate) restart: Option<(usize, u64)>,
    /// Crashes in a row.
    pub(crate) crashes: u32,
    /// Whether the service was ready once.
    pub(crate) served: bool,
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

/// How a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// It has not served anybody yet.
    Coming,
    /// It has a share of the clients until then.
    Canary { until_ms: u64 },
    /// It serves, and was there before any runner that is known of.
    Survivor,
    /// It has served since then.
    Live { since_ms: u64 },
    /// It has drained since then.
    Draining { since_ms: u64 },
    /// It had its signal, and is killed then.
    Stopping { until_ms: u64 },
    /// It has been killed.
    Killed,
}

impl Kept {
    /// Whether one of them serves.
    pub(crate) fn has_live(&self) -> bool {
        self.generations.iter().any(|one| matches!(one.phase, Phase::Live { .. }))
    }

    /// What can be told where nothing was written down: `live` serves, of those found, and the others drain.
    pub(crate) fn unwritten(found: &[(u64, usize)], live: (u64, usize), clock: Clock) -> Self {
        let (live_now, drains) = (Phase::Live { since_ms: clock.ms }, Phase::Draining { since_ms: clock.ms });
        let phase = |number| if number == live.0 { live_now } else { drains };
        let one = |&(number, slot): &(u64, usize)| KeptGeneration { number, slot, phase: phase(number) };
        let generations: Vec<_> = found.iter().map(one).collect();
        let last = found.iter().map(|(number, _)| *number).max().unwrap_or(0);
        Self { generations, last, home: live.1, ..Self::default() }
    }

    /// What is left of it when the runner was killed. `found` are the numbers and slots of the generations that
    /// still run; `live` is the one of which PID 1 has that it serves, which may be news of a moment later.
    /// Those that nobody may have seen are [`Phase::Coming`], if another one serves.
    pub(crate) fn found(&self, found: &[(u64, usize)], live: Option<u64>, clock: Clock) -> Self {
        let before = |number: u64| self.generations.iter().find(|one| one.number == number);
        let runs = |number: u64| found.iter().any(|(one, _)| *one == number);
        let is_live = |one: &&KeptGeneration| matches!(one.phase, Phase::Live { .. }) && runs(one.number);
        let live = live.filter(|one| runs(*one));
        let live = live.or_else(|| self.generations.iter().find(is_live).map(|one| one.number));
        let phase = |number: u64| match before(number).map(|one| one.phase) {
            Some(phase @ Phase::Live { .. }) if live == Some(number) => phase,
            _ if live == Some(number) => Phase::Live { since_ms: clock.ms },
            Some(Phase::Live { .. }) => Phase::Draining { since_ms: clock.ms },
            Some(Phase::Coming | Phase::Canary { .. }) if live.is_none() => Phase::Survivor,
            Some(phase) => phase,
            None if live.is_some() && number > self.last => Phase::Coming,
            None => Phase::Survivor,
        };
        let generations =
            found.iter().map(|&(number, slot)| KeptGeneration { number, slot, phase: phase(number) });
        let generations: Vec<_> = generations.collect();
        let home = generations.iter().find(|one| Some(one.number) == live).map(|one| one.slot);
        Self {
            // There is always a next number.
            last: generations
                .iter()
                .map(|one| one.number)
                .max()
                .unwrap_or(0)
                .max(self.last)
                .min(u64::MAX / 2),
            home: home.unwrap_or(self.home),
            restart: self.restart.filter(|_| live.is_none()),
            generations,
            ..self.clone()
        }
    }
}

impl Machine {
    /// What is to go along to a runner that takes over now; `None` while a generation comes, somebody waits for
    /// one, or the end has begun.
    pub(crate) fn keep(&self, clock: Clock) -> Option<Kept> {
        let may = self.serving && !self.stopping && self.wish.is_none() && !self.comes();
        may.then(|| self.write_down(clock))
    }

    /// What a runner would have to know that comes after this one was killed now.
    pub(crate) fn write_down(&self, clock: Clock) -> Kept {
        let keep = |one: &Generation| {
            let phase = match one.state {
                State::Survivor => Phase::Survivor,
                State::Live { since } => Phase::Live { since_ms: clock.ms(since) },
                State::Draining { since } => Phase::Draining { since_ms: clock.ms(since) },
                State::Stopping { until } => Phase::Stopping { until_ms: clock.ms(until) },
                State::Canary { until } => Phase::Canary { until_ms: clock.ms(until) },
                State::Killed => Phase::Killed,
                State::Starting { .. }
                | State::Probing { .. }
                | State::Settling { .. }
                | State::Failed(_)
                | State::Replaced => Phase::Coming,
            };
            KeptGeneration { number: one.number, slot: one.slot, phase }
        };
        Kept {
            generations: self.generations.iter().map(keep).collect(),
            last: self.last,
            home: self.home,
            restart: self.restart.map(|(slot, at)| (slot, clock.ms(at))),
            crashes: self.crashes,
            served: self.serving || self.served_before,
        }
    }

    /// The machine that goes on where that one was. A time further away than it could be is made nearer.
    pub(crate) fn revive(limits: Limits, kept: &Kept, clock: Clock) -> Self {
        let now = clock.at;
        let since = |ms: u64| clock.time(ms).min(now);
        let until = |ms: u64, most: Duration| clock.time(ms).min(now + most);
        let revive = |one: &KeptGeneration| {
            let state = match one.phase {
                Phase::Coming => State::Failed(Failure::new(
                    Reason::PredecessorLost,
                    "the runner was killed before the new program served",
                )),
                Phase::Survivor => State::Survivor,
                Phase::Live { since_ms } => State::Live { since: since(since_ms) },
                Phase::Draining { since_ms } => State::Draining { since: since(since_ms) },
                Phase::Stopping { until_ms } => {
                    State::Stopping { until: until(until_ms, limits.stop.max(limits.drain)) }
                }
                Phase::Canary { until_ms } => {
                    let most = limits.canary.map_or(Duration::ZERO, |(_, time)| time);
                    State::Canary { until: until(until_ms, most) }
                }
                Phase::Killed => State::Killed,
            };
            Generation { number: one.number, slot: one.slot, state }
        };
        let mut this = Self::new(limits, kept.home, &[], now);
        this.generations = kept.generations.iter().map(revive).collect();
        this.restart = kept.restart.map(|(slot, ms)| (slot, until(ms, LONGEST_PAUSE)));
        (this.last, this.crashes) = (kept.last, kept.crashes);
        (this.serving, this.served_before) = (true, kept.served);
        this
    }

    /// The same for a runner that PID 1 has started, and that has not told it yet that the service is ready.
    /// Whoever does not serve by now makes room where the next generation is to be.
    pub(crate) fn take_up(limits: Limits, kept: &Kept, clock: Clock) -> Self {
        let mut this = Self::revive(limits, kept, clock);
        if this.live().is_some() {
            return this;
        }
        this.serving = false;
        let at = this.restart.map_or(clock.at, |(_, at)| at);
        this.restart = Some((this.home, at));
        for one in &mut this.generations {
            if one.state == State::Survivor && Self::must_make_room(limits, this.home, one.slot) {
                one.state = State::Draining { since: clock.at };
            }
        }
        this
    }

    /// Those that were killed, or were to be, and are still there.
    pub(crate) fn doomed(&self) -> impl Iterator<Item = u64> {
        use State::{Failed, Killed, Replaced};
        let is_doomed = |one: &&Generation| matches!(one.state, Failed(_) | Replaced | Killed);
        self.generations.iter().filter(is_doomed).map(|one| one.number)
    }

    /// The number of the generation that has a share of the clients, where it is, and how large that is.
    pub(crate) fn canary(&self) -> Option<(u64, usize, u8)> {
        let canary = self.generations.iter().find(|one| matches!(one.state, State::Canary { .. }))?;
        Some((canary.number, canary.slot, self.limits.canary?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::LIMITS;
    use super::super::{Action, Event};
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn clock() -> Clock {
        Clock { at: Instant::now() + Duration::from_secs(1000), ms: 500_000 }
    }

    fn kept(phases: &[(u64, usize, Phase)]) -> Kept {
        let one = |&(number, slot, phase): &_| KeptGeneration { number, slot, phase };
        let generations = phases.iter().map(one).collect();
        Kept { generations, last: 9, home: 1, crashes: 3, served: true, restart: None }
    }

    #[test]
    fn a_drain_ends_when_it_would_have_ended_with_the_runner_that_was_killed() {
        let clock = clock();
        let (live, drains) = (Phase::Live { since_ms: 1 }, Phase::Draining { since_ms: clock.ms - 7 });
        let before = kept(&[(8, 0, drains), (9, 1, live)]);
        let machine = Machine::take_up(LIMITS, &before.found(&[(8, 0), (9, 1)], Some(9), clock), clock);
        assert_eq!(machine.wake_at(), Some(clock.at + LIMITS.drain - 7 * MS));
        assert_eq!(machine.live(), Some((9, 1)));
    }

    #[test]
    fn crashes_and_the_pause_after_the_last_one_are_remembered() {
        let clock = clock();
        let before = Kept { restart: Some((1, clock.ms + 900)), ..kept(&[]) };
        let mut machine = Machine::take_up(LIMITS, &before.found(&[], None, clock), clock);
        assert_eq!(machine.wake_at(), Some(clock.at + 900 * MS));
        let now = clock.at + 900 * MS;
        assert_eq!(machine.handle(Event::Tick, now), [Action::Start { number: 10, slot: 1 }]);
        let gone = Event::Gone { number: 10, how: "exited".into() };
        assert!(matches!(machine.handle(gone, now)[..], [Action::Failed(_)]), "it has served before");
        assert_eq!(machine.wake_at(), Some(now + 1600 * MS), "the fourth pause");
    }

    #[test]
    fn a_canary_goes_on_until_its_end_and_one_that_had_not_served_is_ended() {
        let clock = clock();
        let limits = Limits { canary: Some((10, Duration::from_secs(30))), ..LIMITS };
        let (live, canary) = (Phase::Live { since_ms: 1 }, Phase::Canary { until_ms: clock.ms + 50 });
        let before = kept(&[(8, 1, live), (9, 0, canary)]);
        let found = before.found(&[(8, 1), (9, 0)], Some(8), clock);
        let mut machine = Machine::take_up(limits, &found, clock);
        assert_eq!(machine.canary(), Some((9, 0, 10)));
        let end = machine.handle(Event::Tick, clock.at + 50 * MS);
        assert_eq!(end, [Action::Steer { slot: 0, but: None }]);
        assert_eq!(machine.live(), Some((9, 0)));
        let before = kept(&[(8, 1, live), (9, 0, Phase::Coming)]);
        let found = before.found(&[(8, 1), (9, 0), (10, 2)], Some(8), clock);
        let machine = Machine::take_up(limits, &found, clock);
        assert_eq!(machine.doomed().collect::<Vec<_>>(), [9, 10]);
    }

    #[test]
    fn what_pid_1_knows_is_newer_than_what_was_written_down() {
        let clock = clock();
        let before = kept(&[(8, 1, Phase::Live { since_ms: 1 }), (9, 0, Phase::Coming)]);
        let found = before.found(&[(8, 1), (9, 0)], Some(9), clock);
        let phases: Vec<_> = found.generations.iter().map(|one| one.phase).collect();
        let now = clock.ms;
        assert_eq!(phases, [Phase::Draining { since_ms: now }, Phase::Live { since_ms: now }]);
        assert_eq!(found.home, 0);
    }

    #[test]
    fn a_first_start_that_lost_its_runner_is_kept_until_another_one_serves() {
        let clock = clock();
        let before = Kept { served: false, home: 0, ..kept(&[(1, 1, Phase::Coming)]) };
        let machine = Machine::take_up(LIMITS, &before.found(&[(1, 1)], None, clock), clock);
        assert_eq!((machine.doomed().count(), machine.leaving()), (0, 1));
    }

    fn phase() -> impl Strategy<Value = Phase> {
        prop_oneof![
            Just(Phase::Coming),
            Just(Phase::Survivor),
            Just(Phase::Killed),
            any::<u64>().prop_map(|until_ms| Phase::Canary { until_ms }),
            any::<u64>().prop_map(|since_ms| Phase::Live { since_ms }),
            any::<u64>().prop_map(|since_ms| Phase::Draining { since_ms }),
            any::<u64>().prop_map(|until_ms| Phase::Stopping { until_ms }),
        ]
    }

    proptest! {
        #[test]
        fn whatever_was_written_down_the_service_comes_to_serve(
            phases in prop::collection::vec((1..9_u64, 0..3_usize, phase()), 0..4),
            found in prop::collection::btree_map(1..12_u64, 0..3_usize, 0..4),
            live in prop::option::of(1..12_u64), restart in prop::option::of((0..3_usize, any::<u64>())),
            home in 0..3_usize, crashes: u32, last: u64, served: bool, serial: bool,
        ) {
            let clock = clock();
            let before = Kept { restart, home, crashes, last, served, ..kept(&phases) };
            let found: Vec<_> = found.into_iter().collect();
            let limits = Limits { serial, ..LIMITS };
            let mut machine = Machine::take_up(limits, &before.found(&found, live, clock), clock);
            let (mut now, mut events) = (clock.at, vec![Event::Tick]);
            events.extend(machine.doomed().map(|number| Event::Gone { number, how: "x".into() }));
            for _ in 0..40 {
                let mut next = Vec::new();
                for event in events.drain(..) {
                    for action in machine.handle(event, now) {
                        match action {
                            Action::Start { number, .. } => next.push(Event::Ready { number }),
                            Action::Probe { number, .. } => next.push(Event::Probed { number }),
                            Action::Signal { number } | Action::Kill { number } => {
                                next.push(Event::Gone { number, how: "x".into() });
                            }
                            Action::Exit(end) => prop_assert!(false, "{end:?}"),
                            _ => {}
                        }
                    }
                }
                now = machine.wake_at().map_or(now, |at| at.max(now));
                prop_assert!(now <= clock.at + 40 * (LIMITS.drain + LIMITS.ready + LONGEST_PAUSE));
                next.push(Event::Tick);
                events = next;
            }
            prop_assert!(machine.live().is_some(), "{machine:?}");
        }
    }
}
