//! What giving away must hold: every connection is in exactly one process, whatever happens between.

use super::*;
use crate::upgrade::channel::{Channel, Delivery};
use crate::upgrade::message::Report;
use crate::upgrade::moves::{Arrival, Family, Luggage, unpack};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A connection on offer, in a test.
#[derive(Debug)]
struct Parcel {
    socket: Arc<UnixStream>,
    state: Vec<u8>,
    verdict: oneshot::Sender<bool>,
}

impl Offered for Parcel {
    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn luggage(&self) -> Luggage<'_> {
        Luggage { family: Family::Unix, id: None, state: (&self.state[..]).into() }
    }

    fn gone(self: Box<Self>) {
        self.verdict.send(true).unwrap();
    }

    fn back(self: Box<Self>) {
        self.verdict.send(false).unwrap();
    }
}

/// `count` tasks that rest; each ends with what became of its connection.
async fn resting(giver: &Giver, count: usize, state_bytes: usize) -> Vec<tokio::task::JoinHandle<bool>> {
    // One socket for all: a test may not have as many descriptors as a service.
    let socket = Arc::new(UnixStream::pair().unwrap().0);
    let rest = |number: usize| {
        let (exchange, socket) = (giver.exchange(), Arc::clone(&socket));
        tokio::spawn(async move {
            let wanted = exchange.wanted(&mut 0).await;
            let (verdict, told) = oneshot::channel();
            let state = vec![number as u8; state_bytes];
            exchange.offer(wanted, Box::new(Parcel { socket, state, verdict }));
            told.await.unwrap()
        })
    };
    let tasks = (0..count).map(rest).collect();
    // The runtime comes back here after a few dozen tasks.
    for _ in 0..=count / 16 {
        tokio::task::yield_now().await;
    }
    tasks
}

fn link() -> (AsyncChannel, AsyncChannel) {
    let (ours, theirs) = Channel::pair().unwrap();
    (AsyncChannel::new(ours).unwrap(), AsyncChannel::new(theirs).unwrap())
}

/// The other process: takes every batch but those that `declines` names; ends after `connections`.
async fn take(link: &AsyncChannel, connections: usize, declines: &[u64]) -> Vec<Arrival> {
    let (mut arrivals, mut seen) = (Vec::new(), 0);
    while seen < connections {
        let Delivery { message, fds, .. } = link.receive::<Order>().await.unwrap();
        let (batch, Some(all)) = unpack(message, fds).unwrap() else { panic!("a batch that is none") };
        seen += all.len();
        let report = match declines.contains(&batch) {
            true => Report::Declined { batch },
            false => Report::Taken { batch },
        };
        if matches!(report, Report::Taken { .. }) {
            arrivals.extend(all);
        }
        link.send(&report, &[]).unwrap();
    }
    arrivals
}

/// Drives the giver as its process does, until everything is prepared.
async fn prepare(giver: &mut Giver, link: &AsyncChannel) {
    loop {
        tokio::select! {
            () = giver.prepared(link) => return,
            said = link.receive::<Report>() => match said.unwrap().message {
                Report::Taken { batch } => assert!(giver.answered(batch, true)),
                Report::Declined { batch } => assert!(giver.answered(batch, false)),
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn verdicts(tasks: Vec<tokio::task::JoinHandle<bool>>) -> Vec<bool> {
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all
}

#[tokio::test]
async fn all_that_rest_go_over_and_are_gone_with_the_commit() {
    let (ours, theirs) = link();
    for (count, state_bytes) in [(0, 0), (1, 3), (600, 8), (300, 5000)] {
        let mut giver = Giver::new();
        let tasks = resting(&giver, count, state_bytes).await;
        giver.call();
        let ((), arrivals) = tokio::join!(prepare(&mut giver, &ours), take(&theirs, count, &[]));
        assert_eq!(arrivals.len(), count);
        assert!(arrivals.iter().all(|one| one.luggage.state.len() == state_bytes));
        assert!(tasks.iter().all(|task| !task.is_finished()), "nothing is gone before the commit");
        giver.commit();
        assert_eq!(verdicts(tasks).await, vec![true; count]);
    }
}

#[tokio::test]
async fn an_abort_gives_back_what_waits_what_is_under_way_and_what_is_held() {
    // One batch is held, two are under way, the rest waits.
    let (ours, theirs) = link();
    let mut giver = Giver::new();
    let tasks = resting(&giver, 4 * MOST, 0).await;
    giver.call();
    let held = async {
        let arrivals = take(&theirs, MOST, &[]).await;
        // Everything that the window lets out has been sent when a third message is there.
        let _second = theirs.receive::<Order>().await.unwrap();
        let _third = theirs.receive::<Order>().await.unwrap();
        arrivals
    };
    tokio::select! {
        () = prepare(&mut giver, &ours) => panic!("two batches have no answer"),
        arrivals = held => assert_eq!(arrivals.len(), MOST),
    }
    // Full batches go before everybody has answered the call.
    giver.desk.shared.calm().await;
    giver.take_back();
    assert_eq!(verdicts(tasks).await, vec![false; 4 * MOST]);
}

#[tokio::test]
async fn who_answers_after_an_abort_gets_its_connection_back() {
    let mut giver = Giver::new();
    let exchange = giver.exchange();
    giver.call();
    let wanted = exchange.wanted(&mut 0).await;
    giver.take_back();
    let (verdict, told) = oneshot::channel();
    let socket = Arc::new(UnixStream::pair().unwrap().0);
    exchange.offer(wanted, Box::new(Parcel { socket, state: Vec::new(), verdict }));
    assert!(!told.await.unwrap());
}

#[tokio::test]
async fn a_batch_that_is_declined_comes_back_and_the_others_go() {
    let (ours, theirs) = link();
    let mut giver = Giver::new();
    let tasks = resting(&giver, 2 * MOST, 0).await;
    giver.call();
    let ((), arrivals) = tokio::join!(prepare(&mut giver, &ours), take(&theirs, 2 * MOST, &[1]));
    giver.commit();
    let gone = verdicts(tasks).await.into_iter().filter(|gone| *gone).count();
    assert_eq!((arrivals.len(), gone), (MOST, MOST));
}

#[tokio::test]
async fn who_comes_to_rest_after_the_commit_follows() {
    let (ours, theirs) = link();
    let mut giver = Giver::new();
    giver.call();
    prepare(&mut giver, &ours).await;
    giver.commit();
    let tasks = resting(&giver, 3, 0).await;
    let taken = tokio::select! {
        never = giver.follow(&ours) => match never {},
        taken = take(&theirs, 3, &[]) => taken,
    };
    assert_eq!(taken.len(), 3);
    while let Ok(said) = ours.receive_now::<Report>() {
        let Report::Taken { batch } = said.message else { panic!("{said:?}") };
        assert!(giver.answered(batch, true));
    }
    assert_eq!(verdicts(tasks).await, [true; 3]);
}

#[tokio::test]
async fn an_answer_for_what_was_never_offered_is_noticed() {
    assert!(!Giver::new().answered(1, true));
}

#[test]
fn a_batch_that_says_more_than_it_brings_is_none() {
    let socket = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let one = Luggage { family: Family::Tcp, id: Some(7), state: b"x"[..].into() };
    let mut luggage = Vec::new();
    one.pack(&mut luggage);
    for fds in [vec![], vec![socket(), socket()]] {
        let order = Order::Offer { batch: 1, luggage: luggage.clone() };
        assert!(unpack(order, fds).unwrap().1.is_none());
    }
    let memory = SharedMemory::create(c"test", luggage.len()).unwrap();
    memory.write(0, &luggage).unwrap();
    for (bytes, whole) in [(luggage.len() as u64, true), (1 << 20, false), (u64::MAX, false)] {
        let fds = vec![memory.as_fd().try_clone_to_owned().unwrap(), socket()];
        assert_eq!(unpack(Order::OfferWithMemory { batch: 1, bytes }, fds).unwrap().1.is_some(), whole);
    }
    assert!(unpack(Order::OfferWithMemory { batch: 1, bytes: 1 }, vec![socket()]).unwrap().1.is_none());
    assert!(unpack(Order::Abort, vec![]).is_err());
}
