//! The record: what handover itself remembers over every process: which generation serves, who still
//! drains, how the last upgrade went.
//!
//! Here is what it says and how it is put into bytes; [`file`] keeps it. Times are milliseconds of
//! CLOCK_BOOTTIME, clock_gettime(2). This file never looks at a clock or a process.

pub(super) mod file;

use crate::sys::memfd::MemoryError;

/// Most processes that a record lists; those that came first are left out.
const MOST_DRAINING: usize = 64;
/// Most bytes of a sentence; what is longer is cut.
const MOST_DETAIL: usize = 1024;
/// Most bytes of a record.
const MOST_BYTES: usize = 24 + MOST_DRAINING * 32 + 56 + MOST_DETAIL;

/// What PID 1 keeps about a service's upgrades: it survives crash, restart and daemon-reexec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// How many processes have served, this one included; 0 when nobody has yet.
    pub generation: u64,
    /// The processes that were retired and may still have work in flight, the oldest first.
    pub draining: Vec<Drainer>,
    /// How the last upgrade ended; `None` when there was none.
    pub last_upgrade: Option<LastUpgrade>,
}

/// A process that was retired and has work in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drainer {
    /// Its pid.
    pub pid: i32,
    /// The inode of its pidfd, which no other process has until the next boot; `None` on kernels
    /// before 6.9, which have no such number.
    pub pidfd_inode: Option<u64>,
    /// When it was retired, in milliseconds since boot.
    pub since_ms: u64,
    /// When what is left is ended, in milliseconds since boot.
    pub until_ms: u64,
}

/// How an upgrade ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LastUpgrade {
    /// A new process serves.
    #[non_exhaustive]
    Switched {
        /// The pid of the process that served before.
        from: i32,
        /// The pid of the process that served afterwards.
        to: i32,
        /// When, in milliseconds since boot.
        at_ms: u64,
    },
    /// The old process serves on.
    #[non_exhaustive]
    Failed {
        /// The pid of the process that serves on.
        pid: i32,
        /// The exit code of the reason, see `upgrade::Reason::from_exit_code`.
        reason: u8,
        /// The errno that goes with it, positive.
        errno: i32,
        /// What happened, for people; at most 1024 bytes.
        detail: String,
        /// When, in milliseconds since boot.
        at_ms: u64,
    },
}

/// Why a record cannot be read or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// What is under the name of the record cannot be used as memory.
    #[error("the record cannot be used: {0}")]
    Memory(#[from] MemoryError),
    /// It is memory, but no record.
    #[error("what is stored as the record is none: it does not begin like one")]
    NotOurs,
    /// Another version of handover wrote it, in a way that this one cannot read.
    #[error("the record has format {found}, which this version of handover does not know")]
    Format {
        /// Its format.
        found: u64,
    },
    /// It is a record, and nothing in it is whole.
    #[error("the record is damaged")]
    Damaged,
    /// The kernel has no memory for it.
    #[error("no memory for the record")]
    NoMemory(#[from] std::io::Error),
}

impl Record {
    /// The bytes, at most [`MOST_BYTES`]: numbers of 8 bytes, texts behind their length, little endian.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MOST_BYTES);
        let put = |bytes: &mut Vec<u8>, numbers: &[u64]| {
            bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        };
        let pid = |pid: i32| u64::from(pid.cast_unsigned());
        let draining = &self.draining[self.draining.len().saturating_sub(MOST_DRAINING)..];
        put(&mut bytes, &[self.generation, draining.len() as u64]);
        for one in draining {
            let Drainer { pid: number, pidfd_inode, since_ms, until_ms } = *one;
            put(&mut bytes, &[pid(number), pidfd_inode.unwrap_or(0), since_ms, until_ms]);
        }
        match &self.last_upgrade {
            None => put(&mut bytes, &[0]),
            Some(LastUpgrade::Switched { from, to, at_ms }) => {
                put(&mut bytes, &[1, *at_ms, pid(*from), pid(*to)]);
            }
            Some(LastUpgrade::Failed { pid: number, reason, errno, detail, at_ms }) => {
                let whole = |end: &usize| detail.is_char_boundary(*end);
                let end = (0..=detail.len().min(MOST_DETAIL)).rev().find(whole).unwrap_or(0);
                let detail = &detail[..end];
                let len = detail.len() as u64;
                put(&mut bytes, &[2, *at_ms, pid(*number), u64::from(*reason), pid(*errno), len]);
                bytes.extend(detail.as_bytes());
            }
        }
        bytes
    }

    /// The record in `bytes`, which are not trusted; `None` when they are not one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let generation = reader.number()?;
        let mut draining = Vec::new();
        for _ in 0..Some(reader.number()?).filter(|count| *count <= MOST_DRAINING as u64)? {
            draining.push(Drainer {
                pid: reader.pid()?,
                pidfd_inode: Some(reader.number()?).filter(|inode| *inode != 0),
                since_ms: reader.number()?,
                until_ms: reader.number()?,
            });
        }
        let last_upgrade = match reader.number()? {
            0 => None,
            1 => {
                let at_ms = reader.number()?;
                Some(LastUpgrade::Switched { from: reader.pid()?, to: reader.pid()?, at_ms })
            }
            2 => {
                let (at_ms, pid) = (reader.number()?, reader.pid()?);
                let (reason, errno) = (u8::try_from(reader.number()?).ok()?, reader.pid()?);
                Some(LastUpgrade::Failed { pid, reason, errno, detail: reader.text()?, at_ms })
            }
            _ => return None,
        };
        reader.0.is_empty().then_some(Self { generation, draining, last_upgrade })
    }
}

/// Takes fields off the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn pid(&mut self) -> Option<i32> {
        Some(u32::try_from(self.number()?).ok()?.cast_signed())
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok().filter(|len| *len <= MOST_DETAIL)?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(str::from_utf8(text).ok()?.to_owned())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drainer() -> impl Strategy<Value = Drainer> {
        (any::<i32>(), prop::option::of(1..u64::MAX), any::<u64>(), any::<u64>()).prop_map(
            |(pid, pidfd_inode, since_ms, until_ms)| Drainer { pid, pidfd_inode, since_ms, until_ms },
        )
    }

    fn last_upgrade() -> impl Strategy<Value = Option<LastUpgrade>> {
        let switched = any::<(i32, i32, u64)>();
        let failed = (any::<(i32, u8, i32, u64)>(), ".{0,300}");
        prop_oneof![
            Just(None),
            switched.prop_map(|(from, to, at_ms)| Some(LastUpgrade::Switched { from, to, at_ms })),
            failed.prop_map(|((pid, reason, errno, at_ms), detail)| {
                Some(LastUpgrade::Failed { pid, reason, errno, detail, at_ms })
            }),
        ]
    }

    pub(crate) fn record() -> impl Strategy<Value = Record> {
        (any::<u64>(), prop::collection::vec(drainer(), 0..9), last_upgrade())
            .prop_map(|(generation, draining, last_upgrade)| Record { generation, draining, last_upgrade })
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_went_and_never_when_it_was_cut(record in record()) {
            let bytes = record.encode();
            for end in 0..bytes.len() {
                prop_assert_eq!(Record::decode(&bytes[..end]), None);
            }
            prop_assert_eq!(Record::decode(&[&bytes[..], b"x"].concat()), None);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_allocate_what_they_announce(
            bytes in prop::collection::vec(any::<u8>(), 0..300), small in prop::collection::vec(0..4_u64, 0..40),
        ) {
            let _ = Record::decode(&bytes);
            let _ = Record::decode(&small.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_too_much_is_cut_and_never_exceeds_the_bound() {
        let one = Drainer { pid: 1, pidfd_inode: None, since_ms: 1, until_ms: 2 };
        let draining = (0..100).map(|pid| Drainer { pid, ..one }).collect();
        let failed = LastUpgrade::Failed {
            pid: 1,
            reason: 22,
            errno: 10,
            detail: format!("x{}", "ü".repeat(MOST_DETAIL)),
            at_ms: 3,
        };
        let bytes = Record { generation: 9, draining, last_upgrade: Some(failed) }.encode();
        assert!(bytes.len() <= MOST_BYTES, "{}", bytes.len());
        let read = Record::decode(&bytes).unwrap();
        assert_eq!(read.draining.first().unwrap().pid, 36);
        assert_eq!(read.draining.len(), MOST_DRAINING);
        let Some(LastUpgrade::Failed { detail, .. }) = read.last_upgrade else { panic!("{read:?}") };
        assert_eq!(detail.len(), MOST_DETAIL - 1);
    }
}
