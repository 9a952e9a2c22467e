//! What a reader of unit files has to say, and where: one line that an editor can jump to.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::UnitName;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Place {
    /// The file, by the path under which it was opened.
    pub file: Arc<Path>,
    /// The line, counted from 1; of an assignment that goes over several, the first.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// What is meant here is ignored; the unit works without it, as under systemd.
    Warning,
    /// The unit cannot be used.
    Error,
}

/// Something wrong with a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Whether the unit can be used in spite of it.
    pub severity: Severity,
    /// The unit that it is about; None of a file or folder that could not be read at all.
    pub unit: Option<UnitName>,
    /// Where; None if no line is to blame, as for a service without ExecStart=.
    pub place: Option<Place>,
    /// What was found, what was wanted, and what was done about it.
    pub message: String,
}

impl Finding {
    pub(crate) fn warning(place: &Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, unit: None, place: Some(place.clone()), message: message.into() }
    }

    pub(crate) fn error(place: Option<&Place>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, unit: None, place: place.cloned(), message: message.into() }
    }
}

/// `file:line: message`, as compilers print it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{severity}: {}", self.message)
    }
}
