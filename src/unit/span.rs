//! Spans of time, see systemd.time(7): `90`, `1.5s`, `2min 30s`, `infinity`.

use std::time::Duration;

use super::text::WHITESPACE;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// systemd's year has 365.25 days, its month is a twelfth of it.
const YEAR: u64 = 365 * DAY + DAY / 4;

/// The units in microseconds; where one begins with another one, the longer stands first.
const UNITS: [(&str, u64); 30] = [
    ("seconds", SECOND),
    ("second", SECOND),
    ("sec", SECOND),
    ("s", SECOND),
    ("minutes", MINUTE),
    ("minute", MINUTE),
    ("min", MINUTE),
    ("months", YEAR / 12),
    ("month", YEAR / 12),
    ("M", YEAR / 12),
    ("msec", 1_000),
    ("ms", 1_000),
    ("m", MINUTE),
    ("hours", HOUR),
    ("hour", HOUR),
    ("hr", HOUR),
    ("h", HOUR),
    ("days", DAY),
    ("day", DAY),
    ("d", DAY),
    ("weeks", 7 * DAY),
    ("week", 7 * DAY),
    ("w", 7 * DAY),
    ("years", YEAR),
    ("year", YEAR),
    ("y", YEAR),
    ("usec", 1),
    ("us", 1),
    ("\u{3bc}s", 1),
    ("\u{b5}s", 1),
];

/// Reads a span; None in it is infinity. A number without a unit is seconds.
///
/// Errors: what would have been a span, for people.
pub(crate) fn read(text: &str) -> Result<Option<Duration>, String> {
    microseconds(text, SECOND).map(|span| span.map(Duration::from_micros))
}

/// Reads a span in microseconds; a number without a unit is so many `unit`s.
pub(super) fn microseconds(text: &str, unit: u64) -> Result<Option<u64>, String> {
    let text = text.trim_matches(WHITESPACE);
    if text == "infinity" {
        return Ok(None);
    }
    let wrong = || format!("{text:?} is no span of time: write 90, 90s, 2min, 1h 30min or infinity");
    let (mut sum, mut rest) = (0, text);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (part, after) = part(rest, unit).ok_or_else(wrong)?;
        // The last value is systemd's own infinity.
        sum = u64::checked_add(sum, part).filter(|sum| *sum < u64::MAX).ok_or_else(wrong)?;
        rest = after.trim_start_matches(WHITESPACE);
    }
    Ok(Some(sum))
}

/// One number with its unit, and what follows.
fn part(text: &str, default_unit: u64) -> Option<(u64, &str)> {
    let (whole, after) = digits(text.strip_prefix('+').unwrap_or(text));
    let (fraction, after) = match after.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", after),
    };
    let point = text.len() - after.len() > fraction.len() && text[..text.len() - after.len()].contains('.');
    if whole.is_empty() && !point || point && fraction.is_empty() {
        return None;
    }
    let word = after.trim_start_matches(WHITESPACE);
    let named = UNITS.iter().find_map(|(name, unit)| Some((*unit, word.strip_prefix(name)?)));
    // "12.34.56" is no sum, "12.34 .56" and "1 2" are.
    if named.is_none() && word == after && !word.is_empty() {
        return None;
    }
    let (unit, rest) = named.unwrap_or((default_unit, word));
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()?.unsigned_abs() };
    let mut part = whole.checked_mul(unit)?;
    let mut worth = unit;
    for digit in fraction.bytes() {
        worth /= 10;
        part = part.checked_add(u64::from(digit - b'0') * worth)?;
    }
    Some((part, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_span_is_a_sum_of_numbers_with_units_and_a_bare_number_is_seconds() {
        let cases = [
            ("90", 90_000),
            (" 2min 30s ", 150_000),
            ("2m30", 150_000),
            ("1h30min", 5_400_000),
            ("1.5s", 1_500),
            (".5", 500),
            ("500ms", 500),
            ("1 2", 3_000),
            ("12.34 .56", 12_900),
            ("+5", 5_000),
            ("1M", 2_629_800_000),
            ("1 week 2days", 777_600_000),
            ("0", 0),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(read(text), Ok(Some(Duration::from_millis(milliseconds))), "{text}");
        }
        assert_eq!(read(" infinity "), Ok(None));
        assert_eq!(read("7\u{b5}s"), Ok(Some(Duration::from_micros(7))));
    }

    #[test]
    fn what_is_no_span_is_refused_with_examples_of_one() {
        let wrong = [
            "",
            " ",
            "s",
            "-1",
            "-0",
            "5 parsecs",
            "2min infinity",
            "1s,",
            "1.s",
            "1.",
            "12.34.56",
            ".",
            "3.+1",
            "18446744073709551615",
            "9223372036854775807y",
        ];
        for text in wrong {
            let error = read(text).unwrap_err();
            assert!(error.contains("write 90, 90s"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*", near in "[0-9. +smhdwyM\u{b5}]{0,20}") {
            let _ = (read(&text), read(&near));
        }

        #[test]
        fn every_unit_counts(number in 0..500_000_u64, at in 0..UNITS.len()) {
            let (unit, usec) = UNITS[at];
            let span = Duration::from_micros(number * usec);
            prop_assert_eq!(read(&format!("{number}{unit}")), Ok(Some(span)));
            prop_assert_eq!(read(&format!("{number} {unit} 0")), Ok(Some(span)));
        }
    }
}
