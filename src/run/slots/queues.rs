//! What waits at slots, and whether anybody gets in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::super::address::Kind;
use super::super::table::Entry;
use super::{Group, Slots};
use crate::sys::door;

impl Slots {
    /// The slot in which most waits, the first of equals: where a runner before this one had it go, as a rule.
    /// Datagrams come first: connections can be passed on.
    pub(crate) fn fullest(&self) -> usize {
        let waiting = self.waiting();
        (0..self.width()).rev().max_by_key(|slot| waiting[*slot]).unwrap_or(0)
    }

    /// The slots in which datagrams wait.
    pub(crate) fn with_datagrams(&self) -> impl Iterator<Item = usize> {
        let waiting = self.waiting();
        (0..self.width()).filter(move |slot| waiting[*slot].0 > 0)
    }

    /// How much waits in each slot: bytes of datagrams, and connections.
    fn waiting(&self) -> Vec<(u64, u64)> {
        let sockets = self.sockets();
        let waiting = |slot: usize| {
            let inodes = self.inodes(slot);
            let here = |entry: &&Entry| inodes.contains(&entry.inode);
            sockets.iter().filter(here).fold((0, 0), |(bytes, connections), entry| {
                let here = u64::from(entry.waiting);
                if entry.listens() { (bytes, connections + here) } else { (bytes + here, connections) }
            })
        };
        (0..self.width()).map(waiting).collect()
    }

    /// Lets nobody connect any more, in no slot; their clients try again, as after a packet that was lost.
    pub(crate) fn shut(&self) -> io::Result<()> {
        self.listeners().try_for_each(|listener| door::shut(listener, None))
    }

    /// Lets everybody in again.
    pub(crate) fn open_up(&self) -> io::Result<()> {
        self.listeners().try_for_each(door::open)
    }

    fn listeners(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let is_stream = |group: &&Group| group.place.is_some_and(|place| place.kind == Kind::Stream);
        self.groups.iter().filter(is_stream).flat_map(|group| group.sockets.iter().map(AsFd::as_fd))
    }
}
