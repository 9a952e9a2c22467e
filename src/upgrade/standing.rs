//! How a service stands, by its own word: what `handover status` asks the main process for over the control
//! socket, and what it answers, both directions. It answers its own user and root, at once, and nothing of
//! an upgrade waits for it.

#[cfg(feature = "cli")]
use std::time::Duration;

#[cfg(feature = "cli")]
use super::control;
#[cfg(feature = "cli")]
use super::failure::{Failure, Reason};
use super::message::fields::{Reader, Writer, text};
#[cfg(feature = "cli")]
use super::message::{Answer, Request, VERSION};
use super::message::{Draining, Garbled};
use crate::fdstore::LastUpgrade;

/// How long the service may take to answer.
#[cfg(feature = "cli")]
const ANSWER: Duration = Duration::from_millis(500);

/// Most that drain of whom is told.
pub(crate) const MOST: usize = 64;

/// What a service says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The version of handover that is in it.
    pub version: String,
    /// How many have served, this one included.
    pub generation: u64,
    /// The process that serves: under a runner, one of its program's.
    pub pid: i32,
    /// Units of work that it has in flight; connections, for most services.
    pub in_flight: u64,
    /// An upgrade is under way.
    pub under_way: bool,
    /// How many may drain for another upgrade to begin.
    pub most_draining: u64,
    /// The service is a runner, and these are processes of its program.
    pub is_runner: bool,
    /// Those who drain, the newest first.
    pub draining: Vec<Draining>,
    /// How the last upgrade ended, if that is known.
    pub last_upgrade: Option<LastUpgrade>,
}

impl Standing {
    /// What is true of a service as far as this file knows.
    pub(crate) fn new(generation: u64, pid: i32) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation,
            pid,
            in_flight: 0,
            under_way: false,
            most_draining: 0,
            is_runner: false,
            draining: Vec::new(),
            last_upgrade: None,
        }
    }

    pub(super) fn write(&self, writer: Writer) -> Writer {
        let flags = u64::from(self.under_way) | u64::from(self.is_runner) << 1;
        let writer = writer.bytes(self.version.as_bytes()).number(self.generation).pid(self.pid);
        let writer = writer.number(self.in_flight).number(flags).number(self.most_draining);
        let draining = &self.draining[..self.draining.len().min(MOST)];
        let writer = draining.iter().fold(writer.number(draining.len() as u64), Writer::draining);
        match &self.last_upgrade {
            None => writer.number(0),
            Some(LastUpgrade::Switched { from, to, at_ms }) => {
                writer.number(1).number(*at_ms).pid(*from).pid(*to)
            }
            Some(LastUpgrade::Failed { pid, reason, errno, detail, at_ms }) => {
                let writer = writer.number(2).number(*at_ms).pid(*pid).number(u64::from(*reason));
                writer.pid(*errno).bytes(detail.as_bytes())
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Garbled> {
        let version = text(reader.bytes()?)?;
        let (generation, pid, in_flight) = (reader.number()?, reader.pid()?, reader.number()?);
        let (flags, most_draining) = (reader.number()?, reader.number()?);
        let mut draining = Vec::new();
        for _ in 0..reader.number()? {
            draining.push(reader.draining()?);
        }
        let last_upgrade = match reader.number()? {
            0 => None,
            1 => {
                let at_ms = reader.number()?;
                Some(LastUpgrade::Switched { from: reader.pid()?, to: reader.pid()?, at_ms })
            }
            2 => {
                let (at_ms, pid) = (reader.number()?, reader.pid()?);
                let reason = u8::try_from(reader.number()?).unwrap_or(0);
                let (errno, detail) = (reader.pid()?, text(reader.bytes()?)?);
                Some(LastUpgrade::Failed { pid, reason, errno, detail, at_ms })
            }
            number => {
                let number = u8::try_from(number).unwrap_or(u8::MAX);
                return Err(Garbled::Unknown { what: "outcome", number });
            }
        };
        let (under_way, is_runner) = (flags & 1 != 0, flags & 2 != 0);
        Ok(Self {
            version,
            generation,
            pid,
            in_flight,
            under_way,
            most_draining,
            is_runner,
            draining,
            last_upgrade,
        })
    }
}

/// Asks the service whose main process is `main_pid` how it stands. Blocks for a moment at most.
///
/// Errors: `NoService` where it is no service of handover's or cannot be seen from here, `NoAnswer`, and
/// `Protocol` where it is too old to know the question.
#[cfg(feature = "cli")]
pub(crate) fn ask(main_pid: i32) -> Result<Standing, Failure> {
    use super::channel::ReceiveError;

    let control = control::find_to_look(main_pid, ANSWER)?;
    let lost = |error| Failure::from_io(Reason::NoAnswer, "ask the service", &error);
    control.send(&Request::Standing { version: VERSION }, &[]).map_err(lost)?;
    match control.receive_within(ANSWER) {
        Ok(answer) => match answer.message {
            Answer::Standing(standing) => Ok(standing),
            Answer::Failed(failure) => Err(failure),
            _ => Err(Failure::new(Reason::Protocol, "it answered another question")),
        },
        Err(error @ ReceiveError::Silent(_)) => Err(Failure::new(Reason::NoAnswer, error.to_string())),
        Err(_) => Err(Failure::new(Reason::Protocol, "its version of handover does not know this question")),
    }
}
