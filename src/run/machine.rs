//! The machine of the runner: which generation lives, which one comes, which ones leave. Events in,
//! actions out.
//!
//! ```text
//!            Ready           Probed                    the time is up
//!  Starting ------> Probing --------> Settling -> Canary ------> Live ------> Draining ------> Stopping ---> gone
//!     |   `-- without --probe --^          `-- none --^  a newer one |   is Empty, or   |  signalled  |
//!     |                   |                |         |   is Live    |   the time is up |             |
//!     |                   |                |         |              |                  |             v
//!     +-------------------+----------------+---------+              | Gone: crashed    +-- time -> Killed
//!     | Gone, the time is up, the caller has gone, ProbeFailed  v
//!     v                                              started again in its slot, later and later
//!   Failed: killed, and whoever asked is told why
//! ```
//!
//! New connections go to the slot of the one that is `Live` until another one is: a generation that
//! fails was never seen by a client, but for the share that a canary has. A crash moves nothing: what
//! comes waits in the queue of the slot, for the next generation in it.
//!
//! One upgrade is under way at a time, and whoever asked is answered exactly once. A start that is
//! nobody's wish (the first, or after a crash) is an upgrade without an asker. It never does anything
//! itself: no process, no socket, no clock; the time comes in with each event.

mod kept;
mod owed;
mod steps;
#[cfg(test)]
mod tests;
mod words;

use std::time::{Duration, Instant};

#[cfg(test)]
pub(crate) use self::kept::KeptGeneration;
pub(crate) use self::kept::{Clock, Kept, Phase};
pub(crate) use self::words::{Action, Event, Limits, OnBusy};
use self::words::{Generation, State};
use crate::upgrade::{Failure, Reason};

/// The first pause after a crash; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause after a crash.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who has lived so long has not crashed again, but for the first time.
const STABLE: Duration = Duration::from_secs(10);

/// Under serial, how long clients wait at most for what the old generation has begun, before it is stopped.
const GRACE: Duration = Duration::from_millis(300);

/// Most generations on one shared listener.
const MOST_SHARING: usize = 4;

/// How far the upgrade is that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// It waits for a slot.
    Queued,
    /// It is this generation.
    Coming(u64),
}

/// See the picture above.
#[derive(Debug)]
pub(crate) struct Machine {
    limits: Limits,
    generations: Vec<Generation>,
    last: u64,
    wish: Option<Wish>,
    /// In which slot to start the program again, and when.
    restart: Option<(usize, Instant)>,
    /// Where new connections go.
    home: usize,
    /// See [`Machine::owe`].
    owed: Vec<usize>,
    crashes: u32,
    serving: bool,
    /// A runner before this one was ready once: no failure of a start is the end.
    served_before: bool,
    stopping: bool,
    ended: bool,
}

impl Machine {
    /// A runner that will start its first generation in `slot` at the first [`Event::Tick`]. `survivors`
    /// are generations of a runner before it, with their slots; one in `slot` drains first.
    pub(crate) fn new(limits: Limits, slot: usize, survivors: &[(u64, usize)], now: Instant) -> Self {
        let survivor = |&(number, at): &(u64, usize)| {
            let state = if Self::must_make_room(limits, slot, at) {
                State::Draining { since: now }
            } else {
                State::Survivor
            };
            Generation { number, slot: at, state }
        };
        Self {
            limits,
            generations: survivors.iter().map(survivor).collect(),
            last: survivors.iter().map(|(number, _)| *number).max().unwrap_or(0),
            wish: None,
            restart: Some((slot, now)),
            home: slot,
            owed: Vec::new(),
            crashes: 0,
            serving: false,
            served_before: false,
            stopping: false,
            ended: false,
        }
    }

    /// Whether somebody in the slot `at` is in the way of the first generation, in the slot `home`.
    fn must_make_room(limits: Limits, home: usize, at: usize) -> bool {
        limits.serial || at == home && limits.slots > 1
    }

    /// Where new connections go.
    pub(crate) fn home(&self) -> usize {
        self.home
    }

    /// The number and the slot of the live generation.
    pub(crate) fn live(&self) -> Option<(u64, usize)> {
        let live = self.generations.iter().find(|one| matches!(one.state, State::Live { .. }))?;
        Some((live.number, live.slot))
    }

    /// Whether the service was ready once.
    pub(crate) fn has_served(&self) -> bool {
        self.serving
    }

    /// Whether this generation has not said yet that it is ready.
    pub(crate) fn starts(&self, number: u64) -> bool {
        matches!(self.state(number), Some(State::Starting { .. }))
    }

    /// Whether a share of the clients is its.
    pub(crate) fn is_canary(&self, number: u64) -> bool {
        matches!(self.state(number), Some(State::Canary { .. }))
    }

    /// Whether a generation is looked for that begins to wait on its sockets.
    pub(crate) fn hurries(&self) -> bool {
        self.generations.iter().any(|one| matches!(one.state, State::Starting { .. }))
    }

    /// Those of which it matters whether they are empty.
    pub(crate) fn draining(&self) -> impl Iterator<Item = u64> {
        self.generations
            .iter()
            .filter(|one| matches!(one.state, State::Draining { .. }))
            .map(|one| one.number)
    }

    /// How many have served and leave.
    pub(crate) fn leaving(&self) -> usize {
        self.generations.iter().filter(|one| one.leaves()).count()
    }

    /// Those, the oldest first, with the time that each has left.
    pub(crate) fn those_who_leave(&self, now: Instant) -> Vec<(u64, Duration)> {
        let left =
            |one: &Generation| self.until(one).map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        self.generations.iter().filter(|one| one.leaves()).map(|one| (one.number, left(one))).collect()
    }

    /// Whether what is new waits in a slot in which no generation is yet.
    pub(crate) fn is_held_back(&self) -> bool {
        let is_free = || self.generations.iter().all(|one| one.slot != self.home);
        self.limits.serial && self.wish == Some(Wish::Queued) && is_free()
    }

    /// The slots in which something runs or will run.
    pub(crate) fn taken(&self) -> impl Iterator<Item = usize> {
        let held_back = Some(self.home).filter(|_| self.is_held_back());
        let coming = self.restart.map(|(slot, _)| slot).or(held_back);
        self.generations.iter().map(|one| one.slot).chain(coming)
    }

    /// When [`Event::Tick`] is due at the latest, whatever else happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let restart = self.restart.filter(|_| !self.comes() && self.is_home_free()).map(|(_, at)| at);
        self.generations.iter().filter_map(|one| self.until(one)).chain(restart).min()
    }

    fn until(&self, one: &Generation) -> Option<Instant> {
        match one.state {
            State::Starting { until }
            | State::Probing { until }
            | State::Settling { until }
            | State::Canary { until }
            | State::Stopping { until } => Some(until),
            State::Draining { since } => Some(since + self.drain()),
            State::Survivor | State::Live { .. } | State::Failed(_) | State::Replaced | State::Killed => None,
        }
    }

    /// Takes an event in and gives out what is to be done about it.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = self.react(event, now);
        actions.extend(self.settle(now));
        actions
    }

    fn react(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Asked => self.asked(now),
            Event::AskedAgain => self.asked_again(),
            Event::CallerGone => self.caller_gone(),
            Event::StartFailed { number, failure } => {
                let gone = self.remove(number);
                gone.map_or(vec![], |gone| self.start_failed(&gone, failure, now))
            }
            Event::Ready { number } => self.ready(number, now),
            Event::Probed { number } => match self.state(number) {
                Some(State::Probing { .. }) => self.proven(number, now),
                _ => vec![],
            },
            Event::ProbeFailed { number, why } => match self.state(number) {
                Some(State::Canary { .. }) => self.give_up(number, Failure::new(Reason::Probe, why)),
                _ => vec![],
            },
            Event::Empty { number } => match self.state(number) {
                Some(State::Draining { since })
                    if self.limits.serial || now >= *since + self.limits.linger =>
                {
                    self.leave(number, now)
                }
                _ => vec![],
            },
            Event::Gone { number, how } => self.gone(number, how, now),
            Event::Terminate => self.terminate(now),
            Event::Tick => self.tick(now),
        }
    }

    fn asked(&mut self, now: Instant) -> Vec<Action> {
        let refuse = |reason, detail: &str| vec![Action::Refuse(Failure::new(reason, detail))];
        if self.stopping {
            return refuse(Reason::Ending, "the service is stopping");
        }
        if self.wish.is_some() || self.comes() || (self.restart.is_some() && !self.is_home_free()) {
            return refuse(Reason::UnderWay, "another start of the program is under way; wait for its end");
        }
        if let Some((slot, _)) = self.restart.take() {
            return [vec![Action::Hold], self.begin_wish(slot, now)].concat();
        }
        if let (true, Some((number, _))) = (self.limits.serial, self.live()) {
            self.wish = Some(Wish::Queued);
            return [vec![Action::Hold], self.hold_back(number, now)].concat();
        }
        if self.free_slot().is_some() {
            self.wish = Some(Wish::Queued);
            return vec![Action::Hold];
        }
        let many = format!("{} older generations still drain, and every slot is taken", self.leaving());
        match self.limits.on_busy {
            OnBusy::Refuse => {
                let detail = format!("{many}: repeat the ListenStream= lines once more, or wait");
                refuse(Reason::TooManyDraining, &detail)
            }
            OnBusy::Wait => {
                self.wish = Some(Wish::Queued);
                vec![Action::Hold]
            }
            OnBusy::KillOldest => {
                self.wish = Some(Wish::Queued);
                let oldest = self.generations.iter_mut().find(|one| !matches!(one.state, State::Live { .. }));
                let killed = oldest.map(|oldest| {
                    oldest.state = State::Killed;
                    Action::Kill { number: oldest.number }
                });
                [Action::Hold].into_iter().chain(killed).collect()
            }
        }
    }

    fn caller_gone(&mut self) -> Vec<Action> {
        match self.wish.take() {
            Some(Wish::Coming(number)) => self.give_up(number, Failure::helper_lost()),
            Some(Wish::Queued) => vec![Action::Failed(Failure::helper_lost())],
            None => vec![],
        }
    }

    fn ready(&mut self, number: u64, now: Instant) -> Vec<Action> {
        let probe = self.limits.probe && self.limits.slots > 1;
        match self.find(number) {
            Some(Generation { state: state @ State::Starting { .. }, slot, .. }) if probe => {
                if let State::Starting { until } = *state {
                    *state = State::Probing { until };
                }
                vec![Action::Probe { number, slot: *slot }]
            }
            Some(Generation { state: State::Starting { .. }, .. }) => self.proven(number, now),
            _ => vec![],
        }
    }

    /// It could serve. While another one does, it need not do so at once.
    fn proven(&mut self, number: u64, now: Instant) -> Vec<Action> {
        if self.live().is_some() && !self.limits.settle.is_zero() {
            self.turn(number, State::Settling { until: now + self.limits.settle });
            return vec![];
        }
        self.settled(number, now)
    }

    /// It gets a share of the clients, or all of them.
    fn settled(&mut self, number: u64, now: Instant) -> Vec<Action> {
        let live = self.live().filter(|_| self.wish == Some(Wish::Coming(number)) && self.limits.slots > 1);
        match (self.limits.canary, live, self.find(number)) {
            (Some((share, time)), Some((_, to)), Some(one)) => {
                one.state = State::Canary { until: now + time };
                let slot = one.slot;
                let mut actions = vec![Action::Steer { slot: to, but: Some((slot, share)) }];
                actions.extend(self.limits.probe.then_some(Action::Probe { number, slot }));
                actions
            }
            _ => self.go_live(number, now),
        }
    }

    fn go_live(&mut self, number: u64, now: Instant) -> Vec<Action> {
        let Some(slot) = self.find(number).map(|one| one.slot) else { return vec![] };
        let mut actions = vec![Action::Steer { slot, but: None }];
        let retires = |one: &&Generation| matches!(one.state, State::Live { .. } | State::Survivor);
        let old: Vec<_> = self.generations.iter().filter(retires).map(|one| one.number).collect();
        if let Some(one) = self.find(number) {
            one.state = State::Live { since: now };
        }
        (self.restart, self.home) = (None, slot);
        if !std::mem::replace(&mut self.serving, true) {
            actions.push(Action::Serving { number });
        }
        if self.wish.take_if(|wish| *wish == Wish::Coming(number)).is_some() {
            actions.push(Action::Switched { number });
        }
        for number in old {
            if self.limits.signal_first || self.limits.slots < 2 {
                actions.extend(self.stop(number, self.limits.drain, now));
            } else if let Some(one) = self.find(number) {
                one.state = State::Draining { since: now };
            }
        }
        actions
    }

    fn gone(&mut self, number: u64, how: String, now: Instant) -> Vec<Action> {
        let Some(gone) = self.remove(number) else { return vec![] };
        match gone.state.clone() {
            State::Failed(failure) => self.start_failed(&gone, failure, now),
            State::Starting { .. }
            | State::Probing { .. }
            | State::Settling { .. }
            | State::Canary { .. } => {
                let detail =
                    format!("the new program {how} before it served; its last words are in the journal");
                self.start_failed(&gone, Failure::new(Reason::Exited, detail), now)
            }
            State::Live { since } => self.crashed(gone.slot, how, since, now),
            State::Survivor | State::Draining { .. } | State::Stopping { .. } => {
                vec![Action::Retired { number, cut: false }]
            }
            State::Killed => vec![Action::Retired { number, cut: true }],
            State::Replaced => vec![],
        }
    }

    fn crashed(&mut self, slot: usize, how: String, since: Instant, now: Instant) -> Vec<Action> {
        if self.stopping {
            return vec![];
        }
        let pause = self.pause(now.saturating_duration_since(since) >= STABLE);
        self.restart = Some((slot, now + pause));
        let mut actions = vec![Action::Crashed { how, pause }];
        // Who has passed everything but its time is better than nobody.
        let passed = |one: &&Generation| matches!(one.state, State::Settling { .. } | State::Canary { .. });
        let canary = self.generations.iter().find(passed);
        if let Some(number) = canary.map(|one| one.number) {
            actions.extend(self.go_live(number, now));
        }
        actions
    }

    /// How long to wait before the next start after a crash.
    fn pause(&mut self, stable: bool) -> Duration {
        self.crashes = if stable { 0 } else { self.crashes.saturating_add(1) };
        FIRST_PAUSE.saturating_mul(1 << self.crashes.min(10)).min(LONGEST_PAUSE)
    }
}
