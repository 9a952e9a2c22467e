//! What the reader of units has to say: lines that systemd would refuse or pass over; and units that PID 1
//! has otherwise than their files.

use crate::unit::{self, Place, Severity as Read, Unit, UnitName};

use super::rule::{Blame, Find, Rule, Whom, Wrong};
use super::scene::{Way, main_file, service_of};
use super::{Finding, Severity, Units, Version};

/// These look at what was said about a unit, not at the unit.
pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "unusable-unit",
        severity: Severity::Error,
        whom: Whom::All,
        about: "systemd takes the unit as it is",
        manual: "systemd.service(5)",
        find: Find::Reader,
    },
    Rule {
        name: "misplaced-line",
        severity: Severity::Error,
        whom: Whom::All,
        about: "each directive stands in its section, else it is ignored: StartLimitIntervalSec= in [Unit]",
        manual: "systemd.unit(5)",
        find: Find::Reader,
    },
    Rule {
        name: "ignored-line",
        severity: Severity::Warning,
        whom: Whom::All,
        about: "systemd understands every line",
        manual: "systemd.syntax(7)",
        find: Find::Reader,
    },
    Rule {
        name: "daemon-reload-needed",
        severity: Severity::Warning,
        whom: Whom::All,
        about: "PID 1 has read the files as they are now",
        manual: "systemctl(1), daemon-reload",
        find: Find::Reader,
    },
    Rule {
        name: "loaded-otherwise",
        severity: Severity::Warning,
        whom: Whom::All,
        about: "PID 1 has what the files say",
        manual: "systemctl(1), daemon-reload",
        find: Find::Reader,
    },
];

/// Everything of that kind.
pub(super) fn findings(units: &Units, version: Version) -> Vec<Finding> {
    let [unusable, misplaced, ignored, outdated, otherwise] = RULES else { return Vec::new() };
    let mut findings = Vec::new();
    let mut tell = |rule: &Rule, unit: &Unit, wrong: Wrong| {
        findings.push(rule.finding(wrong, way_of(units, unit.name()), version));
    };
    for read in &units.loaded.findings {
        let Some(unit) = read.unit.as_ref().and_then(|name| units.unit(name)) else { continue };
        let place = blame(unit, read.place.as_ref());
        match unknown(unit, read) {
            Some(Unknown::Elsewhere(wrong)) => tell(misplaced, unit, wrong),
            Some(Unknown::Misspelt(wrong)) => tell(ignored, unit, wrong),
            Some(Unknown::SaidAgain) => {}
            None => {
                let rule = if read.severity == Read::Error { unusable } else { ignored };
                tell(rule, unit, Wrong { place, why: read.message.clone(), mend: None });
            }
        }
    }
    for stale in &units.stale {
        let Some(unit) = units.unit(&stale.unit) else { continue };
        let place = blame(unit, None);
        match &stale.differs {
            Some((key, files, loaded)) => {
                let why = format!(
                    "the files say {key}={files}, and PID 1 has {loaded}: `systemctl daemon-reload` reads them again"
                );
                tell(otherwise, unit, Wrong { place, why, mend: None });
            }
            None => {
                let why = "the files have changed since PID 1 read them, and hold from `systemctl daemon-reload` on";
                tell(outdated, unit, Wrong { place, why: why.into(), mend: None });
            }
        }
    }
    findings
}

/// A directive that its section does not know.
enum Unknown {
    /// Another one does.
    Elsewhere(Wrong),
    /// It is close to one that it does.
    Misspelt(Wrong),
    /// What it is meant to say is said where it counts, too.
    SaidAgain,
}

/// What is known of such a directive.
fn unknown(unit: &Unit, read: &unit::Finding) -> Option<Unknown> {
    let place = read.place.as_ref()?;
    let line = unit.assignments().iter().find(|line| line.place == *place)?;
    if unit::directive(&line.section, &line.key).is_some() || line.key.starts_with("X-") {
        return None;
    }
    let private = if unit.name().kind() == "socket" { "Socket" } else { "Service" };
    let home = ["Unit", private, "Install"]
        .into_iter()
        .find(|section| unit::directive(section, &line.key).is_some());
    let (key, value) = (&line.key, &line.value);
    let place = blame(unit, Some(place));
    let said =
        |section: &str, key: &str| unit.values(section, key).last().is_some_and(|last| last.value == *value);
    if let Some(home) = home {
        if said(home, key) {
            return Some(Unknown::SaidAgain);
        }
        let why = format!("systemd ignores {key}= in [{}], for it belongs in [{home}]", line.section);
        return Some(Unknown::Elsewhere(place.mended(home, [&format!("{key}={value}")], why)));
    }
    let meant = unit::nearest_directive(&line.section, key)?;
    let section = [private, "Unit", "Install"].into_iter().find(|section| **section == *line.section)?;
    if said(section, meant) {
        return Some(Unknown::SaidAgain);
    }
    let why = format!("systemd ignores {key}=, which it does not know: {meant}= may be meant");
    Some(Unknown::Misspelt(place.mended(section, [&format!("{meant}={value}")], why)))
}

fn blame(unit: &Unit, place: Option<&Place>) -> Blame {
    Blame {
        unit: unit.name().to_string(),
        file: place.map_or_else(|| main_file(unit), |place| place.file.clone()),
        line: place.map(|place| place.line),
    }
}

/// Whose unit it is, as far as that can be seen of one that cannot be used.
fn way_of(units: &Units, name: &UnitName) -> Way {
    if let Some((_, service)) = units.service(name) {
        return Way::of(service);
    }
    let service = units.socket(name.as_str()).and_then(|heard| service_of(name, heard.socket));
    let service = service.or_else(|| name.with_kind("service"));
    if let Some((_, service)) = service.as_ref().and_then(|service| units.service(service)) {
        return Way::of(service);
    }
    let ours = |unit: &Unit| {
        let lines = ["ExecStart", "ExecReload"].map(|key| unit.values("Service", key));
        lines
            .concat()
            .iter()
            .any(|line| line.value.split_whitespace().any(|word| word.ends_with("/handover")))
    };
    let unit = service.as_ref().and_then(|service| units.unit(service));
    if unit.is_some_and(ours) { Way::Library } else { Way::Other }
}
