//! What is wrong with units for upgrades in which nothing is lost, and the line that mends it.
//!
//! ```text
//!  files, folders: read -----.                        rules, a table each theme
//!  names: find --------------+--> Units --> scenes --------> Findings
//!  what PID 1 has: loaded ---'    typed settings,    rule, place, why, the line that mends it
//!                                 with their lines
//! ```
//!
//! A rule is about one way in which connections are lost or an upgrade fails, mostly a trap of PID 1's, and
//! never about taste. Whose service it is decides what it is accused of:
//!
//! | service | known by | what it gets |
//! |---|---|---|
//! | of the library | `ExecReload=handover reload` | errors, warnings, notes |
//! | under the runner | `ExecStart=handover run` | errors, warnings, notes |
//! | any other | | notes at most: it has promised nothing |
//!
//! What systemd itself would refuse or ignore in a unit is among the findings, too, as the reader of units
//! found it.
//!
//! This chapter never changes a unit, nor asks anybody to: what mends is text ([`drop_in()`]), and whoever
//! writes it is to ask first. It never judges what it cannot see: a socket that is in another folder is not
//! missing.
#![forbid(unsafe_code)]

mod drop_in;
mod finding;
mod loaded;
mod reader;
mod rule;
mod rules;
mod scene;
#[cfg(test)]
mod tests;
mod units;
mod version;

pub use drop_in::{DropIn, drop_in, is_ours};
pub use finding::{Finding, Mend, Severity, worst};
pub use loaded::loaded;
pub use rule::{Rule, Whom};
pub use units::{Units, find, read};
pub use version::Version;

/// All rules, by theme.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    rules::ALL.iter().copied().flatten()
}

/// What is wrong with these units under this systemd: in the order of the units, files and lines.
pub fn check(units: &Units, version: Version) -> Vec<Finding> {
    let mut findings = reader::findings(units, version);
    for scene in scene::services(units, version) {
        for rule in rules() {
            findings.extend(rule.of_service(&scene));
        }
    }
    for ear in scene::sockets(units, version) {
        for rule in rules() {
            findings.extend(rule.of_socket(&ear));
        }
    }
    let place = |finding: &Finding| units.order(&finding.unit);
    findings.sort_by(|a, b| {
        let worse = b.severity.cmp(&a.severity);
        place(a).cmp(&place(b)).then(worse).then_with(|| (&a.file, a.line).cmp(&(&b.file, b.line)))
    });
    findings
}
