//! Connections with both their ends, and the process that they may go to.

use super::*;
use crate::daemon::memory::Memory;
use crate::fdstore::fake_store::FakeStore;
use crate::fdstore::{Shape, StateVersion, Store};
use crate::notify::fake_manager::LONG;
use crate::upgrade::channel::{AsyncChannel, Channel, ReceiveError};
use crate::upgrade::message::{Order, Report};
use crate::upgrade::moves::{Arrival, Batch, Family, Giver, Taker};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream as Client;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHAPE: Shape = Shape { cells: 8, cell_bytes: 64, service_bytes: 0 };

/// This process and the one that takes over from it.
struct Upgrade {
    giver: Giver,
    link: AsyncChannel,
    other: (AsyncChannel, Taker),
    vault: Vault,
}

/// As many polls as a future gets before anything else happens.
async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::ZERO, future).await.ok()
}

impl Upgrade {
    fn new() -> Self {
        Self::with(Ways::of_nobody().vault)
    }

    /// With PID 1 to keep connections.
    fn with_store(store: Store) -> Self {
        let mut memory = Memory::new(Vec::new());
        memory.complete(Some(SHAPE), StateVersion { written: 1, readable_by: 1 }, true);
        Self::with(Vault::new(store, memory, crate::daemon::Options::default()))
    }

    fn with(vault: Vault) -> Self {
        let (ours, theirs) = Channel::pair().unwrap();
        let channel = |channel| AsyncChannel::new(channel).unwrap();
        Self { giver: Giver::new(), link: channel(ours), other: (channel(theirs), Taker::default()), vault }
    }

    /// A connection and its client.
    fn accept(&self) -> (Live, Client) {
        let (ours, client) = Client::pair().unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        let (stream, peer) = Stream::arrived(Family::Unix, ours.into()).unwrap();
        (Live::new(stream, peer, Origin::Accepted, Vec::new(), &self.ways()), client)
    }

    fn ways(&self) -> Ways {
        Ways { exchange: self.giver.exchange(), vault: self.vault.clone() }
    }

    /// Everything that rests is held by the other side.
    fn prepare(&mut self) {
        self.giver.call();
        while !self.giver.is_prepared(&self.link) {
            assert!(self.obey().is_empty());
            let Ok(said) = self.link.receive_now::<Report>() else { panic!("no answer") };
            let Report::Taken { batch } = said.message else { panic!("{said:?}") };
            assert!(self.giver.answered(batch, true));
        }
    }

    /// What is on offer to PID 1.
    async fn offers(&mut self) -> Batch {
        tokio::time::timeout(LONG, self.giver.next_offers()).await.unwrap()
    }

    /// The commit; what the other side has then.
    fn commit(&mut self) -> Vec<Arrival> {
        let (link, order) = (&self.link, Order::Serve { batch: u64::MAX });
        self.giver.conclude(link, || link.send(&order, &[])).unwrap();
        self.obey()
    }

    /// The other side obeys whatever it was told.
    fn obey(&mut self) -> Vec<Arrival> {
        let ((link, taker), mut all) = (&mut self.other, Vec::new());
        loop {
            match link.receive_now::<Order>() {
                Ok(said) => {
                    let say = |answer: &Report| link.send(answer, &[]);
                    all.extend(taker.obey(said.message, said.fds, true, say).unwrap());
                }
                Err(ReceiveError::Io(_)) => return all,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_rests_lives_on_elsewhere_with_what_was_saved() {
    let mut upgrade = Upgrade::new();
    let (live, mut client) = upgrade.accept();
    live.save(b"state").unwrap();
    let mut rest = Box::pin(live.rest());
    assert!(soon(&mut rest).await.is_none());
    upgrade.prepare();
    assert!(soon(&mut rest).await.is_none(), "it is not decided");
    let mut arrivals = upgrade.commit();
    rest.await;

    let seen = soon(live.peek(&mut [0], 0)).await.unwrap();
    assert_eq!(seen.unwrap_err().kind(), io::ErrorKind::NotConnected);
    client.write_all(b"x").unwrap();
    assert!(matches!(live.save(b"late"), Err(StateError::Moved)));
    drop(live);
    let Arrival { socket, state, .. } = arrivals.pop().unwrap();
    let mut there = Client::from(socket);
    there.set_nonblocking(false).unwrap();
    there.set_read_timeout(Some(LONG)).unwrap();
    let mut byte = [0];
    there.read_exact(&mut byte).unwrap();
    there.write_all(b"y").unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!((state, byte), (b"state".to_vec(), *b"y"));
}

#[tokio::test]
async fn a_request_that_comes_while_it_is_on_offer_is_served_here() {
    let mut upgrade = Upgrade::new();
    let (mut live, mut client) = upgrade.accept();
    assert!(soon(live.rest()).await.is_none());
    for peeks in [true, false] {
        let (mut byte, mut answer) = ([0], [0]);
        let mut request = Box::pin(async {
            tokio::select! {
                biased;
                () = live.rest() => panic!("it is gone"),
                seen = live.peek(&mut byte, 0), if peeks => seen.unwrap(),
                read = live.read_once(), if !peeks => read,
            }
        });
        assert!(soon(&mut request).await.is_none());
        upgrade.prepare();
        client.write_all(b"x").unwrap();
        assert_eq!(request.as_mut().await, 1);
        drop(request);
        assert!(upgrade.commit().is_empty());
        if peeks {
            live.consume(1).unwrap();
        }
        live.write_all(b"y").await.unwrap();
        client.read_exact(&mut answer).unwrap();
    }
    drop(live);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_request_that_comes_when_another_process_serves_goes_there_with_its_connection() {
    for moves in [true, false] {
        let mut upgrade = Upgrade::new();
        let (live, mut client) = upgrade.accept();
        upgrade.giver.call_for_good();
        let mut byte = [0];
        let mut request = Box::pin(async {
            tokio::select! {
                biased;
                () = live.rest() => None,
                seen = live.peek(&mut byte, 0) => Some(seen.unwrap()),
            }
        });
        assert!(soon(&mut request).await.is_none());
        upgrade.prepare();
        client.write_all(b"x").unwrap();
        live.stream().readable().await;
        assert!(soon(&mut request).await.is_none(), "a client without a pause moves, too");
        if moves {
            assert_eq!(upgrade.commit().len(), 1);
        } else {
            upgrade.giver.take_back();
        }
        let served_here = tokio::time::timeout(LONG, request).await.unwrap();
        assert_eq!(served_here, (!moves).then_some(1));
    }
}

impl Stream {
    /// Waits until the runtime knows that there is something to read.
    async fn readable(&self) {
        let Self::Unix(stream) = self else { panic!("of another kind") };
        stream.readable().await.unwrap();
    }
}

impl Live {
    /// As hyper reads: from a shared reference.
    async fn read_once(&self) -> usize {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        std::future::poll_fn(|context| self.poll_read_shared(context, &mut buffer)).await.unwrap();
        buffer.filled().len()
    }
}

#[tokio::test]
async fn a_rest_that_is_cancelled_makes_it_this_process_again() {
    let mut upgrade = Upgrade::new();
    let (live, _client) = upgrade.accept();
    let mut rest = Box::pin(live.rest());
    assert!(soon(&mut rest).await.is_none());
    upgrade.prepare();
    drop(rest);
    assert!(upgrade.commit().is_empty());
    live.save(b"ours").unwrap();
    // The same before any offer.
    assert!(soon(live.rest()).await.is_none());
    upgrade.prepare();
    assert!(upgrade.commit().is_empty());
}

#[tokio::test]
async fn who_reads_beside_a_rest_never_hears_of_the_move_there() {
    for ended in [false, true] {
        let mut upgrade = Upgrade::new();
        let (live, mut client) = upgrade.accept();
        let mut rest = Box::pin(live.rest());
        assert!(soon(&mut rest).await.is_none());
        upgrade.prepare();
        let arrivals = upgrade.commit();
        client.write_all(b"x").unwrap();
        if ended {
            // From here on the socket is readable for ever.
            client.shutdown(std::net::Shutdown::Write).unwrap();
        }
        live.stream().readable().await;
        let mut buffer = [0; 8];
        tokio::select! {
            biased;
            seen = live.peek(&mut buffer, 0) => panic!("{seen:?}"),
            _ = live.read_once() => panic!("it read what is another's"),
            () = &mut rest => {}
        }
        assert_eq!(arrivals.len(), 1);
    }
}

#[tokio::test]
async fn one_that_is_dropped_while_others_have_copies_ends_for_its_peer_at_once() {
    for engaged in [false, true] {
        let mut upgrade = Upgrade::new();
        let (live, mut client) = upgrade.accept();
        let mut rest = Box::pin(live.rest());
        assert!(soon(&mut rest).await.is_none());
        upgrade.prepare();
        if engaged {
            live.save(b"busy").unwrap();
        }
        drop(rest);
        drop(live);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "the other side holds a copy");
        assert!(upgrade.commit().is_empty());
    }
}

#[tokio::test]
async fn an_abort_lets_it_rest_as_before() {
    let mut upgrade = Upgrade::new();
    let (mut live, mut client) = upgrade.accept();
    let mut rest = Box::pin(live.rest());
    assert!(soon(&mut rest).await.is_none());
    upgrade.prepare();
    upgrade.giver.take_back();
    assert!(soon(&mut rest).await.is_none());
    drop(rest);
    client.write_all(b"x").unwrap();
    assert_eq!(live.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn what_rests_when_the_service_stops_is_kept_by_pid_1() {
    let pid1 = FakeStore::of(10);
    let mut upgrade = Upgrade::with_store(pid1.client(Some(10)));
    let (idle, _idle_client) = upgrade.accept();
    let (mut stashed, _stashed_client) = upgrade.accept();
    idle.save(b"idle").unwrap();
    stashed.stash().await.unwrap();
    upgrade.giver.call_for_good();
    {
        let mut rests = std::pin::pin!(async { tokio::join!(idle.rest(), stashed.rest()) });
        assert!(soon(&mut rests).await.is_none());
        let offers = upgrade.offers().await;
        upgrade.vault.keep(offers).await;
        rests.await;
    }
    upgrade.vault.leave();
    drop((idle, stashed));
    assert_eq!(pid1.names(), ["ho.1", "ho.2"]);
}

#[tokio::test]
async fn one_that_is_busy_before_pid_1_has_it_stays_and_pid_1_forgets_it() {
    let pid1 = FakeStore::of(10);
    let mut upgrade = Upgrade::with_store(pid1.client(Some(10)));
    let (mut live, mut client) = upgrade.accept();
    upgrade.giver.call_for_good();
    assert!(soon(live.rest()).await.is_none());
    let mut rest = Box::pin(live.rest());
    assert!(soon(&mut rest).await.is_none());
    let offers = upgrade.offers().await;
    drop(rest);
    upgrade.vault.keep(offers).await;
    assert_eq!((pid1.names(), pid1.count("FDSTORE=1\nFDNAME=ho.1")), (Vec::new(), 1));
    client.write_all(b"x").unwrap();
    assert_eq!(live.read_u8().await.unwrap(), b'x');
    // Its place is free again, and so is the connection to be stashed.
    live.stash().await.unwrap();
    assert_eq!(pid1.names(), ["ho.2"]);
}

#[tokio::test]
async fn a_stash_that_fails_frees_its_place_whatever_the_reason() {
    let mut upgrade = Upgrade::with_store(Store::new(
        crate::notify::Notifier::none(),
        crate::fdstore::Bounds::found([]).unwrap(),
    ));
    let (mut live, _client) = upgrade.accept();
    for _ in 0..2 * SHAPE.cells {
        assert!(matches!(live.stash().await, Err(StashError::NoManager)), "no place is lost");
    }
    for _ in 0..2 * SHAPE.cells {
        let mut rest = Box::pin(live.rest());
        assert!(soon(&mut rest).await.is_none());
        upgrade.giver.call_for_good();
        let offers = upgrade.offers().await;
        upgrade.vault.keep(offers).await;
        assert!(soon(&mut rest).await.is_none(), "it stays");
    }
    assert!(!live.is_stashed());
}

#[tokio::test]
async fn what_was_saved_where_pid_1_keeps_it_counts_more_than_what_came_along() {
    let pid1 = FakeStore::of(10);
    let upgrade = Upgrade::with_store(pid1.client(Some(10)));
    let (mut live, client) = upgrade.accept();
    live.stash().await.unwrap();
    live.save(b"newer").unwrap();
    let (stream, peer) = Stream::arrived(Family::Unix, client.into()).unwrap();
    let there = Live::new(stream, peer, Origin::Moved, b"older".to_vec(), &upgrade.ways()).adopt(1);
    assert_eq!(there.state(), b"newer");
}
