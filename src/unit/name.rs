//! Names of units: `prefix@instance.type`, see systemd.unit(5).

use std::fmt;

/// The types of units.
const TYPES: [&str; 11] = [
    "service",
    "socket",
    "target",
    "device",
    "mount",
    "automount",
    "swap",
    "timer",
    "path",
    "slice",
    "scope",
];

/// systemd's UNIT_NAME_MAX, with its NUL.
const LONGEST: usize = 256;

/// The name of a unit, known to be valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnitName {
    full: String,
    /// Where the `@` is, if there is one.
    at: Option<usize>,
    /// Where the dot before the type is.
    dot: usize,
}

impl UnitName {
    /// Reads a name with its type; None if it is not valid.
    pub fn parse(name: &str) -> Option<Self> {
        let dot = name.rfind('.')?;
        let at = name[..dot].find('@');
        let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let valid = name.len() < LONGEST
            && TYPES.contains(&&name[dot + 1..])
            && dot > 0
            && at != Some(0)
            && name.chars().all(fine);
        valid.then(|| Self { full: name.to_owned(), at, dot })
    }

    /// The name as a whole, with its type: %n.
    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// Without its type: %N.
    pub fn stem(&self) -> &str {
        &self.full[..self.dot]
    }

    /// What is before the `@`, or before the type: %p.
    pub fn prefix(&self) -> &str {
        &self.full[..self.at.unwrap_or(self.dot)]
    }

    /// What is between the `@` and the type: %i. Empty for a template, None where there is no `@`.
    pub fn instance(&self) -> Option<&str> {
        self.at.map(|at| &self.full[at + 1..self.dot])
    }

    /// The type: `service`, `socket`.
    pub fn kind(&self) -> &str {
        &self.full[self.dot + 1..]
    }

    /// Whether it is a template, `prefix@.type`, which cannot run.
    pub fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// The template that it is an instance of.
    pub fn template(&self) -> Option<Self> {
        self.at.and_then(|at| Self::parse(&format!("{}@.{}", &self.full[..at], self.kind())))
    }

    /// The same name with another type: the service that a socket unit starts.
    pub fn with_kind(&self, kind: &str) -> Option<Self> {
        Self::parse(&format!("{}.{kind}", self.stem()))
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// Turns around what systemd-escape(1) did: `-` is `/`, and `\x2d` is `-`. None if it was not escaped so,
/// or is not UTF-8.
pub(super) fn unescape(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'-' => b'/',
            b'\\' => {
                let x = rest.next();
                let digits = [rest.next()?, rest.next()?];
                let hex = x == Some(b'x') && digits.iter().all(u8::is_ascii_hexdigit);
                let code = hex.then(|| u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok());
                code.flatten()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The path that an escaped name stands for: absolute, `-` alone is `/`.
pub(super) fn unescape_path(text: &str) -> Option<String> {
    let path = if text == "-" { String::new() } else { unescape(text)? };
    let clean = !path.ends_with('/') && !path.starts_with('/') && !path.contains("//");
    clean.then(|| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_has_a_prefix_perhaps_an_instance_and_a_type() {
        let name = UnitName::parse("web-api@blue@2.service").unwrap();
        assert_eq!((name.prefix(), name.instance(), name.kind()), ("web-api", Some("blue@2"), "service"));
        assert_eq!((name.stem(), name.as_str()), ("web-api@blue@2", "web-api@blue@2.service"));
        assert_eq!(name.template().unwrap().as_str(), "web-api@.service");
        let name = UnitName::parse("a.b.socket").unwrap();
        assert_eq!((name.prefix(), name.instance(), name.kind()), ("a.b", None, "socket"));
        assert_eq!(name.with_kind("service").unwrap().as_str(), "a.b.service");
        assert!(UnitName::parse("a@.service").unwrap().is_template());
    }

    #[test]
    fn what_is_no_name_is_none() {
        let long = format!("{}.service", "a".repeat(250));
        for name in ["", "web", ".service", "@x.service", "a b.service", "a/b.service", "a.conf", &long] {
            assert_eq!(UnitName::parse(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_libsystemd_escapes_comes_back(text in "[^\0]{0,40}") {
            prop_assert_eq!(unescape(&libsystemd::unit::escape_name(&text)), Some(text));
        }

        #[test]
        fn a_path_comes_back_without_its_doubled_slashes(parts in prop::collection::vec("[a-z.-]{1,5}", 0..4)) {
            let path = format!("/{}", parts.join("/"));
            prop_assert_eq!(unescape_path(&libsystemd::unit::escape_path(&path)), Some(path));
        }

        #[test]
        fn no_name_makes_it_panic(name in ".*") {
            let _ = (UnitName::parse(&name), unescape(&name), unescape_path(&name));
        }
    }
}
