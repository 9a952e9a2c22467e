//! Two slots for one state: a save fills the older one and publishes it with its last store, so that
//! the newer one is whole whatever instruction was the last.
//!
//! The head of a pair is four words: generation, length and checksum of slot A, then of slot B. The
//! generation of a slot that was never published is 0. A checksum covers the key (which state this
//! is), the generation and the bytes: a slot that is half written, or was published for another
//! state, is not valid. This file never waits: a reader that meets a writer reads again.

use std::io;
use std::sync::atomic::{Ordering, fence};

use super::layout::halves;
use crate::sys::memfd::SharedMemory;

/// Bytes of the head of a pair.
pub(super) const HEAD_BYTES: usize = 32;

/// Generations beyond this one were written by nobody: counting on from one could overflow.
const LAST_GENERATION: u64 = 1 << 62;

/// How often a reader begins anew because somebody saved meanwhile.
const MOST_READS: usize = 64;

/// Where two slots lie in a memory: their head, and `room` bytes each from `data` on. All three are
/// whole words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) head: usize,
    pub(super) data: usize,
    pub(super) room: usize,
}

/// One of the stores that make a save, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// Copy these bytes to `at`.
    Bytes { at: usize, bytes: &'a [u8] },
    /// Put this word to `at`, after everything before.
    Word { at: usize, value: u64 },
}

impl Step<'_> {
    pub(super) fn apply(self, memory: &SharedMemory) -> io::Result<()> {
        match self {
            Self::Bytes { at, bytes } => memory.write(at, bytes),
            Self::Word { at, value } => memory.store(at, value),
        }
    }
}

impl Pair {
    /// Offsets of the generation, of the length with the checksum, and of the bytes of a slot.
    fn slot(&self, slot: usize) -> (usize, usize, usize) {
        let head = self.head + slot * HEAD_BYTES / 2;
        (head, head + 8, self.data + slot * self.room)
    }

    /// How `bytes` are saved where the slots have these generations. Only the last step changes what
    /// is read. `bytes` fit into the room.
    pub(super) fn steps<'a>(&self, generations: [u64; 2], key: u64, bytes: &'a [u8]) -> [Step<'a>; 3] {
        let [a, b] = generations.map(|generation| if generation < LAST_GENERATION { generation } else { 0 });
        let (generation, length, data) = self.slot(usize::from(b < a));
        let next = a.max(b) + 1;
        let sum = checksum(key, next, bytes);
        [
            Step::Bytes { at: data, bytes },
            Step::Word { at: length, value: (bytes.len() as u64) << 32 | u64::from(sum) },
            Step::Word { at: generation, value: next },
        ]
    }

    /// The generations of both slots.
    pub(super) fn generations(&self, memory: &SharedMemory) -> io::Result<[u64; 2]> {
        Ok([memory.load(self.slot(0).0)?, memory.load(self.slot(1).0)?])
    }

    /// Saves `bytes`, which fit into the room, as the state called `key`. One writer at a time.
    ///
    /// Errors: the kernel has no memory left (never where as many bytes were saved before); what was
    /// saved before stays then.
    pub(super) fn save(&self, memory: &SharedMemory, key: u64, bytes: &[u8]) -> io::Result<()> {
        // The slot that is overwritten now was the newest until the store that ended the last save:
        // neither compiler nor processor may begin before that.
        fence(Ordering::Release);
        for step in self.steps(self.generations(memory)?, key, bytes) {
            step.apply(memory)?;
        }
        Ok(())
    }

    /// The state called `key` that was saved last; `None` when none was, or nothing of it is whole.
    pub(super) fn read(&self, memory: &SharedMemory, key: u64) -> Option<Vec<u8>> {
        let mut seen = self.generations(memory).ok()?;
        for _ in 0..MOST_READS {
            let newest = usize::from(seen[0] < seen[1]);
            let slots = [newest, 1 - newest];
            if let Some(bytes) = slots.iter().find_map(|slot| self.read_slot(memory, *slot, seen[*slot], key))
            {
                return Some(bytes);
            }
            let now = self.generations(memory).ok()?;
            if std::mem::replace(&mut seen, now) == now {
                return None;
            }
        }
        None
    }

    /// The bytes of one slot, if they are what was published as `generation`.
    fn read_slot(&self, memory: &SharedMemory, slot: usize, generation: u64, key: u64) -> Option<Vec<u8>> {
        let (_, length, data) = self.slot(slot);
        if generation == 0 || generation > LAST_GENERATION {
            return None;
        }
        let (len, sum) = halves(memory.load(length).ok()?);
        let len = usize::try_from(len).ok().filter(|len| *len <= self.room)?;
        let mut bytes = vec![0; len];
        memory.read(data, &mut bytes).ok()?;
        (checksum(key, generation, &bytes) == sum).then_some(bytes)
    }

    /// Forgets what was saved.
    pub(super) fn clear(&self, memory: &SharedMemory) -> io::Result<()> {
        memory.store(self.slot(0).0, 0)?;
        memory.store(self.slot(1).0, 0)
    }
}

/// The checksum of a slot; the length is in it by the number of bytes.
fn checksum(key: u64, generation: u64, bytes: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&key.to_le_bytes());
    sum.update(&generation.to_le_bytes());
    sum.update(bytes);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 7;
    const PAIR: Pair = Pair { head: 0, data: 32, room: 64 };

    fn memory() -> SharedMemory {
        SharedMemory::create(c"slots", 4096).unwrap()
    }

    /// Every memory that a save of `bytes` passes through: after each word of it.
    fn interrupted(before: &SharedMemory, bytes: &[u8]) -> Vec<SharedMemory> {
        let words = bytes.chunks(8).count() + 2;
        let stop_after = |stop: usize| {
            let memory = memory();
            let mut all = vec![0; 4096];
            before.read(0, &mut all).unwrap();
            memory.write(0, &all).unwrap();
            let steps = PAIR.steps(PAIR.generations(before).unwrap(), KEY, bytes);
            let single = steps.iter().flat_map(|step| match *step {
                Step::Bytes { at, bytes } => {
                    let part = |(number, bytes)| Step::Bytes { at: at + number * 8, bytes };
                    bytes.chunks(8).enumerate().map(part).collect()
                }
                word @ Step::Word { .. } => vec![word],
            });
            for step in single.take(stop) {
                step.apply(&memory).unwrap();
            }
            memory
        };
        (0..=words).map(stop_after).collect()
    }

    #[test]
    fn a_save_that_stops_after_any_word_leaves_the_state_before_it() {
        let memory = memory();
        let states: [&[u8]; 5] = [b"first", b"the second one", &[3; 64], b"", &[5; 33]];
        let mut before: Option<Vec<u8>> = None;
        for state in states {
            let mut stopped = interrupted(&memory, state);
            let whole = stopped.pop().unwrap();
            assert_eq!(PAIR.read(&whole, KEY).unwrap(), state);
            for (words, memory) in stopped.iter().enumerate() {
                assert_eq!(PAIR.read(memory, KEY), before, "stopped after {words} words");
                PAIR.save(memory, KEY, b"and on").unwrap();
                assert_eq!(PAIR.read(memory, KEY).unwrap(), b"and on");
            }
            PAIR.save(&memory, KEY, state).unwrap();
            before = Some(state.to_vec());
        }
    }

    #[test]
    fn a_state_is_read_under_its_own_key_only_and_not_after_it_was_cleared() {
        let memory = memory();
        PAIR.save(&memory, KEY, b"mine").unwrap();
        assert_eq!(PAIR.read(&memory, KEY + 1), None);
        PAIR.clear(&memory).unwrap();
        assert_eq!(PAIR.read(&memory, KEY), None);
    }

    #[test]
    fn a_generation_that_nobody_wrote_neither_counts_nor_overflows() {
        for generation in [u64::MAX, LAST_GENERATION, LAST_GENERATION - 1] {
            let memory = memory();
            PAIR.save(&memory, KEY, b"first").unwrap();
            PAIR.save(&memory, KEY, b"second").unwrap();
            memory.store(0, generation).unwrap();
            assert_eq!(PAIR.read(&memory, KEY).unwrap(), b"second");
            PAIR.save(&memory, KEY, b"third").unwrap();
            assert_eq!(PAIR.read(&memory, KEY).unwrap(), b"third");
        }
    }

    #[test]
    fn a_length_beyond_the_room_is_not_believed_even_if_the_checksum_is_right() {
        let memory = memory();
        PAIR.save(&memory, KEY, b"state").unwrap();
        memory.store(8, u64::MAX).unwrap();
        assert_eq!(PAIR.read(&memory, KEY), None);
        let mut beyond = vec![0; PAIR.room + 1];
        memory.read(PAIR.data, &mut beyond).unwrap();
        let sum = u64::from(checksum(KEY, 1, &beyond));
        memory.store(8, (beyond.len() as u64) << 32 | sum).unwrap();
        assert_eq!(PAIR.read(&memory, KEY), None);
    }
}
