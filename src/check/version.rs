//! Which systemd the units are for: much of what is wrong with a unit depends on it.

use std::fmt;

use crate::manager::{Error, Manager};

/// A major version of systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(u16);

impl Version {
    /// The newest one that the rules know of; a newer one is judged as this is.
    pub const NEWEST: Self = Self(262);

    /// Reads what systemd calls itself, `257.13-1~deb13u1`, or a number. None for what begins with none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok().filter(|major| *major > 0).map(Self)
    }

    /// The version of the systemd that answers; the newest one for a stand-in, which follows that.
    ///
    /// Errors are those of a bus that was lost.
    pub async fn of(manager: &Manager) -> Result<Self, Error> {
        let said = manager.version().await?;
        Ok(said.and_then(|said| Self::parse(&said)).unwrap_or(Self::NEWEST))
    }

    /// The number: 257.
    pub fn major(self) -> u16 {
        self.0
    }

    /// Whether it is at least `major`.
    pub(super) fn has(self, major: u16) -> bool {
        self.0 >= major
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_number_that_it_begins_with() {
        for text in ["257", "257.13-1~deb13u1", "v257~rc1", " 257 "] {
            assert_eq!(Version::parse(text).map(Version::major), Some(257), "{text}");
        }
        for text in ["", "newest", "-1", "0", "99999999"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        assert!(Version::NEWEST.has(262) && !Version(252).has(253));
    }
}
