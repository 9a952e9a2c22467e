//! The table of cases: `cases.txt`, read and tried.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use handover::check::{self, Finding, Severity, Version};

/// Units in which nothing is wrong, by file.
const LIBRARY: [(&str, &str); 2] = [
    (
        "web.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nExecStart=/usr/bin/web\n\
         ExecReload=/usr/bin/handover reload\nSyslogIdentifier=%N\nNonBlocking=yes\nRestart=always\n\
         FileDescriptorStoreMax=512\nLimitNOFILE=65536\n",
    ),
    ("web.socket", "[Socket]\nListenStream=8080\nFileDescriptorName=web\nTriggerLimitIntervalSec=0\n"),
];

const RUN: [(&str, &str); 2] = [
    (
        "app.service",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nDelegate=yes\n\
         ExecStart=/usr/bin/handover run -- /usr/bin/server\nExecReload=/usr/bin/handover reload\n\
         KillMode=process\nFileDescriptorStoreMax=64\nRestart=always\n",
    ),
    (
        "app.socket",
        "[Socket]\nListenStream=0.0.0.0:8080\nListenStream=0.0.0.0:8080\nListenStream=0.0.0.0:8080\n\
         ReusePort=yes\nTriggerLimitIntervalSec=0\n",
    ),
];

const OTHER: [(&str, &str); 1] = [("job.service", "[Service]\nType=notify\nExecStart=/usr/bin/job\n")];

/// One case.
#[derive(Default)]
pub(super) struct Case {
    pub(super) rule: String,
    severity: String,
    version: Option<Version>,
    units: BTreeMap<String, String>,
    at: (String, Option<String>),
    also: Vec<String>,
}

/// All cases of the table.
pub(super) fn all() -> Vec<Case> {
    let table = include_str!("cases.txt");
    let paragraphs = table.split("\n\n").map(|text| text.lines().filter(|line| !line.starts_with('#')));
    paragraphs.map(|lines| lines.collect::<Vec<_>>()).filter(|lines| !lines.is_empty()).map(read).collect()
}

fn read(lines: Vec<&str>) -> Case {
    let mut case = Case::default();
    let words: Vec<_> = lines[0].split(' ').collect();
    (case.rule, case.severity) = (words[0].to_owned(), words[1].to_owned());
    let base: &[(&str, &str)] = match words[2] {
        "library" => &LIBRARY,
        "run" => &RUN,
        "other" => &OTHER,
        wrong => panic!("{wrong}: there are library, run and other"),
    };
    case.units = base.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    case.version = words.get(4).map(|number| Version::parse(number).unwrap());
    for line in &lines[1..] {
        if let Some(rules) = line.strip_prefix("also ") {
            case.also = rules.split(' ').map(str::to_owned).collect();
        } else if let Some(at) = line.strip_prefix("at ") {
            let (file, text) =
                at.split_once(": ").map_or((at, None), |(file, text)| (file, Some(text.to_owned())));
            case.at = (file.to_owned(), text);
        } else {
            let (file, change) = line.split_once(": ").unwrap();
            change_unit(case.units.entry(file.to_owned()).or_default(), file, change);
        }
    }
    case
}

fn change_unit(text: &mut String, file: &str, change: &str) {
    if let Some(key) = change.strip_prefix('-') {
        let others = text.lines().filter(|line| line.split('=').next() != Some(key));
        *text = others.map(|line| format!("{line}\n")).collect();
        return;
    }
    let private = if file.ends_with(".socket") { "Socket" } else { "Service" };
    let (section, line) = match change.strip_prefix('[') {
        Some(rest) => rest.split_once("] ").unwrap(),
        None => (private, change),
    };
    *text += &format!("[{section}]\n{line}\n");
}

/// A folder of unit files that goes when it is dropped.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn with<'a>(name: &str, files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let path = std::env::temp_dir().join(format!("handover-check-{name}-{}", std::process::id()));
        let folder = Self(path);
        for (file, text) in files {
            folder.write(file, text);
        }
        folder
    }

    pub(super) fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn check(&self, version: Version) -> Vec<Finding> {
        let units = check::read(std::slice::from_ref(&self.0));
        assert_eq!(units.problems().collect::<Vec<_>>(), Vec::<String>::new());
        check::check(&units, version)
    }

    /// Does what a finding says.
    pub(super) fn mend(&self, finding: &Finding) {
        let mend = finding.mend.as_ref().unwrap();
        if !mend.by_hand {
            for drop_in in check::drop_in(std::slice::from_ref(finding), |_| None) {
                self.write(&drop_in.path, &drop_in.text);
            }
            return;
        }
        let lines = format!("[{}]\n{}\n", mend.section, mend.lines.join("\n"));
        match finding.line {
            Some(number) => {
                let text = fs::read_to_string(&finding.file).unwrap();
                let mut old: Vec<_> = text.lines().collect();
                old[number as usize - 1] = &lines;
                fs::write(&finding.file, old.join("\n")).unwrap();
            }
            None => self.write(&mend.unit, &lines),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Case {
    /// What is found is what the table says, where it says; and with the lines that mend it, it is not found.
    pub(super) fn try_it(&self, number: usize) -> Result<(), String> {
        let version = self.version.unwrap_or(Version::NEWEST);
        let files = self.units.iter().map(|(file, text)| (file.as_str(), text.as_str()));
        let folder = Folder::with(&format!("case-{number}"), files);
        let findings = folder.check(version);
        let rule = &self.rule;
        let told = |findings: &[Finding]| findings.iter().map(|one| format!("\n  {one}")).collect::<String>();
        let wrong = |what: &str| Err(format!("{rule}: {what}{}", told(&findings)));
        let mut found: Vec<_> = findings.iter().map(|finding| finding.rule).collect();
        let mut wanted: Vec<_> = self.also.iter().map(String::as_str).chain([rule.as_str()]).collect();
        found.sort_unstable();
        wanted.sort_unstable();
        if found != wanted {
            return wrong(&format!("wanted {wanted:?}"));
        }
        let finding = findings.iter().find(|finding| finding.rule == rule).unwrap();
        let (file, line) = &self.at;
        let text = finding.line.map(|number| self.units[file].lines().nth(number as usize - 1).unwrap());
        if finding.file.file_name().unwrap() != file.as_str() || text != line.as_deref() {
            return wrong(&format!("wanted at {file}: {line:?}"));
        }
        let (why, severity) = (&finding.why, finding.severity.word());
        if severity != self.severity || why.ends_with('.') || why.contains(". ") || why.contains('\n') {
            return wrong(&format!("wanted {}, and one sentence", self.severity));
        }
        // Nobody knows what somebody has meant by a line that means nothing.
        if rule == "unusable-unit" {
            return Ok(());
        }
        folder.mend(finding);
        let after = folder.check(version);
        let new = |now: &&Finding| !findings.iter().any(|then| then.rule == now.rule);
        // One that has promised nothing until now has promised something by it.
        let promised = self.severity != "note";
        let worse = promised && after.iter().filter(new).any(|now| now.severity > Severity::Note);
        if worse || after.iter().any(|finding| finding.rule == rule) {
            return Err(format!("{rule}: not mended by {:?}{}", finding.mend, told(&after)));
        }
        Ok(())
    }
}
