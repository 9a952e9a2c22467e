//! The course of the show: what happened when, and whether all was as it should be.
//!
//! Pure: it is what the summary, the JSON object and the picture are made from.

use std::time::Duration;

use super::book::{Book, median_and_longest};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Event {
    /// Since the show began; where it took time, when it was begun.
    pub(super) at: Duration,
    pub(super) what: What,
}

/// What it was.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// The service answers everybody; the first answer came so long after the stand-in was started.
    Started { pid: u32, took: Duration },
    /// It was upgraded.
    Upgraded { number: usize, old: u32, new: u32, took: Duration, longest_wait: Duration },
    /// It could not be upgraded to a version that crashes.
    Failed { serving: u32, reason: String, words: String, took: Duration, longest_wait: Duration },
    /// It was killed; for `silence` nobody answered, and visitors stood aside for `aside`.
    Killed { old: u32, new: u32, silence: Duration, aside: Duration },
    /// It was stopped.
    Stopped { took: Duration },
}

/// A show that is over.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) events: Vec<Event>,
    pub(super) book: Book,
    /// How long it was.
    pub(super) took: Duration,
    /// Why it did not get to its end, or not as it should.
    pub(super) trouble: Option<String>,
}

impl Course {
    /// Whether nothing was lost, and all that was to happen did.
    pub(super) fn went_well(&self) -> bool {
        self.trouble.is_none() && self.book.losses() == 0
    }

    /// How long the upgrades took that were to take place.
    pub(super) fn switches(&self) -> Vec<Duration> {
        let took = |event: &Event| match event.what {
            What::Upgraded { took, .. } => Some(took),
            _ => None,
        };
        self.events.iter().filter_map(took).collect()
    }

    /// The middle and the longest of these.
    pub(super) fn switch(&self) -> Option<(Duration, Duration)> {
        median_and_longest(self.switches())
    }

    /// How many upgrades failed, as they should.
    pub(super) fn failed(&self) -> usize {
        self.events.iter().filter(|event| matches!(event.what, What::Failed { .. })).count()
    }

    /// How many kills there were.
    pub(super) fn kills(&self) -> usize {
        self.events.iter().filter(|event| matches!(event.what, What::Killed { .. })).count()
    }
}

/// A show for the tests of those who tell of it: two upgrades, one that fails, a kill.
#[cfg(test)]
pub(super) fn sample() -> Course {
    use super::book::{Client, Served};
    let ms = Duration::from_millis;
    let mut book = Book::new(4);
    let serves = |at: u64| match at {
        0..1000 => Some(4711),
        1000..2000 => Some(4720),
        2000..3000 => Some(4731),
        3000..3120 => None,
        _ => Some(4740),
    };
    for at in (0..4000).step_by(2) {
        if at == 3000 {
            book.killed(4731, ms(at));
        }
        let number = (at / 2 % 4) as usize;
        if let Some(pid) = serves(at) {
            let (client, asked) = (Client::Session(number), ms(at.saturating_sub(1 + at % 3)));
            book.served(Served { client, pid, asked, answered: ms(at), works: false });
        }
    }
    (0..4).for_each(|_| book.connected());
    let upgraded = |number, old, new| What::Upgraded { number, old, new, took: ms(18), longest_wait: ms(2) };
    let failed = What::Failed {
        serving: 4731,
        reason: "successor-exited".into(),
        words: "it was killed by SIGABRT <&\"'>".into(),
        took: ms(9),
        longest_wait: ms(1),
    };
    let events = [
        (0, What::Started { pid: 4711, took: ms(40) }),
        (1000, upgraded(1, 4711, 4720)),
        (2000, upgraded(2, 4720, 4731)),
        (2500, failed),
        (3000, What::Killed { old: 4731, new: 4740, silence: ms(120), aside: ms(1) }),
        (4000, What::Stopped { took: ms(5) }),
    ];
    let events = events.map(|(at, what)| Event { at: ms(at), what }).into();
    Course { events, book, took: ms(4005), trouble: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::book::{Client, Loss};

    #[test]
    fn a_show_went_well_if_nothing_was_lost_and_nothing_is_missing() {
        let mut course = sample();
        assert!(course.went_well());
        assert_eq!((course.switches().len(), course.failed(), course.kills()), (2, 1, 1));
        course.trouble = Some("the stand-in ended".into());
        assert!(!course.went_well());
        let mut course = sample();
        course.book.lost(Loss { at: Duration::ZERO, client: Client::Session(1), words: "reset".into() });
        assert!(!course.went_well());
    }
}
