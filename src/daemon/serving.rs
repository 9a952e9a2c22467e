//! Serving: accept, until somebody else does or the service stops.

use std::future::Future;

use tokio::sync::watch;

use super::connections::Connections;
use super::ending::Ending;
use super::listener::Listener;
use super::live::{Live, Origin, Ways};
use super::steward::{End, Steward};
use super::stream::{Peer, Stream};
use crate::drain::{Drain, Outcome};
use crate::fdstore::{Record, StateError};
use crate::notify::Watchdog;

/// A service that serves. Accept connections and [`spawn`](Serving::spawn) the work they mean, until
/// [`ended`](Serving::ended) resolves; then drop the listeners, and [`end`](Serving::end).
#[derive(Debug)]
pub struct Serving {
    drain: Drain,
    generation: u64,
    status: watch::Sender<String>,
    ways: Ways,
    end: End,
}

impl Serving {
    /// Puts the steward to work.
    pub(super) fn new(steward: Steward, watchdog: Option<Watchdog>) -> Self {
        let (drain, generation, ways) = (steward.drain(), steward.generation(), steward.ways());
        let (status, text) = watch::channel(String::new());
        Self { drain, generation, status, ways, end: steward.take_charge(watchdog, text) }
    }

    /// The ways out of this process for its connections.
    pub(super) fn ways(&self) -> &Ways {
        &self.ways
    }

    /// Makes a connection that this process accepted one that can outlive it.
    pub fn live(&self, stream: Stream, peer: Peer) -> Live {
        Live::new(stream, peer, Origin::Accepted, Vec::new(), &self.ways)
    }

    /// Runs a unit of work, as a rule a connection: to its end, or until the drain deadline.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.drain.spawn(work);
    }

    /// The work in flight. Clones of it tell the work when it is asked to end.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// 1 for the first process of the service, and one more with each upgrade since; where PID 1 keeps
    /// the [record](Self::record), also with each restart.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What PID 1 keeps of the service's upgrades: the generation, who drains until when, how the last
    /// upgrade went. It survives a restart and a crash where the unit has FileDescriptorStoreMax=.
    pub fn record(&self) -> Record {
        self.ways.vault.record()
    }

    /// The state of the service itself that was saved last, by this process or one before it; `None` if
    /// there is none.
    pub fn state(&self) -> Option<Vec<u8>> {
        self.ways.vault.state()
    }

    /// Saves the state of the service itself, in place of what was saved before. Where PID 1 keeps it, it
    /// survives this process from the moment this returns. No system call, no waiting.
    ///
    /// # Errors
    /// [`StateError::TooLarge`] beyond [`Options::service_state_bytes`](super::Options::service_state_bytes),
    /// [`StateError::Retired`] once another process is the service.
    pub fn save_state(&self, state: &[u8]) -> Result<(), StateError> {
        self.ways.vault.save_state(state)
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

    /// As [`Serving::serve`], for connections that can outlive this process: those that are accepted, and
    /// those that come from other processes.
    pub async fn serve_connections<H, F>(
        mut self,
        listener: Listener,
        mut connections: Connections,
        mut handler: H,
    ) -> Outcome
    where
        H: FnMut(Live) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut more = true;
        loop {
            let live = tokio::select! {
                // As in `serve`.
                biased;
                (stream, peer) = listener.accept() => self.live(stream, peer),
                next = connections.next_by(&self.ways), if more => match next {
                    Some(live) => live,
                    None => {
                        more = false;
                        continue;
                    }
                },
                () = self.end.decided() => break,
            };
            self.drain.spawn(handler(live));
            // A listener that never rests hides neither those who come from elsewhere nor the end.
            if connections.has_next()
                && let Some(live) = connections.next_now(&self.ways)
            {
                self.drain.spawn(handler(live));
            }
            if self.drain.ending() && self.end.is_decided() {
                break;
            }
        }
        drop(listener);
        // Who came a moment ago goes on to the next process, and only a task can say that it rests.
        while let Some(live) = connections.next_now(&self.ways) {
            self.drain.spawn(handler(live));
        }
        self.end().await.drain().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Options;
    use crate::daemon::connections::Incoming;
    use crate::daemon::ending::Rest;
    use crate::daemon::memory::Memory;
    use crate::daemon::post::Post;
    use crate::daemon::signals::Signals;
    use crate::daemon::steward::{Means, Why};
    use crate::daemon::vault::Vault;
    use crate::fdstore::fake_store::FakeStore;
    use crate::notify::Notifier;
    use crate::notify::fake_manager::LONG;
    use crate::upgrade::estate::Estate;
    use crate::upgrade::journal::Scribe;
    use crate::upgrade::machine::Limits;
    use crate::upgrade::message::Grant;
    use crate::upgrade::moves::{Arrival, Family};
    use crate::upgrade::predecessor::Predecessor;
    use crate::upgrade::successor::Takeover;
    use nix::sys::signal::{Signal, raise};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use tokio::sync::{mpsc, oneshot};

    /// A service that serves until it is told why not.
    fn alone() -> (Serving, oneshot::Sender<Why>) {
        let (tell, why) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        let steward = tokio::spawn(async move {
            begun.await.unwrap();
            Outcome::Drained
        });
        let end = End::new(why, Rest { begin, steward });
        let ways = Ways::of_nobody();
        let serving = Serving {
            drain: Drain::new(),
            generation: 1,
            status: watch::Sender::new(String::new()),
            ways,
            end,
        };
        (serving, tell)
    }

    /// A listener with so many clients in its queue.
    fn crowded(name: &str, clients: usize) -> (Listener, Vec<UnixStream>) {
        let address = format!("handover {name} test {}", std::process::id());
        let address = SocketAddr::from_abstract_name(address).unwrap();
        let socket = UnixListener::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let queued = (0..clients).map(|_| UnixStream::connect_addr(&address).unwrap()).collect();
        (Listener::new(Vec::new(), vec![socket]).unwrap(), queued)
    }

    #[tokio::test]
    async fn connections_without_a_pause_do_not_hide_the_end() {
        let ((serving, tell), (listener, _queued)) = (alone(), crowded("serving", 50));
        let (drain, accepted) = (serving.drain().clone(), Arc::new(AtomicUsize::new(0)));
        let (counter, mut tell) = (Arc::clone(&accepted), Some(tell));
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

    #[tokio::test]
    async fn connections_without_a_pause_hide_neither_those_from_elsewhere_nor_the_end() {
        let ((serving, tell), (listener, _queued)) = (alone(), crowded("mixed", 50));
        let (send, connections) = Connections::new();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let arrival = Arrival { socket: ours.into(), family: Family::Unix, id: None, state: Vec::new() };

        let (drain, (told, mut origins)) = (serving.drain().clone(), mpsc::unbounded_channel());
        let (mut arrival, mut tell) = (Some(arrival), Some(tell));
        let handler = move |live: Live| {
            told.send(live.origin()).unwrap();
            if let Some(arrival) = arrival.take() {
                send.send(Incoming::moved(arrival)).unwrap();
            } else if let Some(tell) = tell.take() {
                drain.begin();
                tell.send(Why::HandedOver).unwrap();
            }
            std::future::ready(())
        };
        assert_eq!(serving.serve_connections(listener, connections, handler).await, Outcome::Drained);
        assert_eq!(
            [origins.recv().await, origins.recv().await],
            [Some(Origin::Accepted), Some(Origin::Moved)]
        );
        assert_eq!(origins.recv().await, None);
    }

    /// The first process of a service, of which `pid1` keeps what it is sent.
    async fn first(pid1: &FakeStore) -> Serving {
        let options = Options::default();
        let vault = Vault::new(pid1.client(Some(10)), Memory::new(Vec::new()), options);
        assert_eq!(vault.open(true, true).await.1, [""; 0]);
        let estate = Estate { program: Grant::default(), sockets: Vec::new() };
        let limits = Limits { init_deadline: LONG, max_draining: 1 };
        let means = Means {
            options,
            signals: Signals::for_test(),
            predecessor: Predecessor::open(limits, estate, Some(i32::MAX - 20), Some(1)).unwrap(),
            post: Post::new(Notifier::none()),
            scribe: Scribe::default(),
            vault,
            incoming: None,
        };
        let takeover = Takeover { generation: 1, elders: Vec::new(), arrivals: Vec::new(), confirmed: true };
        Serving::new(Steward::new(means, takeover), None)
    }

    #[tokio::test]
    async fn a_stop_before_pid_1_has_answered_for_the_first_time_leaves_what_rests_with_it() {
        let pid1 = FakeStore::of(10);
        let serving = first(&pid1).await;
        let (ours, _client) = UnixStream::pair().unwrap();
        let (stream, peer) = Stream::arrived(Family::Unix, ours.into()).unwrap();
        let live = serving.live(stream, peer);
        serving.spawn(async move { live.rest().await });
        pid1.fall_silent();
        pid1.asked().await;
        raise(Signal::SIGURG).unwrap();
        let ending = tokio::time::timeout(LONG, serving.end()).await.unwrap();
        assert!(matches!(ending, Ending::Stopping(_)));
        pid1.answer();
        assert_eq!(tokio::time::timeout(LONG, ending.drain()).await.unwrap(), Outcome::Drained);
        assert!(pid1.names().contains(&"ho.1".to_owned()), "{:?}", pid1.told());
    }
}
