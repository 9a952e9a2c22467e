//! Single values: booleans, numbers, sizes, modes, statuses. Each function says what it wanted.

use super::Limit;
use super::exec::Resource;
use super::span;
use super::text::WHITESPACE;

/// A value, or what was wanted instead.
pub(super) type Value<T> = Result<T, String>;

/// `yes`, `true`, `on`, `1`, `y`, `t` and their opposites, in any case.
pub(super) fn boolean(text: &str) -> Value<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err("wanted yes or no".into()),
    }
}

/// One of the words of a table.
pub(super) fn choice<T: Clone>(text: &str, table: &[(&str, T)]) -> Value<T> {
    let found = table.iter().find(|(word, _)| *word == text);
    found.map(|(_, value)| value.clone()).ok_or_else(|| {
        let words: Vec<_> = table.iter().map(|(word, _)| *word).collect();
        format!("wanted one of {}", words.join(", "))
    })
}

/// One of the words of a table, whose `yes` and `no` may be said as [`boolean`] takes them.
pub(super) fn choice_or_boolean<T: Clone>(text: &str, table: &[(&str, T)]) -> Value<T> {
    match boolean(text) {
        Ok(true) => choice("yes", table),
        Ok(false) => choice("no", table),
        Err(_) => choice(text, table),
    }
}

/// A number as strtoull(3) reads it, with any base that its beginning says: 0x, 0o, 0b, 0.
pub(super) fn unsigned(text: &str) -> Value<u64> {
    let text = text.trim_start_matches(WHITESPACE);
    if let Some(digits) =
        text.strip_prefix('-').filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()))
    {
        let zero = unsigned(digits)? == 0;
        return zero.then_some(0).ok_or_else(|| "wanted a number that is not negative".into());
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let based = |marks: [&str; 2], base| {
        let digits = marks.iter().find_map(|mark| text.strip_prefix(mark))?;
        Some((digits, base))
    };
    let (digits, base) = based(["0x", "0X"], 16)
        .or_else(|| based(["0b", "0B"], 2))
        .or_else(|| based(["0o", "0O"], 8))
        .or_else(|| (text.len() > 1).then(|| text.strip_prefix('0').map(|digits| (digits, 8))).flatten())
        .unwrap_or((text, 10));
    let plain = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    let number = plain.then(|| u64::from_str_radix(digits, base).ok()).flatten();
    number.ok_or_else(|| "wanted a number".into())
}

/// The same, of at most 32 bits.
pub(super) fn unsigned32(text: &str) -> Value<u32> {
    u32::try_from(unsigned(text)?).map_err(|_| "wanted a number below 4294967296".into())
}

/// The same with a sign.
pub(super) fn signed32(text: &str) -> Value<i32> {
    let text = text.trim_start_matches(WHITESPACE);
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => (-1, digits),
        _ => (1, text),
    };
    let number = i64::try_from(unsigned(digits)?).ok().and_then(|number| i32::try_from(sign * number).ok());
    number.ok_or_else(|| "wanted a number of 32 bits".into())
}

/// A number in a range.
pub(super) fn within(text: &str, least: i32, most: i32) -> Value<i32> {
    let number = signed32(text).ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("wanted a number from {least} to {most}"))
}

/// The mode of a file: octal, at most 7777.
pub(super) fn mode(text: &str) -> Value<u32> {
    let octal = !text.is_empty() && text.chars().all(|c| c.is_digit(8));
    let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.filter(|mode| *mode <= 0o7777).ok_or_else(|| "wanted a mode as in chmod(1), in octal".into())
}

/// The suffixes of sizes with the powers of 1024, largest first: they only go down in a sum.
const SUFFIXES: [(&str, u32); 8] =
    [("E", 6), ("P", 5), ("T", 4), ("G", 3), ("M", 2), ("K", 1), ("B", 0), ("", 0)];

/// A size in bytes: `4096`, `8K`, `1.5G`, `1G 512M`.
pub(super) fn size(text: &str) -> Value<u64> {
    let wrong = || "wanted a size: 4096, 64K, 1.5M, 2G".to_owned();
    let (mut sum, mut rest, mut from) = (0_u64, text.trim_start_matches(WHITESPACE), 0);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (number, after) = digits(rest.strip_prefix('+').unwrap_or(rest));
        let whole: u64 = number.parse().map_err(|_| wrong())?;
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        let word = after.trim_start_matches(WHITESPACE);
        let (at, power) = (from..SUFFIXES.len())
            .find(|at| word.starts_with(SUFFIXES[*at].0))
            .map(|at| (at, SUFFIXES[at].1))
            .ok_or_else(wrong)?;
        let factor = 1_u64 << (10 * power);
        let part = whole.checked_mul(factor).and_then(|part| part.checked_add(of_one(fraction, factor)));
        sum = part.and_then(|part| sum.checked_add(part)).ok_or_else(wrong)?;
        // A number without a suffix can only be the last one.
        rest = word[SUFFIXES[at].0.len()..].trim_start_matches(WHITESPACE);
        from = at + 1;
    }
    Ok(sum)
}

/// The digits after a decimal point, of `factor`.
fn of_one(fraction: &str, factor: u64) -> u64 {
    let digits = &fraction[..fraction.len().min(15)];
    let value: u128 = digits.parse().unwrap_or(0);
    let part = value * u128::from(factor) / 10_u128.pow(u32::try_from(digits.len()).unwrap_or(0));
    u64::try_from(part).unwrap_or(u64::MAX)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// LimitNOFILE= and its relatives: one bound for both, or `soft:hard`.
pub(super) fn limit(text: &str, resource: Resource) -> Value<Limit> {
    let (soft, hard) = match text.split_once(':') {
        Some((soft, hard)) => (bound(soft, resource)?, bound(hard, resource)?),
        None => (bound(text, resource)?, bound(text, resource)?),
    };
    let too_much = match (soft, hard) {
        (None, Some(_)) => true,
        (Some(soft), Some(hard)) => soft > hard,
        (_, None) => false,
    };
    if too_much {
        return Err("the soft bound is above the hard one".into());
    }
    Ok(Limit { soft, hard })
}

fn bound(text: &str, resource: Resource) -> Value<Option<u64>> {
    use Resource::{Cpu, RealTimeTime};
    if text == "infinity" && resource != Resource::Nice {
        return Ok(None);
    }
    let value = match resource {
        // The kernel takes whole seconds; a part of one counts.
        Cpu => span::microseconds(text, 1_000_000)?.map(|usec| usec.div_ceil(1_000_000)),
        RealTimeTime => span::microseconds(text, 1)?,
        Resource::Nice => Some(nice_limit(text)?),
        resource if resource.is_bytes() => Some(size(text)?),
        _ => Some(unsigned(text)?),
    };
    // The kernel's own infinity has its own word.
    if value == Some(u64::MAX) {
        return Err("the number is too large".into());
    }
    Ok(value)
}

/// `+5` and `-5` are nice levels, `25` is what setrlimit(2) takes: 20 - level.
fn nice_limit(text: &str) -> Value<u64> {
    if text.starts_with(['+', '-']) {
        let level = within(text, -20, 19)?;
        return Ok(u64::from((20 - level).unsigned_abs()));
    }
    unsigned(text).ok().filter(|raw| *raw <= 40).ok_or_else(|| "wanted -20 to +19, or 0 to 40".into())
}

/// systemd's names of exit statuses, see systemd.exec(5), "PROCESS EXIT CODES".
const EXIT_STATUSES: [(&str, u8); 69] = [
    ("SUCCESS", 0),
    ("FAILURE", 1),
    ("INVALIDARGUMENT", 2),
    ("NOTIMPLEMENTED", 3),
    ("NOPERMISSION", 4),
    ("NOTINSTALLED", 5),
    ("NOTCONFIGURED", 6),
    ("NOTRUNNING", 7),
    ("USAGE", 64),
    ("DATAERR", 65),
    ("NOINPUT", 66),
    ("NOUSER", 67),
    ("NOHOST", 68),
    ("UNAVAILABLE", 69),
    ("SOFTWARE", 70),
    ("OSERR", 71),
    ("OSFILE", 72),
    ("CANTCREAT", 73),
    ("IOERR", 74),
    ("TEMPFAIL", 75),
    ("PROTOCOL", 76),
    ("NOPERM", 77),
    ("CONFIG", 78),
    ("CHDIR", 200),
    ("NICE", 201),
    ("FDS", 202),
    ("EXEC", 203),
    ("MEMORY", 204),
    ("LIMITS", 205),
    ("OOM_ADJUST", 206),
    ("SIGNAL_MASK", 207),
    ("STDIN", 208),
    ("STDOUT", 209),
    ("CHROOT", 210),
    ("IOPRIO", 211),
    ("TIMERSLACK", 212),
    ("SECUREBITS", 213),
    ("SETSCHEDULER", 214),
    ("CPUAFFINITY", 215),
    ("GROUP", 216),
    ("USER", 217),
    ("CAPABILITIES", 218),
    ("CGROUP", 219),
    ("SETSID", 220),
    ("CONFIRM", 221),
    ("STDERR", 222),
    ("PAM", 224),
    ("NETWORK", 225),
    ("NAMESPACE", 226),
    ("NO_NEW_PRIVILEGES", 227),
    ("SECCOMP", 228),
    ("SELINUX_CONTEXT", 229),
    ("PERSONALITY", 230),
    ("APPARMOR", 231),
    ("ADDRESS_FAMILIES", 232),
    ("RUNTIME_DIRECTORY", 233),
    ("CHOWN", 235),
    ("SMACK_PROCESS_LABEL", 236),
    ("KEYRING", 237),
    ("STATE_DIRECTORY", 238),
    ("CACHE_DIRECTORY", 239),
    ("LOGS_DIRECTORY", 240),
    ("CONFIGURATION_DIRECTORY", 241),
    ("NUMA_POLICY", 242),
    ("CREDENTIALS", 243),
    ("BPF", 244),
    ("KSM", 245),
    ("MEMORY_THP", 246),
    ("EXCEPTION", 255),
];

/// An exit status by number or name.
pub(super) fn exit_status(text: &str) -> Option<u8> {
    let named = EXIT_STATUSES.iter().find(|(name, _)| *name == text).map(|(_, status)| *status);
    named.or_else(|| u8::try_from(unsigned(text).ok()?).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_size_is_a_sum_that_goes_down() {
        let cases =
            [("4096", 4096), ("4K", 4096), ("1.5M", 1_572_864), ("1G 512M", 1_610_612_736), ("1K 5", 1029)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "4k", "4KB", "512M 1G", "5 5", "17E", "-1", "infinity", "K"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_has_the_base_that_it_begins_with() {
        let cases = [("10", 10), ("0x10", 16), ("010", 8), ("0o10", 8), ("0b10", 2), ("+1", 1), ("-0", 0)];
        for (text, number) in cases {
            assert_eq!(unsigned(text), Ok(number), "{text}");
        }
        for text in ["", "08", "-1", "0x", "1 ", "1.5", "++1", "99999999999999999999"] {
            assert!(unsigned(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_is_one_bound_or_two_and_the_soft_one_is_not_above() {
        let both = |soft, hard| Ok(Limit { soft, hard });
        assert_eq!(limit("1024:65536", Resource::NoFile), both(Some(1024), Some(65536)));
        assert_eq!(limit("infinity", Resource::NoFile), both(None, None));
        assert_eq!(limit("8M", Resource::Stack), both(Some(8 << 20), Some(8 << 20)));
        assert_eq!(limit("1500ms", Resource::Cpu), both(Some(2), Some(2)));
        assert_eq!(limit("-5", Resource::Nice), both(Some(25), Some(25)));
        assert!(limit("2:1", Resource::NoFile).is_err() && limit("infinity:1", Resource::NoFile).is_err());
        assert!(limit("8M", Resource::NoFile).is_err());
    }

    #[test]
    fn an_exit_status_has_a_number_or_a_name() {
        assert_eq!(
            (exit_status("TEMPFAIL"), exit_status("203"), exit_status("EXEC")),
            (Some(75), Some(203), Some(203))
        );
        assert_eq!((exit_status("256"), exit_status("SIGTERM")), (None, None));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9a-zA-Z.: ]{0,24}") {
            let _ = (size(&text), unsigned(&text), signed32(&text), mode(&text), exit_status(&text));
            let _ = (limit(&text, Resource::Cpu), limit(&text, Resource::Nice), limit(&text, Resource::Data));
        }
    }
}
