//! Where the giver finds the connections: all of them, whatever they are at.
//!
//! A task tells nobody that its connection rests, unless the giver follows: then whoever comes to rest
//! is told of once. It never wakes a task.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};

use slab::Slab;
use tokio::sync::Notify;

use super::luggage::Family;
use super::slot::{Offering, Slot, Socket, lock};

/// All connections of this process. Clones are the same exchange.
#[derive(Clone)]
pub(crate) struct Exchange(Arc<Shared>);

#[derive(Default)]
struct Shared {
    register: Mutex<Register>,
    /// Whether the giver wants to be told who comes to rest.
    follows: AtomicBool,
    told: Notify,
    /// Held while it is decided whose the connections are that are on offer.
    deciding: Mutex<()>,
}

#[derive(Default)]
struct Register {
    slots: Slab<Arc<Slot>>,
    /// The places of those who were told of.
    rested: VecDeque<usize>,
}

impl Exchange {
    /// Nobody is here.
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// A place for a connection, busy, with what was saved for it.
    pub(crate) fn enter<S: Socket + 'static>(
        &self,
        family: Family,
        socket: S,
        state: Vec<u8>,
    ) -> Arc<Slot<S>> {
        let mut register = lock(&self.0.register);
        let entry = register.slots.vacant_entry();
        let slot = Arc::new(Slot::new(self.clone(), entry.key(), family, socket, state));
        entry.insert(Arc::<Slot<S>>::clone(&slot));
        slot
    }

    pub(super) fn remove(&self, place: usize) {
        let slot = lock(&self.0.register).slots.try_remove(place);
        // Not under the lock: with it the socket may close.
        drop(slot);
    }

    /// See [`Shared::follows`].
    pub(super) fn follows(&self) -> bool {
        self.0.follows.load(SeqCst)
    }

    /// The connection at this place has come to rest.
    pub(super) fn tell(&self, place: usize) {
        lock(&self.0.register).rested.push_back(place);
        self.0.told.notify_one();
    }

    /// Whether the giver is to be told from now on who comes to rest. Those who rested in the belief that
    /// they would go are woken when they will not.
    pub(super) fn follow(&self, follows: bool) {
        let followed = self.0.follows.swap(follows, SeqCst);
        if followed && !follows {
            let slots: Vec<_> =
                lock(&self.0.register).slots.iter().map(|(_, slot)| Arc::clone(slot)).collect();
            slots.iter().for_each(|slot| slot.unwanted());
        }
    }

    /// Waits for somebody to come to rest. Cancel safe.
    pub(super) async fn told(&self) {
        self.0.told.notified().await;
    }

    /// Where connections are.
    pub(super) fn places(&self) -> Range<usize> {
        0..lock(&self.0.register).slots.capacity()
    }

    /// Offers as many of those who rest as fit into a batch, of at most `most` connections and `bytes` of
    /// luggage: first those at the places in `scan`, which are taken out of it; then those who were told of.
    pub(super) fn offer(
        &self,
        batch: u64,
        scan: &mut Range<usize>,
        most: usize,
        bytes: usize,
    ) -> (Vec<Arc<Slot>>, Vec<u8>) {
        let (mut slots, mut packed) = (Vec::with_capacity(most), Vec::new());
        let mut register = lock(&self.0.register);
        while slots.len() < most {
            let scanned = scan.start < scan.end;
            let told = || self.follows().then(|| register.rested.front().copied())?;
            let Some(place) = scanned.then_some(scan.start).or_else(told) else { break };
            if let Some(slot) = register.slots.get(place) {
                match slot.offer(batch, &mut packed, bytes) {
                    Offering::Made => slots.push(Arc::clone(slot)),
                    Offering::Busy => {}
                    Offering::NoRoom => break,
                }
            }
            match scanned {
                true => scan.start += 1,
                false => drop(register.rested.pop_front()),
            }
        }
        (slots, packed)
    }

    /// Held while it is decided whose the connections are that are on offer; or waits for that.
    pub(super) fn decide(&self) -> MutexGuard<'_, ()> {
        lock(&self.0.deciding)
    }
}

impl fmt::Debug for Exchange {
    /// Without the connections, each of which has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}
