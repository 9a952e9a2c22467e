//! One datagram to the manager and its way back: lines of `KEY=value`, as sd_notify(3) has them.
//!
//! What PID 1 would drop without a word (too long, a NUL in it) or read differently from what was
//! meant (a second line in a value, states that exclude each other) is refused here.

use sd_notify::NotifyState;

/// Most bytes of a datagram that PID 1 reads: PIPE_BUF. It drops a longer one, descriptors included.
pub const MOST_BYTES: usize = 4096;

/// The text that asks PID 1 to close the one descriptor beside it when it gets there.
pub(super) const BARRIER: &str = "BARRIER=1";

/// Begins the line that people see in `systemctl status`.
const STATUS: &str = "STATUS=";

/// Assignments that PID 1 does not do both of, whichever was meant. Of the first three, systemd 252
/// takes the last line and 253 the strongest; FDSTOREREMOVE=1 closes what FDSTORE=1 brought, and
/// MAINPIDFD=1 takes its descriptor away.
const EXCLUSIVE: [(&str, &str); 5] = [
    ("READY=1", "RELOADING=1"),
    ("READY=1", "STOPPING=1"),
    ("RELOADING=1", "STOPPING=1"),
    ("FDSTORE=1", "FDSTOREREMOVE=1"),
    ("FDSTORE=1", "MAINPIDFD=1"),
];

/// A datagram that PID 1 will read as it was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The lines, without a newline at the end.
    text: String,
}

/// Why PID 1 would not read a message as it was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// There is nothing in it.
    #[error("wanted at least one state in a notification, found none")]
    Empty,
    /// Its text is longer than PID 1 reads.
    #[error(
        "wanted a notification of at most {MOST_BYTES} bytes, found {bytes}: PID 1 would drop it, descriptors \
         included; shorten it, or let Message::status cut the text"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A state has more than one line, so that its value would set other states.
    #[error(
        "wanted one line for {key}=, found a line break or NUL in its value: a text from outside goes through \
         Message::status"
    )]
    NotOneLine {
        /// What stands before the first `=`.
        key: String,
    },
    /// A custom state is not of the form `KEY=value`.
    #[error("wanted KEY=value, found {found:?}")]
    NotAnAssignment {
        /// The state.
        found: String,
    },
    /// A key is there twice; PID 1 takes one of the values.
    #[error("wanted {key}= once in a notification, found it twice: send two notifications")]
    Twice {
        /// The key.
        key: String,
    },
    /// Two states exclude each other.
    #[error("wanted {first} or {second} in a notification, found both: send two, in the order meant")]
    Conflict {
        /// One of them.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// `RELOADING=1` without the time at which the reload began; systemd 253 and later ignore it.
    #[error(
        "wanted MONOTONIC_USEC= beside RELOADING=1, found none: add NotifyState::monotonic_usec_now(), taken \
         after the signal came"
    )]
    ReloadingWithoutTime,
    /// `BARRIER=1` as a state: it goes alone and with a descriptor.
    #[error("wanted states in a notification, found BARRIER=1: use Notifier::barrier")]
    Barrier,
}

/// Why a datagram is not read at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// It is longer than a notification may be.
    #[error("wanted a notification of at most {MOST_BYTES} bytes, found {bytes}: it is dropped")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// There is a NUL inside.
    #[error("wanted text in a notification, found a NUL at byte {at}: it is dropped")]
    Nul {
        /// Where.
        at: usize,
    },
}

impl Message {
    /// One datagram that says all of `states`.
    ///
    /// # Errors
    /// [`MessageError`] when PID 1 would drop or misread it.
    pub fn new(states: &[NotifyState<'_>]) -> Result<Self, MessageError> {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let mut keys = Vec::with_capacity(lines.len());
        for line in &lines {
            let key = key_of(line)?;
            if keys.contains(&key) {
                return Err(MessageError::Twice { key: key.to_owned() });
            }
            keys.push(key);
        }
        let says = |wanted: &str| lines.iter().any(|line| line == wanted);
        if let Some((first, second)) =
            EXCLUSIVE.into_iter().find(|(first, second)| says(first) && says(second))
        {
            return Err(MessageError::Conflict { first, second });
        }
        if says("RELOADING=1") && !keys.contains(&"MONOTONIC_USEC") {
            return Err(MessageError::ReloadingWithoutTime);
        }
        let text = lines.join("\n");
        match text.len() {
            0 => Err(MessageError::Empty),
            1..=MOST_BYTES => Ok(Self { text }),
            bytes => Err(MessageError::TooLong { bytes }),
        }
    }

    /// `READY=1`: the start, or the reload, is done.
    pub fn ready() -> Self {
        Self { text: "READY=1".to_owned() }
    }

    /// `STOPPING=1`: the service ends. From systemd 259 on this is final.
    pub fn stopping() -> Self {
        Self { text: "STOPPING=1".to_owned() }
    }

    /// `RELOADING=1` with the time `now`, in one datagram: `NotifyState::monotonic_usec_now()` taken
    /// after the signal that asked for the reload.
    ///
    /// # Errors
    /// [`MessageError::ReloadingWithoutTime`] if `now` is another state.
    pub fn reloading(now: NotifyState<'_>) -> Result<Self, MessageError> {
        Self::new(&[NotifyState::Reloading, now])
    }

    /// `STATUS=` with any text, also one from outside, made fit: see [`Message::with_status`].
    pub fn status(text: &str) -> Self {
        Self { text: String::new() }.with_status(text)
    }

    /// The same message with this `STATUS=`, whatever the text: control characters become spaces, and
    /// what does not fit into the datagram is cut off between two characters.
    #[must_use]
    pub fn with_status(self, text: &str) -> Self {
        let kept: Vec<&str> = self.text.lines().filter(|line| !line.starts_with(STATUS)).collect();
        let mut whole = kept.join("\n");
        let newline = usize::from(!whole.is_empty());
        let Some(mut room) = MOST_BYTES.checked_sub(whole.len() + newline + STATUS.len()) else {
            return Self { text: whole };
        };
        if newline > 0 {
            whole.push('\n');
        }
        whole.push_str(STATUS);
        whole.extend(text.chars().map(printable).take_while(|c| {
            let fits = c.len_utf8() <= room;
            room = room.saturating_sub(c.len_utf8());
            fits
        }));
        Self { text: whole }
    }

    /// `WATCHDOG=1`: this process is alive.
    pub(super) fn alive() -> Self {
        Self { text: "WATCHDOG=1".to_owned() }
    }

    /// `MAINPID=` and `READY=1` in one datagram. PID 1 judges the sender once per datagram, before it
    /// applies MAINPID=, and applies that before READY=1: so the old main process may say both.
    pub(super) fn successor(pid: u32) -> Self {
        Self { text: format!("MAINPID={pid}\nREADY=1") }
    }

    /// `FDSTORE=1`: the descriptors beside it go into the store under `name`, which `check_name` has
    /// accepted. Not `watched`, they stay there also when they report an error or a hang-up.
    pub(crate) fn store(name: &str, watched: bool) -> Self {
        let poll = if watched { "" } else { "\nFDPOLL=0" };
        Self { text: format!("FDSTORE=1\nFDNAME={name}{poll}") }
    }

    /// `FDSTOREREMOVE=1`: everything that is stored under exactly this name is closed.
    pub(crate) fn unstore(name: &str) -> Self {
        Self { text: format!("FDSTOREREMOVE=1\nFDNAME={name}") }
    }

    /// The datagram.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// What stands before the `=` of a state that is fit to be one line of a message.
fn key_of(line: &str) -> Result<&str, MessageError> {
    // PID 1 splits at carriage returns as well as at newlines.
    let one_line = !line.contains(['\n', '\r', '\0']);
    match line.split_once('=') {
        Some((key, _)) if !key.is_empty() && !one_line => {
            Err(MessageError::NotOneLine { key: key.to_owned() })
        }
        Some(("BARRIER", _)) => Err(MessageError::Barrier),
        Some((key, _)) if !key.is_empty() => Ok(key),
        _ => Err(MessageError::NotAnAssignment { found: line.to_owned() }),
    }
}

/// A character as a status may show it: no line break, and nothing that commands a terminal.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// Takes a datagram apart as PID 1 does: the assignments in their order. Lines that are no assignment
/// or no UTF-8 say nothing and are left out; one NUL at the end is forgiven.
///
/// # Errors
/// [`ParseError`] for what PID 1 drops whole.
pub fn parse(datagram: &[u8]) -> Result<Vec<(&str, &str)>, ParseError> {
    if datagram.len() > MOST_BYTES {
        return Err(ParseError::TooLong { bytes: datagram.len() });
    }
    let text = datagram.strip_suffix(b"\0").unwrap_or(datagram);
    if let Some(at) = text.iter().position(|byte| *byte == 0) {
        return Err(ParseError::Nul { at });
    }
    let lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
    Ok(lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once('=')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(states: &[NotifyState<'_>]) -> MessageError {
        Message::new(states).unwrap_err()
    }

    #[test]
    fn several_states_are_one_datagram_in_their_order() {
        let states = [NotifyState::MainPid(42), NotifyState::Ready, NotifyState::Status("up")];
        assert_eq!(Message::new(&states).unwrap().as_str(), "MAINPID=42\nREADY=1\nSTATUS=up");
        assert_eq!(Message::successor(42), Message::new(&states[..2]).unwrap());
    }

    #[test]
    fn nothing_to_say_is_refused() {
        assert_eq!(refused(&[]), MessageError::Empty);
    }

    #[test]
    fn no_value_can_bring_a_line_of_its_own() {
        for text in ["up\nREADY=1", "up\rREADY=1", "up\0"] {
            assert_eq!(
                refused(&[NotifyState::Status(text)]),
                MessageError::NotOneLine { key: "STATUS".into() }
            );
        }
        let name = NotifyState::Custom("FDNAME=a\nMAINPID=1");
        assert_eq!(refused(&[name]), MessageError::NotOneLine { key: "FDNAME".into() });
    }

    #[test]
    fn the_longest_message_fits_and_one_more_byte_is_refused() {
        let text = "x".repeat(MOST_BYTES - STATUS.len() + 1);
        assert!(Message::new(&[NotifyState::Status(&text[1..])]).is_ok());
        assert_eq!(refused(&[NotifyState::Status(&text)]), MessageError::TooLong { bytes: MOST_BYTES + 1 });
    }

    #[test]
    fn states_that_exclude_each_other_are_refused() {
        let now = NotifyState::MonotonicUsec(1);
        let both = [NotifyState::Reloading, now, NotifyState::Ready];
        assert_eq!(refused(&both), MessageError::Conflict { first: "READY=1", second: "RELOADING=1" });
        let both = [NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom("FDSTORE=1")];
        assert_eq!(refused(&both), MessageError::Conflict { first: "FDSTORE=1", second: "FDSTOREREMOVE=1" });
        let twice = [NotifyState::Status("a"), NotifyState::Status("b")];
        assert_eq!(refused(&twice), MessageError::Twice { key: "STATUS".into() });
    }

    #[test]
    fn a_reload_tells_its_time_in_the_same_datagram() {
        assert_eq!(refused(&[NotifyState::Reloading]), MessageError::ReloadingWithoutTime);
        assert_eq!(
            Message::reloading(NotifyState::Ready).unwrap_err(),
            refused(&[NotifyState::Reloading, NotifyState::Ready])
        );
        let message = Message::reloading(NotifyState::MonotonicUsec(7)).unwrap();
        assert_eq!(message.as_str(), "RELOADING=1\nMONOTONIC_USEC=7");
    }

    #[test]
    fn a_barrier_and_a_bare_word_are_no_states() {
        assert_eq!(refused(&[NotifyState::Custom(BARRIER)]), MessageError::Barrier);
        assert_eq!(refused(&[NotifyState::Ready, NotifyState::Custom(BARRIER)]), MessageError::Barrier);
        for found in ["READY", "", "=1"] {
            let bare = refused(&[NotifyState::Custom(found)]);
            assert_eq!(bare, MessageError::NotAnAssignment { found: found.into() });
        }
    }

    #[test]
    fn a_new_status_replaces_the_old_one_and_keeps_the_rest() {
        let message = Message::new(&[NotifyState::Status("old"), NotifyState::Ready]).unwrap();
        assert_eq!(message.with_status("new").as_str(), "READY=1\nSTATUS=new");
    }

    #[test]
    fn a_status_is_cut_between_two_characters() {
        let cut = Message::status(&"ß".repeat(MOST_BYTES));
        // "STATUS=" has 7 bytes: of the 4089 left, the last would be half a character.
        assert_eq!((cut.as_str().len(), cut.as_str().chars().last()), (MOST_BYTES - 1, Some('ß')));
    }

    #[test]
    fn a_datagram_is_read_as_pid_1_reads_it() {
        assert_eq!(parse(b"READY=1\nnoise\n\n\xff=1\rA=b=c\n"), Ok(vec![("READY", "1"), ("A", "b=c")]));
        assert_eq!(parse(b"READY=1\0"), Ok(vec![("READY", "1")]));
        assert_eq!(parse(b"READY=1\0X=1"), Err(ParseError::Nul { at: 7 }));
        assert_eq!(parse(&[b'a'; MOST_BYTES + 1]), Err(ParseError::TooLong { bytes: MOST_BYTES + 1 }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same(status: String, name in "[ -~]{0,40}", pid: u32) {
            let (fdname, x) = (format!("FDNAME={name}"), format!("X_A={name}"));
            let states = [NotifyState::MainPid(pid), NotifyState::Custom(&fdname), NotifyState::Custom(&x)];
            let message = Message::new(&states).unwrap().with_status(&status);
            let pid = pid.to_string();
            let read = parse(message.as_str().as_bytes()).unwrap();
            prop_assert_eq!(&read[..3], &[("MAINPID", pid.as_str()), ("FDNAME", &name), ("X_A", &name)]);
            prop_assert_eq!(read[3..].iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["STATUS"]);
        }

        #[test]
        fn a_state_is_refused_or_read_as_one_assignment(text: String) {
            if let Ok(message) = Message::new(&[NotifyState::Custom(&text)]) {
                prop_assert_eq!(parse(message.as_str().as_bytes()).unwrap().len(), 1);
            }
        }

        #[test]
        fn no_status_is_too_strange(text in proptest::collection::vec(any::<char>(), 0..3000)) {
            let text: String = text.into_iter().collect();
            let message = Message::status(&text);
            prop_assert!(message.as_str().len() <= MOST_BYTES);
            prop_assert_eq!(parse(message.as_str().as_bytes()).unwrap().len(), 1);
        }

        #[test]
        fn no_datagram_is_too_strange_to_read(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = parse(&bytes);
        }
    }
}
