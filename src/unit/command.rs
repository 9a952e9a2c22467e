//! A command line of a unit: ExecStart= and its relatives, see systemd.service(5), "COMMAND LINES".

use super::environment;
use super::line::{self, Line};
use super::text::WHITESPACE;
use super::words::{self, Backslash};
use super::{Place, specifier};

/// A command, split into words, with its specifiers resolved; variables are not: their values are
/// only known when it runs, see [`Command::arguments`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Command {
    /// The program: an absolute path, or a name to look for in the manager's path.
    pub path: String,
    /// The words, the first of which (argv\[0\]) is the program as written, or what `@` gave it instead.
    pub words: Vec<String>,
    /// `-`: a failure is as good as success.
    pub ignore_failure: bool,
    /// `:` was not there: `$VAR` and `${VAR}` in the words are variables.
    pub expand: bool,
    /// `+` or `!`.
    pub privilege: Privilege,
    /// `|` (systemd 258): the words are for the login shell of the user.
    pub via_shell: bool,
    /// The line that has it.
    pub place: Place,
}

/// How much of the unit's sandbox and credentials a command escapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Privilege {
    /// Runs with everything that the unit sets.
    #[default]
    Unit,
    /// `+`: with all privileges, whatever User=, Group= and the sandbox settings say.
    Full,
    /// `!`: User= and Group= do not hold. (`!!` means nothing: it is for kernels older than 4.3.)
    NoUser,
}

/// What a command is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Arguments {
    /// argv, its first word included.
    pub words: Vec<String>,
    /// The variables without a value, which stand for nothing.
    pub unset: Vec<String>,
}

impl Command {
    /// The words with the values of their variables: `${VAR}` anywhere is its value as it is, `$VAR` as a
    /// word of its own is the words of its value, perhaps none.
    pub fn arguments(&self, environment: &[(String, String)]) -> Arguments {
        if !self.expand {
            return Arguments { words: self.words.clone(), unset: Vec::new() };
        }
        let mut arguments = Arguments::default();
        for word in &self.words {
            let name = word.strip_prefix('$').filter(|name| !name.starts_with(['{', '$']));
            match name {
                Some(name) => {
                    let value = arguments.value(environment, name);
                    arguments.words.extend(words::split_relaxed(value));
                }
                None => {
                    let word = arguments.with_values(environment, word);
                    arguments.words.push(word);
                }
            }
        }
        arguments
    }
}

impl Arguments {
    fn value<'a>(&mut self, environment: &'a [(String, String)], name: &str) -> &'a str {
        let known = environment.iter().rev().find(|(known, _)| known == name);
        if known.is_none() && environment::is_name(name) {
            self.unset.push(name.to_owned());
        }
        known.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// `word` with its `${VAR}`s and `$$`s replaced.
    fn with_values(&mut self, environment: &[(String, String)], word: &str) -> String {
        let (mut done, mut rest) = (String::new(), word);
        while let Some((before, after)) = rest.split_once('$') {
            done.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                done.push('$');
                rest = after;
            } else if let Some((name, after)) =
                after.strip_prefix('{').and_then(|named| named.split_once('}'))
            {
                done.push_str(self.value(environment, name));
                rest = after;
            } else {
                done.push('$');
                rest = after;
            }
        }
        done + rest
    }
}

/// Why a command line is no command.
struct Wrong {
    why: String,
    /// After a `-` it is ignored, else the unit cannot be used.
    ignored: bool,
}

/// Adds the commands of a line to a list, which an empty value resets. `;` as a word of its own separates
/// commands.
pub(super) fn read(line: &mut Line<'_>, list: &mut Vec<Command>) {
    if line.is_reset() {
        list.clear();
    }
    let mut rest = line.value();
    while !rest.is_empty() {
        match one(line, &mut rest) {
            Ok(Some(command)) => list.push(command),
            Ok(None) => {}
            Err(Wrong { why, ignored: true }) => return line.ignore(why),
            Err(Wrong { why, ignored: false }) => return line.refuse(why),
        }
    }
}

/// The next command; None for a `;` where a program should be.
fn one(line: &mut Line<'_>, rest: &mut &str) -> Result<Option<Command>, Wrong> {
    // systemd ignores a line whose first word is wrong.
    let first =
        words::take(rest, Backslash::C).map_err(|why| Wrong { why: why.to_string(), ignored: true })?;
    let Some(first) = first else { return Ok(None) };
    line.warn_of_escapes(first.odd);
    if first.text == ";" {
        return Ok(None);
    }
    let (prefixes, program) = Prefixes::read(&first.text);
    let wrong = |why: String| Wrong { why, ignored: prefixes.ignore_failure };
    let unresolved = |why: specifier::Unresolved| wrong(why.to_string());
    let program = specifier::resolve(program, line.unit).map_err(unresolved)?;
    let path = check(&program, prefixes.via_shell).map_err(wrong)?;
    let mut argv = Vec::new();
    if !prefixes.argv0 {
        argv.push(program);
    }
    while !rest.is_empty() {
        if let Some(after) = strip_token(rest, ";") {
            *rest = after;
            break;
        }
        if let Some(after) = strip_token(rest, "\\;") {
            *rest = after;
            argv.push(";".to_owned());
            continue;
        }
        let Some(word) = words::take(rest, Backslash::C).map_err(|why| wrong(why.to_string()))? else {
            break;
        };
        line.warn_of_escapes(word.odd);
        argv.push(specifier::resolve(&word.text, line.unit).map_err(unresolved)?);
    }
    if argv.first().is_none_or(String::is_empty) {
        return Err(wrong("no program, or no argv[0] after \"@\"".to_owned()));
    }
    Ok(Some(Command {
        path,
        words: argv,
        ignore_failure: prefixes.ignore_failure,
        expand: !prefixes.no_expand,
        privilege: prefixes.privilege,
        via_shell: prefixes.via_shell,
        place: line.assignment.place.clone(),
    }))
}

/// What follows `token` as a word of its own.
fn strip_token<'a>(rest: &'a str, token: &str) -> Option<&'a str> {
    let after = rest.strip_prefix(token)?;
    let alone = after.is_empty() || after.starts_with(WHITESPACE);
    alone.then(|| after.trim_start_matches(WHITESPACE))
}

/// What stands before the program.
#[derive(Default)]
struct Prefixes {
    ignore_failure: bool,
    argv0: bool,
    no_expand: bool,
    privilege: Privilege,
    /// `!!` was there.
    ambient: bool,
    via_shell: bool,
}

impl Prefixes {
    /// Each once, in any order; the second of a kind is a part of the program's name.
    fn read(word: &str) -> (Self, &str) {
        let (mut found, mut rest) = (Self::default(), word);
        while let Some(c) = rest.chars().next() {
            match c {
                '-' if !found.ignore_failure => found.ignore_failure = true,
                '@' if !found.argv0 => found.argv0 = true,
                ':' if !found.no_expand => found.no_expand = true,
                '|' if !found.via_shell => found.via_shell = true,
                '+' if found.privilege == Privilege::Unit && !found.ambient => {
                    found.privilege = Privilege::Full
                }
                '!' if found.privilege == Privilege::Unit && !found.ambient => {
                    found.privilege = Privilege::NoUser
                }
                '!' if found.privilege == Privilege::NoUser => {
                    (found.privilege, found.ambient) = (Privilege::Unit, true);
                }
                _ => break,
            }
            rest = &rest[1..];
        }
        (found, rest)
    }
}

/// The path of a program.
fn check(program: &str, via_shell: bool) -> Result<String, String> {
    if program.is_empty() && via_shell {
        return Ok("/bin/sh".to_owned());
    }
    if program.is_empty() {
        return Err("no program after the prefixes".to_owned());
    }
    if program.contains(|c: char| c.is_ascii_control() || "\"'\\".contains(c)) {
        return Err(format!("{program:?} has characters that no program's name may have here"));
    }
    if program.ends_with('/') {
        return Err(format!("{program:?} is a folder"));
    }
    if program.starts_with('/') {
        return line::absolute(program).map(|path| path.to_string_lossy().into_owned());
    }
    if program.contains('/') || program == "." || program == ".." || program.len() > 255 {
        return Err(format!("{program:?} is neither an absolute path nor a name"));
    }
    Ok(program.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Host, Service, Severity, Unit, UnitName};
    use super::*;

    fn commands(value: &str) -> Vec<Command> {
        let text = format!("[Service]\nType=oneshot\nExecStart={value}\n");
        let mut findings = Vec::new();
        let name = UnitName::parse("web.service").unwrap();
        let files = [("web.service".into(), text.into_bytes())];
        let unit = Unit::read(name, Arc::new(Host::default()), &files, &mut findings);
        let service = Service::read(&unit, &mut findings);
        assert!(findings.iter().all(|finding| finding.severity == Severity::Warning), "{findings:?}");
        service.exec_start
    }

    fn arguments(value: &str, environment: &[(&str, &str)]) -> Arguments {
        let pairs = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        commands(value)[0].arguments(&pairs.collect::<Vec<_>>())
    }

    #[test]
    fn prefixes_stand_in_any_order_and_argv_0_is_what_at_gives() {
        let command = &commands("-@:+/bin/sh name -c x")[0];
        assert_eq!(
            (&*command.path, &command.words[..]),
            ("/bin/sh", &["name", "-c", "x"].map(String::from)[..])
        );
        assert!(command.ignore_failure && !command.expand);
        assert_eq!(command.privilege, Privilege::Full);
        assert_eq!(commands("!/bin/a")[0].privilege, Privilege::NoUser);
        assert_eq!(commands("!!/bin/a")[0].privilege, Privilege::Unit);
    }

    #[test]
    fn a_semicolon_of_its_own_separates_commands() {
        let paths: Vec<_> =
            commands("/bin/a 1 ; /bin/b;c ; ; /bin/d \\; e ;").into_iter().map(|one| one.words).collect();
        assert_eq!(paths, [vec!["/bin/a", "1"], vec!["/bin/b;c"], vec!["/bin/d", ";", "e"]]);
    }

    #[test]
    fn a_variable_in_braces_is_a_part_of_a_word_and_one_without_is_words() {
        let environment = [("A", "one  'two three'"), ("E", "")];
        assert_eq!(
            arguments("/bin/e $A x${A}y ${E} $E z", &environment).words,
            ["/bin/e", "one", "two three", "xone  'two three'y", "", "z"]
        );
        assert_eq!(arguments("/bin/e $$A a$A ${A", &environment).words, ["/bin/e", "$A", "a$A", "${A"]);
        assert_eq!(arguments(":/bin/e $A", &environment).words, ["/bin/e", "$A"]);
    }

    #[test]
    fn what_is_not_set_is_nothing_and_is_told() {
        let Arguments { words, unset } = arguments("/bin/e $A ${B} c", &[]);
        assert_eq!(
            (words, unset),
            (["/bin/e", "", "c"].map(String::from).to_vec(), vec!["A".into(), "B".into()])
        );
    }
}
