//! One assignment on its way to a typed setting, and what is said when it does not get there.

use std::fmt::Display;
use std::path::PathBuf;

use super::text::WHITESPACE;
use super::value::{self, Value};
use super::words::{self, Backslash};
use super::{Assignment, Finding, Unit, UnitName, specifier};

/// systemd's PATH_MAX, with its NUL.
const LONGEST_PATH: usize = 4096;

/// An assignment, its unit, and where findings go.
pub(super) struct Line<'a> {
    pub(super) unit: &'a Unit,
    pub(super) assignment: &'a Assignment,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl<'a> Line<'a> {
    /// Calls `read` for each assignment of `section`, in order.
    pub(super) fn each(
        unit: &'a Unit,
        section: &str,
        findings: &mut Vec<Finding>,
        mut read: impl FnMut(&mut Line<'_>),
    ) {
        for assignment in unit.assignments().iter().filter(|assignment| &*assignment.section == section) {
            read(&mut Line { unit, assignment, findings });
        }
    }

    pub(super) fn key(&self) -> &'a str {
        &self.assignment.key
    }

    pub(super) fn value(&self) -> &'a str {
        &self.assignment.value
    }

    pub(super) fn is_reset(&self) -> bool {
        self.assignment.value.is_empty()
    }

    /// Says that the assignment, or what is wrong of it, does not count.
    pub(super) fn ignore(&mut self, why: impl Display) {
        self.warn(format_args!("{why}; it is ignored"));
    }

    pub(super) fn warn(&mut self, what: impl Display) {
        let Assignment { key, value, place, .. } = self.assignment;
        self.findings.push(Finding::warning(place, format!("{key}={value}: {what}")));
    }

    /// Says that the unit cannot be used.
    pub(super) fn refuse(&mut self, why: impl Display) {
        let Assignment { key, value, place, .. } = self.assignment;
        self.findings.push(Finding::error(Some(place), format!("{key}={value}: {why}")));
    }

    /// Reads a setting that has no reset: an empty value is a wrong one.
    pub(super) fn set<T>(&mut self, slot: &mut T, read: impl FnOnce(&str) -> Value<T>) {
        match read(self.value()) {
            Ok(value) => *slot = value,
            Err(why) => self.ignore(why),
        }
    }

    /// The same for a setting that may be unset, but not by an empty value.
    pub(super) fn some<T>(&mut self, slot: &mut Option<T>, read: impl FnOnce(&str) -> Value<T>) {
        self.set(slot, |text| read(text).map(Some));
    }

    /// Reads a setting that an empty value resets.
    pub(super) fn or_default<T: Default>(&mut self, slot: &mut T, read: impl FnOnce(&str) -> Value<T>) {
        if self.is_reset() {
            *slot = T::default();
        } else {
            self.set(slot, read);
        }
    }

    pub(super) fn flag(&mut self, slot: &mut bool) {
        self.set(slot, value::boolean);
    }

    /// The specifiers of `text`, resolved; None says that this was reported.
    pub(super) fn resolve(&mut self, text: &str) -> Option<String> {
        specifier::resolve(text, self.unit).map_err(|why| self.ignore(why)).ok()
    }

    /// Reads text with specifiers, which an empty value resets.
    pub(super) fn text(&mut self, slot: &mut Option<String>) {
        self.text_if(slot, |_| Ok(()));
    }

    /// The same, if it is `fine`.
    pub(super) fn text_if(&mut self, slot: &mut Option<String>, fine: impl FnOnce(&str) -> Value<()>) {
        if self.is_reset() {
            *slot = None;
        } else if let Some(text) = self.resolve(self.value()) {
            match fine(&text) {
                Ok(()) => *slot = Some(text).filter(|text| !text.is_empty()),
                Err(why) => self.ignore(why),
            }
        }
    }

    /// Words without their quotes; what is wrong from some word on is reported.
    pub(super) fn words(&mut self, backslash: Backslash) -> Vec<String> {
        let (mut all, mut rest) = (Vec::new(), self.value());
        loop {
            match words::take(&mut rest, backslash) {
                Ok(None) => return all,
                Ok(Some(word)) => {
                    self.warn_of_escapes(word.odd);
                    all.push(word.text);
                }
                Err(why) => {
                    self.ignore(why);
                    return all;
                }
            }
        }
    }

    /// The same where an escape that C does not know ends the list, too.
    pub(super) fn strict_words(&mut self) -> Vec<String> {
        let (mut all, mut rest) = (Vec::new(), self.value());
        loop {
            match words::take(&mut rest, Backslash::C) {
                Ok(None) => return all,
                Ok(Some(word)) if !word.odd => all.push(word.text),
                Ok(Some(_)) => {
                    self.ignore("a backslash that begins no known escape");
                    return all;
                }
                Err(why) => {
                    self.ignore(why);
                    return all;
                }
            }
        }
    }

    pub(super) fn warn_of_escapes(&mut self, odd: bool) {
        if odd {
            self.warn("a backslash that begins no known escape; it stands as it is");
        }
    }

    /// What stands between whitespace, in lists that know no quotes.
    pub(super) fn plain_words(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.value().split(WHITESPACE).filter(|word| !word.is_empty())
    }

    /// Adds words with resolved specifiers to a list, which an empty value resets.
    pub(super) fn list<T>(
        &mut self,
        list: &mut Vec<T>,
        backslash: Backslash,
        read: impl Fn(&str) -> Value<T>,
    ) {
        if self.is_reset() {
            list.clear();
        }
        for word in self.words(backslash) {
            let Some(word) = self.resolve(&word) else { continue };
            match read(&word) {
                Ok(value) => list.push(value),
                Err(why) => self.ignore(format_args!("{word:?}: {why}")),
            }
        }
    }

    /// Adds names of units to a list, each once. Dependencies cannot be reset.
    pub(super) fn units(&mut self, list: &mut Vec<String>, kind: Option<&str>) {
        for word in self.plain_words() {
            let Some(word) = self.resolve(word) else { continue };
            match UnitName::parse(&word) {
                Some(name) if kind.is_none_or(|kind| kind == name.kind()) => {
                    if !list.contains(&word) {
                        list.push(word);
                    }
                }
                _ => {
                    let wanted = kind.map_or_else(|| "unit".to_owned(), |kind| format!(".{kind} unit"));
                    self.ignore(format_args!("{word:?} is no name of a {wanted}"));
                }
            }
        }
    }
}

/// An absolute path in its shortest writing.
pub(super) fn absolute(text: &str) -> Value<PathBuf> {
    if !text.starts_with('/') {
        return Err("wanted an absolute path".into());
    }
    path(text)
}

/// A path in its shortest writing: neither doubled slashes, nor `.`, nor a slash at the end; and without
/// `..`, which depends on symlinks.
pub(super) fn path(text: &str) -> Value<PathBuf> {
    let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("wanted a path without \"..\"".into());
    }
    if text.len() >= LONGEST_PATH || parts.iter().any(|part| part.len() > 255) {
        return Err("the path is too long".into());
    }
    let root = if text.starts_with('/') { "/" } else { "" };
    Ok(PathBuf::from(format!("{root}{}", parts.join("/"))))
}
