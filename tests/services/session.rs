//! A session of `keeper`: what one connection's requests mean, and the bytes in which it is kept.
//!
//! Pure: it knows no socket, no clock and no process. Every bound of the protocol is here.
//!
//! It is kept as lines of text, each a word and what belongs to it. A word that is not known is passed
//! over: a newer program may have written it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Most bytes of a line, its end included.
pub(crate) const MOST_LINE: usize = 512;

/// Most bytes that a session is kept in.
pub(crate) const MOST_STATE: usize = 1024;

/// Most bytes of a key.
const MOST_KEY: usize = 64;

/// Bytes of the state that are not for values: the two numbers, at their longest.
const NUMBERS: usize = "served 18446744073709551615\nlast 18446744073709551615\n".len();

/// The longest sleep.
const MOST_SLEEP: Duration = Duration::from_secs(60);

const WANTED: &str = "want SET key value, GET key, COUNT, PID, SLEEP milliseconds or QUIT";

/// What is known of one connection, whichever process serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Session {
    /// Lines served, by all processes together.
    served: u64,
    /// The tag of the last line, if it had one.
    last: Option<u64>,
    values: BTreeMap<String, String>,
}

/// A request as a client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    tag: Option<u64>,
    request: Result<Request<'a>, String>,
}

/// What a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request<'a> {
    Set { key: &'a str, value: &'a str },
    Get { key: &'a str },
    Count,
    Pid,
    Sleep(Duration),
    Quit,
}

/// Bytes that are no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadState(String);

impl std::fmt::Display for BadState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the state of this session is damaged: {}", self.0)
    }
}

impl<'a> Line<'a> {
    /// Takes a line apart; `bytes` without its end.
    pub(crate) fn parse(bytes: &'a [u8]) -> Self {
        let Ok(text) = str::from_utf8(bytes) else {
            return Self { tag: None, request: Err("a line is UTF-8".to_owned()) };
        };
        let text = text.trim_end();
        match text.strip_prefix('#') {
            None => Self { tag: None, request: Request::parse(text) },
            Some(rest) => {
                let (number, request) = rest.split_once(' ').unwrap_or((rest, ""));
                match number.parse() {
                    Ok(tag) => Self { tag: Some(tag), request: Request::parse(request) },
                    Err(_) => Self { tag: None, request: Err(format!("#{number} is no tag: want #17")) },
                }
            }
        }
    }

    /// How long the client wants to wait for the answer.
    pub(crate) fn sleep(&self) -> Option<Duration> {
        match self.request {
            Ok(Request::Sleep(time)) => Some(time),
            _ => None,
        }
    }

    /// Whether it ends the session.
    pub(crate) fn is_last(&self) -> bool {
        self.request == Ok(Request::Quit)
    }
}

impl<'a> Request<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (verb, rest) {
            ("SET", rest) => match rest.split_once(' ') {
                Some((key, value)) if !value.is_empty() => Ok(Self::Set { key: named(key)?, value }),
                _ => Err("want SET key value".to_owned()),
            },
            ("GET", key) => Ok(Self::Get { key: named(key)? }),
            ("COUNT", "") => Ok(Self::Count),
            ("PID", "") => Ok(Self::Pid),
            ("QUIT", "") => Ok(Self::Quit),
            ("SLEEP", milliseconds) => match milliseconds.parse().map(Duration::from_millis) {
                Ok(time) if time <= MOST_SLEEP => Ok(Self::Sleep(time)),
                _ => Err(format!("want SLEEP with 0 to {} milliseconds", MOST_SLEEP.as_millis())),
            },
            _ => Err(format!("{text:?} is no request: {WANTED}")),
        }
    }
}

/// A key, if it may be one.
fn named(key: &str) -> Result<&str, String> {
    let fits = !key.is_empty() && key.len() <= MOST_KEY && !key.contains(' ');
    fits.then_some(key).ok_or_else(|| format!("a key is one word of at most {MOST_KEY} bytes"))
}

impl Session {
    /// Applies a line, unless it is the one that was applied last, and returns the answer with its end.
    ///
    /// A process that was killed may have applied a line and not said so; then the next one finds it
    /// again. Its tag tells that it is no other, and the answer is the same.
    pub(crate) fn serve(&mut self, line: &Line<'_>, pid: u32) -> String {
        if line.tag.is_none() || line.tag != self.last {
            self.served += 1;
            self.last = line.tag;
            if let Ok(Request::Set { key, value }) = line.request {
                self.set(key, value);
            }
        }
        let answer = match &line.request {
            // One that did not fit is not there.
            Ok(Request::Set { key, value }) if self.get(key) != Some(value) => {
                format!("error: a session keeps at most {MOST_STATE} bytes")
            }
            Ok(Request::Set { .. } | Request::Sleep(_)) => "ok".to_owned(),
            Ok(Request::Get { key }) => match self.get(key) {
                Some(value) => format!("value {value}"),
                None => "none".to_owned(),
            },
            Ok(Request::Count) => format!("count {}", self.served),
            Ok(Request::Pid) => format!("pid {pid}"),
            Ok(Request::Quit) => "bye".to_owned(),
            Err(why) => format!("error: {why}"),
        };
        match line.tag {
            Some(tag) => format!("#{tag} {answer}\n"),
            None => format!("{answer}\n"),
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Keeps a value, if there is room for it.
    fn set(&mut self, key: &str, value: &str) {
        let bytes = |key: &str, value: &str| "set  \n".len() + key.len() + value.len();
        let others = self.values.iter().filter(|(other, _)| *other != key);
        let others: usize = others.map(|(key, value)| bytes(key, value)).sum();
        if NUMBERS + others + bytes(key, value) <= MOST_STATE {
            self.values.insert(key.to_owned(), value.to_owned());
        }
    }

    /// What it is kept as: [`MOST_STATE`] bytes at most.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!("served {}\n", self.served);
        if let Some(last) = self.last {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "last {last}");
        }
        for (key, value) in &self.values {
            let _ = writeln!(text, "set {key} {value}");
        }
        text.into_bytes()
    }

    /// What [`encode`](Self::encode) made; a new session for no bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadState> {
        let bad = |line: &str| BadState(format!("{line:?}"));
        let text = str::from_utf8(bytes).map_err(|error| BadState(error.to_string()))?;
        let mut session = Self::default();
        for line in text.lines() {
            match line.split_once(' ').ok_or_else(|| bad(line))? {
                ("served", number) => session.served = number.parse().map_err(|_| bad(line))?,
                ("last", number) => session.last = Some(number.parse().map_err(|_| bad(line))?),
                ("set", pair) => {
                    let (key, value) = pair.split_once(' ').ok_or_else(|| bad(line))?;
                    session.set(named(key).map_err(BadState)?, value);
                }
                _ => {}
            }
        }
        Ok(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn serve(session: &mut Session, line: &str) -> String {
        session.serve(&Line::parse(line.as_bytes()), 42)
    }

    #[test]
    fn a_session_has_values_a_count_and_the_tags_of_its_requests() {
        let mut session = Session::default();
        for (line, answer) in [
            ("GET a", "none\n"),
            ("SET a 1 2  3", "ok\n"),
            ("GET a\r", "value 1 2  3\n"),
            ("#17 SET a 2", "#17 ok\n"),
            ("#18 GET a", "#18 value 2\n"),
            ("COUNT", "count 6\n"),
            ("#9 PID", "#9 pid 42\n"),
            ("SLEEP 0", "ok\n"),
            ("#10 QUIT", "#10 bye\n"),
        ] {
            assert_eq!(serve(&mut session, line), answer, "{line}");
        }
    }

    #[test]
    fn what_is_no_request_gets_an_error_that_says_what_is_wanted() {
        let mut session = Session::default();
        for (line, wanted) in [
            ("", WANTED),
            ("set a 1", WANTED),
            ("COUNT 1", WANTED),
            ("SET a", "want SET key value"),
            ("SET  1", "a key is one word"),
            ("GET", "a key is one word"),
            ("GET a b", "a key is one word"),
            ("SLEEP", "want SLEEP with 0 to 60000 milliseconds"),
            ("SLEEP 60001", "want SLEEP with 0 to 60000 milliseconds"),
            ("#a GET a", "want #17"),
        ] {
            let answer = serve(&mut session, line);
            assert!(answer.starts_with("error: ") && answer.contains(wanted), "{line}: {answer}");
        }
        assert_eq!(session.serve(&Line::parse(b"\xff"), 1), "error: a line is UTF-8\n");
        assert_eq!(serve(&mut session, "#3 what"), format!("#3 error: \"what\" is no request: {WANTED}\n"));
        assert_eq!(serve(&mut session, "COUNT"), "count 13\n", "a line is a line");
    }

    #[test]
    fn a_line_says_what_its_process_has_to_do() {
        let parse = |line: &'static str| Line::parse(line.as_bytes());
        assert_eq!(parse("#1 SLEEP 20").sleep(), Some(Duration::from_millis(20)));
        assert!(parse("#1 QUIT").is_last());
        assert!(parse("COUNT").sleep().is_none() && !parse("QUIT 1").is_last());
    }

    #[test]
    fn the_last_line_is_not_applied_again_and_answered_as_before() {
        let mut session = Session::default();
        serve(&mut session, "#1 SET a 1");
        serve(&mut session, "#2 COUNT");
        let before = session.clone();
        assert_eq!(serve(&mut session, "#2 COUNT"), "#2 count 2\n");
        assert_eq!(session, before);
        assert_eq!(serve(&mut session, "#3 COUNT"), "#3 count 3\n");
        assert_eq!(serve(&mut session, "COUNT"), "count 4\n");
        assert_eq!(serve(&mut session, "COUNT"), "count 5\n", "nothing tells it from another");
    }

    #[test]
    fn a_full_session_refuses_a_value_and_keeps_those_it_has() {
        let mut session = Session::default();
        let mut last = "ok\n".to_owned();
        for number in 0..MOST_STATE {
            last = serve(&mut session, &format!("SET key{number} value"));
            assert!(session.encode().len() <= MOST_STATE);
            if last != "ok\n" {
                break;
            }
        }
        assert_eq!(last, format!("error: a session keeps at most {MOST_STATE} bytes\n"));
        assert_eq!(serve(&mut session, "GET key0"), "value value\n");
        assert_eq!(serve(&mut session, "SET key0 other"), "ok\n", "of the same length");
    }

    #[test]
    fn a_word_of_a_newer_program_is_passed_over() {
        let session = Session::decode(b"served 3\ncolour blue\nset a 1\n").unwrap();
        assert_eq!(session, Session { served: 3, last: None, values: [("a".into(), "1".into())].into() });
        assert_eq!(Session::decode(b""), Ok(Session::default()));
    }

    #[test]
    fn what_is_no_session_is_an_error() {
        for bytes in [&b"served"[..], b"served -1\n", b"last x\n", b"set a\n", b"set  1\n", b"\xff"] {
            assert!(Session::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_session_comes_back_from_its_bytes(lines in prop::collection::vec("(#[0-9]{1,3} )?(SET|GET) [a-c] [ -~é]{1,200}", 0..20)) {
            let mut session = Session::default();
            for line in &lines {
                serve(&mut session, line);
            }
            prop_assert!(session.encode().len() <= MOST_STATE);
            prop_assert_eq!(Session::decode(&session.encode()), Ok(session));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(served |last |set a )?[ -~\n]{0,80}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                let mut session = Session::decode(bytes).unwrap_or_default();
                prop_assert!(session.serve(&Line::parse(bytes), 1).ends_with('\n'));
            }
        }
    }
}
