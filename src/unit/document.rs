//! A unit as it stands in its files: sections and assignments in their order, each with its line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Finding, Host, Place, Severity, UnitName, text, value};

/// A unit, its main file and its drop-ins as one list of assignments.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(super) name: UnitName,
    pub(super) host: Arc<Host>,
    pub(super) files: Vec<Arc<Path>>,
    assignments: Vec<Assignment>,
}

/// `Key=value` in a section; continued lines are one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The section, without its brackets.
    pub section: Arc<str>,
    /// The directive.
    pub key: String,
    /// What is assigned, without surrounding whitespace, specifiers as written; empty is a reset.
    pub value: String,
    /// Where.
    pub place: Place,
}

impl Unit {
    /// Reads the texts of a unit's files: the main one first, then the drop-ins in their order.
    ///
    /// What cannot be understood is among the findings; where that is fatal for a drop-in, its end is
    /// ignored.
    pub fn read(
        name: UnitName,
        host: Arc<Host>,
        files: &[(PathBuf, Vec<u8>)],
        findings: &mut Vec<Finding>,
    ) -> Self {
        let private = if name.kind() == "socket" { "Socket" } else { "Service" };
        let mut unit = Self { name, host, files: Vec::new(), assignments: Vec::new() };
        for (path, bytes) in files {
            let file: Arc<Path> = path.as_path().into();
            let (found, whole) = text::read(bytes, &file, &["Unit", private, "Install"], findings);
            unit.assignments.extend(found);
            if let Err(mut finding) = whole {
                if !unit.files.is_empty() {
                    finding.severity = Severity::Warning;
                    finding.message.push_str("; the rest of the file is ignored");
                }
                findings.push(finding);
            }
            unit.files.push(file);
        }
        unit
    }

    /// The name, with which specifiers are resolved.
    pub fn name(&self) -> &UnitName {
        &self.name
    }

    /// Where the unit is to run, for the specifiers that are about that.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The files it was read from: the main one, then the drop-ins in their order.
    pub fn files(&self) -> &[Arc<Path>] {
        &self.files
    }

    /// Every assignment as it stands, in the order in which it is read, resets and unknown directives
    /// among them; sections X-..., but no other unknown ones.
    pub fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// The assignments of one directive that hold: those after its last reset.
    pub fn values(&self, section: &str, key: &str) -> Vec<&Assignment> {
        let all = self.assignments.iter().filter(|one| &*one.section == section && one.key == key);
        let mut holding = Vec::new();
        for assignment in all {
            if assignment.value.is_empty() {
                holding.clear();
            } else {
                holding.push(assignment);
            }
        }
        holding
    }

    /// Whether a directive that is a boolean holds, so far as its last assignment says; None without one,
    /// and where it is no boolean.
    pub fn flag(&self, section: &str, key: &str) -> Option<bool> {
        self.values(section, key).last().and_then(|last| value::boolean(&last.value).ok())
    }

    /// The main file; errors that no line is to blame for are about it.
    pub(super) fn fragment(&self) -> String {
        self.files.first().map(|file| file.display().to_string()).unwrap_or_default()
    }
}

/// The unit as one file: its drop-ins where they count, no comments.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = "";
        for assignment in &self.assignments {
            if section != &*assignment.section {
                section = &assignment.section;
                writeln!(f, "[{section}]")?;
            }
            // A backslash at the end of a line would continue it.
            let end = if text::ends_escaped(assignment.value.as_bytes()) { " " } else { "" };
            writeln!(f, "{}={}{end}", assignment.key, assignment.value)?;
        }
        Ok(())
    }
}
