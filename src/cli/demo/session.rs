//! What the demo's clients and its service say to each other: a line each way, and the few bytes in
//! which a session is kept.
//!
//! | line | meaning |
//! |---|---|
//! | `17` | request 17 of this connection |
//! | `17 250` | the same, and it takes 250 milliseconds of work |
//! | `17 pid 1234 count 17` | the answer: who gives it, and how many requests this connection has had |
//!
//! A connection's requests are numbered from 1, so that one which a process has answered and not yet
//! taken out of the kernel's buffer when it was killed is not counted again.
//!
//! Pure: it knows no socket, no clock and no process.

use std::time::Duration;

/// Most bytes of a line, its end included.
pub(super) const MOST_LINE: usize = 64;

/// Bytes in which a session is kept.
pub(super) const STATE_BYTES: usize = 16;

/// Most work that a request can ask for.
const MOST_WORK: Duration = Duration::from_secs(10);

/// What a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Its number on this connection.
    pub(super) number: u64,
    /// How long it takes to answer.
    pub(super) work: Duration,
}

impl Request {
    /// The line, with its end.
    pub(super) fn line(self) -> String {
        match self.work.as_millis() {
            0 => format!("{}\n", self.number),
            milliseconds => format!("{} {milliseconds}\n", self.number),
        }
    }

    /// Reads a line without its end; `None` if it is no request.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(line).ok()?.split(' ');
        let number = words.next()?.parse().ok().filter(|&number| number > 0)?;
        let work = Duration::from_millis(words.next().map_or(Ok(0), str::parse).ok()?);
        (words.next().is_none() && work <= MOST_WORK).then_some(Self { number, work })
    }
}

/// What the service says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Of the request.
    pub(super) number: u64,
    /// The process that answers.
    pub(super) pid: u32,
    /// Requests of this connection until now, whichever processes served them.
    pub(super) count: u64,
}

impl Answer {
    /// The line, with its end.
    pub(super) fn line(self) -> String {
        format!("{} pid {} count {}\n", self.number, self.pid, self.count)
    }

    /// Reads a line without its end; `None` if it is no answer.
    pub(super) fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let number = words.next()?.parse().ok()?;
        let pid = words.next().filter(|&word| word == "pid").and_then(|_| words.next())?.parse().ok()?;
        let count = words.next().filter(|&word| word == "count").and_then(|_| words.next())?.parse().ok()?;
        words.next().is_none().then_some(Self { number, pid, count })
    }
}

/// What is known of one connection, whichever process serves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Session {
    count: u64,
    /// The number of the last request; 0 before the first.
    last: u64,
}

impl Session {
    /// Counts a request, unless it is the one that was counted last, and answers it as process `pid`.
    pub(super) fn serve(&mut self, request: Request, pid: u32) -> Answer {
        if request.number != self.last {
            self.count += 1;
            self.last = request.number;
        }
        Answer { number: request.number, pid, count: self.count }
    }

    /// How many requests there were.
    pub(super) fn count(self) -> u64 {
        self.count
    }

    /// What it is kept as.
    pub(super) fn encode(self) -> [u8; STATE_BYTES] {
        (u128::from(self.count) | u128::from(self.last) << 64).to_le_bytes()
    }

    /// What [`encode`](Self::encode) made; a new session for no bytes, `None` for any others.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let number = u128::from_le_bytes(bytes.try_into().ok()?);
        let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).ok();
        Some(Self { count: half(number)?, last: half(number >> 64)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quick(number: u64) -> Request {
        Request { number, work: Duration::ZERO }
    }

    #[test]
    fn a_request_that_comes_again_is_answered_again_and_counted_once() {
        let mut session = Session::default();
        let counts = [1, 2, 2, 3].map(|number| session.serve(quick(number), 42).count);
        assert_eq!(counts, [1, 2, 2, 3]);
        assert_eq!(session.serve(quick(3), 43), Answer { number: 3, pid: 43, count: 3 });
    }

    #[test]
    fn what_is_no_line_of_this_protocol_is_neither_request_nor_answer() {
        for line in ["", "0", "-1", "1 ", "1 2 3", "1 10001", "a", "1  2"] {
            assert_eq!(Request::read(line.as_bytes()), None, "{line:?}");
        }
        for line in ["", "1", "1 pid 2", "1 count 2 pid 3", "1 pid 2 count 3 4", "1 pid -2 count 3"] {
            assert_eq!(Answer::read(line), None, "{line:?}");
        }
        assert_eq!(Request::read(b"\xff"), None);
        assert_eq!(Session::decode(b"17"), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 1..=u64::MAX, count: u64, pid: u32, work in 0..=10_000u64) {
            let request = Request { number, work: Duration::from_millis(work) };
            let answer = Answer { number, pid, count };
            let (asked, answered) = (request.line(), answer.line());
            prop_assert!(asked.len() <= MOST_LINE && answered.len() <= MOST_LINE);
            prop_assert_eq!(Request::read(asked.trim_end().as_bytes()), Some(request));
            prop_assert_eq!(Answer::read(answered.trim_end()), Some(answer));
            let session = Session { count, last: number };
            prop_assert_eq!(Session::decode(&session.encode()), Some(session));
        }
    }
}
