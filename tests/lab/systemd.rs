//! Which PID 1 a machine has.

use std::fmt;
use std::str::FromStr;

/// A release of systemd that handover promises to work with, named by its major version; or its stand-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Systemd {
    /// Debian bookworm's.
    V252,
    /// Debian trixie's.
    V257,
    /// Debian sid's: 262 or whatever is newer.
    V262,
    /// `handover pid1`, over this host's own programs.
    Standin,
}

impl Systemd {
    /// All that are systemd, oldest first.
    pub(crate) const ALL: [Self; 3] = [Self::V252, Self::V257, Self::V262];
}

impl fmt::Display for Systemd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Systemd {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL
            .into_iter()
            .chain([Self::Standin])
            .find(|systemd| systemd.to_string().eq_ignore_ascii_case(name));
        known.ok_or_else(|| format!("{name}: want one of {:?}, or {}", Self::ALL, Self::Standin))
    }
}
