//! What the processes of an upgrade say to each other: one message, one datagram.
//!
//! Two conversations: *control*, between `handover reload` ([`Request`]) and the main process
//! ([`Answer`]); and the *link*, between predecessor ([`Order`]) and successor ([`Report`]). All
//! four are encoded here, in both directions; a byte that is not understood is an error, never a
//! guess, and never a panic. Nothing in here has a descriptor, a socket or a clock.

use super::failure::{Failure, Reason};

/// The language spoken here. Both ends say theirs first and part when it differs.
pub(crate) const VERSION: u16 = 1;

/// Most bytes of one message; a reader never allocates more.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// From `handover reload` to the main process; `Spawned` and `NotExecuted` from the successor itself, which
/// writes its number into the last eight bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// May I start the successor of `main`, the main process as PID 1 told it?
    Upgrade { version: u16, main: i32 },
    /// I am the successor, under this pid, and will be executed now; my pidfd is attached.
    Spawned { pid: i32 },
    /// It could not be made.
    Failed(Failure),
    /// I could not be executed, and end.
    NotExecuted { errno: i32 },
}

/// From the main process to `handover reload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Yes: start this. The first descriptors are attached.
    Grant(Grant),
    /// More descriptors are attached.
    Descriptors,
    /// The new process serves.
    Switched { pid: i32 },
    /// The old process serves on.
    Failed(Failure),
}

/// Everything that a successor needs and only its predecessor knows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Grant {
    /// The path that the predecessor was executed by.
    pub(crate) path: Vec<u8>,
    /// Its arguments, the name of the program first.
    pub(crate) argv: Vec<Vec<u8>>,
    /// `NAME=value`: what PID 1 tells to a main process only.
    pub(crate) environment: Vec<Vec<u8>>,
    /// One name for each descriptor to come, as in LISTEN_FDNAMES.
    pub(crate) names: Vec<String>,
}

/// From the successor to its predecessor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// I am there, and initialising.
    Hello { version: u16 },
    /// I could serve this moment; and take connections, if `takes` is the version of state that I read.
    Ready { takes: Option<u32> },
    /// I hold the connections of this batch.
    Taken { batch: u64 },
    /// I cannot take the connections of this batch; they stay where they are.
    Declined { batch: u64 },
    /// I cannot serve, and leave.
    Failed { errno: i32, detail: String },
    /// I serve, and end now because I was told to. Whoever finds the link closed without this knows
    /// that I crashed.
    Stopping,
}

/// From the predecessor to its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Leave: you will not be needed.
    Abort,
    /// The service is yours. Attached are the links of those who drain already, and then the pidfds of
    /// all who do, this process's first; or no pidfds at all.
    Yours { generation: u64, draining: Vec<Draining> },
    /// So much is left for me to do.
    Draining(Draining),
    /// Connections between two requests, as many as descriptors are attached; `luggage` says what they
    /// are (see `moves`).
    Offer { batch: u64, luggage: Vec<u8> },
    /// The same, the luggage in a memfd of at least so many bytes: the first descriptor.
    OfferWithMemory { batch: u64, bytes: u64 },
    /// These entries of the fd store have served their time: have PID 1 forget them.
    Ended { names: Vec<String> },
}

/// What a retiring process has left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Draining {
    /// Its pid.
    pub pid: i32,
    /// Units of work in flight.
    pub in_flight: u64,
    /// Milliseconds until what is left is ended.
    pub left_ms: u64,
}

/// A message that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Garbled {
    /// It ends too early.
    #[error("the message ends after {0} bytes, in the middle of a field")]
    Short(usize),
    /// It goes on behind its end.
    #[error("the message has {0} bytes too many")]
    Long(usize),
    /// Its first byte, or the number of a reason, means nothing.
    #[error("{what} {number} is unknown to this version of handover")]
    Unknown { what: &'static str, number: u8 },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
}

/// A message that can be put into bytes and back.
pub(crate) trait Message: Sized {
    /// The bytes, to be sent as one datagram.
    fn encode(&self) -> Vec<u8>;
    /// The message in `bytes`, which are not trusted.
    fn decode(bytes: &[u8]) -> Result<Self, Garbled>;
}

impl Message for Request {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Upgrade { version, main } => Writer::new(1).number(u64::from(*version)).pid(*main),
            Self::Spawned { pid } => Writer::new(2).pid(*pid),
            Self::Failed(failure) => Writer::new(3).failure(failure),
            Self::NotExecuted { errno } => Writer::new(4).pid(*errno),
        }
        .0
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(bytes);
        let message = match reader.byte()? {
            1 => Self::Upgrade { version: reader.version()?, main: reader.pid()? },
            2 => Self::Spawned { pid: reader.pid()? },
            3 => Self::Failed(reader.failure()?),
            4 => Self::NotExecuted { errno: reader.pid()? },
            number => return Err(Garbled::Unknown { what: "request", number }),
        };
        reader.end(message)
    }
}

impl Message for Answer {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Grant(grant) => Writer::new(1)
                .bytes(&grant.path)
                .list(&grant.argv)
                .list(&grant.environment)
                .list(&grant.names),
            Self::Descriptors => Writer::new(2),
            Self::Switched { pid } => Writer::new(3).pid(*pid),
            Self::Failed(failure) => Writer::new(4).failure(failure),
        }
        .0
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(bytes);
        let message = match reader.byte()? {
            1 => Self::Grant(Grant {
                path: reader.bytes()?.to_vec(),
                argv: reader.list(|bytes| Ok(bytes.to_vec()))?,
                environment: reader.list(|bytes| Ok(bytes.to_vec()))?,
                names: reader.list(text)?,
            }),
            2 => Self::Descriptors,
            3 => Self::Switched { pid: reader.pid()? },
            4 => Self::Failed(reader.failure()?),
            number => return Err(Garbled::Unknown { what: "answer", number }),
        };
        reader.end(message)
    }
}

impl Message for Report {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Hello { version } => Writer::new(1).number(u64::from(*version)),
            Self::Ready { takes: None } => Writer::new(2),
            Self::Ready { takes: Some(version) } => Writer::new(2).number(u64::from(*version)),
            Self::Failed { errno, detail } => Writer::new(3).pid(*errno).bytes(detail.as_bytes()),
            Self::Stopping => Writer::new(4),
            Self::Taken { batch } => Writer::new(5).number(*batch),
            Self::Declined { batch } => Writer::new(6).number(*batch),
        }
        .0
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(bytes);
        let message = match reader.byte()? {
            1 => Self::Hello { version: reader.version()? },
            2 if reader.0.is_empty() => Self::Ready { takes: None },
            2 => Self::Ready { takes: Some(reader.word()?) },
            3 => Self::Failed { errno: reader.pid()?, detail: text(reader.bytes()?)? },
            4 => Self::Stopping,
            5 => Self::Taken { batch: reader.number()? },
            6 => Self::Declined { batch: reader.number()? },
            number => return Err(Garbled::Unknown { what: "report", number }),
        };
        reader.end(message)
    }
}

impl Message for Order {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Abort => Writer::new(1),
            Self::Yours { generation, draining } => {
                draining.iter().fold(Writer::new(2).number(*generation), Writer::draining)
            }
            Self::Draining(draining) => Writer::new(3).draining(draining),
            Self::Offer { batch, luggage } => Writer::new(4).number(*batch).bytes(luggage),
            Self::OfferWithMemory { batch, bytes } => Writer::new(5).number(*batch).number(*bytes),
            Self::Ended { names } => Writer::new(6).list(names),
        }
        .0
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(bytes);
        let message = match reader.byte()? {
            1 => Self::Abort,
            2 => {
                let generation = reader.number()?;
                let mut draining = Vec::new();
                while !reader.0.is_empty() {
                    draining.push(reader.draining()?);
                }
                Self::Yours { generation, draining }
            }
            3 => Self::Draining(reader.draining()?),
            4 => Self::Offer { batch: reader.number()?, luggage: reader.bytes()?.to_vec() },
            5 => Self::OfferWithMemory { batch: reader.number()?, bytes: reader.number()? },
            6 => Self::Ended { names: reader.list(text)? },
            number => return Err(Garbled::Unknown { what: "order", number }),
        };
        reader.end(message)
    }
}

/// Puts fields one behind the other: numbers of 8 bytes, texts behind their length; little endian.
struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8) -> Self {
        Self(vec![kind])
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    fn pid(self, pid: i32) -> Self {
        self.number(u64::from(pid.cast_unsigned()))
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let mut this = self.number(bytes.len() as u64);
        this.0.extend(bytes);
        this
    }

    fn list(self, items: &[impl AsRef<[u8]>]) -> Self {
        items.iter().fold(self.number(items.len() as u64), |this, item| this.bytes(item.as_ref()))
    }

    fn failure(self, failure: &Failure) -> Self {
        self.number(u64::from(failure.reason.exit_code())).pid(failure.errno).bytes(failure.detail.as_bytes())
    }

    fn draining(self, draining: &Draining) -> Self {
        self.pid(draining.pid).number(draining.in_flight).number(draining.left_ms)
    }
}

/// Takes fields off the front of untrusted bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> Result<u8, Garbled> {
        let (byte, rest) = self.0.split_first().ok_or(Garbled::Short(0))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn number(&mut self) -> Result<u64, Garbled> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Garbled::Short(self.0.len()))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    /// A number of 16 bits; a larger one is a version that nobody has.
    fn version(&mut self) -> Result<u16, Garbled> {
        Ok(u16::try_from(self.number()?).unwrap_or(u16::MAX))
    }

    /// A number of 32 bits; a larger one is a version that nobody has.
    fn word(&mut self) -> Result<u32, Garbled> {
        Ok(u32::try_from(self.number()?).unwrap_or(u32::MAX))
    }

    /// A pid or an errno; one that does not fit is nobody's.
    fn pid(&mut self) -> Result<i32, Garbled> {
        Ok(i32::try_from(self.number()?).unwrap_or(-1))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Garbled> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Garbled::Short(self.0.len()))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A list. What is announced is believed only as it arrives: each item takes 8 bytes at least.
    fn list<T>(&mut self, item: impl Fn(&[u8]) -> Result<T, Garbled>) -> Result<Vec<T>, Garbled> {
        let announced = self.number()?;
        let mut items = Vec::new();
        for _ in 0..announced {
            items.push(item(self.bytes()?)?);
        }
        Ok(items)
    }

    fn failure(&mut self) -> Result<Failure, Garbled> {
        let number = u8::try_from(self.number()?).unwrap_or(0);
        let reason = Reason::from_exit_code(number).ok_or(Garbled::Unknown { what: "reason", number })?;
        let errno = self.pid()?;
        Ok(Failure { reason, errno, detail: text(self.bytes()?)? })
    }

    fn draining(&mut self) -> Result<Draining, Garbled> {
        Ok(Draining { pid: self.pid()?, in_flight: self.number()?, left_ms: self.number()? })
    }

    /// The message, if nothing is left behind it.
    fn end<T>(self, message: T) -> Result<T, Garbled> {
        if self.0.is_empty() { Ok(message) } else { Err(Garbled::Long(self.0.len())) }
    }
}

/// A text in UTF-8.
fn text(bytes: &[u8]) -> Result<String, Garbled> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Garbled::Text)
}

#[cfg(test)]
mod tests;
