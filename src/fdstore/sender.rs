//! What all handles of one store share: the accounts, and the order in which PID 1 is told.
//!
//! Two rules keep the accounts right. What is stored is sent under `sending`, one after the other, and
//! only after every removal that was asked for before. A removal is sent whenever that can be done at
//! once, from wherever something was dropped; otherwise by a task, or by whoever speaks next.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::StashError;
use super::books::Books;
use super::canary::Proving;
use crate::notify::{Awaiting, Delivery, Error, Gated, Message, Passage};
use crate::sys::dgram;
use crate::sys::scm::MAX_FDS;

/// Most descriptors on their way to PID 1 before it is waited for: a user without privileges may have
/// as many in flight as its soft RLIMIT_NOFILE, which is 1024 as a rule.
const MOST_IN_FLIGHT: usize = 3 * MAX_FDS;

/// What all handles of one store share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) line: Gated,
    books: Mutex<Books>,
    /// Held by the one who stores something; how many descriptors are on their way at most.
    pub(super) sending: tokio::sync::Mutex<usize>,
    /// Held by the one who finds out what PID 1 has kept; to be locked before `sending`.
    pub(super) proving: tokio::sync::Mutex<Proving>,
    /// How many times that was begun.
    pub(super) rounds: AtomicU64,
    /// Told when whoever had `proving` is done.
    pub(super) turn_over: Notify,
    /// This process leaves: nothing that is dropped from now on is ended.
    pub(super) leaving: AtomicBool,
    /// Something ended after the hand-over.
    pub(super) ended: Notify,
    /// A task that sends removals is under way.
    flushing: AtomicBool,
    /// Where that task runs.
    runtime: Option<Handle>,
    /// The longest wait for PID 1.
    pub(super) deadline: Duration,
}

impl Shared {
    /// Speaks through `line`, and runs its task where this is called, if that is on a runtime.
    pub(super) fn new(line: Gated, books: Books, deadline: Duration) -> Self {
        Self {
            line,
            books: Mutex::new(books),
            sending: tokio::sync::Mutex::new(0),
            proving: tokio::sync::Mutex::default(),
            rounds: AtomicU64::new(0),
            turn_over: Notify::new(),
            leaving: AtomicBool::new(false),
            ended: Notify::new(),
            flushing: AtomicBool::new(false),
            runtime: Handle::try_current().ok(),
            deadline,
        }
    }

    /// The accounts. No lock but the gate is ever taken while they are held.
    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`end`](Self::end), unless this process leaves.
    pub(super) fn dropped(self: &Arc<Self>, name: &str, number: u64, fd: BorrowedFd<'_>) {
        if !self.leaving.load(Ordering::SeqCst) {
            self.end(name, number, fd);
        }
    }

    /// Ends the entry `number` called `name`; a connection at once, for its peer and for every process
    /// that has it. Never blocks.
    pub(super) fn end(self: &Arc<Self>, name: &str, number: u64, fd: BorrowedFd<'_>) {
        if self.leaving.load(Ordering::SeqCst) {
            return;
        }
        // Whatever is no connection is ended by its removal alone.
        let _ = dgram::end(fd);
        self.books().end(name, number);
        self.settle();
    }

    /// Sends the removals that were asked for as far as that can be done at once, and has a task send
    /// the rest; after a hand-over they are the successor's business. Never blocks.
    ///
    /// Whoever shuts the gate settles after that, and whoever asks for a removal after that: one of
    /// the two sees both.
    pub(super) fn settle(self: &Arc<Self>) {
        let mut books = self.books();
        if self.line.passage() == Passage::Shut {
            books.pass_on_endings();
            if !books.ended.is_empty() {
                self.ended.notify_one();
            }
            return;
        }
        while let Some(name) = books.ending.last().cloned() {
            match self.line.attempt(&Message::unstore(&name)) {
                Ok(true) => books.strike(&name),
                Ok(false) => {
                    drop(books);
                    return self.flush_later();
                }
                Err(error) => {
                    tracing::debug!(%error, %name, "not removed from the store");
                    return;
                }
            }
        }
    }

    /// Has a task send the removals. Without a runtime they wait for whoever speaks next.
    fn flush_later(self: &Arc<Self>) {
        let Some(runtime) = self.runtime.clone().or_else(|| Handle::try_current().ok()) else { return };
        if !self.flushing.swap(true, Ordering::SeqCst) {
            let flushing = Flushing(Arc::clone(self));
            runtime.spawn(async move { flushing.flush().await });
        }
    }

    /// Sends the removals that were asked for. `_sending` is what keeps their order with what is
    /// stored under the same names.
    pub(super) async fn flush(&self, _sending: &mut usize) -> Result<(), StashError> {
        loop {
            let Some(name) = self.books().ending.last().cloned() else { return Ok(()) };
            let removal = Message::unstore(&name);
            let _delivery = self.line.notify_with_fds(&removal, &[], self.deadline).await?;
            self.books().strike(&name);
        }
    }

    /// Sends descriptors, at most [`MAX_FDS`]; waits for PID 1 first when too many are on their way.
    pub(super) async fn send(
        &self,
        sending: &mut usize,
        message: &Message,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), StashError> {
        if *sending + fds.len() > MOST_IN_FLIGHT {
            self.barrier(sending).await?;
        }
        let mut sent = self.line.notify_with_fds(message, fds, self.deadline).await;
        if matches!(sent, Err(Error::InFlight { .. })) {
            self.barrier(sending).await?;
            sent = self.line.notify_with_fds(message, fds, self.deadline).await;
        }
        match sent? {
            Delivery::Sent => *sending += fds.len(),
            Delivery::NoManager => return Err(StashError::NoManager),
        }
        Ok(())
    }

    /// Waits until PID 1 has handled all that was sent.
    pub(super) async fn barrier(&self, sending: &mut usize) -> Result<(), StashError> {
        let _delivery = self.line.notify_barrier(self.deadline).await?;
        *sending = 0;
        Ok(())
    }
}

/// The task that sends removals; whatever ends it, the next one can be started.
struct Flushing(Arc<Shared>);

impl Flushing {
    /// Sends until there is nothing left, however long PID 1 takes.
    async fn flush(&self) {
        loop {
            let flushed = async { self.0.flush(&mut *self.0.sending.lock().await).await }.await;
            match flushed {
                Ok(()) => {
                    self.0.flushing.store(false, Ordering::SeqCst);
                    // Who asked just before that relied on this task.
                    let is_done = self.0.books().ending.is_empty();
                    if is_done || self.0.flushing.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
                Err(StashError::Notify(error)) if is_for_lack_of_time(&error) => {}
                // After a hand-over the successor was told, by whoever shut the gate.
                Err(error) => return tracing::debug!(%error, "removals from the store wait"),
            }
        }
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        self.0.flushing.store(false, Ordering::SeqCst);
    }
}

/// Whether to try again may help.
fn is_for_lack_of_time(error: &Error) -> bool {
    matches!(error, Error::Deadline { awaiting: Awaiting::Room | Awaiting::Pause, .. })
}
