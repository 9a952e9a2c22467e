//! The accounts: what PID 1 holds for this service as far as this process knows, and whether one more
//! would fit. PID 1 answers nothing, so nobody else keeps them. Pure: no descriptor, no socket.
//!
//! They count what was sent, until it is removed from here. What PID 1 drops by itself, as a connection
//! that was reset, stays in them until its owner ends it: a place too few for that while, never one
//! too many. What strangers store is only known when it arrives at a start.

use std::collections::HashMap;

use super::StashError;
use super::bounds::Bounds;

/// The accounts of one process.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) bounds: Bounds,
    entries: HashMap<String, Entry>,
    /// How many descriptors the entries are.
    fds: usize,
    /// The bytes of their names, with a colon behind each.
    bytes: usize,
    /// Canaries that take a place in the store.
    canaries: usize,
    /// The number of the next entry.
    next: u64,
    /// How many entries were sent; those up to `confirmed` are known to be held.
    pub(super) sent: u64,
    pub(super) confirmed: u64,
    /// The last time that finding out failed, for all who waited for it.
    pub(super) failed: Option<Failed>,
    /// Entries whose removal is not sent yet. They still count.
    pub(super) ending: Vec<String>,
    /// What ended after this process had handed over, for its successor to remove.
    pub(super) ended: Vec<String>,
}

/// What one name stands for.
#[derive(Debug)]
struct Entry {
    /// Tells it from an earlier one of the same name.
    number: u64,
    fds: usize,
    is_canary: bool,
}

/// How something gets into the store so that no refusal goes unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is sent, and a place stays free for the canary that proves it.
    Direct,
    /// It takes the places of canaries that PID 1 has kept.
    InPlaceOfCanaries,
}

/// A round of finding out that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) round: u64,
    /// The entries that it was about.
    pub(super) upto: u64,
    pub(super) error: StashError,
}

impl Books {
    /// Nothing is held yet.
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: HashMap::new(),
            fds: 0,
            bytes: 0,
            canaries: 0,
            next: 0,
            sent: 0,
            confirmed: 0,
            failed: None,
            ending: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// How `fds` more, all called `name`, would get into the store, or why they would not.
    pub(super) fn way(&self, name: &str, fds: usize) -> Result<Way, StashError> {
        if self.entries.contains_key(name) {
            return Err(StashError::Taken { name: name.to_owned() });
        }
        self.bounds.check(self.fds + fds, self.bytes + fds * (name.len() + 1))?;
        match self.bounds.limit {
            None => Ok(Way::InPlaceOfCanaries),
            Some(limit) if self.fds + fds > limit => Err(StashError::Full { limit }),
            Some(limit) if self.fds + self.canaries + fds < limit => Ok(Way::Direct),
            Some(_) => Ok(Way::InPlaceOfCanaries),
        }
    }

    /// Whether PID 1 holds the first `wanted` entries, if that is known, or was found out in vain since
    /// the round `asked`.
    pub(super) fn known(&self, wanted: u64, asked: u64) -> Option<Result<(), StashError>> {
        if self.confirmed >= wanted {
            return Some(Ok(()));
        }
        let failed = self.failed.as_ref().filter(|failed| failed.round > asked && failed.upto >= wanted);
        failed.map(|failed| Err(failed.error.clone()))
    }

    /// Counts `fds` more, called `name`; returns the number of the entry. Of a name that is there
    /// already they become part.
    pub(super) fn enter(&mut self, name: &str, fds: usize) -> u64 {
        self.fds += fds;
        self.bytes += fds * (name.len() + 1);
        if let Some(entry) = self.entries.get_mut(name) {
            entry.fds += fds;
            return entry.number;
        }
        self.next += 1;
        self.entries.insert(name.to_owned(), Entry { number: self.next, fds, is_canary: false });
        self.next
    }

    /// Counts a canary: it takes a place, and is gone before the next start. Returns its number.
    pub(super) fn enter_canary(&mut self, name: &str) -> u64 {
        self.canaries += 1;
        self.next += 1;
        self.entries.insert(name.to_owned(), Entry { number: self.next, fds: 1, is_canary: true });
        self.next
    }

    /// Crosses out a name: its removal was sent, or it never was.
    pub(super) fn strike(&mut self, name: &str) {
        self.ending.retain(|ending| ending != name);
        let Some(entry) = self.entries.remove(name) else { return };
        if entry.is_canary {
            self.canaries -= 1;
        } else {
            self.fds -= entry.fds;
            self.bytes -= entry.fds * (name.len() + 1);
        }
    }

    /// Notes that the entry `number` called `name` is to be removed, if it is still that one.
    pub(super) fn end(&mut self, name: &str, number: u64) {
        let is_it = self.entries.get(name).is_some_and(|entry| entry.number == number);
        if is_it && !self.ending.iter().any(|ending| ending == name) {
            self.ending.push(name.to_owned());
        }
    }

    /// The number of the entry that is called so.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|entry| entry.number)
    }

    /// How many descriptors are held as far as is known.
    pub(super) fn held(&self) -> usize {
        self.fds
    }

    /// All names but the canaries', in order.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = self.entries.iter().filter(|(_, entry)| !entry.is_canary);
        let mut names: Vec<_> = entries.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// How many more of short names would fit; `None` if the limit is not known.
    pub(super) fn free(&self) -> Option<usize> {
        let left = self.bounds.limit?.saturating_sub(self.fds);
        let bearable = |more: usize| self.bounds.check(self.fds + more, self.bytes).is_ok();
        if bearable(left) {
            return Some(left);
        }
        // `check` is monotonic: what is left has a part that is bearable and one that is not.
        let (mut most, mut too_many) = (0, left);
        while most + 1 < too_many {
            let middle = most.midpoint(too_many);
            if bearable(middle) { most = middle } else { too_many = middle }
        }
        Some(most)
    }

    /// Whether there is a place for one more canary.
    pub(super) fn has_place_for_canary(&self) -> bool {
        self.bounds.limit.is_some_and(|limit| self.fds + self.canaries < limit)
    }

    /// Gives up removing anything: the successor is told of `ending` instead.
    pub(super) fn pass_on_endings(&mut self) {
        for name in std::mem::take(&mut self.ending) {
            let is_canary = self.entries.get(&name).is_some_and(|entry| entry.is_canary);
            self.strike(&name);
            // Those went with the pipe that they were one end of.
            if !is_canary {
                self.ended.push(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(limit: Option<usize>) -> Books {
        Books::new(Bounds { limit, open_files: 1000, others: 0, other_bytes: 0 })
    }

    #[test]
    fn a_place_is_kept_for_the_canary_until_the_last_is_needed() {
        let mut books = books(Some(3));
        for (name, way) in [("a", Way::Direct), ("b", Way::Direct), ("c", Way::InPlaceOfCanaries)] {
            assert_eq!(books.way(name, 1).unwrap(), way, "{name}");
            books.enter(name, 1);
        }
        assert!(matches!(books.way("d", 1), Err(StashError::Full { limit: 3 })));
        books.strike("b");
        books.enter_canary("canary");
        assert_eq!(books.way("d", 1).unwrap(), Way::InPlaceOfCanaries);
    }

    #[test]
    fn of_an_unknown_limit_every_place_is_proven_first() {
        assert_eq!(books(None).way("a", 1).unwrap(), Way::InPlaceOfCanaries);
        assert_eq!(books(None).free(), None);
    }

    #[test]
    fn several_descriptors_of_one_name_are_one_entry_and_count_each() {
        let mut books = books(Some(10));
        books.enter("same", 3);
        books.enter("same", 1);
        assert_eq!((books.held(), books.free(), books.names().len()), (4, Some(6), 1));
        books.strike("same");
        assert_eq!((books.held(), books.bytes, books.free()), (0, 0, Some(10)));
    }

    #[test]
    fn an_old_owner_does_not_end_what_has_the_name_now() {
        let mut books = books(Some(10));
        let old = books.enter("a", 1);
        books.strike("a");
        let new = books.enter("a", 1);
        books.end("a", old);
        assert!(books.ending.is_empty());
        books.end("a", new);
        books.end("a", new);
        assert_eq!(books.ending, ["a"]);
    }

    #[test]
    fn free_places_are_those_that_the_next_start_can_bear() {
        let mut books = books(Some(5000));
        assert_eq!(books.free(), Some(466));
        books.enter("many", 400);
        assert_eq!(books.free(), Some(66));
    }
}
