//! Slots in which datagrams wait since before the first steering. Nobody but a generation there can take them
//! with the addresses that they came from. So one is started in each, one after the other, and takes its turn as
//! at an upgrade: what waits is served, by a program that is asked for nothing that it is not asked for anyway.

use std::time::Instant;

use super::{Action, Machine, Wish};

impl Machine {
    /// Something waits in these slots that only a generation there can serve.
    pub(crate) fn owe(&mut self, slots: impl Iterator<Item = usize>) {
        self.owed = slots.filter(|slot| *slot != self.home).collect();
    }

    /// Those in which none has been yet.
    pub(crate) fn owed(&self) -> &[usize] {
        &self.owed
    }

    /// Begins with the next of them, if nothing else is to be done.
    pub(super) fn pay(&mut self, now: Instant) -> Option<Vec<Action>> {
        if self.owed.is_empty() || self.wish.is_some() {
            return None;
        }
        let (live, _) = self.live()?;
        let slot = self.free_slot().filter(|slot| self.owed.contains(slot))?;
        if self.limits.serial {
            // As if somebody had asked; nobody hears the answer.
            self.wish = Some(Wish::Queued);
            return Some(self.hold_back(live, now));
        }
        Some(self.begin(slot, now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::run::machine::kept::Clock;
    use crate::run::machine::{Event, Limits, OnBusy};
    use crate::upgrade::{Failure, Reason};

    /// A first generation that is ready, where something waits in the other two slots; and what it did then.
    fn owing(serial: bool) -> (Machine, Vec<Action>, Instant) {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let limits = Limits {
            slots: 3,
            ready: second,
            settle: Duration::ZERO,
            drain: second,
            stop: second,
            linger: Duration::ZERO,
            probe: false,
            canary: Some((10, second)),
            on_busy: OnBusy::Wait,
            signal_first: false,
            serial,
        };
        let mut machine = Machine::new(limits, 1, &[], now);
        machine.owe(0..3);
        assert_eq!(machine.owed(), [0, 2]);
        assert_eq!(machine.handle(Event::Tick, now), [Action::Start { number: 1, slot: 1 }]);
        let actions = machine.handle(Event::Ready { number: 1 }, now);
        (machine, actions, now)
    }

    fn everybody_to(slot: usize) -> Action {
        Action::Steer { slot, but: None }
    }

    fn gone(number: u64) -> Event {
        Event::Gone { number, how: "ended".into() }
    }

    #[test]
    fn a_generation_takes_its_turn_in_each_slot_in_which_something_waits() {
        let (mut machine, actions, now) = owing(false);
        let wanted = [everybody_to(1), Action::Serving { number: 1 }, Action::Start { number: 2, slot: 0 }];
        assert_eq!(actions, wanted);
        let actions = machine.handle(Event::Ready { number: 2 }, now);
        assert_eq!(
            actions,
            [everybody_to(0), Action::Start { number: 3, slot: 2 }],
            "no canary: nobody asked"
        );
        assert_eq!(machine.handle(Event::Ready { number: 3 }, now), [everybody_to(2)]);
        assert_eq!(machine.draining().collect::<Vec<_>>(), [1, 2]);
        assert!(machine.owed().is_empty() && machine.keep(Clock { at: now, ms: 0 }).is_some());
    }

    #[test]
    fn one_that_does_not_start_is_not_tried_again() {
        let (mut machine, _, now) = owing(false);
        let failure = Failure::new(Reason::Exec, "x");
        let actions = machine.handle(Event::StartFailed { number: 2, failure: failure.clone() }, now);
        assert_eq!(actions, [Action::Failed(failure), Action::Start { number: 3, slot: 2 }]);
        assert_eq!(machine.live(), Some((1, 1)));
    }

    #[test]
    fn under_serial_there_is_one_at_a_time() {
        let (mut machine, actions, now) = owing(true);
        assert_eq!(actions, [everybody_to(1), Action::Serving { number: 1 }, everybody_to(0)]);
        assert!(machine.is_held_back());
        assert_eq!(machine.handle(Event::Empty { number: 1 }, now), [Action::Signal { number: 1 }]);
        let actions = machine.handle(gone(1), now);
        assert_eq!(actions[1..], [Action::Start { number: 2, slot: 0 }]);
        let actions = machine.handle(Event::Ready { number: 2 }, now);
        assert_eq!(actions, [everybody_to(0), Action::Switched { number: 2 }, everybody_to(2)]);
    }
}
