//! What programs read about a finding: one JSON object a line, always with the same fields.

use serde::Serialize;

use crate::check::Finding;

/// One finding. Fields are added, never renamed or taken away; what does not apply is null.
#[derive(Debug, Serialize)]
struct Record<'a> {
    /// The unit.
    unit: &'a str,
    /// The rule, by its stable name.
    rule: &'static str,
    /// `note`, `warning` or `error`.
    severity: &'static str,
    /// The file.
    file: String,
    /// The line, from 1; null if one is missing.
    line: Option<u32>,
    /// Why it is wrong.
    why: &'a str,
    /// What mends it; null for a line that cannot be understood.
    mend: Option<Lines<'a>>,
    /// The manual page.
    manual: &'static str,
    /// The systemd for which it was judged.
    systemd: u16,
}

#[derive(Debug, Serialize)]
struct Lines<'a> {
    unit: &'a str,
    section: &'a str,
    lines: &'a [String],
    /// They are to replace the line of the finding, in its file.
    by_hand: bool,
}

/// The record of a finding.
pub(super) fn line(finding: &Finding) -> String {
    let Finding { rule, unit, line, why, manual, .. } = finding;
    let mend = finding.mend.as_ref().map(|mend| Lines {
        unit: &mend.unit,
        section: mend.section,
        lines: &mend.lines,
        by_hand: mend.by_hand,
    });
    let (severity, systemd) = (finding.severity.word(), finding.version.major());
    let file = finding.file.display().to_string();
    let record = Record { unit, rule, severity, file, line: *line, why, mend, manual, systemd };
    // Text and numbers can always be written.
    serde_json::to_string(&record).unwrap_or_default()
}
