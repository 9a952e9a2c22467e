//! The new process' side: what a batch holds, and the answer to it.

use std::os::fd::OwnedFd;

use super::giver::IN_MEMORY;
use super::luggage::Luggage;
use crate::sys::memfd::SharedMemory;
use crate::upgrade::message::{Order, Report};

/// A connection that another process accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The socket, non-blocking as it was.
    pub(crate) socket: OwnedFd,
    /// What came along.
    pub(crate) luggage: Luggage<'static>,
}

/// The number of the batch, and the connections in it if it is one and whole.
///
/// `Err` gives everything else back: another order.
pub(crate) fn unpack(order: Order, mut fds: Vec<OwnedFd>) -> Result<(u64, Option<Vec<Arrival>>), Order> {
    let (batch, luggage) = match order {
        Order::Offer { batch, luggage } => (batch, Some(luggage)),
        Order::OfferWithMemory { batch, .. } if fds.is_empty() => (batch, None),
        Order::OfferWithMemory { batch, bytes } => (batch, read(fds.remove(0), bytes)),
        other => return Err(other),
    };
    let luggage = luggage.and_then(|bytes| Luggage::unpack(&bytes, fds.len()));
    let arrivals = luggage.map(|all| {
        let pairs = fds.into_iter().zip(all);
        pairs.map(|(socket, luggage)| Arrival { socket, luggage }).collect()
    });
    Ok((batch, arrivals))
}

/// What to tell the other side about its batch. Only once that is sent may anybody touch a connection of
/// it.
pub(crate) fn answer(batch: u64, taken: bool) -> Report {
    if taken { Report::Taken { batch } } else { Report::Declined { batch } }
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
