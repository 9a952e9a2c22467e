//! The old process' side: offers connections in batches, and gets back what the other side does not take.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::{Desk, Exchange, Offered};
use crate::sys::memfd::SharedMemory;
use crate::sys::scm::MAX_FDS;
use crate::upgrade::channel::AsyncChannel;
use crate::upgrade::message::Order;

/// Most connections in a batch: what one message carries, and a memfd beside it.
const MOST: usize = MAX_FDS - 1;

/// Most batches that are sent and not answered: enough that neither side waits for the other, and
/// fewer descriptors in flight than the smallest usual limit (ETOOMANYREFS, unix(7)).
const WINDOW: usize = 3;

/// Most bytes of luggage in the message itself, and in a memfd.
const INLINE: usize = 60 * 1024;
pub(super) const IN_MEMORY: usize = 16 << 20;

/// How long a task that has heard the call may take to answer it. One that blocks its thread is not
/// waited for: its connection follows later.
const PATIENCE: Duration = Duration::from_secs(1);

/// Gives connections away.
#[derive(Debug)]
pub(crate) struct Giver {
    desk: Desk,
    /// Offered to us, not sent yet.
    waiting: VecDeque<Box<dyn Offered>>,
    /// Sent, not answered.
    under_way: VecDeque<Batch>,
    /// The other side holds them; they are ours until the commit.
    held: Vec<Box<dyn Offered>>,
    /// The service is the other side's: what it takes is gone.
    committed: bool,
    next_batch: u64,
    patient_until: Instant,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    connections: Vec<Box<dyn Offered>>,
}

impl Giver {
    /// Nobody is called yet.
    pub(crate) fn new() -> Self {
        Self {
            desk: Desk::new(),
            waiting: VecDeque::new(),
            under_way: VecDeque::new(),
            held: Vec::new(),
            committed: false,
            next_batch: 0,
            patient_until: Instant::now(),
        }
    }

    /// The side of the connection tasks.
    pub(crate) fn exchange(&self) -> Exchange {
        self.desk.exchange()
    }

    /// Calls for every connection that is between two requests, or comes to rest from now on.
    pub(crate) fn call(&mut self) {
        self.patient_until = Instant::now() + PATIENCE;
        self.desk.open();
    }

    /// Resolves when every connection that was resting at the call is held by the other side, or was
    /// declined. Cancel safe; to be called again after each answer.
    pub(crate) async fn prepared(&mut self, link: &AsyncChannel) {
        loop {
            self.collect();
            let calm = self.is_calm();
            self.send(link, calm);
            if calm && self.waiting.is_empty() && self.under_way.is_empty() {
                return;
            }
            self.more(calm).await;
        }
    }

    /// After the commit: gives away what comes to rest, for ever. Cancel safe; to be called again after
    /// each answer.
    pub(crate) async fn follow(&mut self, link: &AsyncChannel) -> std::convert::Infallible {
        loop {
            self.collect();
            self.send(link, true);
            let offered = self.desk.offers.recv().await;
            self.waiting.extend(offered);
        }
    }

    /// What is on offer, for whoever gives connections away elsewhere: the answers of all who were resting
    /// at the call, and after that whatever comes. Cancel safe.
    pub(crate) async fn next_offers(&mut self) -> Vec<Box<dyn Offered>> {
        loop {
            self.collect();
            let calm = self.is_calm();
            if calm && !self.waiting.is_empty() {
                return self.waiting.drain(..).collect();
            }
            self.more(calm).await;
        }
    }

    /// Whether everybody who was resting at the call has answered, or has had its time.
    fn is_calm(&self) -> bool {
        self.desk.is_calm() || Instant::now() >= self.patient_until
    }

    /// Waits for another offer; or, before it is `calm`, until it is.
    async fn more(&mut self, calm: bool) {
        let Desk { offers, shared, .. } = &mut self.desk;
        tokio::select! {
            biased;
            offered = offers.recv() => self.waiting.extend(offered),
            () = shared.calm(), if !calm => {}
            () = tokio::time::sleep_until(self.patient_until), if !calm => {}
        }
    }

    /// The other side's answer to the oldest batch. `false` if that was not `number`: it is confused.
    pub(crate) fn answered(&mut self, number: u64, taken: bool) -> bool {
        match self.under_way.pop_front() {
            Some(batch) if batch.number == number => {
                if !taken {
                    batch.connections.into_iter().for_each(Offered::back);
                } else if self.committed {
                    batch.connections.into_iter().for_each(Offered::gone);
                } else {
                    self.held.extend(batch.connections);
                }
                true
            }
            Some(batch) => {
                self.under_way.push_front(batch);
                false
            }
            None => false,
        }
    }

    /// The service is the other side's now, and with it everything that it holds.
    pub(crate) fn commit(&mut self) {
        self.committed = true;
        self.held.drain(..).for_each(Offered::gone);
    }

    /// Nothing more can be given away: everything that was not taken goes back to its task, and before
    /// the commit what was taken, too.
    pub(crate) fn take_back(&mut self) {
        self.desk.close();
        self.collect();
        let under_way = self.under_way.drain(..).flat_map(|batch| batch.connections);
        self.held.drain(..).chain(under_way).chain(self.waiting.drain(..)).for_each(Offered::back);
    }

    fn collect(&mut self) {
        while let Ok(offered) = self.desk.offers.try_recv() {
            self.waiting.push_back(offered);
        }
    }

    /// Sends as many batches as the window has room for; before it is `calm`, full ones only.
    fn send(&mut self, link: &AsyncChannel, calm: bool) {
        while self.under_way.len() < WINDOW
            && (self.waiting.len() >= MOST || calm && !self.waiting.is_empty())
        {
            let batch = self.next_batch();
            match batch.send(link) {
                Ok(()) => self.under_way.push_back(batch),
                Err(error) if is_crowded(&error) && !self.under_way.is_empty() => {
                    // Each answer makes room.
                    self.next_batch -= 1;
                    batch.connections.into_iter().rev().for_each(|one| self.waiting.push_front(one));
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "connections cannot move and stay here");
                    batch.connections.into_iter().for_each(Offered::back);
                }
            }
        }
    }

    /// As many of those who wait as a message carries.
    fn next_batch(&mut self) -> Batch {
        let (mut connections, mut bytes) = (Vec::new(), 0);
        while let Some(offered) = self.waiting.pop_front() {
            bytes += offered.luggage().len();
            if !connections.is_empty() && (connections.len() == MOST || bytes > IN_MEMORY) {
                self.waiting.push_front(offered);
                break;
            }
            connections.push(offered);
        }
        self.next_batch += 1;
        Batch { number: self.next_batch, connections }
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl Batch {
    fn send(&self, link: &AsyncChannel) -> io::Result<()> {
        let mut luggage = Vec::new();
        self.connections.iter().for_each(|offered| offered.luggage().pack(&mut luggage));
        let sockets = self.connections.iter().map(|offered| offered.fd());
        if luggage.len() <= INLINE {
            let fds: Vec<BorrowedFd<'_>> = sockets.collect();
            return link.send(&Order::Offer { batch: self.number, luggage }, &fds);
        }
        let memory = SharedMemory::create(c"handover.luggage", luggage.len())?;
        memory.write(0, &luggage)?;
        let bytes = luggage.len() as u64;
        let fds: Vec<BorrowedFd<'_>> = [memory.as_fd()].into_iter().chain(sockets).collect();
        link.send(&Order::OfferWithMemory { batch: self.number, bytes }, &fds)
    }
}

/// Whether there is only no room at the moment: unix(7).
fn is_crowded(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ETOOMANYREFS)
}

#[cfg(test)]
mod tests;
