//! The text of a unit file: lines, continuations, sections, assignments. See systemd.syntax(7).
//!
//! Follows what systemd does where the manual is silent: NUL and CR end lines, too, a comment may stand
//! between continued lines, and the end of a file ends a continuation.

use std::path::Path;
use std::sync::Arc;

use super::directive;
use super::{Assignment, Finding, Place};

/// The longest line, continuations joined: systemd's LONG_LINE_MAX.
const LONGEST_LINE: usize = 1024 * 1024;

/// systemd's WHITESPACE.
pub(super) const WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads one file. `sections` are those that a unit of this type may have.
///
/// Errors: a finding that makes the rest of the file unreadable.
pub(super) fn read(
    text: &[u8],
    file: &Arc<Path>,
    sections: &[&str],
    findings: &mut Vec<Finding>,
) -> (Vec<Assignment>, Result<(), Finding>) {
    let section = Section { name: "".into(), standing: Standing::Missing };
    let mut reader = Reader { file, sections, findings, section, assignments: Vec::new() };
    let read = logical_lines(text, |number, line| reader.line(number, line));
    let read = read.map_err(|(number, why)| Finding::error(Some(&reader.place(number)), why));
    (reader.assignments, read)
}

/// The line where it happened, and what.
type Stop = (u32, String);

/// Calls `each` with every line that is not a comment, continuations joined, and the number of its first.
fn logical_lines(text: &[u8], mut each: impl FnMut(u32, &[u8]) -> Result<(), Stop>) -> Result<(), Stop> {
    let mut continued: Option<(u32, Vec<u8>)> = None;
    let mut mark_seen = false;
    for (number, raw) in (1..).zip(Lines(text)) {
        if raw.trim_ascii_start().first().is_some_and(|first| b"#;".contains(first)) {
            continue;
        }
        let unmarked = if mark_seen { None } else { raw.strip_prefix(BYTE_ORDER_MARK) };
        mark_seen |= unmarked.is_some();
        let raw = unmarked.unwrap_or(raw);
        let (first, mut line) = continued.take().unwrap_or((number, Vec::new()));
        if line.len() + raw.len() > LONGEST_LINE {
            return Err((first, format!("the line has more than {LONGEST_LINE} bytes")));
        }
        line.extend_from_slice(raw);
        if ends_escaped(&line) {
            line.pop();
            line.push(b' ');
            continued = Some((first, line));
        } else {
            each(first, &line)?;
        }
    }
    continued.map_or(Ok(()), |(first, line)| each(first, &line))
}

/// Whether the last byte is a backslash that no other one escapes.
pub(super) fn ends_escaped(line: &[u8]) -> bool {
    line.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Lines of bytes. Each of LF, CR and NUL ends one; different ones in a row are one end, up to a NUL.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let ends = |byte: &u8| b"\n\r\0".contains(byte);
        if self.0.is_empty() {
            return None;
        }
        let Some(end) = self.0.iter().position(ends) else {
            return Some(std::mem::take(&mut self.0));
        };
        let (line, rest) = self.0.split_at(end);
        let mut length = 1;
        while rest[length - 1] != 0
            && rest.get(length).is_some_and(|byte| ends(byte) && !rest[..length].contains(byte))
        {
            length += 1;
        }
        self.0 = &rest[length..];
        Some(line)
    }
}

/// The section that the lines are in.
struct Section {
    name: Arc<str>,
    standing: Standing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Before the first one.
    Missing,
    /// One that systemd knows.
    Fine,
    /// X-...: somebody else's.
    Private,
    /// One that was reported already.
    Unknown,
}

struct Reader<'a> {
    file: &'a Arc<Path>,
    sections: &'a [&'a str],
    findings: &'a mut Vec<Finding>,
    section: Section,
    assignments: Vec<Assignment>,
}

impl Reader<'_> {
    fn place(&self, line: u32) -> Place {
        Place { file: self.file.clone(), line }
    }

    fn warn(&mut self, number: u32, message: impl Into<String>) {
        self.findings.push(Finding::warning(&self.place(number), message));
    }

    fn line(&mut self, number: u32, line: &[u8]) -> Result<(), Stop> {
        // systemd gives up a file that is not UTF-8, too.
        let line = std::str::from_utf8(line).map_err(|_| (number, "the line is not UTF-8".to_owned()))?;
        let line = line.trim_matches(WHITESPACE);
        if line.is_empty() {
            return Ok(());
        }
        if let Some(header) = line.strip_prefix('[') {
            return self.header(number, header);
        }
        match (self.section.standing, line.split_once('=')) {
            (Standing::Unknown, _) | (Standing::Private, None | Some(("", _))) => {}
            (Standing::Missing, _) => self.warn(number, "a line before the first [Section]; it is ignored"),
            (Standing::Fine, None) => {
                self.warn(number, format!("{line:?} has no \"=\"; the line is ignored"));
            }
            (Standing::Fine, Some(("", _))) => {
                self.warn(number, "nothing before the \"=\"; the line is ignored");
            }
            (_, Some((key, value))) => self.assignment(number, key, value),
        }
        Ok(())
    }

    fn header(&mut self, number: u32, header: &str) -> Result<(), Stop> {
        let Some(name) = header.strip_suffix(']') else {
            return Err((number, format!("\"[{header}\" wants to be a [Section] and has no \"]\"")));
        };
        let unsafe_in_a_name = |c: char| c.is_control() || "\"'\\".contains(c);
        if name.is_empty() || name.contains(unsafe_in_a_name) {
            return Err((number, format!("{name:?} cannot be the name of a section")));
        }
        let standing = if self.sections.contains(&name) {
            Standing::Fine
        } else if name.starts_with("X-") {
            Standing::Private
        } else {
            let nearest = directive::nearest(name, self.sections.iter().copied());
            let hint = nearest.map(|known| format!("; is [{known}] meant?")).unwrap_or_default();
            self.warn(number, format!("unknown section [{name}], all of it is ignored{hint}"));
            Standing::Unknown
        };
        self.section = Section { name: name.into(), standing };
        Ok(())
    }

    fn assignment(&mut self, number: u32, key: &str, value: &str) {
        let (key, value) = (key.trim_matches(WHITESPACE), value.trim_matches(WHITESPACE));
        let section = self.section.name.clone();
        let ours = self.section.standing == Standing::Fine && !key.starts_with("X-");
        if ours && directive::find(&section, key).is_none() {
            let hint = directive::hint(&section, key, self.sections);
            self.warn(number, format!("unknown directive {key}= in [{section}], it is ignored{hint}"));
        }
        let (key, value, place) = (key.to_owned(), value.to_owned(), self.place(number));
        self.assignments.push(Assignment { section, key, value, place });
    }
}
