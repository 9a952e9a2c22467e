//! The one who speaks to the manager.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::notify::address::Address;
use crate::notify::error::Error;
use crate::notify::message::Message;
use crate::notify::steps::{Barrier, Limit, Line, Parcel, blocking, on_tokio};
use crate::sys::scm::MAX_FDS;

/// The variable that holds the manager's address.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Where a notification went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "without a manager nothing was sent, and descriptors were not stored"]
pub enum Delivery {
    /// Into the manager's queue. Whether the manager accepts it is another question, and one that it
    /// does not answer.
    Sent,
    /// Nowhere: there is no manager.
    NoManager,
}

/// What came of telling the manager about a successor.
#[derive(Debug)]
#[must_use = "the barrier may have been missed"]
#[non_exhaustive]
pub struct HandedOver {
    /// Where the message went. From now on the successor speaks.
    pub delivery: Delivery,
    /// Whether the manager was seen to have handled it in time. A missed barrier takes nothing back:
    /// the message is in the manager's queue.
    pub barrier: Result<Delivery, Error>,
}

/// Speaks to the manager that started this service, or to nobody.
///
/// It has no `Clone`: who hands over gives it away, and can never again say a word in the service's
/// name. (A `STOPPING=1` from a process that has handed over would stop the whole service.)
///
/// | on a thread | on tokio |
/// |---|---|
/// | [`send`](Self::send), [`send_with_fds`](Self::send_with_fds) | [`notify`](Self::notify), [`notify_with_fds`](Self::notify_with_fds) |
/// | [`barrier`](Self::barrier) | [`notify_barrier`](Self::notify_barrier) |
/// | [`hand_over`](Self::hand_over) | [`notify_hand_over`](Self::notify_hand_over) |
///
/// All take a deadline, for PID 1 reads nothing while it reloads its units. The left ones block their
/// thread, the right ones never do; these need a tokio runtime with I/O and time enabled.
#[derive(Debug)]
pub struct Notifier {
    /// The way to the manager, if there is one.
    pub(super) line: Option<Line>,
}

impl Notifier {
    /// The manager that `NOTIFY_SOCKET` names; absent or empty, there is none. The variable is read
    /// this once and left as it is.
    ///
    /// # Errors
    /// [`Error::Address`] for a value that is no address; else what [`Notifier::to`] has.
    pub fn from_env() -> Result<Self, Error> {
        match std::env::var_os(NOTIFY_SOCKET).filter(|value| !value.is_empty()) {
            Some(value) => Self::to(&Address::parse(&value)?),
            None => Ok(Self::none()),
        }
    }

    /// The manager at `address`.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if nobody has a unix socket there. Another machine is only called when
    /// there is something to say.
    pub fn to(address: &Address) -> Result<Self, Error> {
        Ok(Self { line: Some(Line::open(address.clone())?) })
    }

    /// Nobody: everything said is [`Delivery::NoManager`].
    pub fn none() -> Self {
        Self { line: None }
    }

    /// Where the manager is, to hand it on; `None` without one.
    pub fn address(&self) -> Option<&Address> {
        self.line.as_ref().map(|line| &line.address)
    }

    /// Sends `message`, and blocks for at most `deadline` while the manager's queue is full.
    ///
    /// # Errors
    /// [`Error`]; nothing was sent, except where the variant says so.
    pub fn send(&self, message: &Message, deadline: Duration) -> Result<Delivery, Error> {
        self.send_with_fds(message, &[], deadline)
    }

    /// Sends `message` with copies of `fds`, as [`Notifier::send`] does.
    ///
    /// # Errors
    /// As there, and for more than 253 descriptors, or any over vsock.
    pub fn send_with_fds(
        &self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Delivery, Error> {
        self.send_until(message, fds, Limit::from_now(deadline))
    }

    /// Sends `message`, and lets the runtime do other things while the manager's queue is full, for
    /// at most `deadline`. Dropped before its end, it has sent the whole message or nothing.
    ///
    /// # Errors
    /// As [`Notifier::send`].
    pub async fn notify(&self, message: &Message, deadline: Duration) -> Result<Delivery, Error> {
        self.notify_with_fds(message, &[], deadline).await
    }

    /// Sends `message` with copies of `fds`, as [`Notifier::notify`] does.
    ///
    /// # Errors
    /// As [`Notifier::send_with_fds`].
    pub async fn notify_with_fds(
        &self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<Delivery, Error> {
        self.notify_until(message, fds, Limit::from_now(deadline)).await
    }

    /// Blocks until the manager has handled everything sent to it before, by anybody, or for at most
    /// `deadline`. That says nothing about what it accepted.
    ///
    /// # Errors
    /// [`Error::Deadline`], [`Error::FdsOverVsock`], and as [`Notifier::send`].
    pub fn barrier(&self, deadline: Duration) -> Result<Delivery, Error> {
        self.barrier_until(Limit::from_now(deadline))
    }

    /// Waits as [`Notifier::barrier`] does, and lets the runtime do other things meanwhile.
    ///
    /// # Errors
    /// As there.
    pub async fn notify_barrier(&self, deadline: Duration) -> Result<Delivery, Error> {
        self.notify_barrier_until(Limit::from_now(deadline)).await
    }

    /// Tells the manager, in one datagram, that the process `pid` is the service now and ready, and
    /// gives up speaking for it; then waits for a barrier for what is left of `deadline`.
    ///
    /// # Errors
    /// As [`Notifier::send`], with the notifier back: nothing was said, this process is the service.
    pub fn hand_over(self, pid: u32, deadline: Duration) -> Result<HandedOver, (Self, Error)> {
        let limit = Limit::from_now(deadline);
        let sent = self.send_until(&Message::successor(pid), &[], limit);
        let (this, delivery) = self.committed(sent)?;
        Ok(HandedOver { delivery, barrier: this.barrier_until(limit) })
    }

    /// Hands over as [`Notifier::hand_over`] does, and lets the runtime do other things meanwhile.
    /// Dropped before its end, it takes the notifier with it.
    ///
    /// # Errors
    /// As there.
    pub async fn notify_hand_over(self, pid: u32, deadline: Duration) -> Result<HandedOver, (Self, Error)> {
        let limit = Limit::from_now(deadline);
        let sent = self.notify_until(&Message::successor(pid), &[], limit).await;
        let (this, delivery) = self.committed(sent)?;
        Ok(HandedOver { delivery, barrier: this.notify_barrier_until(limit).await })
    }

    /// Whether the message that names the successor is out, so that there is no way back.
    fn committed(self, sent: Result<Delivery, Error>) -> Result<(Self, Delivery), (Self, Error)> {
        match sent {
            Ok(delivery) => Ok((self, delivery)),
            Err(error) if error.left_us() => Ok((self, Delivery::Sent)),
            Err(error) => Err((self, error)),
        }
    }

    /// The message as something to do in steps; `None` without a manager.
    pub(super) fn parcel<'a>(
        &'a self,
        message: &'a Message,
        fds: &'a [BorrowedFd<'a>],
    ) -> Result<Option<Parcel<'a>>, Error> {
        if fds.len() > MAX_FDS {
            return Err(Error::TooManyFds { found: fds.len() });
        }
        self.line.as_ref().map(|line| Parcel::new(line, message.as_str(), fds)).transpose()
    }

    /// Sends while `limit` lasts.
    fn send_until(&self, message: &Message, fds: &[BorrowedFd<'_>], limit: Limit) -> Result<Delivery, Error> {
        let Some(mut parcel) = self.parcel(message, fds)? else { return Ok(Delivery::NoManager) };
        blocking(&mut parcel, limit)?;
        Ok(Delivery::Sent)
    }

    /// Sends while `limit` lasts, on tokio.
    async fn notify_until(
        &self,
        message: &Message,
        fds: &[BorrowedFd<'_>],
        limit: Limit,
    ) -> Result<Delivery, Error> {
        let Some(mut parcel) = self.parcel(message, fds)? else { return Ok(Delivery::NoManager) };
        on_tokio(&mut parcel, limit).await?;
        Ok(Delivery::Sent)
    }

    /// Waits for a barrier while `limit` lasts.
    fn barrier_until(&self, limit: Limit) -> Result<Delivery, Error> {
        let Some(line) = &self.line else { return Ok(Delivery::NoManager) };
        blocking(&mut Barrier::new(line)?, limit)?;
        Ok(Delivery::Sent)
    }

    /// Waits for a barrier while `limit` lasts, on tokio.
    async fn notify_barrier_until(&self, limit: Limit) -> Result<Delivery, Error> {
        let Some(line) = &self.line else { return Ok(Delivery::NoManager) };
        on_tokio(&mut Barrier::new(line)?, limit).await?;
        Ok(Delivery::Sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::Awaiting;
    use crate::notify::fake_manager::{FakeManager, LONG};

    /// Too short for anything that has to be waited for.
    const SHORT: Duration = Duration::from_millis(20);

    fn is_full<T>(result: Result<T, Error>) -> bool {
        matches!(result, Err(Error::Deadline { awaiting: Awaiting::Room, .. }))
    }

    #[test]
    fn a_message_arrives_at_a_path_and_at_an_abstract_name() {
        for manager in [FakeManager::at_path(), FakeManager::at_abstract_name()] {
            let notifier = Notifier::to(&manager.address).unwrap();
            assert_eq!(notifier.address(), Some(&manager.address));
            let message = Message::ready().with_status("up");
            assert_eq!(notifier.send(&message, LONG).unwrap(), Delivery::Sent);
            assert_eq!(manager.receive().0, "READY=1\nSTATUS=up");
        }
    }

    #[tokio::test]
    async fn without_a_manager_that_is_what_everything_says() {
        let nobody = Notifier::none();
        let ready = Message::ready();
        assert_eq!(nobody.send(&ready, SHORT).unwrap(), Delivery::NoManager);
        assert_eq!(nobody.notify(&ready, SHORT).await.unwrap(), Delivery::NoManager);
        assert_eq!(nobody.barrier(SHORT).unwrap(), Delivery::NoManager);
        assert_eq!(nobody.notify_barrier(SHORT).await.unwrap(), Delivery::NoManager);
        assert_eq!(nobody.hand_over(1, SHORT).unwrap().delivery, Delivery::NoManager);
    }

    #[test]
    fn nobody_at_the_address_is_an_error_and_not_the_absence_of_a_manager() {
        let address = FakeManager::at_path().address.clone();
        assert!(
            matches!(Notifier::to(&address), Err(Error::Unreachable { address: at, .. }) if at == address)
        );
    }

    #[test]
    fn as_many_descriptors_as_the_kernel_takes_and_no_more() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        let fd = manager.any_fd();
        let store = Message::new(&[sd_notify::NotifyState::Custom("FDSTORE=1")]).unwrap();
        let _sent = notifier.send_with_fds(&store, &[fd; MAX_FDS], LONG).unwrap();
        assert_eq!(manager.receive().1.len(), MAX_FDS);
        let refused = notifier.send_with_fds(&store, &[fd; MAX_FDS + 1], LONG);
        assert!(matches!(refused, Err(Error::TooManyFds { found: 254 })));
    }

    #[test]
    fn descriptors_and_barriers_do_not_go_to_another_machine() {
        let far = Notifier::to(&"vsock:1:9999".parse().unwrap()).unwrap();
        let manager = FakeManager::at_abstract_name();
        let refused = far.send_with_fds(&Message::ready(), &[manager.any_fd()], SHORT);
        assert!(matches!(refused, Err(Error::FdsOverVsock { .. })));
        assert!(matches!(far.barrier(SHORT), Err(Error::FdsOverVsock { .. })));
    }

    #[test]
    fn a_full_queue_is_waited_for_until_there_is_room_or_the_deadline_is_over() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        let queued = manager.fill(&notifier);
        assert!(is_full(notifier.send(&Message::stopping(), SHORT)));
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| notifier.send(&Message::stopping(), LONG));
            (0..queued).for_each(|_| assert_eq!(manager.receive().0, "READY=1"));
            assert_eq!(sent.join().unwrap().unwrap(), Delivery::Sent);
            assert_eq!(manager.receive().0, "STOPPING=1");
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_does_not_hold_up_the_runtime() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        manager.fill(&notifier);
        let stopping = Message::stopping();
        // On this one thread both go on, and time, which is virtual, passes only when both wait.
        let others = tokio::task::yield_now();
        let mut sending = std::pin::pin!(notifier.notify(&stopping, LONG));
        tokio::select! {
            biased;
            _ = &mut sending => panic!("there was room"),
            () = others => {}
        }
        assert!(is_full(sending.await));
    }

    #[tokio::test]
    async fn room_in_the_queue_wakes_the_one_who_waits_for_it() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        let queued = manager.fill(&notifier);
        let stopping = Message::stopping();
        let (sent, again, ()) =
            tokio::join!(notifier.notify(&stopping, LONG), notifier.notify(&stopping, LONG), async {
                (0..queued).for_each(|_| assert_eq!(manager.receive().0, "READY=1"))
            });
        assert_eq!((sent.unwrap(), again.unwrap()), (Delivery::Sent, Delivery::Sent));
        assert_eq!((manager.receive().0, manager.receive().0), ("STOPPING=1".into(), "STOPPING=1".into()));
    }

    #[tokio::test]
    async fn a_barrier_ends_when_the_manager_closes_its_descriptor() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(manager.receive().0, "BARRIER=1"));
            assert_eq!(notifier.barrier(LONG).unwrap(), Delivery::Sent);
        });
        let (passed, ()) = tokio::join!(notifier.notify_barrier(LONG), async { drop(manager.receive()) });
        assert_eq!(passed.unwrap(), Delivery::Sent);
    }

    #[tokio::test]
    async fn a_barrier_that_the_manager_holds_is_over_at_the_deadline() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        let missed = |result| matches!(result, Err(Error::Deadline { awaiting: Awaiting::Barrier, .. }));
        assert!(missed(notifier.barrier(SHORT)));
        assert!(missed(notifier.notify_barrier(SHORT).await));
        assert_eq!((manager.receive().1.len(), manager.receive().1.len()), (1, 1));
    }

    #[test]
    fn a_manager_that_started_anew_is_found_again_and_one_that_did_not_is_an_error() {
        let mut manager = FakeManager::at_path();
        let notifier = Notifier::to(&manager.address).unwrap();
        manager.restart();
        assert_eq!(notifier.send(&Message::ready(), LONG).unwrap(), Delivery::Sent);
        assert_eq!(manager.receive().0, "READY=1");
        drop(manager);
        assert!(matches!(notifier.send(&Message::ready(), LONG), Err(Error::Unreachable { .. })));
    }

    #[tokio::test]
    async fn handing_over_is_one_datagram_and_then_a_barrier() {
        let manager = FakeManager::at_abstract_name();
        let notifier = || Notifier::to(&manager.address).unwrap();
        let (done, ()) = tokio::join!(notifier().notify_hand_over(42, LONG), async {
            assert_eq!(manager.receive().0, "MAINPID=42\nREADY=1");
            assert_eq!(manager.receive().0, "BARRIER=1");
        });
        assert_eq!(done.unwrap().barrier.unwrap(), Delivery::Sent);
        let missed = notifier().hand_over(42, SHORT).unwrap();
        assert_eq!(missed.delivery, Delivery::Sent);
        assert!(matches!(missed.barrier, Err(Error::Deadline { awaiting: Awaiting::Barrier, .. })));
    }

    #[tokio::test]
    async fn who_could_not_hand_over_can_go_on_speaking() {
        let manager = FakeManager::at_abstract_name();
        let notifier = Notifier::to(&manager.address).unwrap();
        manager.fill(&notifier);
        let (notifier, error) = notifier.hand_over(42, SHORT).unwrap_err();
        assert!(is_full::<()>(Err(error)));
        let (notifier, error) = notifier.notify_hand_over(42, SHORT).await.unwrap_err();
        assert!(is_full::<()>(Err(error)));
        while let Some((text, _)) = manager.try_receive() {
            assert_eq!(text, "READY=1");
        }
        assert_eq!(notifier.send(&Message::ready(), SHORT).unwrap(), Delivery::Sent);
    }
}
