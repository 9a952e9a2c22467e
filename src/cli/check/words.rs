//! What people read about findings: grouped by unit, each with its place and what mends it.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use crate::check::{self, Finding, Mend, Rule, Severity, Version, Whom};

/// Finds the words, with colours or without.
pub(super) struct Words {
    colours: bool,
}

/// What is to be known where no promise was made.
pub(super) const NOTHING_OF_OURS: &str = "no service here is built on handover or runs under it, and so none was \
    held to anything: `handover run --explain -- PROGRAM` tells how a program would be upgraded";

const BOLD: &str = "1";
const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const CYAN: &str = "1;36";
const GREEN: &str = "32";

impl Words {
    /// Colours on a terminal alone, and never with NO_COLOR (no-color.org: set, and not empty).
    pub(super) fn for_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { colours: wanted && !dumb && io::stdout().is_terminal() }
    }

    fn ink(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// All findings of `units` units, and a line that sums them up.
    pub(super) fn report<'a>(
        &self,
        findings: impl Iterator<Item = &'a Finding>,
        units: usize,
        version: Version,
    ) -> String {
        let (mut text, mut last, mut counts) = (String::new(), "", [0; 3]);
        for finding in findings {
            if finding.unit != last {
                last = &finding.unit;
                text += &format!("{}\n", self.ink(BOLD, &plain(last)));
            }
            self.finding(&mut text, finding);
            counts[finding.severity as usize] += 1;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let [notes, warnings, errors] = counts;
        let some = |count: usize, word: &str| (count > 0).then(|| number(count, word));
        let sum: Vec<_> = [some(errors, "error"), some(warnings, "warning"), some(notes, "note")]
            .into_iter()
            .flatten()
            .collect();
        let sum = if sum.is_empty() { "nothing to mend".to_owned() } else { sum.join(", ") };
        text + &format!("{} for systemd {version}: {sum}", number(units, "unit"))
    }

    fn finding(&self, text: &mut String, finding: &Finding) {
        let colour = match finding.severity {
            Severity::Error => RED,
            Severity::Warning => YELLOW,
            Severity::Note => CYAN,
        };
        let severity = self.ink(colour, finding.severity.word());
        let line = finding.line.map(|line| format!(":{line}")).unwrap_or_default();
        let place = format!("{}{line}", finding.file.display());
        // Writing to a text does not fail.
        let _ = writeln!(text, "  {severity}: {} [{}]", plain(&finding.why), finding.rule);
        let _ = writeln!(text, "      at {}", plain(&place));
        if let Some(mend) = &finding.mend {
            for line in self.mend(mend, finding) {
                let _ = writeln!(text, "    mend {line}");
            }
        }
        let _ = writeln!(text, "     see {}", finding.manual);
    }

    /// The lines that mend it, each with its section and, if it is another one, its unit.
    fn mend(&self, mend: &Mend, finding: &Finding) -> Vec<String> {
        let unit = if mend.unit == finding.unit { String::new() } else { format!("{}: ", mend.unit) };
        if mend.lines.is_empty() {
            return vec!["delete this line".to_owned()];
        }
        let by_hand = if mend.by_hand && finding.line.is_some() { " (in place of this line)" } else { "" };
        let line =
            |line: &String| format!("{unit}[{}] {}{by_hand}", mend.section, self.ink(GREEN, &plain(line)));
        mend.lines.iter().map(line).collect()
    }
}

/// All rules, one a line.
pub(super) fn rules() -> String {
    let widest = check::rules().map(|rule| rule.name.len()).max().unwrap_or_default();
    let row = |rule: &Rule| format!("{:<widest$}  {:<7}  {}", rule.name, rule.severity.word(), rule.about);
    check::rules().map(row).collect::<Vec<_>>().join("\n")
}

/// What one rule wants, of whom, and where it is written.
pub(super) fn explain(rule: &Rule) -> String {
    let whom = match rule.whom {
        Whom::Library => "services built on the library: ExecReload=handover reload",
        Whom::Run => "programs under the runner: ExecStart=handover run",
        Whom::Handover => "services of handover's, built on the library or under the runner",
        Whom::Storing => "services of handover's, and as a note all with an FD store",
        Whom::All => "services of handover's, and as a note all others",
    };
    let Rule { name, about, manual, .. } = rule;
    format!("{name}: {}\n  wants  {about}\n  of     {whom}\n  see    {manual}", rule.severity.word())
}

fn number(count: usize, word: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {word}{s}")
}

/// Without control characters, which a unit file may have in it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
