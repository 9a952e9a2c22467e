//! What the processes of an upgrade say to each other: one message, one datagram.
//!
//! Two conversations: *control*, between `handover reload` ([`Request`]) and the main process
//! ([`Answer`]); and the *link*, between predecessor ([`Order`]) and successor ([`Report`]). All
//! four are encoded here, in both directions; a byte that is not understood is an error, never a
//! guess, and never a panic. Nothing in here has a descriptor, a socket or a clock.

use super::failure::Failure;
use super::standing::Standing;

pub(super) mod fields;

use self::fields::{Reader, Writer, text};

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
    /// Execute yourself anew, and leave the programs that you run as they are: for a runner only.
    Renew { version: u16, main: i32 },
    /// How do you stand?
    Standing { version: u16 },
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
    /// Yes, and nothing is left to do for you: wait for the outcome.
    Begun,
    /// So.
    Standing(Standing),
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
    /// These connections are still mine, although you hold them: close your copies.
    Withdrawn(Vec<Withdrawal>),
    /// The other connections that you hold, up to this batch, are yours; for one who is not the service
    /// any more.
    Serve { batch: u64 },
    /// These entries of the fd store have served their time: have PID 1 forget them.
    Ended { names: Vec<String> },
}

/// Connections of a batch, by their places in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Withdrawal {
    /// The number of the batch.
    pub(crate) batch: u64,
    places: [u64; 4],
}

impl Withdrawal {
    /// Most of them that one message carries.
    pub(crate) const MOST: usize = 1000;

    /// None of this batch.
    pub(crate) fn of(batch: u64) -> Self {
        Self { batch, places: [0; 4] }
    }

    /// Adds the connection at `place`, which no message of ours is too short for.
    pub(crate) fn add(&mut self, place: usize) {
        if let Some(word) = self.places.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    /// Whether the connection at `place` is one of them.
    pub(crate) fn has(&self, place: usize) -> bool {
        self.places.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    /// Whether it is none at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.places == [0; 4]
    }
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
            Self::Renew { version, main } => Writer::new(5).number(u64::from(*version)).pid(*main),
            Self::Standing { version } => Writer::new(6).number(u64::from(*version)),
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
            5 => Self::Renew { version: reader.version()?, main: reader.pid()? },
            6 => Self::Standing { version: reader.version()? },
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
            Self::Begun => Writer::new(5),
            Self::Standing(standing) => standing.write(Writer::new(6)),
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
            5 => Self::Begun,
            6 => Self::Standing(Standing::read(&mut reader)?),
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
            Self::Withdrawn(all) => all.iter().fold(Writer::new(7), Writer::withdrawal),
            Self::Serve { batch } => Writer::new(8).number(*batch),
        }
        .0
    }

    fn decode(bytes: &[u8]) -> Result<Self, Garbled> {
        let mut reader = Reader::new(bytes);
        let message = match reader.byte()? {
            1 => Self::Abort,
            2 => Self::Yours { generation: reader.number()?, draining: reader.rest(Reader::draining)? },
            3 => Self::Draining(reader.draining()?),
            4 => Self::Offer { batch: reader.number()?, luggage: reader.bytes()?.to_vec() },
            5 => Self::OfferWithMemory { batch: reader.number()?, bytes: reader.number()? },
            6 => Self::Ended { names: reader.list(text)? },
            7 => Self::Withdrawn(reader.rest(Reader::withdrawal)?),
            8 => Self::Serve { batch: reader.number()? },
            number => return Err(Garbled::Unknown { what: "order", number }),
        };
        reader.end(message)
    }
}

#[cfg(test)]
mod tests;
