//! The old process' side: offers connections in batches, and decides which of them are the other side's.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::Waker;

use super::exchange::Exchange;
use super::slot::Slot;
use crate::sys::memfd::SharedMemory;
use crate::sys::scm::MAX_FDS;
use crate::upgrade::channel::AsyncChannel;
use crate::upgrade::message::{Order, Withdrawal};

/// Most connections in a batch: what one message carries, and a memfd beside it.
const MOST: usize = MAX_FDS - 1;

/// Most batches that are sent and not answered: enough that neither side waits for the other, also on
/// a busy machine. Where fewer descriptors may be in flight (ETOOMANYREFS, unix(7)), each answer makes
/// room for more.
const WINDOW: usize = 8;

/// Most bytes of luggage in the message itself, and in a memfd.
const INLINE: usize = 60 * 1024;
pub(super) const IN_MEMORY: usize = 16 << 20;

/// Gives connections away.
#[derive(Debug)]
pub(crate) struct Giver {
    exchange: Exchange,
    /// Where it has not looked yet since it was last called.
    scan: Range<usize>,
    /// Offered, and there was no room for it on the link.
    unsent: Option<Batch>,
    /// Sent, not answered.
    under_way: VecDeque<Batch>,
    /// The other side holds them; it is not decided whose they are.
    held: Vec<Batch>,
    next_batch: u64,
}

/// Connections that are on offer together.
#[derive(Debug)]
pub(crate) struct Batch {
    number: u64,
    slots: Vec<Arc<Slot>>,
    luggage: Vec<u8>,
}

impl Giver {
    /// Nothing is on offer.
    pub(crate) fn new() -> Self {
        Self {
            exchange: Exchange::new(),
            scan: 0..0,
            unsent: None,
            under_way: VecDeque::new(),
            held: Vec::new(),
            next_batch: 0,
        }
    }

    /// Where connections are entered.
    pub(crate) fn exchange(&self) -> Exchange {
        self.exchange.clone()
    }

    /// Offers every connection that is between two requests now. To be followed by
    /// [`is_prepared`](Self::is_prepared).
    pub(crate) fn call(&mut self) {
        self.scan = self.exchange.places();
    }

    /// The same, and from now on every connection that comes to rest.
    pub(crate) fn call_for_good(&mut self) {
        // In this order: who comes to rest meanwhile is seen, or tells.
        self.exchange.follow(true);
        self.call();
    }

    /// Sends what there is to send. Whether the other side has answered for every connection that was
    /// resting at the call; to be called again after each answer.
    pub(crate) fn is_prepared(&mut self, link: &AsyncChannel) -> bool {
        self.send(link);
        self.under_way.is_empty()
    }

    /// After the commit: gives away what comes to rest, for ever. Cancel safe; to be called again after
    /// each answer.
    pub(crate) async fn follow(&mut self, link: &AsyncChannel) -> std::convert::Infallible {
        loop {
            if let Some(last) = self.held.last() {
                let order = Order::Serve { batch: last.number };
                // No room: they are still on offer, and the next answer brings us here again. Nobody is there:
                // the owner of the link takes everything back.
                let _ = self.conclude(link, || link.send(&order, &[]));
            }
            self.send(link);
            self.exchange.told().await;
        }
    }

    /// What is on offer, for whoever gives connections away elsewhere. Cancel safe.
    pub(crate) async fn next_offers(&mut self) -> Batch {
        loop {
            match self.next_batch() {
                Some(batch) => return batch,
                None => self.exchange.told().await,
            }
        }
    }

    /// The other side's answer to the oldest batch. `false` if that was not `number`: it is confused.
    pub(crate) fn answered(&mut self, number: u64, taken: bool) -> bool {
        match self.under_way.pop_front() {
            Some(batch) if batch.number == number && taken => self.held.push(batch),
            Some(batch) if batch.number == number => batch.back(),
            other => {
                other.into_iter().for_each(|batch| self.under_way.push_front(batch));
                return false;
            }
        }
        true
    }

    /// Makes the other side's what it holds, but for what was withdrawn, which it is told before
    /// `say` tells it the rest. If it cannot be told, everything stays as it is.
    ///
    /// Errors: what `say` and sendmsg(2) say.
    pub(crate) fn conclude(
        &mut self,
        link: &AsyncChannel,
        say: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let exchange = self.exchange.clone();
        let deciding = exchange.decide();
        let withdrawn: Vec<_> =
            self.held.iter().map(Batch::seal).filter(|withdrawn| !withdrawn.is_empty()).collect();
        let mut chunks = withdrawn.chunks(Withdrawal::MOST);
        let told =
            chunks.try_for_each(|some| link.send(&Order::Withdrawn(some.to_vec()), &[])).and_then(|()| say());
        if told.is_err() {
            self.held.iter().for_each(Batch::reopen);
            return told;
        }
        let wakers: Vec<Waker> = self.held.drain(..).flat_map(Batch::gone).collect();
        drop(deciding);
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Nothing more can be given away: everything that was not given away rests as before.
    pub(crate) fn take_back(&mut self) {
        self.exchange.follow(false);
        self.scan = 0..0;
        let under_way = self.under_way.drain(..);
        self.held.drain(..).chain(under_way).chain(self.unsent.take()).for_each(Batch::back);
    }

    /// Sends as many batches as the window has room for.
    fn send(&mut self, link: &AsyncChannel) {
        while self.under_way.len() < WINDOW {
            let Some(mut batch) = self.unsent.take().or_else(|| self.next_batch()) else { return };
            match batch.send(link) {
                Ok(()) => self.under_way.push_back(batch),
                Err(error) if is_crowded(&error) && !self.under_way.is_empty() => {
                    // Each answer makes room.
                    self.unsent = Some(batch);
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "connections cannot move and stay here");
                    batch.back();
                }
            }
        }
    }

    /// As many of those who rest as a message carries.
    fn next_batch(&mut self) -> Option<Batch> {
        let number = self.next_batch + 1;
        let (slots, luggage) = self.exchange.offer(number, &mut self.scan, MOST, IN_MEMORY);
        if slots.is_empty() {
            return None;
        }
        self.next_batch = number;
        Some(Batch { number, slots, luggage })
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl Batch {
    /// Its connections, and the number by which they are on offer.
    pub(crate) fn into_parts(self) -> (u64, Vec<Arc<Slot>>) {
        (self.number, self.slots)
    }

    fn send(&mut self, link: &AsyncChannel) -> io::Result<()> {
        let sockets = self.slots.iter().map(|slot| slot.as_fd());
        if self.luggage.len() <= INLINE {
            let fds: Vec<BorrowedFd<'_>> = sockets.collect();
            let order = Order::Offer { batch: self.number, luggage: std::mem::take(&mut self.luggage) };
            let sent = link.send(&order, &fds);
            if let (Err(_), Order::Offer { luggage, .. }) = (&sent, order) {
                self.luggage = luggage;
            }
            return sent;
        }
        let memory = SharedMemory::create(c"handover.luggage", self.luggage.len())?;
        memory.write(0, &self.luggage)?;
        let bytes = self.luggage.len() as u64;
        let fds: Vec<BorrowedFd<'_>> = [memory.as_fd()].into_iter().chain(sockets).collect();
        link.send(&Order::OfferWithMemory { batch: self.number, bytes }, &fds)?;
        self.luggage = Vec::new();
        Ok(())
    }

    /// The offer is void.
    fn back(self) {
        self.slots.iter().for_each(|slot| slot.back(self.number));
    }

    /// From here on nobody withdraws any; those that were.
    fn seal(&self) -> Withdrawal {
        let mut withdrawn = Withdrawal::of(self.number);
        for (place, slot) in self.slots.iter().enumerate() {
            if !slot.seal(self.number) {
                withdrawn.add(place);
            }
        }
        withdrawn
    }

    fn reopen(&self) {
        self.slots.iter().for_each(|slot| slot.reopen(self.number));
    }

    /// They live on elsewhere; whom to wake.
    fn gone(self) -> Vec<Waker> {
        self.slots.iter().filter_map(|slot| slot.gone(self.number)).collect()
    }
}

/// Whether there is only no room at the moment: unix(7).
fn is_crowded(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

#[cfg(test)]
mod tests;
