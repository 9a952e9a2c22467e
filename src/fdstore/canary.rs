//! How a service knows that PID 1 has kept what it was sent: by one end of a pipe, the canary, sent
//! after it. If PID 1 closes that, the other end tells.
//!
//! ```text
//! limit known      fds ...  canary  BARRIER   the canary lives: there was a place for it, so there was
//!                                             one for all before it; then the canary is removed
//! the last places  canary  BARRIER  -canary fd      the fd takes a place that is known to be ours
//! limit unknown    the same for every fd; a burst proves 1, 2, 4 ... 256 places at a time
//! ```
//!
//! A process that forks while a canary is on its way has that end, too, until its child is executed: then the
//! canary seems to live for as long, and only the next one tells.
//!
//! A canary is watched by PID 1: when this process closes its end, or is killed, the canary goes by
//! itself. So none is ever left in the store, and none comes back at a start.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{MutexGuard, Notify};

use super::StashError;
use super::books::Failed;
use super::names::CANARY;
use super::sender::Shared;
use crate::notify::Message;
use crate::sys::dgram::{self, Readiness};

/// Most places that are proven at a time.
const MOST_AT_A_TIME: usize = 256;

/// Since systemd 254 one helper process closes what PID 1 does not keep, and another one the barrier: a
/// canary's end may come later than the barrier's, by 3 ms on an idle machine. This is how long it is
/// waited for.
const GRACE: Duration = Duration::from_millis(5);

/// The same for the first time, which finds out whether this unit may store anything at all.
const FIRST_GRACE: Duration = Duration::from_millis(100);

/// One end of a pipe; the other one is PID 1's, if it kept it.
#[derive(Debug)]
pub(super) struct Canary {
    /// Those who share the store keep canaries, so a canary must not keep them.
    shared: Weak<Shared>,
    name: String,
    /// Its number in the accounts.
    number: u64,
    ours: OwnedFd,
}

/// What is known about the places in the store.
#[derive(Debug, Default)]
pub(super) struct Proving {
    /// Canaries whose places something may take; only where the limit is unknown, and only until the
    /// end of a burst.
    spare: Vec<Canary>,
    /// How many places were proven at a time in this burst.
    burst: usize,
    /// PID 1 has kept something once.
    works: bool,
}

/// The turn of the one who finds out what PID 1 has kept. When it is over everybody who waits is told,
/// all at once: one after the other they would wait for each other's turns, of tasks that are busy.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    // In this order they are dropped: whoever is told finds it free.
    pub(super) proving: MutexGuard<'a, Proving>,
    _over: Over<'a>,
}

impl<'a> Turn<'a> {
    /// Waits for it.
    pub(super) async fn take(shared: &'a Shared) -> Self {
        Self { proving: shared.proving.lock().await, _over: Over(&shared.turn_over) }
    }

    /// Takes it, unless somebody has it.
    pub(super) fn try_take(shared: &'a Shared) -> Option<Self> {
        Some(Self { proving: shared.proving.try_lock().ok()?, _over: Over(&shared.turn_over) })
    }
}

/// Tells when it is dropped.
#[derive(Debug)]
struct Over<'a>(&'a Notify);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl Canary {
    /// Sends one, which counts in the accounts from here on.
    async fn send(shared: &Arc<Shared>, sending: &mut usize) -> Result<Self, StashError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (ours, theirs) = dgram::pipe().map_err(|source| StashError::Pipe { source: Arc::new(source) })?;
        // The pid: a process that handed over may have had one of the same number a moment ago.
        let name = format!("{CANARY}{}.{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let number = shared.books().enter_canary(&name);
        let canary = Self { shared: Arc::downgrade(shared), name, number, ours };
        let sent = shared.send(sending, &Message::store(&canary.name, true), &[theirs.as_fd()]).await;
        if sent.is_err() {
            shared.books().strike(&canary.name);
        }
        sent.map(|()| canary)
    }

    /// Whether PID 1 still has its end, as far as can be seen. One that it closed counts no more.
    fn lives(&self) -> bool {
        let lives = dgram::at_end(self.ours.as_fd()).is_ok_and(|ended| !ended);
        if !lives && let Some(shared) = self.shared.upgrade() {
            shared.books().strike(&self.name);
        }
        lives
    }

    /// Whether PID 1 has kept its end, asked after a barrier.
    async fn was_kept(&self, grace: Duration) -> bool {
        let ended = dgram::ready(self.ours.as_fd(), Readiness::Readable);
        let _ = tokio::time::timeout(grace, ended).await;
        self.lives()
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.books().end(&self.name, self.number);
            shared.settle();
        }
    }
}

impl Proving {
    /// Gives back all places that are proven and not taken.
    pub(super) fn release(&mut self) {
        self.spare.clear();
        self.burst = 0;
    }

    /// How long to wait for the end of a canary. A second barrier, with nothing before it, tells how busy the
    /// machine is: what ends canaries are processes like those that end barriers.
    async fn grace(&self, shared: &Shared) -> Result<Duration, StashError> {
        let asked = Instant::now();
        let _delivery = shared.line.notify_barrier(shared.deadline).await?;
        Ok(4 * asked.elapsed() + if self.works { GRACE } else { FIRST_GRACE })
    }

    /// Frees places for `wanted` descriptors, of which it is known that PID 1 gives them to us: the
    /// removal of as many canaries is on its way when this returns.
    pub(super) async fn vacate(
        &mut self,
        shared: &Arc<Shared>,
        sending: &mut usize,
        wanted: usize,
    ) -> Result<(), StashError> {
        self.spare.retain(Canary::lives);
        if self.spare.len() < wanted {
            self.prove(shared, sending, wanted - self.spare.len()).await?;
        }
        let rest = self.spare.len().checked_sub(wanted);
        drop(self.spare.split_off(rest.ok_or_else(|| not_kept(shared, self.spare.len()))?));
        shared.flush(sending).await
    }

    /// Has PID 1 keep `wanted` more canaries; more than that in a burst that goes on.
    async fn prove(
        &mut self,
        shared: &Arc<Shared>,
        sending: &mut usize,
        wanted: usize,
    ) -> Result<(), StashError> {
        let is_known = shared.books().bounds.limit.is_some();
        let upto = shared.books().sent;
        self.burst = if is_known { wanted } else { (self.burst * 2).clamp(1, MOST_AT_A_TIME) };
        let mut fresh = Vec::new();
        for _ in 0..self.burst.max(wanted) {
            fresh.push(Canary::send(shared, sending).await?);
        }
        shared.barrier(sending).await?;
        let grace = self.grace(shared).await?;
        // They are closed in their order: the last one tells of all.
        let all_kept = match fresh.last() {
            Some(last) => last.was_kept(grace).await,
            None => true,
        };
        self.works |= all_kept;
        fresh.retain(Canary::lives);
        self.spare.append(&mut fresh);
        if all_kept {
            let mut books = shared.books();
            books.confirmed = books.confirmed.max(upto);
        }
        Ok(())
    }

    /// Finds out whether PID 1 holds everything that was sent so far, and notes it.
    pub(super) async fn confirm(&mut self, shared: &Arc<Shared>) -> Result<(), StashError> {
        let round = shared.rounds.fetch_add(1, Ordering::SeqCst) + 1;
        let (upto, held) = self.round(shared).await;
        let mut books = shared.books();
        match &held {
            Ok(()) => books.confirmed = books.confirmed.max(upto),
            Err(error) => books.failed = Some(Failed { round, upto, error: error.clone() }),
        }
        held
    }

    /// One canary and one barrier for everything sent so far, which is the first part of what is
    /// returned.
    async fn round(&mut self, shared: &Arc<Shared>) -> (u64, Result<(), StashError>) {
        let mut sending = shared.sending.lock().await;
        let upto = shared.books().sent;
        let held = async {
            shared.flush(&mut sending).await?;
            let has_place = shared.books().has_place_for_canary();
            let canary = if has_place { Some(Canary::send(shared, &mut sending).await?) } else { None };
            drop(sending);
            let _delivery = shared.line.notify_barrier(shared.deadline).await?;
            let was_kept = match &canary {
                Some(canary) => canary.was_kept(self.grace(shared).await?).await,
                // Everything is where a canary was.
                None => true,
            };
            let all_kept = was_kept && self.spare.iter().all(Canary::lives);
            if all_kept { Ok(()) } else { Err(not_kept(shared, 0)) }
        };
        let held = held.await;
        self.works |= held.is_ok();
        self.release();
        (upto, held)
    }
}

/// The error for a canary that PID 1 closed, where `spare` others live.
fn not_kept(shared: &Shared, spare: usize) -> StashError {
    let books = shared.books();
    match (books.bounds.limit, books.held()) {
        // It has kept others of ours, and has no more places.
        (None, held @ 1..) => StashError::Full { limit: held + spare },
        (_, held) => StashError::NotKept { held },
    }
}
