//! A notifier with a gate in front of it, for the one who must be able to fall silent at once while
//! many speak.
//!
//! Every datagram leaves inside of one non-blocking sendmsg(2), made while the gate is held open for
//! reading; to shut the gate is to hold it for writing. So when [`Gated::set`] returns, what was being
//! sent is in the manager's queue, and nothing more gets there. The wait for room in the queue is
//! outside of the gate: it delays nobody who shuts it.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::notify::error::{Awaiting, Error};
use crate::notify::message::Message;
use crate::notify::notifier::{Delivery, Notifier};
use crate::notify::steps::{Barrier, Limit, Step, Steps};
use crate::sys::dgram;

/// Whether something may be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Yes.
    Open,
    /// Not now: a hand-over is being tried. Who wants to speak waits.
    Paused,
    /// Never again.
    Shut,
}

/// A notifier and its gate.
#[derive(Debug)]
pub(crate) struct Gated {
    notifier: Notifier,
    passage: watch::Sender<Passage>,
}

impl Gated {
    /// An open gate in front of `notifier`.
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self { notifier, passage: watch::Sender::new(Passage::Open) }
    }

    /// Opens or shuts the gate. When it returns, no message is under way any more through a gate that
    /// is not open. A gate that was shut for ever stays so.
    pub(crate) fn set(&self, passage: Passage) {
        self.passage.send_if_modified(|now| {
            let changes = *now != Passage::Shut && *now != passage;
            if changes {
                *now = passage;
            }
            changes
        });
    }

    /// How the gate is.
    pub(crate) fn passage(&self) -> Passage {
        *self.passage.borrow()
    }

    /// Sends `message` if that can be done at once, and never waits: `false` if it cannot, because of
    /// the gate or for lack of room.
    ///
    /// # Errors
    /// As [`Notifier::send`].
    pub(crate) fn attempt(&self, message: &Message) -> Result<bool, Error> {
        let passage = self.passage.borrow();
        if *passage != Passage::Open {
            return Ok(false);
        }
        match self.notifier.send(message, Duration::ZERO) {
            Ok(_) => Ok(true),
            Err(Error::Deadline { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends as [`Notifier::notify_with_fds`] does, while the gate is open.
    ///
    /// # Errors
    /// As there, and [`Error::Silent`].
    pub(crate) async fn notify_with_fds(
        &self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Delivery, Error> {
        let Some(mut parcel) = self.notifier.parcel(message, fds)? else { return Ok(Delivery::NoManager) };
        self.through(&mut parcel, Limit::from_now(deadline)).await?;
        Ok(Delivery::Sent)
    }

    /// Waits as [`Notifier::notify_barrier`] does; it needs the gate until the barrier is sent.
    ///
    /// # Errors
    /// As there, and [`Error::Silent`].
    pub(crate) async fn notify_barrier(&self, deadline: Duration) -> Result<Delivery, Error> {
        let Some(line) = &self.notifier.line else { return Ok(Delivery::NoManager) };
        self.through(&mut Barrier::new(line)?, Limit::from_now(deadline)).await?;
        Ok(Delivery::Sent)
    }

    /// Does all steps on tokio; those that may send only while the gate is open.
    async fn through(&self, steps: &mut impl Steps, limit: Limit) -> Result<(), Error> {
        let mut changes = self.passage.subscribe();
        let mut sent = false;
        loop {
            let step = {
                let passage = changes.borrow_and_update();
                match *passage {
                    Passage::Open => Some(steps.step()?),
                    _ if sent => Some(steps.step()?),
                    Passage::Paused => None,
                    Passage::Shut => return Err(Error::Silent),
                }
            };
            match step {
                Some(Step::Done) => return Ok(()),
                Some(Step::Wait(fd, readiness, awaiting)) => {
                    match timeout(limit.left(), dgram::ready(fd, readiness)).await {
                        Ok(ready) => ready.map_err(Error::resource("a wait for the notify socket"))?,
                        Err(_elapsed) => return Err(limit.over(awaiting)),
                    }
                    sent = awaiting == Awaiting::Barrier;
                }
                // The sender of changes is `self`: it cannot be gone.
                None => match timeout(limit.left(), changes.changed()).await {
                    Ok(_changed) => {}
                    Err(_elapsed) => return Err(limit.over(Awaiting::Pause)),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::fake_manager::{FakeManager, LONG};

    fn gated(manager: &FakeManager) -> Gated {
        Gated::new(Notifier::to(&manager.address).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_when_the_gate_is_shut_never_sends() {
        let manager = FakeManager::at_abstract_name();
        let gated = gated(&manager);
        let queued = manager.fill(&gated.notifier);
        let message = Message::stopping();
        let mut sending = std::pin::pin!(gated.notify_with_fds(&message, &[], LONG));
        tokio::select! {
            biased;
            _ = &mut sending => panic!("there was room"),
            () = tokio::task::yield_now() => {}
        }
        gated.set(Passage::Shut);
        (0..queued).for_each(|_| assert_eq!(manager.receive().0, "READY=1"));
        assert!(matches!(sending.await, Err(Error::Silent)));
        assert!(matches!(gated.notify_barrier(LONG).await, Err(Error::Silent)));
        assert!(!gated.attempt(&message).unwrap());
        gated.set(Passage::Open);
        assert_eq!(gated.passage(), Passage::Shut);
        assert!(manager.try_receive().is_none());
    }

    #[tokio::test]
    async fn a_pause_holds_back_messages_and_not_the_end_of_a_barrier() {
        let manager = FakeManager::at_abstract_name();
        let gated = gated(&manager);
        let mut barrier = std::pin::pin!(gated.notify_barrier(LONG));
        tokio::select! {
            biased;
            _ = &mut barrier => panic!("nobody has closed it"),
            () = tokio::task::yield_now() => {}
        }
        gated.set(Passage::Paused);
        drop(manager.receive());
        assert_eq!(barrier.await.unwrap(), Delivery::Sent);
        let message = Message::ready();
        assert!(!gated.attempt(&message).unwrap());
        let (sent, ()) = tokio::join!(gated.notify_with_fds(&message, &[], LONG), async {
            tokio::task::yield_now().await;
            assert!(manager.try_receive().is_none());
            gated.set(Passage::Open);
        });
        assert_eq!(sent.unwrap(), Delivery::Sent);
        assert_eq!(manager.receive().0, "READY=1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_does_not_end_is_over_at_the_deadline() {
        let manager = FakeManager::at_abstract_name();
        let gated = gated(&manager);
        gated.set(Passage::Paused);
        let late = gated.notify_with_fds(&Message::ready(), &[], LONG).await;
        assert!(matches!(late, Err(Error::Deadline { awaiting: Awaiting::Pause, .. })));
    }
}
