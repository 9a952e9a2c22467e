//! The one clock: CLOCK_MONOTONIC in microseconds, as MONOTONIC_USEC= of sd_notify(3) counts.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Now.
pub(crate) fn now() -> u64 {
    // A clock that every kernel has does not fail.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}
