//! Signals by name and number, see signal(7).

use std::fmt;

use nix::sys::signal::Signal as Named;

use super::value;

/// The number of a signal, real-time ones among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

/// The real-time signals as the C library leaves them to programs, and as everybody counts them.
const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

impl Signal {
    /// SIGHUP.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// SIGINT.
    pub const INT: Self = Self(libc::SIGINT);
    /// SIGABRT.
    pub const ABRT: Self = Self(libc::SIGABRT);
    /// SIGKILL.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// SIGTERM.
    pub const TERM: Self = Self(libc::SIGTERM);

    /// The number that kill(2) takes.
    pub fn number(self) -> i32 {
        self.0
    }

    /// The signal with this number, if there can be one.
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=REAL_TIME_MAX).contains(&number).then_some(Self(number))
    }

    /// Reads `SIGTERM`, `TERM`, `15`, `RTMIN+3`, `SIGRTMAX-2`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let wrong = || "wanted a signal: SIGTERM, TERM, 15, RTMIN+3".to_owned();
        if text.starts_with(|c: char| c.is_ascii_digit() || c == '+') {
            return value::signed32(text).ok().and_then(Self::from_number).ok_or_else(wrong);
        }
        let name = text.strip_prefix("SIG").unwrap_or(text);
        let offset = |text: &str, sign| {
            let number = if text.is_empty() { Some(0) } else { text.strip_prefix(sign)?.parse().ok() };
            number.filter(|number| (0..=REAL_TIME_MAX - REAL_TIME_MIN).contains(number))
        };
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest, '+').map(|offset| REAL_TIME_MIN + offset)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(rest, '-').map(|offset| REAL_TIME_MAX - offset)
        } else {
            format!("SIG{name}").parse::<Named>().ok().map(|signal| signal as i32)
        };
        number.map(Self).ok_or_else(wrong)
    }
}

/// `SIGTERM`, `SIGRTMIN+3`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Named::try_from(self.0) {
            Ok(named) => f.write_str(named.as_str()),
            Err(_) => write!(f, "SIGRTMIN+{}", self.0 - REAL_TIME_MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_or_a_number_and_is_shown_by_its_name() {
        let cases = [
            ("SIGTERM", "SIGTERM"),
            ("INT", "SIGINT"),
            ("9", "SIGKILL"),
            ("RTMIN+3", "SIGRTMIN+3"),
            ("SIGRTMAX", "SIGRTMIN+30"),
        ];
        for (text, shown) in cases {
            assert_eq!(Signal::read(text).unwrap().to_string(), shown);
        }
        for text in ["", "0", "65", "-1", "term", "RTMIN+31", "RTMAX+1", "SIGSIG", "SIG15"] {
            assert!(Signal::read(text).is_err(), "{text}");
        }
    }
}
