//! What the machine does about time, failures and the end: the half of it without a picture.

use std::time::{Duration, Instant};

use super::{Action, GRACE, Generation, MOST_SHARING, Machine, State, Wish};
use crate::upgrade::{Failure, Reason};

impl Machine {
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Action> {
        let due = |one: &&Generation| self.until(one).is_some_and(|until| until <= now);
        let due: Vec<_> =
            self.generations.iter().filter(due).map(|one| (one.number, one.state.clone())).collect();
        let mut actions = Vec::new();
        for (number, state) in due {
            actions.extend(match state {
                State::Settling { .. } => self.settled(number, now),
                State::Canary { .. } => self.go_live(number, now),
                State::Draining { .. } => self.leave(number, now),
                State::Stopping { .. } => {
                    self.turn(number, State::Killed);
                    vec![Action::Kill { number }]
                }
                State::Starting { .. } => self.too_late(number, "did not get ready"),
                State::Probing { .. } => self.too_late(number, "did not pass the probe"),
                _ => vec![],
            });
        }
        if !self.comes()
            && !self.stopping
            && self.is_home_free()
            && let Some((slot, _)) = self.restart.take_if(|(_, at)| *at <= now)
        {
            actions.extend(self.begin(slot, now));
        }
        actions
    }

    pub(super) fn terminate(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        self.stopping = true;
        self.restart = None;
        if self.wish.take().is_some() {
            actions.push(Action::Failed(Failure::new(Reason::Stopped, "the service was told to stop")));
        }
        let all: Vec<_> = self.generations.iter().map(|one| (one.number, one.state.clone())).collect();
        for (number, state) in all {
            if !matches!(state, State::Stopping { .. } | State::Failed(_) | State::Replaced | State::Killed) {
                actions.extend(self.stop(number, self.limits.stop, now));
            }
        }
        actions
    }

    /// What follows from how things are, whatever has happened.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Action> {
        if self.stopping {
            let last = self.generations.is_empty() && !std::mem::replace(&mut self.ended, true);
            return if last { vec![Action::Exit(Ok(()))] } else { vec![] };
        }
        if self.comes() {
            return vec![];
        }
        if let Some(actions) = self.pay(now) {
            return actions;
        }
        if self.wish == Some(Wish::Queued) {
            let home = Some(self.home).filter(|_| self.is_home_free());
            let slot = if self.limits.serial { home } else { self.free_slot() };
            return slot.map_or(vec![], |slot| self.begin_wish(slot, now));
        }
        let has_served = self.serving || self.served_before;
        if has_served && self.live().is_none() && self.restart.is_none() && self.is_home_free() {
            self.restart = Some((self.home, now));
        }
        vec![]
    }

    /// A start that came to nothing; the generation is gone.
    pub(super) fn start_failed(&mut self, gone: &Generation, failure: Failure, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if matches!(gone.state, State::Canary { .. }) {
            actions.extend(self.steer_back());
        }
        if self.stopping {
            return actions;
        }
        let wished = self.wish.take_if(|wish| *wish == Wish::Coming(gone.number)).is_some();
        actions.push(Action::Failed(failure.clone()));
        if !self.serving && !self.served_before && !wished {
            (self.stopping, self.ended) = (true, true);
            actions.push(Action::Exit(Err(failure)));
        } else if self.live().is_none() && self.restart.is_none() && self.is_home_free() {
            let pause = self.pause(false);
            self.restart = Some((self.home, now + pause));
        }
        actions
    }

    /// Whoever asked first did not know all: what has been started makes way, and is started again.
    pub(super) fn asked_again(&mut self) -> Vec<Action> {
        let mut actions = vec![Action::Hold];
        if let Some(Wish::Coming(number)) = self.wish.filter(|_| !self.stopping) {
            actions.push(Action::Kill { number });
            if matches!(self.state(number), Some(State::Canary { .. })) {
                actions.extend(self.steer_back());
            }
            self.turn(number, State::Replaced);
            self.wish = Some(Wish::Queued);
        }
        actions
    }

    /// Whether an upgrade is under way that could begin again.
    pub(crate) fn could_begin_again(&self) -> bool {
        let is_being_killed =
            |number| matches!(self.state(number), Some(State::Failed(_) | State::Killed) | None);
        match self.wish {
            Some(Wish::Coming(number)) => !self.stopping && !is_being_killed(number),
            Some(Wish::Queued) => !self.stopping,
            None => false,
        }
    }

    /// Starts the generation that somebody waits for.
    pub(super) fn begin_wish(&mut self, slot: usize, now: Instant) -> Vec<Action> {
        self.wish = Some(Wish::Coming(self.last + 1));
        self.begin(slot, now)
    }

    /// Starts a generation in this slot.
    pub(super) fn begin(&mut self, slot: usize, now: Instant) -> Vec<Action> {
        self.last += 1;
        self.owed.retain(|owed| *owed != slot);
        let state = State::Starting { until: now + self.limits.ready };
        self.generations.push(Generation { number: self.last, slot, state });
        vec![Action::Start { number: self.last, slot }]
    }

    /// Has what is new wait for the next generation, where there is another slot to wait in; the live one
    /// finishes what it has begun, and stops.
    pub(super) fn hold_back(&mut self, number: u64, now: Instant) -> Vec<Action> {
        let Some(slot) = self.free_slot().filter(|_| self.limits.slots > 1) else {
            return self.leave(number, now);
        };
        self.home = slot;
        self.turn(number, State::Draining { since: now });
        vec![Action::Steer { slot, but: None }]
    }

    /// How long a generation may drain.
    pub(super) fn drain(&self) -> Duration {
        if self.limits.serial { self.limits.drain.min(GRACE) } else { self.limits.drain }
    }

    /// It has drained. Under serial that was for moments, and it may take its time for the rest.
    pub(super) fn leave(&mut self, number: u64, now: Instant) -> Vec<Action> {
        let patience = if self.limits.serial { self.limits.drain } else { self.limits.stop };
        self.stop(number, patience, now)
    }

    /// Sends it its signal.
    pub(super) fn stop(&mut self, number: u64, patience: Duration, now: Instant) -> Vec<Action> {
        self.turn(number, State::Stopping { until: now + patience });
        vec![Action::Signal { number }]
    }

    fn too_late(&mut self, number: u64, what: &str) -> Vec<Action> {
        let limit = self.limits.ready.as_secs_f64();
        let detail = format!("the new program {what} within {limit} s");
        self.give_up(number, Failure::new(Reason::NeverReady, detail))
    }

    /// Kills a generation that does not serve yet; the rest follows when it is gone.
    pub(super) fn give_up(&mut self, number: u64, failure: Failure) -> Vec<Action> {
        let mut actions = vec![Action::Kill { number }];
        if matches!(self.state(number), Some(State::Canary { .. })) {
            actions.extend(self.steer_back());
        }
        self.turn(number, State::Failed(failure));
        actions
    }

    /// All new connections to the live generation, or to where it will be.
    fn steer_back(&self) -> Option<Action> {
        let slot = self.live().map(|(_, slot)| slot).or_else(|| self.restart.map(|(slot, _)| slot))?;
        Some(Action::Steer { slot, but: None })
    }

    /// Whether a generation is under way that does not serve yet.
    pub(super) fn comes(&self) -> bool {
        let comes = |one: &Generation| {
            matches!(
                one.state,
                State::Starting { .. }
                    | State::Probing { .. }
                    | State::Settling { .. }
                    | State::Canary { .. }
                    | State::Failed(_)
                    | State::Replaced
            )
        };
        self.generations.iter().any(comes)
    }

    /// Whether nobody is in the slot that new connections go to, or anywhere if there can be but one.
    pub(super) fn is_home_free(&self) -> bool {
        if self.limits.serial {
            return self.generations.is_empty();
        }
        self.limits.slots < 2 || self.generations.iter().all(|one| one.slot != self.home)
    }

    pub(super) fn free_slot(&self) -> Option<usize> {
        if self.limits.slots < 2 {
            return (self.generations.len() < MOST_SHARING).then_some(0);
        }
        let is_free = |slot: &usize| self.taken().all(|taken| taken != *slot);
        self.owed.iter().copied().find(is_free).or_else(|| (0..self.limits.slots).find(is_free))
    }

    pub(super) fn find(&mut self, number: u64) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|one| one.number == number)
    }

    pub(super) fn state(&self, number: u64) -> Option<&State> {
        self.generations.iter().find(|one| one.number == number).map(|one| &one.state)
    }

    pub(super) fn turn(&mut self, number: u64, state: State) {
        if let Some(one) = self.find(number) {
            one.state = state;
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Generation> {
        let place = self.generations.iter().position(|one| one.number == number)?;
        Some(self.generations.remove(place))
    }
}
