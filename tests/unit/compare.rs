//! What systemd says of units, on its bus and in its journal, beside what we say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use handover::unit::{Host, Loaded, Severity, Unit, UnitName, directive, load};
use serde_json::Value;

use super::shown::{self, Shown};
use crate::lab::Machine;

/// Where a system's manager looks for units, the first first.
const SEARCH_PATH: [&str; 3] = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];

/// Prints everything that systemd has to say of the units that it is given, one line of JSON each.
const ASK: &str = r#"
for unit; do
    path=$(busctl --json=short call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
        org.freedesktop.systemd1.Manager LoadUnit s "$unit" | sed 's/.*\["//; s/"\].*//')
    busctl --json=short call org.freedesktop.systemd1 "$path" \
        org.freedesktop.DBus.Properties GetAll s ""
done"#;

pub(super) fn major(machine: &Machine) -> u16 {
    let version = machine.succeed(&["systemctl", "--version"]);
    version.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A path inside the machine, as the host sees it.
pub(super) fn inside(machine: &Machine, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/root{path}", machine.pid1()))
}

/// What a comparison came to.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) units: usize,
    differences: Vec<String>,
}

impl Compared {
    /// Fails if there is a difference but for those that `meant` has the beginnings of; and if one of these
    /// is not there any more.
    pub(super) fn assert_none(mut self, meant: &[&str]) {
        for expected in meant {
            let before = self.differences.len();
            self.differences.retain(|found| !found.starts_with(expected));
            assert!(self.differences.len() < before, "no difference {expected:?} any more");
        }
        let count = self.differences.len();
        assert!(count == 0, "{count} differences in {} units:\n{}", self.units, self.differences.join("\n"));
    }
}

/// Asks the systemd of the machine and ourselves for the units `asked`.
pub(super) fn compare(machine: &Machine, asked: &[String]) -> Compared {
    machine.succeed(&["systemctl", "daemon-reload"]);
    let words: Vec<_> = ["sh", "-c", ASK, "sh"].into_iter().chain(asked.iter().map(String::as_str)).collect();
    let answers = machine.succeed(&words);
    let answers: Vec<BTreeMap<String, Value>> = answers.lines().map(answer).collect();
    assert_eq!(answers.len(), asked.len());
    let folders: Vec<_> = SEARCH_PATH.iter().map(|folder| inside(machine, folder)).collect();
    let files = asked.iter().map(|name| folders[0].join(name));
    let present = |folder: &PathBuf| folder.is_dir();
    let paths: Vec<_> = files.chain(folders.iter().filter(|folder| present(folder)).cloned()).collect();
    let loaded = load(&paths, host(machine));
    let mut differences = Vec::new();
    for (name, theirs) in asked.iter().zip(&answers) {
        for difference in differences_of(theirs, &loaded) {
            differences.push(format!("{name}: {difference}"));
        }
    }
    differences.extend(differences_of_warnings(machine, &loaded));
    Compared { units: asked.len(), differences }
}

/// The properties that one call of GetAll gave.
fn answer(line: &str) -> BTreeMap<String, Value> {
    let whole: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
    let properties = whole["data"][0].as_object().unwrap_or_else(|| panic!("{line}"));
    properties.iter().map(|(name, value)| (name.clone(), value["data"].clone())).collect()
}

/// What specifiers say in the machine.
fn host(machine: &Machine) -> Host {
    let line = |words: &[&str]| machine.succeed(words).trim().to_owned();
    let release = machine.succeed(&["cat", "/etc/os-release"]);
    let release = |key: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    Host::default()
        .with('H', line(&["uname", "-n"]))
        .with('l', line(&["uname", "-n"]).split('.').next().unwrap())
        .with('v', line(&["uname", "-r"]))
        .with('m', line(&["cat", "/etc/machine-id"]))
        .with('b', line(&["cat", "/proc/sys/kernel/random/boot_id"]).replace('-', ""))
        .with('q', line(&["uname", "-n"]))
        .with('a', "x86-64")
        .with('s', "/bin/bash")
        .with('o', release("ID"))
        .with('w', release("VERSION_ID"))
}

fn differences_of(theirs: &BTreeMap<String, Value>, loaded: &Loaded) -> Vec<String> {
    let state = theirs["LoadState"].as_str().unwrap();
    let id = UnitName::parse(theirs["Id"].as_str().unwrap()).unwrap();
    let service = loaded.services.iter().find(|(name, _)| *name == id).map(|(_, service)| service);
    let socket = loaded.sockets.iter().find(|(name, _)| *name == id).map(|(_, socket)| socket);
    let read = service.is_some() || socket.is_some();
    if (state == "loaded") != read {
        return vec![format!("LoadState={state}, and we {}", if read { "can use it" } else { "cannot" })];
    }
    let mut found = Vec::new();
    if let Some(service) = service {
        found = differences_of_properties(&shown::service(&id, service), theirs);
        found.extend(missing_units(&shown::units(&service.common), theirs));
    } else if let Some(socket) = socket {
        found = differences_of_properties(&shown::socket(&id, socket), theirs);
        found.extend(missing_units(&shown::units(&socket.common), theirs));
    }
    if let Some(unit) = loaded.units.iter().find(|unit| *unit.name() == id) {
        let files: Vec<_> = unit.files().iter().skip(1).map(|file| outside(file)).collect();
        let theirs = theirs["DropInPaths"].as_array().unwrap();
        let theirs: Vec<_> = theirs.iter().map(|path| path.as_str().unwrap().to_owned()).collect();
        // What hides other drop-ins is read as well, and is nothing.
        let theirs: Vec<_> = theirs.into_iter().filter(|path| !path.ends_with("hidden.conf")).collect();
        if read && files != theirs {
            found.push(format!("DropInPaths={theirs:?}, ours are {files:?}"));
        }
    }
    found
}

/// The path inside the machine.
fn outside(file: &Path) -> String {
    let path = file.to_str().unwrap();
    path.split_once("/root/").map_or_else(|| path.to_owned(), |(_, rest)| format!("/{rest}"))
}

fn differences_of_properties(ours: &Shown, theirs: &BTreeMap<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (property, ours) in ours {
        // An older systemd does not know all of them. The default timeout is the machine's own.
        let Some(theirs) = theirs.get(property) else { continue };
        let theirs = shortened(property, theirs);
        if *ours != theirs && !(property.starts_with("Timeout") && *ours == 90_000_000) {
            found.push(format!("{property}={theirs}, ours is {ours}"));
        }
    }
    found
}

/// Commands without what became of them when they ran.
fn shortened(property: &str, value: &Value) -> Value {
    match value.as_array() {
        Some(commands) if property.starts_with("Exec") => {
            commands.iter().map(|command| command.as_array().unwrap()[..3].to_vec()).collect()
        }
        None if property.starts_with("Standard") => {
            let kind = value.as_str().unwrap();
            kind.trim_end_matches("+console").trim_end_matches("-force").trim_end_matches("-fail").into()
        }
        _ => value.clone(),
    }
}

fn missing_units(ours: &[(&str, &[String])], theirs: &BTreeMap<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (property, units) in ours {
        let theirs = &theirs[*property];
        let missing =
            units.iter().filter(|unit| !theirs.as_array().unwrap().contains(&Value::from(unit.as_str())));
        found.extend(missing.map(|unit| format!("{property}= has no {unit}: {theirs}")));
    }
    found
}

/// Lines that one of both warns of, and the other one does not.
fn differences_of_warnings(machine: &Machine, loaded: &Loaded) -> Vec<String> {
    let version = major(machine);
    let journal = machine.journal(&["-q", "-b", "-o", "cat", "_PID=1"]);
    let mut theirs: BTreeMap<(String, u32), String> = BTreeMap::new();
    for line in journal.lines().filter(|line| line.starts_with('/')) {
        let mut parts = line.splitn(3, ':');
        let (file, number) = (parts.next().unwrap(), parts.next().and_then(|number| number.parse().ok()));
        let (Some(number), Some(message)) = (number, parts.next()) else { continue };
        let first = first_of_continued(&inside(machine, file), number);
        theirs.insert((file.to_owned(), first), message.trim().to_owned());
    }
    let mut ours = BTreeMap::new();
    for finding in &loaded.findings {
        // A unit that cannot be used was compared already, and systemd names no line for most reasons.
        if let Some(place) = finding.place.as_ref().filter(|_| finding.severity == Severity::Warning) {
            ours.insert((outside(&place.file), place.line), finding.to_string());
        }
    }
    // What only a newer systemd knows, or an older one knew.
    let assignments = loaded.units.iter().flat_map(Unit::assignments);
    let other_version: BTreeSet<_> = assignments
        .filter(|line| {
            let known = directive(&line.section, &line.key);
            known.is_some_and(|known| !(known.since..=known.until).contains(&version))
        })
        .map(|line| (outside(&line.place.file), line.place.line))
        .collect();
    let mut found = Vec::new();
    let errors = loaded.findings.iter().filter_map(|finding| finding.place.as_ref());
    let errors: BTreeSet<_> = errors.map(|place| (outside(&place.file), place.line)).collect();
    for (place, message) in theirs.iter().filter(|(place, _)| !errors.contains(*place)) {
        if !other_version.contains(place) {
            found.push(format!("{}:{}: {message}: we say nothing", place.0, place.1));
        }
    }
    for (place, message) in ours.iter().filter(|(place, _)| !theirs.contains_key(*place)) {
        found.push(format!("{}:{}: only we say {message}", place.0, place.1));
    }
    found
}

/// The first of the continued lines of which `number` is one: systemd names the last.
fn first_of_continued(file: &Path, number: u32) -> u32 {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let (mut first, mut at) = (number as usize, number as usize);
    while at > 1 && at <= lines.len() {
        let before = lines[at - 2];
        let comment = before.trim_start().starts_with(['#', ';']);
        if comment {
            at -= 1;
        } else if before.ends_with('\\') {
            at -= 1;
            first = at;
        } else {
            break;
        }
    }
    u32::try_from(first).unwrap()
}
