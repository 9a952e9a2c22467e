//! Words of a value: whitespace between them, quotes and escapes in them. See systemd.syntax(7),
//! "QUOTING", and systemd.service(5), "COMMAND LINES".

use super::text::WHITESPACE;

/// What a backslash means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backslash {
    /// The escapes of C: `\n`, `\x41`, `\101`, `\u00e4`; and `\s`, a space.
    C,
    /// The next character means itself.
    Next,
}

/// A word without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// It has escapes that C does not know; they stand as they are written.
    pub(super) odd: bool,
}

/// Why there is no word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("a quote is never closed, or a backslash stands at the end")]
    Unbalanced,
    #[error("its escapes make bytes that are not UTF-8")]
    NotUtf8,
}

/// Takes the next word off `rest`; None at the end. What is left begins with the next word.
pub(super) fn take(rest: &mut &str, backslash: Backslash) -> Result<Option<Word>, Wrong> {
    let text = rest.trim_start_matches(WHITESPACE);
    *rest = text;
    if text.is_empty() {
        return Ok(None);
    }
    // As systemd: strictly first; then unknown escapes stand as they are.
    let strict = extract(text, backslash, Mode::Strict);
    let odd = strict.is_none();
    let (bytes, used) = strict.or_else(|| extract(text, backslash, Mode::Odd)).ok_or(Wrong::Unbalanced)?;
    *rest = text[used..].trim_start_matches(WHITESPACE);
    let text = String::from_utf8(bytes).map_err(|_| Wrong::NotUtf8)?;
    Ok(Some(Word { text, odd }))
}

/// All words of `text`, as systemd splits the value of a variable: what is wrong is taken as it stands.
pub(super) fn split_relaxed(text: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start_matches(WHITESPACE));
    while !rest.is_empty() {
        let Some((bytes, used)) = extract(rest, Backslash::Next, Mode::Relaxed) else { break };
        words.push(String::from_utf8_lossy(&bytes).into_owned());
        rest = rest[used..].trim_start_matches(WHITESPACE);
    }
    words
}

/// How much is forgiven.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nothing.
    Strict,
    /// Escapes that C does not know, and a backslash at the very end outside of quotes.
    Odd,
    /// A quote that is not closed, and a backslash at the end, which is dropped.
    Relaxed,
}

/// The word at the beginning of `text`, and how many bytes of it are used up.
fn extract(text: &str, backslash: Backslash, mode: Mode) -> Option<(Vec<u8>, usize)> {
    let (mut word, mut quote, mut at) = (Vec::new(), None, 0);
    while let Some(c) = text[at..].chars().next() {
        at += c.len_utf8();
        match (c, quote) {
            ('\\', _) => {
                at += unescape(&text[at..], backslash, mode, quote.is_some(), &mut word)?;
            }
            (c, Some(open)) if c == open => quote = None,
            ('\'' | '"', None) => quote = Some(c),
            (c, None) if WHITESPACE.contains(&c) => return Some((word, at)),
            (c, _) => push(&mut word, c),
        }
    }
    (quote.is_none() || mode == Mode::Relaxed).then_some((word, at))
}

fn push(word: &mut Vec<u8>, c: char) {
    word.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// What `rest` is after a backslash goes to `word`; returns how many bytes of it are used up.
fn unescape(rest: &str, backslash: Backslash, mode: Mode, quoted: bool, word: &mut Vec<u8>) -> Option<usize> {
    let Some(next) = rest.chars().next() else {
        match mode {
            Mode::Odd if !quoted => word.push(b'\\'),
            Mode::Relaxed => {}
            Mode::Odd | Mode::Strict => return None,
        }
        return Some(0);
    };
    if backslash == Backslash::C {
        match (of_c(rest), mode) {
            (Some((Value::Byte(byte), used)), _) => {
                word.push(byte);
                return Some(used);
            }
            (Some((Value::Char(c), used)), _) => {
                push(word, c);
                return Some(used);
            }
            (None, Mode::Strict) => return None,
            (None, _) => word.push(b'\\'),
        }
    }
    push(word, next);
    Some(next.len_utf8())
}

/// What an escape stands for.
enum Value {
    Byte(u8),
    Char(char),
}

/// The escape of C that `rest` begins with, after its backslash, and its length. None of them makes a NUL.
fn of_c(rest: &str) -> Option<(Value, usize)> {
    let digits = |from: usize, count: usize, radix| {
        let digits = rest.get(from..from + count)?;
        let all = digits.chars().all(|c| c.is_digit(radix));
        all.then(|| u32::from_str_radix(digits, radix).ok()).flatten().filter(|value| *value != 0)
    };
    let byte = |value: Option<u32>| Some(Value::Byte(u8::try_from(value?).ok()?));
    let simple = match rest.chars().next()? {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        's' => b' ',
        '\\' => b'\\',
        '"' => b'"',
        '\'' => b'\'',
        'x' => return Some((byte(digits(1, 2, 16))?, 3)),
        'u' => return Some((Value::Char(char::from_u32(digits(1, 4, 16)?)?), 5)),
        'U' => return Some((Value::Char(char::from_u32(digits(1, 8, 16)?)?), 9)),
        '0'..='7' => return Some((byte(digits(0, 3, 8))?, 3)),
        _ => return None,
    };
    Some((Value::Byte(simple), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<String>, Wrong> {
        let (mut words, mut rest) = (Vec::new(), text);
        while let Some(word) = take(&mut rest, Backslash::C)? {
            words.push(word.text);
        }
        Ok(words)
    }

    #[test]
    fn quotes_and_escapes_stand_anywhere_in_a_word_and_are_gone() {
        assert_eq!(all(" a  'b c' \"d'e\" f\"g h\"i '' ").unwrap(), ["a", "b c", "d'e", "fg hi", ""]);
        assert_eq!(all(r"\x41\102 \u00e4 a\sb \n").unwrap(), ["AB", "\u{e4}", "a b", "\n"]);
    }

    #[test]
    fn an_unknown_escape_stands_as_it_is_and_is_odd() {
        let word = |text: &str| take(&mut &*text, Backslash::C).unwrap().unwrap();
        assert_eq!(word(r"a\qb"), Word { text: r"a\qb".into(), odd: true });
        assert_eq!(word(r"a\x0z"), Word { text: r"a\x0z".into(), odd: true });
        assert_eq!(word(r"a\000"), Word { text: r"a\000".into(), odd: true });
        assert_eq!(word(r"end\"), Word { text: r"end\".into(), odd: true });
        assert!(!word(r"a\\b").odd);
    }

    #[test]
    fn a_quote_that_stays_open_is_wrong_and_so_are_bytes_that_are_no_text() {
        assert_eq!(all("a 'b"), Err(Wrong::Unbalanced));
        assert_eq!(all("\"a\\"), Err(Wrong::Unbalanced));
        assert_eq!(all(r"\xff"), Err(Wrong::NotUtf8));
    }

    #[test]
    fn the_value_of_a_variable_is_split_whatever_it_is() {
        assert_eq!(split_relaxed("a 'b c' \"d"), ["a", "b c", "d"]);
        assert_eq!(split_relaxed(r"a\ b c\"), ["a b", "c"]);
        assert!(split_relaxed(" ").is_empty());
    }
}
