//! The record in its memfd, and whether those whom it lists still live.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::{Drainer, LastUpgrade, MOST_BYTES, Record, RecordError};
use crate::fdstore::slots::Pair;
use crate::sys::memfd::SharedMemory;
use crate::sys::pidfd::Pidfd;
use crate::sys::process;

/// The first word of a record: "horecord".
const MAGIC: u64 = u64::from_le_bytes(*b"horecord");
/// What this file and `Record::encode` write.
const FORMAT: u64 = 1;
const KEY: u64 = 0;

const PAIR: Pair = Pair { head: 64, data: 128, room: MOST_BYTES.next_multiple_of(8) };
const BYTES: usize = (PAIR.data + 2 * PAIR.room).next_multiple_of(4096);

/// The memfd that PID 1 keeps the record in, mapped.
#[derive(Debug)]
pub(crate) struct RecordFile {
    memory: SharedMemory,
    saving: Mutex<()>,
}

impl RecordFile {
    /// A file with an empty record.
    ///
    /// Errors: what the kernel says.
    pub(crate) fn create() -> std::io::Result<Self> {
        let memory = SharedMemory::create(c"handover.record", BYTES)?;
        memory.store(0, MAGIC)?;
        memory.store(8, FORMAT)?;
        PAIR.save(&memory, KEY, &Record::default().encode())?;
        Ok(Self { memory, saving: Mutex::default() })
    }

    /// Maps a file that another process made, and reads it.
    ///
    /// Errors: see [`RecordError`]; the descriptor is closed then.
    pub(crate) fn open(fd: OwnedFd) -> Result<(Self, Record), RecordError> {
        let memory = SharedMemory::open(fd, BYTES)?;
        match (memory.load(0), memory.load(8)) {
            (Ok(MAGIC), Ok(FORMAT)) if memory.bytes() == BYTES => {}
            (Ok(MAGIC), Ok(found)) if found != FORMAT => return Err(RecordError::Format { found }),
            (Ok(MAGIC), _) => return Err(RecordError::Damaged),
            _ => return Err(RecordError::NotOurs),
        }
        let record = PAIR.read(&memory, KEY).and_then(|bytes| Record::decode(&bytes));
        let record = record.ok_or(RecordError::Damaged)?;
        Ok((Self { memory, saving: Mutex::default() }, record))
    }

    /// Saves the record: memory only. For the main process alone.
    ///
    /// Errors: the kernel has no memory left; the record before stays then.
    pub(crate) fn save(&self, record: &Record) -> Result<(), RecordError> {
        let _only = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(PAIR.save(&self.memory, KEY, &record.encode())?)
    }
}

impl AsFd for RecordFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl LastUpgrade {
    /// This process took over from the process `from`, now.
    pub(crate) fn switched(from: i32) -> Self {
        let to = std::process::id().cast_signed();
        Self::Switched { from, to, at_ms: process::boottime_ms() }
    }

    /// An upgrade failed now, and this process serves on.
    pub(crate) fn failed(reason: u8, errno: i32, detail: String) -> Self {
        let pid = std::process::id().cast_signed();
        Self::Failed { pid, reason, errno, detail, at_ms: process::boottime_ms() }
    }
}

impl Drainer {
    /// Whether it is still there: a process with this pid, not ended, and not another one that got
    /// the pid since. On kernels without inodes for pidfds, another one is told by having started
    /// after this one was retired.
    pub(crate) fn is_alive(&self) -> bool {
        let Ok(process) = Pidfd::open(self.pid) else { return false };
        if process.is_gone().unwrap_or(true) {
            return false;
        }
        match (self.pidfd_inode, process.id()) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => process::started_ms(self.pid).is_ok_and(|started| started <= self.since_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::fdstore::record::tests::record;
    use proptest::prelude::*;

    fn copy(file: &impl AsFd) -> OwnedFd {
        file.as_fd().try_clone_to_owned().unwrap()
    }

    proptest! {
        #[test]
        fn the_record_is_read_as_it_was_saved_last(records in prop::collection::vec(record(), 0..5)) {
            let file = RecordFile::create().unwrap();
            for record in &records {
                file.save(record).unwrap();
            }
            let (_, read) = RecordFile::open(copy(&file)).unwrap();
            prop_assert_eq!(read, records.last().cloned().unwrap_or_default());
        }

        #[test]
        fn a_changed_record_is_refused_or_one_that_was_saved(
            one in record(), two in record(), flips in prop::collection::vec((0..600_usize, 1..=255_u8), 1..6),
        ) {
            let file = RecordFile::create().unwrap();
            file.save(&one).unwrap();
            file.save(&two).unwrap();
            for (at, flip) in flips {
                let word = at / 8 * 8;
                let value = file.memory.load(word).unwrap() ^ u64::from(flip) << (at % 8 * 8);
                file.memory.store(word, value).unwrap();
            }
            if let Ok((_, read)) = RecordFile::open(copy(&file)) {
                prop_assert!(read == one || read == two, "{:?}", read);
            }
        }
    }

    #[test]
    fn what_is_no_record_says_what_is_wrong() {
        let file = RecordFile::create().unwrap();
        file.memory.store(8, 9).unwrap();
        assert!(matches!(RecordFile::open(copy(&file)), Err(RecordError::Format { found: 9 })));
        file.memory.store(0, 1).unwrap();
        assert!(matches!(RecordFile::open(copy(&file)), Err(RecordError::NotOurs)));
        let short = SharedMemory::create(c"short", 8).unwrap();
        short.store(0, MAGIC).unwrap();
        short.store(8, FORMAT).unwrap();
        assert!(matches!(RecordFile::open(copy(&short)), Err(RecordError::Damaged)));
        let large = SharedMemory::create(c"large", BYTES + 1).unwrap();
        assert!(matches!(RecordFile::open(copy(&large)), Err(RecordError::Memory(_))));
    }

    fn cat() -> Child {
        Command::new("/bin/cat").stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_process_is_alive_until_it_has_ended_even_if_nobody_reaps_it() {
        let mut cat = cat();
        let pidfd = Pidfd::open(cat.id().cast_signed()).unwrap();
        let one = Drainer { pid: pidfd.pid(), pidfd_inode: pidfd.id(), since_ms: u64::MAX, until_ms: 0 };
        assert!(one.is_alive());
        cat.kill().unwrap();
        pidfd.wait_until_gone().unwrap();
        assert!(!one.is_alive());
        cat.wait().unwrap();
        assert!(!one.is_alive());
        assert!(!Drainer { pid: 0, ..one }.is_alive());
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_taken_for_it() {
        let mut cat = cat();
        let pidfd = Pidfd::open(cat.id().cast_signed()).unwrap();
        let inode = pidfd.id().map(|inode| inode + 1);
        let one = Drainer { pid: pidfd.pid(), pidfd_inode: inode, since_ms: 1, until_ms: 0 };
        assert!(!one.is_alive());
        let started = process::started_ms(pidfd.pid()).unwrap();
        let unknown = Drainer { pidfd_inode: None, ..one };
        assert!(!Drainer { since_ms: started - 10, ..unknown }.is_alive(), "it started later");
        assert!(Drainer { since_ms: started, ..unknown }.is_alive());
        cat.kill().unwrap();
        cat.wait().unwrap();
    }
}
