//! What a client says on one connection, and when the service is upgraded meanwhile.

use std::time::Duration;

use crate::load::{Answer, Connection, Loss};
use crate::web::{ADDRESS, Web};

/// A conversation over one connection. At its switches the service is upgraded, or not.
pub(super) struct Script<'a> {
    connection: Connection,
    answers: Vec<Answer>,
    ended: bool,
    switch: &'a mut dyn FnMut(),
}

/// What a client says and hears.
pub(super) type Talk = fn(&mut Script<'_>) -> Result<(), Loss>;

/// What a conversation came to: the same, whether the service was upgraded or not.
#[derive(Debug)]
pub(super) struct Minutes {
    /// All that the service said.
    pub(super) answers: Vec<Answer>,
    /// The connection, unless it has ended.
    pub(super) connection: Option<Connection>,
}

impl<'a> Script<'a> {
    /// Runs a conversation with a service that is upgraded so many times at each switch.
    pub(super) fn run(web: &Web, upgrades: usize, talk: Talk) -> Minutes {
        let mut switch = || (0..upgrades).for_each(|_| _ = web.upgrade());
        let connection = web.machine.enter_network(|| Connection::open(ADDRESS)).unwrap();
        let mut script = Script { connection, answers: Vec::new(), ended: false, switch: &mut switch };
        talk(&mut script).unwrap_or_else(|loss| panic!("{loss}, after {:#?}", script.answers));
        let ended = script.ended || script.answers.last().is_some_and(|answer| answer.last);
        let Script { connection, answers, .. } = script;
        Minutes {
            answers: answers.into_iter().map(anybodys).collect(),
            connection: (!ended).then_some(connection),
        }
    }

    /// Here the service may be upgraded.
    pub(super) fn switch(&mut self) {
        (self.switch)();
    }

    /// Sends text as it is.
    pub(super) fn say(&mut self, text: &str) -> Result<(), Loss> {
        self.connection.write(text)
    }

    /// Sends a byte each 50 ms; meanwhile nothing may come.
    pub(super) fn trickle(&mut self, text: &str) -> Result<(), Loss> {
        for letter in text.chars() {
            self.connection.write(letter.encode_utf8(&mut [0; 4]))?;
            self.connection.rest(Duration::from_millis(50), None)?;
        }
        Ok(())
    }

    /// Reads so many answers.
    pub(super) fn hear(&mut self, count: usize) -> Result<(), Loss> {
        for _ in 0..count {
            let answer = self.connection.response(false)?;
            self.answers.push(answer);
        }
        Ok(())
    }

    /// Reads the end of the connection.
    pub(super) fn hear_the_end(&mut self) -> Result<(), Loss> {
        assert_eq!(self.connection.end()?, "");
        self.ended = true;
        Ok(())
    }

    /// Reads the answer to a HEAD.
    pub(super) fn hear_head(&mut self) -> Result<(), Loss> {
        let answer = self.connection.response(true)?;
        self.answers.push(answer);
        Ok(())
    }

    /// Reads the head of an answer and the first half of its body of `length` bytes; then the service may
    /// be upgraded; then the rest.
    pub(super) fn hear_over_a_switch(&mut self, length: usize) -> Result<(), Loss> {
        let mut answer = self.connection.head()?;
        answer.body = self.connection.bytes(length / 2)?;
        self.switch();
        answer.body += &self.connection.bytes(length - length / 2)?;
        self.answers.push(answer);
        Ok(())
    }

    /// Sends one half of `text`; then the service may be upgraded; then the other. What comes back is read
    /// meanwhile: one answer.
    pub(super) fn say_and_hear_over_a_switch(&mut self, text: &str) -> Result<(), Loss> {
        let (one, other) = text.split_at(text.len() / 2);
        let mut writer = self.connection.writer();
        let connection = &mut self.connection;
        let switch = &mut *self.switch;
        let answer = std::thread::scope(|scope| {
            let reader = scope.spawn(|| connection.response(false));
            let mut say = |text: &str| {
                let sent = std::io::Write::write_all(&mut writer, text.as_bytes());
                sent.map_err(Loss::from_io("request"))
            };
            say(one)?;
            switch();
            say(other)?;
            reader.join().expect("the reader panicked")
        })?;
        self.answers.push(answer);
        Ok(())
    }
}

/// The answer without what differs from one process to another, and from one second to the next.
pub(super) fn anybodys(mut answer: Answer) -> Answer {
    answer.headers.retain(|(name, _)| name != "date");
    if answer.pid().is_some() {
        // It was as long as it said.
        answer.headers.retain(|(name, _)| name != "content-length");
    }
    let lines = answer.body.split_inclusive('\n');
    answer.body = lines.map(|line| if line.starts_with("pid ") { "pid N\n" } else { line }).collect();
    answer
}
