//! Serving: accept, until somebody else does or the service stops.

use std::future::Future;

use tokio::sync::watch;

use super::ending::Ending;
use super::listener::{Listener, Peer, Stream};
use super::steward::{End, Steward};
use crate::drain::{Drain, Outcome};
use crate::notify::Watchdog;

/// A service that serves. Accept connections and [`spawn`](Serving::spawn) the work they mean, until
/// [`ended`](Serving::ended) resolves; then drop the listeners, and [`end`](Serving::end).
#[derive(Debug)]
pub struct Serving {
    drain: Drain,
    generation: u64,
    status: watch::Sender<String>,
    end: End,
}

impl Serving {
    /// Puts the steward to work.
    pub(super) fn new(steward: Steward, watchdog: Option<Watchdog>) -> Self {
        let (drain, generation) = (steward.drain(), steward.generation());
        let (status, text) = watch::channel(String::new());
        Self { drain, generation, status, end: steward.take_charge(watchdog, text) }
    }

    /// Runs a unit of work, as a rule a connection: to its end, or until the drain deadline.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.drain.spawn(work);
    }

    /// The work in flight. Clones of it tell the work when it is asked to end.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// 1 for the process that PID 1 started, and one more with each upgrade since.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The service's own words in STATUS=, which `systemctl status` shows.
    pub fn set_status(&self, text: impl Into<String>) {
        let text = text.into();
        self.status.send_if_modified(|old| {
            let new = *old != text;
            if new {
                *old = text;
            }
            new
        });
    }

    /// Resolves when this process must stop accepting: another one serves, or the service stops.
    /// Cancel safe.
    pub async fn ended(&mut self) {
        self.end.decided().await;
    }

    /// Waits for [`ended`](Serving::ended), and says why.
    pub async fn end(mut self) -> Ending {
        self.end.decided().await;
        self.end.into_ending()
    }

    /// Serves every connection with `handler` until the service ends here, then drains.
    pub async fn serve<H, F>(mut self, listener: Listener, mut handler: H) -> Outcome
    where
        H: FnMut(Stream, Peer) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            tokio::select! {
                // A connection costs no look at the end, which wakes us by itself; only a listener that
                // never rests would not let us see it.
                biased;
                (stream, peer) = listener.accept() => {
                    self.drain.spawn(handler(stream, peer));
                    if self.drain.ending() && self.end.is_decided() {
                        break;
                    }
                }
                () = self.end.decided() => break,
            }
        }
        drop(listener);
        self.end().await.drain().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::ending::Rest;
    use crate::daemon::steward::Why;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn connections_without_a_pause_do_not_hide_the_end() {
        let address = format!("handover serving test {}", std::process::id());
        let address = SocketAddr::from_abstract_name(address).unwrap();
        let socket = UnixListener::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _queued: Vec<_> = (0..50).map(|_| UnixStream::connect_addr(&address).unwrap()).collect();

        let (tell, why) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        let steward = tokio::spawn(async move {
            begun.await.unwrap();
            Outcome::Drained
        });
        let end = End::new(why, Rest { begin, steward });
        let serving =
            Serving { drain: Drain::new(), generation: 1, status: watch::Sender::new(String::new()), end };

        let (drain, accepted) = (serving.drain().clone(), Arc::new(AtomicUsize::new(0)));
        let (counter, mut tell) = (Arc::clone(&accepted), Some(tell));
        let listener = Listener::new(Vec::new(), vec![socket]).unwrap();
        let handler = move |_stream, _peer| {
            counter.fetch_add(1, SeqCst);
            drain.begin();
            if let Some(tell) = tell.take() {
                tell.send(Why::HandedOver).unwrap();
            }
            std::future::ready(())
        };
        assert_eq!(serving.serve(listener, handler).await, Outcome::Drained);
        assert_eq!(accepted.load(SeqCst), 1);
    }
}
