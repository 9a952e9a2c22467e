//! A span of time as people and systemd.time(7) write it: `90`, `90s`, `2min`, `1h 30min`, `infinity`.

use std::time::Duration;

/// The units, the same words as systemd's.
const UNITS: [(&str, u64); 15] = [
    ("us", 1),
    ("usec", 1),
    ("ms", 1_000),
    ("msec", 1_000),
    ("", 1_000_000),
    ("s", 1_000_000),
    ("sec", 1_000_000),
    ("seconds", 1_000_000),
    ("m", 60_000_000),
    ("min", 60_000_000),
    ("minutes", 60_000_000),
    ("h", 3_600_000_000),
    ("hours", 3_600_000_000),
    ("d", 86_400_000_000),
    ("days", 86_400_000_000),
];

/// How long to wait; `None` in it is `infinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timespan(pub(crate) Option<Duration>);

impl std::str::FromStr for Timespan {
    type Err = String;

    /// Reads a sum of whole numbers with units; a number without one is seconds.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no span of time: write 90, 90s, 2min, 1h 30min or infinity");
        let mut rest = text.trim();
        if rest == "infinity" {
            return Ok(Self(None));
        }
        let mut sum: Option<u64> = None;
        while !rest.is_empty() {
            let (number, after) = split(rest, |c| c.is_ascii_digit());
            let (word, after) = split(after.trim_start(), |c| c.is_ascii_alphabetic());
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let (_, usec) = UNITS.iter().find(|(unit, _)| *unit == word).ok_or_else(wrong)?;
            let part = number.checked_mul(*usec).ok_or_else(wrong)?;
            sum = Some(sum.unwrap_or(0).checked_add(part).ok_or_else(wrong)?);
            rest = after.trim_start();
        }
        sum.map(|usec| Self(Some(Duration::from_micros(usec)))).ok_or_else(wrong)
    }
}

/// Splits `text` after the longest beginning of characters that are `of` a kind.
fn split(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !of(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Timespan> {
        text.parse().ok()
    }

    #[test]
    fn a_span_is_a_sum_of_numbers_with_units_and_a_bare_number_is_seconds() {
        let seconds = |s| Some(Timespan(Some(Duration::from_secs(s))));
        assert_eq!(read("90"), seconds(90));
        assert_eq!(read("90s"), seconds(90));
        assert_eq!(read("2min"), seconds(120));
        assert_eq!(read(" 1h 30 min"), seconds(5400));
        assert_eq!(read("1h30min"), seconds(5400));
        assert_eq!(read("1500ms"), Some(Timespan(Some(Duration::from_millis(1500)))));
        assert_eq!(read("0"), seconds(0));
        assert_eq!(read("infinity"), Some(Timespan(None)));
    }

    #[test]
    fn what_is_no_span_is_refused_with_examples_of_one() {
        for text in ["", " ", "s", "-1", "1.5s", "5 parsecs", "2min infinity", "18446744073709551615", "1s,"]
        {
            let error = text.parse::<Timespan>().unwrap_err();
            assert!(error.contains("write 90, 90s"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = read(&text);
        }

        #[test]
        fn every_unit_counts(number in 0..1_000_000_u64, at in 0..UNITS.len()) {
            let (unit, usec) = UNITS[at];
            let span = Timespan(Some(Duration::from_micros(number * usec)));
            proptest::prop_assert_eq!(read(&format!("{number}{unit}")), Some(span));
        }
    }
}
