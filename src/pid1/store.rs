//! The FD store of one service: FileDescriptorStoreMax= of systemd.service(5), FDSTORE=1 of sd_notify(3).
//!
//! It answers nobody, as PID 1 does: what does not fit is closed, what is there already keeps its name,
//! and what hangs up is gone. Finding a duplicate among ten thousand takes a dozen questions to the
//! kernel, not ten thousand.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::stat::fstat;

use super::watches::{Ticket, Watches};
use crate::sys::same;

/// The name of what came without one: sd_pid_notify_with_fds(3).
pub(crate) const UNNAMED: &str = "stored";

/// What became of a descriptor that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is kept.
    Kept,
    /// It was there already, under whatever name.
    Known,
    /// It hung up, or the kernel does not tell what it is.
    Unfit,
    /// The store takes no more.
    Full,
}

/// One descriptor.
#[derive(Debug)]
struct Entry {
    fd: OwnedFd,
    name: String,
    file: File,
    ticket: Option<Ticket>,
}

/// What fstat(2) says of an open file: all duplicates have the same, and a few others may, too.
type File = (u64, u64);

/// Descriptors by the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Store {
    entries: BTreeMap<i64, Entry>,
    /// The numbers of the entries of one file, in the kernel's order of open files where it has one.
    files: HashMap<File, Vec<i64>>,
    names: HashMap<String, BTreeSet<i64>>,
    tickets: HashMap<Ticket, i64>,
    next: i64,
}

impl Store {
    /// How many it holds.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Offers a descriptor. The order of checks is PID 1's: full comes first, also for what is known.
    pub(crate) fn offer(
        &mut self,
        fd: OwnedFd,
        name: &str,
        polled: bool,
        most: usize,
        hangups: &Watches,
    ) -> Offered {
        let Ok(stat) = fstat(&fd) else { return Offered::Unfit };
        if self.len() >= most {
            return Offered::Full;
        }
        let file = (stat.st_dev, stat.st_ino);
        let known = self.files.get(&file).map_or(&[][..], Vec::as_slice);
        let Err(place) = find(known, |number| self.compare(number, fd.as_fd())) else {
            return Offered::Known;
        };
        let Ok(ticket) = polled.then(|| hangups.watch(fd.as_fd())).transpose() else {
            return Offered::Unfit;
        };
        let (number, ticket) = (self.next, ticket.flatten());
        self.next += 1;
        self.files.entry(file).or_default().insert(place, number);
        self.names.entry(name.to_owned()).or_default().insert(number);
        if let Some(ticket) = ticket {
            self.tickets.insert(ticket, number);
        }
        self.entries.insert(number, Entry { fd, name: name.to_owned(), file, ticket });
        Offered::Kept
    }

    /// Where the entry is beside another descriptor of the same file.
    fn compare(&self, number: i64, fd: BorrowedFd<'_>) -> Option<Ordering> {
        let entry = self.entries.get(&number)?;
        same::order(entry.fd.as_fd(), fd).ok().or_else(|| {
            // Without an order every one is asked; without an answer, one file is one descriptor.
            same::is_same(entry.fd.as_fd(), fd).unwrap_or(true).then_some(Ordering::Equal)
        })
    }

    /// Takes out everything that has exactly this name; how many that was.
    pub(crate) fn remove(&mut self, name: &str, hangups: &Watches) -> usize {
        let numbers = self.names.get(name).cloned().unwrap_or_default();
        self.take(&numbers, hangups);
        numbers.len()
    }

    /// Takes out what hung up; its name, if it was ours.
    pub(crate) fn hung_up(&mut self, ticket: Ticket, hangups: &Watches) -> Option<String> {
        let number = *self.tickets.get(&ticket)?;
        let name = self.entries.get(&number)?.name.clone();
        self.take(&[number].into(), hangups);
        Some(name)
    }

    /// Takes entries out of everything, and closes them. What many of them share is gone through once.
    fn take(&mut self, numbers: &BTreeSet<i64>, hangups: &Watches) {
        let mut files = HashSet::new();
        for number in numbers {
            let Some(entry) = self.entries.remove(number) else { continue };
            if let Some(ticket) = entry.ticket {
                hangups.forget(entry.fd.as_fd());
                self.tickets.remove(&ticket);
            }
            if let Some(others) = self.names.get_mut(&entry.name) {
                others.remove(number);
                if others.is_empty() {
                    self.names.remove(&entry.name);
                }
            }
            files.insert(entry.file);
        }
        for file in files {
            let Some(others) = self.files.get_mut(&file) else { continue };
            others.retain(|other| !numbers.contains(other));
            if others.is_empty() {
                self.files.remove(&file);
            }
        }
    }

    /// Closes everything.
    pub(crate) fn clear(&mut self, hangups: &Watches) {
        self.keep(0, hangups);
    }

    /// Closes what is more than `most`, as PID 1 does when the limit was lowered.
    pub(crate) fn keep(&mut self, most: usize, hangups: &Watches) {
        let over = self.len().saturating_sub(most);
        self.take(&self.entries.keys().take(over).copied().collect(), hangups);
    }

    /// What a service gets at its start, the newest first.
    pub(crate) fn passed(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.entries.values().rev().map(|entry| (entry.name.as_str(), entry.fd.as_fd()))
    }

    /// Turns the order around, as each daemon-reload of PID 1 does.
    pub(crate) fn reverse(&mut self) {
        let turn = |number: i64| -1 - number;
        let entries = std::mem::take(&mut self.entries);
        self.entries = entries.into_iter().map(|(number, entry)| (turn(number), entry)).collect();
        let numbers = self.files.values_mut().flatten().chain(self.tickets.values_mut());
        numbers.for_each(|number| *number = turn(*number));
        for numbers in self.names.values_mut() {
            *numbers = numbers.iter().map(|number| turn(*number)).collect();
        }
        self.next = self.entries.last_key_value().map_or(0, |(last, _)| last + 1);
    }
}

/// The place of what compares equal, or where it belongs; where there is no order, at the end.
fn find(known: &[i64], compare: impl Fn(i64) -> Option<Ordering>) -> Result<usize, usize> {
    let ordered = known.first().is_none_or(|first| compare(*first).is_some_and(|order| order.is_ne()));
    if ordered {
        return known.binary_search_by(|number| compare(*number).unwrap_or(Ordering::Equal));
    }
    known.iter().position(|number| compare(*number).is_some_and(Ordering::is_eq)).ok_or(known.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn hangups() -> Watches {
        Watches::hangups().unwrap()
    }

    fn eventfd() -> OwnedFd {
        nix::sys::eventfd::EventFd::new().unwrap().into()
    }

    fn names(store: &Store) -> Vec<&str> {
        store.passed().map(|(name, _)| name).collect()
    }

    #[tokio::test]
    async fn a_duplicate_keeps_its_name_and_a_full_store_refuses_even_that() {
        let (mut store, hangups) = (Store::default(), hangups());
        let one = eventfd();
        let mut offer = |fd: OwnedFd, name: &str| store.offer(fd, name, true, 2, &hangups);
        assert_eq!(offer(one.try_clone().unwrap(), "a"), Offered::Kept);
        assert_eq!(offer(one.try_clone().unwrap(), "b"), Offered::Known);
        assert_eq!(offer(eventfd(), "c"), Offered::Kept);
        assert_eq!(offer(eventfd(), "d"), Offered::Full);
        assert_eq!(offer(one, "a"), Offered::Full);
        assert_eq!(names(&store), ["c", "a"]);
    }

    #[tokio::test]
    async fn the_newest_comes_first_and_a_reload_turns_the_order_around() {
        let (mut store, hangups) = (Store::default(), hangups());
        let offer = |store: &mut Store, name| store.offer(eventfd(), name, true, 9, &hangups);
        for name in ["a", "b", "c"] {
            offer(&mut store, name);
        }
        assert_eq!(names(&store), ["c", "b", "a"]);
        store.reverse();
        assert_eq!(names(&store), ["a", "b", "c"]);
        offer(&mut store, "d");
        assert_eq!(names(&store), ["d", "a", "b", "c"]);
        assert_eq!(store.remove("b", &hangups), 1);
        assert_eq!(names(&store), ["d", "a", "c"]);
    }

    #[tokio::test]
    async fn what_hangs_up_goes_and_what_is_not_polled_stays() {
        let (mut store, hangups) = (Store::default(), hangups());
        let (one, peer) = UnixStream::pair().unwrap();
        let (two, other) = UnixStream::pair().unwrap();
        assert_eq!(store.offer(one.into(), "a", true, 9, &hangups), Offered::Kept);
        assert_eq!(store.offer(two.into(), "b", false, 9, &hangups), Offered::Kept);
        drop((peer, other));
        let tickets = hangups.next().await;
        assert_eq!(tickets.into_iter().filter_map(|ticket| store.hung_up(ticket, &hangups)).count(), 1);
        assert_eq!(names(&store), ["b"]);
    }

    #[tokio::test]
    async fn a_name_may_be_several_and_all_go_at_once() {
        let (mut store, hangups) = (Store::default(), hangups());
        for name in ["a", "b", "a"] {
            store.offer(eventfd(), name, true, 9, &hangups);
        }
        assert_eq!(store.remove("a", &hangups), 2);
        store.keep(0, &hangups);
        assert_eq!((store.len(), store.names.len(), store.files.len(), store.tickets.len()), (0, 0, 0, 0));
    }
}
