//! The new process' side: what it holds of another one, until that is its own.
//!
//! Until then a connection is nothing but a descriptor and bytes that make sense: nobody looks at it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use super::giver::IN_MEMORY;
use super::luggage::{Family, Luggage};
use crate::sys::memfd::SharedMemory;
use crate::upgrade::message::{Order, Report, Withdrawal};

/// A connection that another process accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The socket, non-blocking as it was.
    pub(crate) socket: OwnedFd,
    /// What it is.
    pub(crate) family: Family,
    /// The number of its entry with PID 1, if it has one.
    pub(crate) id: Option<u64>,
    /// What was saved for it last.
    pub(crate) state: Vec<u8>,
}

/// The connections of one other process that this one holds, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Taker {
    held: VecDeque<Held>,
}

/// A batch, whole.
#[derive(Debug)]
struct Held {
    sockets: Vec<OwnedFd>,
    luggage: Vec<u8>,
    withdrawn: Withdrawal,
}

impl Taker {
    /// Does what an order about connections says, and answers an offer by `say`: it is declined unless they
    /// are `welcome`. Returns the connections that are this process' from now on; `Err` gives any other
    /// order back.
    pub(crate) fn obey(
        &mut self,
        order: Order,
        fds: Vec<OwnedFd>,
        welcome: bool,
        say: impl FnOnce(&Report) -> io::Result<()>,
    ) -> Result<Vec<Arrival>, Order> {
        let (batch, held) = match order {
            Order::Offer { batch, luggage } => (batch, Held::whole(batch, luggage, fds)),
            Order::OfferWithMemory { batch, bytes } => (batch, from_memory(batch, bytes, fds)),
            Order::Withdrawn(withdrawn) => {
                withdrawn.iter().for_each(|withdrawn| self.withdraw(withdrawn));
                return Ok(Vec::new());
            }
            Order::Serve { batch } => return Ok(self.up_to(batch)),
            other => return Err(other),
        };
        let held = held.filter(|_| welcome);
        let answer = if held.is_some() { Report::Taken { batch } } else { Report::Declined { batch } };
        match say(&answer) {
            Ok(()) => self.held.extend(held),
            // Its process is gone, and what we hold of it is ours.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.held.extend(held),
            // It does not know that we have them: they are its own.
            Err(_) => {}
        }
        Ok(Vec::new())
    }

    /// Whether it is known of everything whose it is.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Everything: the other process has said so, or is gone.
    pub(crate) fn all(&mut self) -> Vec<Arrival> {
        self.up_to(u64::MAX)
    }

    /// What is not held cannot be withdrawn.
    fn withdraw(&mut self, withdrawn: &Withdrawal) {
        let batch = self.held.iter_mut().find(|held| held.withdrawn.batch == withdrawn.batch);
        if let Some(held) = batch {
            held.withdrawn = *withdrawn;
        }
    }

    fn up_to(&mut self, batch: u64) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        let count = self.held.iter().take_while(|held| held.withdrawn.batch <= batch).count();
        self.held.drain(..count).for_each(|held| held.unpack(&mut arrivals));
        arrivals
    }
}

impl Held {
    /// `None` if that is not the luggage of these.
    fn whole(batch: u64, luggage: Vec<u8>, sockets: Vec<OwnedFd>) -> Option<Self> {
        let whole = Luggage::is_of(&luggage, sockets.len());
        whole.then(|| Self { sockets, luggage, withdrawn: Withdrawal::of(batch) })
    }

    /// Adds those that were not withdrawn, and closes the others.
    fn unpack(self, arrivals: &mut Vec<Arrival>) {
        let mut bytes = &self.luggage[..];
        arrivals.reserve(self.sockets.len());
        for (place, socket) in self.sockets.into_iter().enumerate() {
            let Some(Luggage { family, id, state }) = Luggage::unpack(&mut bytes) else { return };
            if !self.withdrawn.has(place) {
                arrivals.push(Arrival { socket, family, id, state: state.to_vec() });
            }
        }
    }
}

/// A batch whose luggage is in the first descriptor.
fn from_memory(batch: u64, bytes: u64, mut fds: Vec<OwnedFd>) -> Option<Held> {
    let memory = (!fds.is_empty()).then(|| fds.remove(0))?;
    Held::whole(batch, read(memory, bytes)?, fds)
}

/// The luggage in a memfd; `None` if it is none, or larger than any that we would send.
fn read(memory: OwnedFd, bytes: u64) -> Option<Vec<u8>> {
    let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= IN_MEMORY)?;
    // A memfd has whole pages.
    let memory = SharedMemory::open(memory, IN_MEMORY.next_multiple_of(1 << 16)).ok()?;
    if memory.bytes() < bytes {
        return None;
    }
    let mut luggage = vec![0; bytes];
    memory.read(0, &mut luggage).ok()?;
    Some(luggage)
}
