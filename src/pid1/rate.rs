//! So many times in an interval, no more: StartLimitIntervalSec=, TriggerLimitIntervalSec=. Pure.

use crate::unit::RateLimit;

/// Counts what is limited. All times are microseconds of one clock.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    begun: Option<u64>,
    count: u32,
}

impl Rate {
    /// Whether it may happen once more `now`. The interval begins with the first time and is not a
    /// sliding one, as PID 1 has it.
    pub(crate) fn allows(&mut self, limit: RateLimit, now: u64) -> bool {
        if limit.is_off() {
            return true;
        }
        let over = |begun: u64| {
            limit.interval.is_some_and(|span| u128::from(now - begun.min(now)) > span.as_micros())
        };
        if self.begun.is_none_or(over) {
            *self = Self { begun: Some(now), count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= limit.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limit(seconds: u64, burst: u32) -> RateLimit {
        RateLimit { interval: Some(Duration::from_secs(seconds)), burst }
    }

    #[test]
    fn so_often_and_no_more_until_the_interval_is_over() {
        let mut rate = Rate::default();
        let tried: Vec<_> = (0..4).map(|at| rate.allows(limit(10, 2), at)).collect();
        assert_eq!(tried, [true, true, false, false]);
        assert!(!rate.allows(limit(10, 2), 10_000_000));
        assert!(rate.allows(limit(10, 2), 10_000_001));
    }

    #[test]
    fn zero_turns_it_off() {
        let mut rate = Rate::default();
        assert!((0..100).all(|at| rate.allows(limit(0, 2), at) && rate.allows(limit(10, 0), at)));
    }
}
