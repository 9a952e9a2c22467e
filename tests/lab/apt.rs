//! sources.list(5): where this machine gets Debian from. Only reads; knows no host by name.

/// The first mirror of Debian's `main` that one file of apt's sources names; None if it names none.
///
/// `file` tells the format by its ending: `.sources` is deb822, all else is one line a source.
/// `codename` is this machine's own release, counted as Debian's beside `stable`, `sid` and their like.
pub(crate) fn mirror(file: &str, text: &str, codename: &str) -> Option<String> {
    let sources = if file.ends_with(".sources") { stanzas(text) } else { lines(text) };
    sources.into_iter().find(|source| source.is_debian(codename)).map(|source| source.uri)
}

/// One source, either format.
#[derive(Default)]
struct Source {
    kinds: Vec<String>,
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    /// The keyring, if the source insists on one.
    key: Option<String>,
    disabled: bool,
}

impl Source {
    /// Third parties use the same suites and components; what tells them apart is their key.
    fn is_debian(&self, codename: &str) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|w| w == word);
        let ours = [codename, "oldstable", "stable", "testing", "unstable", "sid"];
        !self.disabled
            && !self.uri.is_empty()
            && !self.uri.starts_with("cdrom:")
            && has(&self.kinds, "deb")
            && has(&self.components, "main")
            && ours.iter().any(|suite| has(&self.suites, suite))
            && self.key.as_ref().is_none_or(|key| key.contains("debian-archive"))
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The deb822 format: fields in stanzas, a stanza ends at an empty line.
fn stanzas(text: &str) -> Vec<Source> {
    let mut all = vec![Source::default()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            all.push(Source::default());
        }
        let (Some(source), Some((field, value))) = (all.last_mut(), line.split_once(':')) else { continue };
        match field.to_ascii_lowercase().as_str() {
            "types" => source.kinds = words(value),
            "uris" => source.uri = words(value).into_iter().next().unwrap_or_default(),
            "suites" => source.suites = words(value),
            "components" => source.components = words(value),
            "signed-by" => source.key = Some(value.trim().to_owned()),
            "enabled" => source.disabled = value.trim() == "no",
            _ => {}
        }
    }
    all
}

/// The older format: `deb [option=value ...] uri suite component...`.
fn lines(text: &str) -> Vec<Source> {
    let mut all = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once(char::is_whitespace) else { continue };
        let (options, rest) = match rest.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some(split) => split,
            None => ("", rest),
        };
        let key = words(options).iter().find_map(|o| o.strip_prefix("signed-by=").map(str::to_owned));
        let mut rest = words(rest).into_iter();
        let uri = rest.next().unwrap_or_default();
        let suites = rest.next().into_iter().collect();
        all.push(Source {
            kinds: words(kind),
            uri,
            suites,
            components: rest.collect(),
            key,
            disabled: false,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_of_debians_is_found_among_others() {
        let text = "Types: deb\nURIs: https://third.example/apt\nSuites: bookworm\nComponents: main\n\
                    Signed-By: /usr/share/keyrings/third.gpg\n\n\
                    # Types: none\nTypes: deb deb-src\nURIs: http://mirror.example/debian http://b.example\n\
                    Suites: bookworm bookworm-updates\nComponents: main contrib\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        assert_eq!(mirror("a.sources", text, "bookworm").as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror("a.sources", text, "trixie"), None);
        assert_eq!(mirror("a.sources", &text.replace("deb deb-src", "deb-src"), "bookworm"), None);
        let disabled = text.replace("Types: deb deb-src", "Enabled: no\nTypes: deb");
        assert_eq!(mirror("a.sources", &disabled, "bookworm"), None);
    }

    #[test]
    fn a_line_of_debians_is_found_among_others() {
        let text = "# deb http://old.example/debian sid main\ndeb cdrom:[Disc]/ sid main\n\
                    deb https://third.example cloud-sdk-sid main\n\
                    deb [arch=amd64 signed-by=/etc/apt/third.gpg] http://fourth.example sid main\n\
                    deb\t[ arch=amd64 ] http://mirror.example/debian  sid main non-free # ours\n";
        assert_eq!(mirror("sources.list", text, "trixie").as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror("sources.list", "deb http://mirror.example sid contrib", "trixie"), None);
    }
}
