//! What is found, and what mends it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Version;

/// How bad it is for an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// It works; there is something to gain, or to know.
    Note,
    /// It works, until something else goes wrong.
    Warning,
    /// Upgrades fail, or lose what they should keep.
    Error,
}

impl Severity {
    /// `note`, `warning`, `error`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is wrong with one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The rule, by its stable name.
    pub rule: &'static str,
    /// How bad it is, for this service.
    pub severity: Severity,
    /// The unit.
    pub unit: String,
    /// The file with the line, or the one that lacks it: the unit's main file.
    pub file: Arc<Path>,
    /// The line, counted from 1; None if one is missing.
    pub line: Option<u32>,
    /// Why it is wrong: a sentence without its full stop.
    pub why: String,
    /// What mends it; None for a line that systemd does not understand, and where nothing in a unit does.
    pub mend: Option<Mend>,
    /// The manual page, with the section in it.
    pub manual: &'static str,
    /// The systemd for which this was judged.
    pub version: Version,
}

/// The lines that mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mend {
    /// The unit that they belong to, which may be another one: the socket of the service.
    pub unit: String,
    /// The section, without brackets.
    pub section: &'static str,
    /// The lines; of a list that has to be cleared, the one that does comes first.
    pub lines: Vec<String>,
    /// They stand in place of the line of the finding: one that no drop-in can take back, or that is itself in
    /// a drop-in which is read later than ours. Without lines it is to be deleted.
    pub by_hand: bool,
}

/// The worst that was found; None if nothing was.
pub fn worst(findings: &[Finding]) -> Option<Severity> {
    findings.iter().map(|finding| finding.severity).max()
}

/// `file:line: severity: why [rule]`, as compilers print it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, severity, file, why, .. } = self;
        let line = self.line.map(|line| format!(":{line}")).unwrap_or_default();
        write!(f, "{}{line}: {}: {why} [{rule}]", file.display(), severity.word())
    }
}
