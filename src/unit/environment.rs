//! Variables: Environment= and the text of the files of EnvironmentFile=, see systemd.exec(5).

use std::path::Path;

use super::text::WHITESPACE;
use super::{Finding, Place};

/// Reads the text of a file of EnvironmentFile=: names and values in their order, the last one of a name
/// alone. What systemd would not take is a finding.
pub fn read_environment_file(file: &Path, text: &[u8], findings: &mut Vec<Finding>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let place = |line| Place { file: file.into(), line };
    let Ok(text) = std::str::from_utf8(text) else {
        let message = "the file is not UTF-8; nothing of it is taken";
        findings.push(Finding {
            place: None,
            ..Finding::warning(&place(0), format!("{}: {message}", file.display()))
        });
        return variables;
    };
    for (line, name, value) in assignments(text) {
        if is_name(&name) {
            set(&mut variables, name, value);
        } else {
            let message = format!("{name}={value}: not a variable; it is ignored");
            findings.push(Finding::warning(&place(line), message));
        }
    }
    variables
}

/// Sets a variable, in the place of an older one of its name.
pub(super) fn set(variables: &mut Vec<(String, String)>, name: String, value: String) {
    match variables.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = value,
        None => variables.push((name, value)),
    }
}

/// Whether a variable may be called so.
pub(super) fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(fine)
}

/// Where a character of the file stands.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    BeforeName,
    Name,
    BeforeValue,
    Value,
    Escape,
    Single,
    Double,
    DoubleEscape,
    Comment,
    CommentEscape,
}

/// The assignments of a text that a shell could read, too, each with the line of its name; any names and
/// values. os-release(5) has the same syntax.
pub(super) fn assignments(text: &str) -> Vec<(u32, String, String)> {
    let mut reader = Reader::default();
    for c in text.split('\0').next().unwrap_or_default().chars() {
        reader.take(c);
        reader.line += u32::from(c == '\n');
    }
    if !matches!(reader.state, State::BeforeName | State::Name | State::Comment | State::CommentEscape) {
        reader.finish();
    }
    reader.found
}

#[derive(Default)]
struct Reader {
    state: State,
    /// Lines before this one.
    line: u32,
    begun: u32,
    name: String,
    value: String,
    /// How much of the value ends in something else than unquoted whitespace.
    solid: usize,
    found: Vec<(u32, String, String)>,
}

impl Reader {
    fn take(&mut self, c: char) {
        let newline = "\n\r".contains(c);
        self.state = match self.state {
            State::BeforeName if "#;".contains(c) => State::Comment,
            State::BeforeName if WHITESPACE.contains(&c) => State::BeforeName,
            State::BeforeName => {
                self.begun = self.line + 1;
                self.name.push(c);
                State::Name
            }
            State::Name if newline => {
                self.name.clear();
                State::BeforeName
            }
            State::Name if c == '=' => State::BeforeValue,
            State::Name => {
                self.name.push(c);
                State::Name
            }
            State::BeforeValue | State::Value if newline => {
                self.finish();
                State::BeforeName
            }
            State::BeforeValue if c == '\'' => State::Single,
            State::BeforeValue if c == '"' => State::Double,
            State::BeforeValue if WHITESPACE.contains(&c) => State::BeforeValue,
            State::BeforeValue | State::Value if c == '\\' => {
                self.solid = self.value.len();
                State::Escape
            }
            State::BeforeValue | State::Value => self.push(c, !WHITESPACE.contains(&c), State::Value),
            // An escaped end of line is no character at all.
            State::Escape if newline => State::Value,
            State::Escape => self.push(c, true, State::Value),
            State::Single if c == '\'' => State::BeforeValue,
            State::Single => self.push(c, true, State::Single),
            State::Double if c == '"' => State::BeforeValue,
            State::Double if c == '\\' => State::DoubleEscape,
            State::Double => self.push(c, true, State::Double),
            State::DoubleEscape if "\"\\`$".contains(c) => self.push(c, true, State::Double),
            State::DoubleEscape if c == '\n' => State::Double,
            State::DoubleEscape => {
                self.push('\\', true, State::Double);
                self.push(c, true, State::Double)
            }
            State::Comment if c == '\\' => State::CommentEscape,
            State::Comment | State::CommentEscape if newline => State::BeforeName,
            State::Comment | State::CommentEscape => State::Comment,
        };
    }

    fn push(&mut self, c: char, solid: bool, state: State) -> State {
        self.value.push(c);
        if solid {
            self.solid = self.value.len();
        }
        state
    }

    fn finish(&mut self) {
        self.value.truncate(self.solid);
        self.solid = 0;
        let name = std::mem::take(&mut self.name).trim_end_matches(WHITESPACE).to_owned();
        self.found.push((self.begun, name, std::mem::take(&mut self.value)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_is_read_as_a_shell_would_and_what_is_no_variable_is_told_with_its_line() {
        let text = "# no\nA = 1 \nB='x y'\"z\" w\nC=a\\\nb\nA=2\nexport D=1\nE=\"a\nb\"\n9=x";
        let mut findings = Vec::new();
        let read = read_environment_file(Path::new("env"), text.as_bytes(), &mut findings);
        let pairs: Vec<_> = read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("A", "2"), ("B", "x yzw"), ("C", "ab"), ("E", "a\nb")]);
        let findings: Vec<_> = findings.iter().map(Finding::to_string).collect();
        assert_eq!(
            findings,
            [
                "env:7: warning: export D=1: not a variable; it is ignored",
                "env:10: warning: 9=x: not a variable; it is ignored"
            ]
        );
    }

    #[test]
    fn a_file_that_is_not_text_is_nothing_and_that_is_told() {
        let mut findings = Vec::new();
        assert!(read_environment_file(Path::new("env"), b"A=\xff", &mut findings).is_empty());
        assert_eq!(findings[0].to_string(), "warning: env: the file is not UTF-8; nothing of it is taken");
    }

    proptest! {
        #[test]
        fn a_value_in_single_quotes_is_read_as_it_is(value in "[^'\0\r]{0,30}") {
            let read = read_environment_file(Path::new("env"), format!("A='{value}'\n").as_bytes(), &mut Vec::new());
            prop_assert_eq!(read, [("A".to_owned(), value)]);
        }

        #[test]
        fn no_text_makes_it_panic(text in "([A-Z =\"'\\\\#;\n$]|\\PC){0,60}") {
            read_environment_file(Path::new("env"), text.as_bytes(), &mut Vec::new());
        }
    }
}
