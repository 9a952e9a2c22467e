//! Where connection tasks learn that their connections are wanted elsewhere, and give them away.
//!
//! It counts who is between two requests, so that an upgrade can wait for exactly those to answer the
//! call and for nobody else.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::{Notify, mpsc, watch};

use super::luggage::Luggage;

/// A connection on offer; whoever offered it is told what became of it.
pub(crate) trait Offered: Send + Sync + fmt::Debug {
    /// The socket.
    fn fd(&self) -> BorrowedFd<'_>;
    /// What goes along.
    fn luggage(&self) -> Luggage<'_>;
    /// It lives on in another process.
    fn gone(self: Box<Self>);
    /// It stays here, and is as it was.
    fn back(self: Box<Self>);
}

/// The side of the connection tasks. Clones are the same exchange.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    shared: Arc<Shared>,
    call: watch::Receiver<Call>,
    offers: mpsc::UnboundedSender<Box<dyn Offered>>,
}

/// Whether connections are wanted. Each call has a number, and a task answers it once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Call {
    number: u64,
    open: bool,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Tasks that wait between two requests, or have heard the call and not answered yet.
    resting: AtomicUsize,
    /// Told when `resting` falls to 0.
    calm: Notify,
}

/// Whoever has this has heard the call and owes an answer: an offer, or dropping it.
#[derive(Debug)]
#[must_use = "give the connection to whoever wants it, with hand_on()"]
pub struct Wanted(#[expect(dead_code, reason = "it counts while it lives")] Resting);

/// Counts a task as resting while it lives.
#[derive(Debug)]
struct Resting(Arc<Shared>);

impl Drop for Resting {
    fn drop(&mut self) {
        if self.0.resting.fetch_sub(1, SeqCst) == 1 {
            self.0.calm.notify_waiters();
        }
    }
}

impl Exchange {
    /// Resolves when a connection that is between two requests is wanted elsewhere; not again for the
    /// call that `answered` is the number of. Cancel safe.
    pub(crate) async fn wanted(&self, answered: &mut u64) -> Wanted {
        let mut call = self.call.clone();
        self.shared.resting.fetch_add(1, SeqCst);
        let resting = Resting(Arc::clone(&self.shared));
        let heard = call.wait_for(|call| call.open && call.number != *answered).await;
        match heard.map(|call| call.number) {
            Ok(number) => *answered = number,
            // Nobody will ever call: the steward is gone.
            Err(_) => std::future::pending().await,
        }
        Wanted(resting)
    }

    /// Answers the call with an offer, which comes back at once if nobody calls any more.
    pub(crate) fn offer(&self, wanted: Wanted, offered: Box<dyn Offered>) {
        // The call cannot be closed meanwhile: whoever closes it finds all that was offered before, and
        // nothing is offered after.
        let call = self.call.borrow();
        let refused = match call.open {
            true => self.offers.send(offered).err().map(|refused| refused.0),
            false => Some(offered),
        };
        drop(call);
        if let Some(offered) = refused {
            offered.back();
        }
        // Only now: the offer is there before the task counts as having answered.
        drop(wanted);
    }
}

/// The side that calls.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    call: watch::Sender<Call>,
    pub(super) offers: mpsc::UnboundedReceiver<Box<dyn Offered>>,
    exchange: Exchange,
}

impl Desk {
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let (call, calls) = watch::channel(Call::default());
        let (sender, offers) = mpsc::unbounded_channel();
        let exchange = Exchange { shared: Arc::clone(&shared), call: calls, offers: sender };
        Self { shared, call, offers, exchange }
    }

    /// The other side.
    pub(super) fn exchange(&self) -> Exchange {
        self.exchange.clone()
    }

    /// Calls for all connections that are or come to rest.
    pub(super) fn open(&self) {
        self.call.send_modify(|call| *call = Call { number: call.number + 1, open: true });
    }

    /// Calls no more.
    pub(super) fn close(&self) {
        self.call.send_modify(|call| call.open = false);
    }

    /// See [`Shared::is_calm`].
    pub(super) fn is_calm(&self) -> bool {
        self.shared.is_calm()
    }
}

impl Shared {
    /// Whether everybody who was resting has answered.
    fn is_calm(&self) -> bool {
        self.resting.load(SeqCst) == 0
    }

    /// Resolves when [`is_calm`](Self::is_calm). Cancel safe.
    pub(super) async fn calm(&self) {
        loop {
            let calm = self.calm.notified();
            if self.is_calm() {
                return;
            }
            calm.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::ZERO, future).await.ok()
    }

    #[tokio::test]
    async fn a_call_is_heard_by_who_rests_and_by_who_comes_to_rest_once() {
        let desk = Desk::new();
        let exchange = desk.exchange();
        let mut answered = 0;
        assert!(soon(exchange.wanted(&mut answered)).await.is_none());
        desk.open();
        assert!(soon(exchange.wanted(&mut answered)).await.is_some());
        assert!(soon(exchange.wanted(&mut answered)).await.is_none(), "it has answered this call");
        desk.open();
        assert!(soon(exchange.wanted(&mut answered)).await.is_some());
        desk.close();
        assert!(soon(exchange.wanted(&mut 0)).await.is_none());
    }

    #[tokio::test]
    async fn it_is_calm_when_everybody_who_rested_has_answered_and_not_before() {
        let desk = Desk::new();
        let exchange = desk.exchange();
        assert!(soon(desk.shared.calm()).await.is_some());
        let resting = tokio::spawn(async move { exchange.wanted(&mut 0).await });
        tokio::task::yield_now().await;
        assert!(soon(desk.shared.calm()).await.is_none());
        desk.open();
        let wanted = resting.await.unwrap();
        assert!(soon(desk.shared.calm()).await.is_none(), "it has heard the call, and not answered");
        drop(wanted);
        assert!(soon(desk.shared.calm()).await.is_some());
    }
}
