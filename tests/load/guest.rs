//! A client of a program that knows nothing of us: its answers need only be whole.
//!
//! It takes its time between requests, so that what is lost in a while in which nobody serves is what
//! clients would have wanted in that while, and not how often one can be refused. Before it uses a
//! connection again it looks whether that has ended: then it makes another one, as every HTTP client does.

use std::time::{Duration, Instant};

use super::connection::{Connection, Loss, Sight};
use super::{Bell, Tally};

/// See the banner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    /// How it asks.
    pub(crate) talk: Talk,
    /// It uses a connection for as long as the service keeps it.
    pub(crate) keeps: bool,
    /// How long it waits before each request.
    pub(crate) pause: Duration,
}

/// What a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Talk {
    /// HTTP/1.
    Http,
    /// What redis speaks.
    Redis,
}

impl Guest {
    pub(super) fn work(self, address: &str, bell: &Bell, tally: &mut Tally, mut each: impl FnMut()) {
        let mut kept: Option<Connection> = None;
        loop {
            if let Some(connection) = kept.take() {
                match connection.rest(self.pause, Some(&*bell.0)) {
                    Ok(()) => kept = Some(connection),
                    Err(_) => tally.closes += 1,
                }
            } else if bell.rings_within(self.pause) {
                return;
            }
            if bell.rings() {
                return;
            }
            let begin = Instant::now();
            let connection = match kept.take() {
                Some(connection) => Ok(connection),
                None => Connection::open(address).inspect(|_| tally.connections += 1),
            };
            let answer = connection.and_then(|mut connection| Ok((self.ask(&mut connection)?, connection)));
            tally.slowest = tally.slowest.max(begin.elapsed());
            match answer {
                Ok((last, connection)) => {
                    tally.requests += 1;
                    tally.closes += u64::from(last && self.keeps);
                    kept = Some(connection).filter(|_| !last);
                    each();
                }
                Err(loss) => tally.failures.push(loss.of(&self)),
            }
        }
    }

    /// A request and its answer; whether that is the last one of the connection. Not every server says
    /// so to who has asked for it.
    fn ask(self, connection: &mut Connection) -> Result<bool, Loss> {
        match self.talk {
            Talk::Http => Ok(connection.get("/", !self.keeps)?.last || !self.keeps),
            Talk::Redis => {
                connection.write("PING\r\n")?;
                match connection.line("answer")?.as_str() {
                    "+PONG" => Ok(!self.keeps),
                    other => Err(Loss::new(Sight::Other, format!("answer: {other:?}"))),
                }
            }
        }
    }
}
