//! The drop-in that mends a unit: text, and how it is told apart from somebody else's.

use std::ffi::OsStr;
use std::path::Path;

use super::Finding;

/// The name of the file in `UNIT.d`.
const NAME: &str = "50-handover.conf";

/// The first line, by which we know our own again.
const MARK: &str = "# Written by `handover check --fix`; it may be changed by the next one.";

/// A drop-in for one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DropIn {
    /// The unit.
    pub unit: String,
    /// Its path below a folder of the search path: `web.service.d/50-handover.conf`.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// Whether a file of that name is one that we wrote.
pub fn is_ours(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Whether a file is a drop-in that is read after ours: by their names alone, wherever they are.
pub(super) fn is_later(file: &Path) -> bool {
    let folder = file.parent().and_then(Path::extension);
    folder.is_some_and(|end| end == "d") && file.file_name().is_some_and(|name| name > OsStr::new(NAME))
}

/// The drop-ins that mend what can be mended so, one a unit, on top of `before`: what stands in ours
/// already, by unit. Each line says which rule wants it.
pub fn drop_in(findings: &[Finding], before: impl Fn(&str) -> Option<String>) -> Vec<DropIn> {
    let mends = || {
        let all = findings.iter().filter_map(|finding| Some((finding, finding.mend.as_ref()?)));
        all.filter(|(_, mend)| !mend.by_hand)
    };
    let mut units: Vec<&str> = Vec::new();
    for (_, mend) in mends() {
        if !units.contains(&mend.unit.as_str()) {
            units.push(&mend.unit);
        }
    }
    let one = |unit: &str| {
        let ours = before(unit).filter(|text| is_ours(text));
        let mut text = ours.unwrap_or_else(|| format!("{MARK}\n"));
        for section in ["Unit", "Service", "Socket"] {
            let mut written: Vec<&Vec<String>> = Vec::new();
            for (finding, mend) in mends().filter(|(_, mend)| mend.unit == unit && mend.section == section) {
                if written.contains(&&mend.lines) {
                    continue;
                }
                if written.is_empty() {
                    text += &format!("\n[{section}]\n");
                }
                text += &format!("# {}: {}\n{}\n", finding.rule, finding.why, mend.lines.join("\n"));
                written.push(&mend.lines);
            }
        }
        DropIn { unit: unit.to_owned(), path: format!("{unit}.d/{NAME}"), text }
    };
    units.into_iter().map(one).collect()
}
