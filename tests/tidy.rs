//! What the design says about the source, checked on every line of it.

use std::fs;
use std::path::{Path, PathBuf};

const MOST_LINES: usize = 400;
const MOST_LINES_OF_A_FUNCTION: usize = 70;

/// Files that decide without I/O: no runtime, no files, no clock.
const PURE: &[&str] = &[
    "activation/env.rs",
    "check/drop_in.rs",
    "check/finding.rs",
    "check/reader.rs",
    "check/rule.rs",
    "check/rules/readiness.rs",
    "check/rules/reload.rs",
    "check/rules/restart.rs",
    "check/rules/run.rs",
    "check/rules/sandbox.rs",
    "check/rules/sockets.rs",
    "check/rules/stopping.rs",
    "check/rules/store.rs",
    "check/scene.rs",
    "cli/check/record.rs",
    "cli/demo/book.rs",
    "cli/demo/chart.rs",
    "cli/demo/course.rs",
    "cli/demo/record.rs",
    "cli/demo/session.rs",
    "cli/demo/words.rs",
    "cli/init/text.rs",
    "fdstore/books.rs",
    "fdstore/layout.rs",
    "fdstore/names.rs",
    "fdstore/poll.rs",
    "fdstore/record.rs",
    "http/luggage.rs",
    "notify/address.rs",
    "notify/message.rs",
    "upgrade/failure.rs",
    "upgrade/machine.rs",
    "upgrade/message.rs",
    "upgrade/message/fields.rs",
    "upgrade/moves/luggage.rs",
    "upgrade/status.rs",
    "unit/command.rs",
    "unit/common.rs",
    "unit/directive.rs",
    "unit/document.rs",
    "unit/environment.rs",
    "unit/exec_read.rs",
    "unit/files.rs",
    "unit/kill.rs",
    "unit/line.rs",
    "unit/name.rs",
    "unit/service_read.rs",
    "unit/signal.rs",
    "unit/socket_read.rs",
    "unit/span.rs",
    "unit/specifier.rs",
    "unit/text.rs",
    "unit/value.rs",
    "unit/words.rs",
    "manager/verdict.rs",
    "run/address.rs",
    "run/machine.rs",
    "run/machine/kept.rs",
    "run/machine/owed.rs",
    "run/machine/steps.rs",
    "run/machine/words.rs",
    "run/state.rs",
    "run/table.rs",
    "manager/wire.rs",
    "pid1/machine/enter.rs",
    "pid1/machine/events.rs",
    "pid1/machine/mod.rs",
    "pid1/machine/words.rs",
    "pid1/rate.rs",
];

/// A file of the source, by its path below `src` or `tests`.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines of code with their numbers: no comments, nothing from the unit tests on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        code.map(|(number, line)| (number + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn chapter(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }
}

fn read(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    collect(&root, &mut files);
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Source { path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text }
    };
    files.into_iter().map(source).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The chapters in the order in which `lib.rs` has them.
fn chapters() -> Vec<String> {
    let lib = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap();
    let name = |line: &str| Some(line.split_once("mod ")?.1.strip_suffix(';')?.to_owned());
    lib.lines().filter(|line| !line.starts_with("//")).filter_map(name).collect()
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Every line of code of the files that `whose` picks which has one of `words`.
fn lines_with(sources: &[Source], whose: impl Fn(&Source) -> bool, words: &[&str]) -> Vec<String> {
    let hit = |source: &Source| -> Vec<String> {
        let bad = source.code().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        bad.map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim())).collect()
    };
    sources.iter().filter(|source| whose(source)).flat_map(hit).collect()
}

#[test]
fn a_chapter_uses_only_chapters_above_it() {
    let (sources, chapters) = (read("src"), chapters());
    assert!(chapters.len() > 7, "{chapters:?}");
    for (place, chapter) in chapters.iter().enumerate() {
        let later: Vec<_> = chapters[place + 1..].iter().map(|later| format!("crate::{later}")).collect();
        let later: Vec<_> = later.iter().map(String::as_str).collect();
        let used = lines_with(&sources, |source| source.chapter() == chapter, &later);
        assert_none(&format!("{chapter} uses a chapter below it"), used);
    }
}

#[test]
fn a_pure_file_has_no_runtime_no_files_and_no_clock() {
    let (sources, words) = (read("src"), ["tokio", "std::fs", "::now()", "std::net", "std::process::"]);
    for pure in PURE {
        assert!(sources.iter().any(|source| source.path == *pure), "{pure} is gone");
    }
    assert_none("not pure", lines_with(&sources, |source| PURE.contains(&source.path.as_str()), &words));
}

#[test]
fn a_judge_shares_no_behaviour_with_the_judged() {
    let words = ["crate::daemon", "crate::fdstore", "crate::upgrade"];
    assert_none(
        "not for the stand-in",
        lines_with(&read("src"), |source| source.chapter() == "pid1", &words),
    );
}

#[test]
fn only_sys_is_unsafe() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "allow(unsafe_code", "expect(unsafe_code"];
    assert_none("unsafe outside sys", lines_with(&read("src"), |source| source.chapter() != "sys", &words));
}

#[test]
fn sys_knows_no_systemd_word() {
    let words = ["LISTEN_", "NOTIFY_", "MAINPID", "systemd", "FDSTORE"];
    assert_none("systemd in sys", lines_with(&read("src"), |source| source.chapter() == "sys", &words));
}

#[test]
fn the_library_never_prints_exits_or_changes_the_environment() {
    let words = ["println!", "print!", "process::exit", "set_var", "remove_var", "clap::", "zbus::"];
    let library = |source: &Source| !["cli", "main", "manager"].contains(&source.chapter());
    assert_none("not for a library", lines_with(&read("src"), library, &words));
}

#[test]
fn every_module_says_what_it_is_for_and_every_chapter_what_it_never_does() {
    for source in read("src") {
        assert!(source.text.starts_with("//! "), "{} does not say what it is for", source.path);
        if source.path.ends_with("/mod.rs") || !source.path.contains('/') {
            let banner = source.text.lines().take_while(|line| line.starts_with("//!"));
            let never = banner.collect::<String>().contains("never")
                || ["lib.rs", "main.rs"].contains(&&*source.path);
            assert!(never, "{} does not say what it never does", source.path);
        }
    }
}

#[test]
fn files_and_functions_stay_small() {
    for folder in ["src", "tests", "benches"] {
        for source in read(folder) {
            let lines = source.text.lines().count();
            assert!(lines <= MOST_LINES, "{folder}/{} has {lines} lines", source.path);
            for (name, lines) in functions(&source.text) {
                let path = &source.path;
                assert!(lines <= MOST_LINES_OF_A_FUNCTION, "{folder}/{path}: {name} has {lines} lines");
            }
        }
    }
}

/// The functions of a formatted file with their lengths: from the line of the name to the brace that
/// is as far to the right.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut functions = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some((before, name)) = line.split_once("fn ") else { continue };
        if !before.trim().split(' ').all(|word| word.is_empty() || word.starts_with("pub") || word == "async")
        {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let rest = lines[number..].iter().position(|line| *line == end).unwrap_or(0);
        let length = if line.ends_with('}') { 1 } else { rest + 1 };
        functions.push((name.split(['(', '<']).next().unwrap().to_owned(), length));
    }
    functions
}

#[test]
fn a_test_waits_for_an_event_never_for_a_while() {
    // The samples are services, which may take their time.
    let tests = |source: &Source| !source.path.starts_with("services/") && source.path != "tidy.rs";
    assert_none("sleeping", lines_with(&read("tests"), tests, &["sleep(", "park_timeout("]));
    let mut found = Vec::new();
    for source in read("src") {
        let tests = source.text.split("#[cfg(test)]").skip(1).collect::<String>();
        if tests.contains("thread::sleep") {
            found.push(source.path);
        }
    }
    assert_none("sleeping in unit tests", found);
}

#[test]
fn nothing_is_left_to_be_done() {
    let words = ["todo!(", "unimplemented!(", "dbg!(", concat!("TO", "DO"), concat!("FIX", "ME"), "#[ignore"];
    for folder in ["src", "tests"] {
        for source in read(folder).iter().filter(|source| source.path != "tidy.rs") {
            let found = words.iter().find(|word| source.text.contains(*word));
            assert!(found.is_none(), "{folder}/{}: {}", source.path, found.unwrap());
        }
    }
}

#[test]
fn the_readme_lists_every_reason_and_links_to_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for reason in handover::upgrade::Reason::ALL {
        let row = format!("| {} | `{}` |", reason.exit_code(), reason.name());
        assert!(readme.contains(&row), "no row {row}");
    }
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let is_heading = |anchor: &str| {
            let title = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            readme.lines().filter(|line| line.starts_with('#')).any(|line| title(line) == anchor)
        };
        let exists = link.strip_prefix('#').map_or_else(|| root.join(link).exists(), is_heading);
        assert!(exists, "{link} is gone");
    }
}
