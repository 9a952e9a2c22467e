//! Specifiers: `%n` and its relatives, see systemd.unit(5), "SPECIFIERS".

use super::document::Unit;
use super::name::{unescape, unescape_path};

/// Why a specifier has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("%{0}: {1}")]
pub(super) struct Unresolved(char, &'static str);

/// Replaces the specifiers of `text`. As under systemd, a `%` before anything but a letter or digit stays
/// as it is, and so does one at the end.
pub(super) fn resolve(text: &str, unit: &Unit) -> Result<String, Unresolved> {
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            resolved.push(c);
            continue;
        }
        match rest.next() {
            None | Some('%') => resolved.push('%'),
            Some(letter) if letter.is_ascii_alphanumeric() => resolved.push_str(&value(letter, unit)?),
            Some(other) => resolved.extend(['%', other]),
        }
    }
    Ok(resolved)
}

/// What a specifier stands for.
fn value(letter: char, unit: &Unit) -> Result<String, Unresolved> {
    let (name, host) = (&unit.name, &unit.host);
    let unescaped = |text: &str| {
        unescape(text).ok_or(Unresolved(letter, "the name is not escaped as systemd-escape does"))
    };
    let path = |text: &str| unescape_path(text).ok_or(Unresolved(letter, "the name stands for no path"));
    let last = || name.prefix().rsplit('-').next().unwrap_or_default();
    let file = |unit: &Unit| unit.files.first().map(|file| file.to_path_buf());
    let text = |value: &str| value.to_owned();
    let value = match letter {
        'n' => text(name.as_str()),
        'N' => text(name.stem()),
        'p' => text(name.prefix()),
        'P' => unescaped(name.prefix())?,
        'i' => text(name.instance().unwrap_or_default()),
        'I' => unescaped(name.instance().unwrap_or_default())?,
        'j' => text(last()),
        'J' => unescaped(last())?,
        'f' => path(name.instance().unwrap_or_else(|| name.prefix()))?,
        'y' => file(unit).map(|file| file.display().to_string()).unwrap_or_default(),
        'Y' => {
            let folder = file(unit).and_then(|file| Some(file.parent()?.display().to_string()));
            folder.unwrap_or_default()
        }
        'd' => return Err(Unresolved(letter, "the folder of credentials is not known before the start")),
        letter => {
            let known = host.specifier(letter).map(str::to_owned);
            known.ok_or(Unresolved(letter, "there is no such specifier; write %% for a percent sign"))?
        }
    };
    Ok(value)
}
