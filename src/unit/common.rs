//! What every unit has: the sections \[Unit\] and \[Install\], see systemd.unit(5).

use std::time::Duration;

use super::line::Line;
use super::words::Backslash;
use super::{Finding, Unit, span, value};

/// The settings of \[Unit\] and \[Install\] that matter to whoever runs services without a systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Common {
    /// Description=; None is the name.
    pub description: Option<String>,
    /// Requires=: names of units.
    pub requires: Vec<String>,
    /// Wants=.
    pub wants: Vec<String>,
    /// BindsTo=.
    pub binds_to: Vec<String>,
    /// PartOf=.
    pub part_of: Vec<String>,
    /// Conflicts=.
    pub conflicts: Vec<String>,
    /// After=.
    pub after: Vec<String>,
    /// Before=.
    pub before: Vec<String>,
    /// DefaultDependencies=.
    pub default_dependencies: bool,
    /// StartLimitIntervalSec= and StartLimitBurst=.
    pub start_limit: RateLimit,
    /// Install: WantedBy=.
    pub wanted_by: Vec<String>,
    /// Install: RequiredBy=.
    pub required_by: Vec<String>,
    /// Install: Also=.
    pub also: Vec<String>,
    /// Install: Alias=.
    pub alias: Vec<String>,
    /// Install: DefaultInstance=.
    pub default_instance: Option<String>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            description: None,
            requires: Vec::new(),
            wants: Vec::new(),
            binds_to: Vec::new(),
            part_of: Vec::new(),
            conflicts: Vec::new(),
            after: Vec::new(),
            before: Vec::new(),
            default_dependencies: true,
            start_limit: RateLimit { interval: Some(Duration::from_secs(10)), burst: 5 },
            wanted_by: Vec::new(),
            required_by: Vec::new(),
            also: Vec::new(),
            alias: Vec::new(),
            default_instance: None,
        }
    }
}

/// So many times in an interval, no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// The interval; None is infinity. Zero turns the limit off.
    pub interval: Option<Duration>,
    /// How often; zero turns the limit off.
    pub burst: u32,
}

impl RateLimit {
    /// Whether there is no limit.
    pub fn is_off(&self) -> bool {
        self.burst == 0 || self.interval == Some(Duration::ZERO)
    }
}

impl Common {
    /// Reads the sections \[Unit\] and \[Install\].
    pub(super) fn read(unit: &Unit, findings: &mut Vec<Finding>) -> Self {
        let mut common = Self::default();
        Line::each(unit, "Unit", findings, |line| common.unit(line));
        Line::each(unit, "Install", findings, |line| common.install(line));
        common
    }

    fn unit(&mut self, line: &mut Line<'_>) {
        match line.key() {
            "Description" => line.text(&mut self.description),
            "Requires" => line.units(&mut self.requires, None),
            "Wants" => line.units(&mut self.wants, None),
            "BindsTo" | "BindTo" => line.units(&mut self.binds_to, None),
            "PartOf" => line.units(&mut self.part_of, None),
            "Conflicts" => line.units(&mut self.conflicts, None),
            "After" => line.units(&mut self.after, None),
            "Before" => line.units(&mut self.before, None),
            "DefaultDependencies" => line.flag(&mut self.default_dependencies),
            "StartLimitIntervalSec" | "StartLimitInterval" | "StartLimitBurst" => self.start_limit(line),
            _ => {}
        }
    }

    /// Also found in \[Service\], its old place.
    pub(super) fn start_limit(&mut self, line: &mut Line<'_>) {
        if line.key() == "StartLimitBurst" {
            line.set(&mut self.start_limit.burst, value::unsigned32);
        } else {
            line.set(&mut self.start_limit.interval, span::read);
        }
    }

    /// systemctl(1) reads these, not PID 1: nothing of them can be wrong for a start.
    fn install(&mut self, line: &mut Line<'_>) {
        match line.key() {
            "WantedBy" => names(line, &mut self.wanted_by),
            "RequiredBy" => names(line, &mut self.required_by),
            "Also" => names(line, &mut self.also),
            "Alias" => names(line, &mut self.alias),
            "DefaultInstance" => line.text(&mut self.default_instance),
            _ => {}
        }
    }
}

fn names(line: &mut Line<'_>, list: &mut Vec<String>) {
    line.list(list, Backslash::Next, |word| Ok(word.to_owned()));
}
