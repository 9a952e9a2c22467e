//! Every directive that systemd knows in the sections of services and sockets: `directives.txt`, one a
//! line, sorted, from `systemd --dump-configuration-items` of systemd 252, 257 and 262.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What is known of a directive of systemd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Directive {
    /// The first of systemd 252, 257 and 262 that knows it.
    pub since: u16,
    /// The last of them that does, or 262.
    pub until: u16,
}

/// `KEY SECTION[,SECTION...] SINCE UNTIL` a line.
const TABLE: &str = include_str!("directives.txt");

/// By section and key.
static DIRECTIVES: LazyLock<HashMap<(&str, &str), Directive>> = LazyLock::new(|| rows().collect());

fn rows() -> impl Iterator<Item = ((&'static str, &'static str), Directive)> {
    TABLE.lines().flat_map(|row| {
        let mut words = row.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (key, sections) = (next(), next());
        let mut version = || next().parse().unwrap_or_default();
        let directive = Directive { since: version(), until: version() };
        sections.split(',').map(move |section| ((section, key), directive))
    })
}

/// What systemd knows of `key` in `section`; None if that is nothing. Sections are those of service and
/// socket units.
pub fn find(section: &str, key: &str) -> Option<Directive> {
    DIRECTIVES.get(&(section, key)).copied()
}

/// All directives with their sections.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, Directive)> {
    rows().map(|((section, key), directive)| (section, key, directive))
}

/// Where an unknown `key` belongs, of the `sections` of its unit, or what it may be meant to be: the end
/// of a sentence, perhaps empty.
pub(super) fn hint(section: &str, key: &str, sections: &[&str]) -> String {
    if let Some(other) = sections.iter().find(|other| find(other, key).is_some()) {
        return format!("; it belongs in [{other}]");
    }
    nearest_in(section, key).map(|known| format!("; is {known}= meant?")).unwrap_or_default()
}

/// The directive of `section` that an unknown `key` is most likely to be meant as.
pub(crate) fn nearest_in(section: &str, key: &str) -> Option<&'static str> {
    nearest(key, DIRECTIVES.keys().filter(|(of, _)| *of == section).map(|(_, key)| *key))
}

/// The known word that `word` is most likely to be meant as, if any is close.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let longest = 64;
    if word.chars().count() > longest {
        return None;
    }
    let lower = word.to_ascii_lowercase();
    let distance = |known: &str| strsim::damerau_levenshtein(&lower, &known.to_ascii_lowercase());
    let (distance, found) = known.map(|known| (distance(known), known)).min()?;
    // A third of the letters wrong, and it is another word.
    (distance * 3 <= found.len()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_each_row_is_whole() {
        let rows: Vec<_> = TABLE.lines().collect();
        assert!(rows.is_sorted() && rows.len() > 400);
        for ((section, key), Directive { since, until }) in super::rows() {
            assert!(["Unit", "Service", "Socket", "Install"].contains(&section), "{key}");
            let known = [252, 257, 262];
            assert!(known.contains(&since) && known.contains(&until) && since <= until, "{key}");
        }
    }

    #[test]
    fn a_directive_is_known_in_its_section_alone_and_with_its_case() {
        assert_eq!(find("Service", "ExecStart"), Some(Directive { since: 252, until: 262 }));
        assert_eq!(find("Service", "ExecReloadPost"), Some(Directive { since: 262, until: 262 }));
        assert_eq!(find("Service", "CPUShares"), Some(Directive { since: 252, until: 257 }));
        assert_eq!(find("Socket", "ExecStart"), None);
        assert_eq!(find("Service", "execstart"), None);
    }

    #[test]
    fn an_unknown_one_is_told_what_it_may_be_meant_to_be() {
        let sections = ["Unit", "Service", "Install"];
        assert_eq!(hint("Service", "ExecStrat", &sections), "; is ExecStart= meant?");
        assert_eq!(hint("Service", "StartLimitIntervalSec", &sections), "; it belongs in [Unit]");
        assert_eq!(hint("Service", "Wibble", &sections), "");
    }
}
