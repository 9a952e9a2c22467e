//! A span of time as people and systemd.time(7) write it: `90`, `90s`, `2min`, `1h 30min`, `infinity`.

use std::time::Duration;

use crate::unit::span;

/// How long to wait; `None` in it is `infinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timespan(pub(crate) Option<Duration>);

impl std::str::FromStr for Timespan {
    type Err = String;

    /// Reads a sum of numbers with units; a number without one is seconds.
    fn from_str(text: &str) -> Result<Self, String> {
        span::read(text).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_in_a_unit_file_and_refused_with_examples_of_one() {
        let read = |text: &str| text.parse::<Timespan>();
        assert_eq!(read("1h 30min"), Ok(Timespan(Some(Duration::from_secs(5400)))));
        assert_eq!(read("infinity"), Ok(Timespan(None)));
        assert!(read("5 parsecs").unwrap_err().contains("write 90, 90s"));
    }
}
