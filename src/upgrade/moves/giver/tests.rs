//! What giving away must hold: every connection is in exactly one process, whatever happens between.

use super::*;
use crate::upgrade::channel::{Channel, Delivery};
use crate::upgrade::message::Report;
use crate::upgrade::moves::{Arrival, Family, Slot, Taker};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

/// A connection in a test; many have one socket: a test may not have as many descriptors as a service.
type Place = Arc<Slot<Arc<UnixStream>>>;

/// A task that counts how often it is woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Rests, as a task does that nobody wakes; whether the connection is gone.
fn rests(slot: &Place) -> bool {
    slot.poll_rest(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Both sides are here, and the other one gets descriptors of its own.
fn raise_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

/// `count` connections that rest, each with its number as state, in so many bytes.
fn resting(giver: &Giver, count: usize, bytes: usize) -> Vec<Place> {
    raise_limit();
    let socket = Arc::new(UnixStream::pair().unwrap().0);
    let enter = |number: usize| {
        let mut state = number.to_le_bytes().to_vec();
        state.resize(bytes.max(8), 0);
        giver.exchange().enter(Family::Unix, Arc::clone(&socket), state)
    };
    let slots: Vec<_> = (0..count).map(enter).collect();
    assert!(!slots.iter().any(rests));
    slots
}

fn numbers(arrivals: &[Arrival]) -> Vec<usize> {
    arrivals.iter().map(|one| usize::from_le_bytes(one.state[..8].try_into().unwrap())).collect()
}

fn link() -> (AsyncChannel, AsyncChannel) {
    let (ours, theirs) = Channel::pair().unwrap();
    (AsyncChannel::new(ours).unwrap(), AsyncChannel::new(theirs).unwrap())
}

/// What must come.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(20), future).await.expect("it never came")
}

/// The other process, with its end of the link.
struct Other {
    link: AsyncChannel,
    taker: Taker,
    offers: usize,
    /// It has heard of the commit.
    is_told: bool,
}

impl Other {
    fn new(link: AsyncChannel) -> Self {
        Self { link, taker: Taker::default(), offers: 0, is_told: false }
    }

    /// Obeys the next order, declining an offer that is not `welcome`; what is its own by that.
    async fn obey(&mut self, welcome: bool) -> Vec<Arrival> {
        let Delivery { message, fds, .. } = in_time(self.link.receive::<Order>()).await.unwrap();
        self.offers += usize::from(!fds.is_empty());
        match self.taker.obey(message, fds, welcome, |answer| self.link.send(answer, &[])) {
            Ok(arrivals) => arrivals,
            Err(Order::Abort) => {
                self.is_told = true;
                self.taker.all()
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    /// Obeys until the commit, of which `Abort` is the sign in these tests.
    async fn until_commit(&mut self) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        while !std::mem::take(&mut self.is_told) {
            arrivals = self.obey(true).await;
        }
        arrivals
    }
}

/// Drives the giver as its process does, until everything is prepared; the other one declines what
/// `declines` names.
async fn prepare(giver: &mut Giver, link: &AsyncChannel, other: &mut Other, declines: &[usize]) {
    giver.call();
    while !giver.is_prepared(link) {
        other.obey(!declines.contains(&(other.offers + 1))).await;
        hear(giver, link).await;
    }
}

/// Hears the next answer.
async fn hear(giver: &mut Giver, link: &AsyncChannel) {
    match in_time(link.receive::<Report>()).await.unwrap().message {
        Report::Taken { batch } => assert!(giver.answered(batch, true)),
        Report::Declined { batch } => assert!(giver.answered(batch, false)),
        other => panic!("{other:?}"),
    }
}

fn commit(giver: &mut Giver, link: &AsyncChannel) {
    giver.conclude(link, || link.send(&Order::Abort, &[])).unwrap();
}

#[tokio::test]
async fn all_that_rest_go_over_and_are_gone_with_the_commit() {
    // Of the third not all that the window lets out find room on the link; the last are in memory.
    for (count, bytes) in [(1, 8), (600, 8), (3000, 200), (300, 5000)] {
        let ((ours, theirs), mut giver) = (link(), Giver::new());
        let (slots, mut other) = (resting(&giver, count, bytes), Other::new(theirs));
        prepare(&mut giver, &ours, &mut other, &[]).await;
        assert!(!slots.iter().any(rests), "nothing is gone before the commit");
        commit(&mut giver, &ours);
        assert_eq!(numbers(&other.until_commit().await), (0..count).collect::<Vec<_>>());
        assert!(slots.iter().all(rests));
    }
    let ((ours, _theirs), mut giver) = (link(), Giver::new());
    giver.call();
    assert!(giver.is_prepared(&ours), "nobody is there");
}

#[tokio::test]
async fn no_task_is_woken_before_its_connection_is_gone() {
    let ((ours, theirs), mut giver, task) = (link(), Giver::new(), Arc::new(Task::default()));
    let (slots, mut other) = (resting(&giver, 1, 8), Other::new(theirs));
    let waker = Waker::from(Arc::clone(&task));
    assert!(slots[0].poll_rest(&mut Context::from_waker(&waker)).is_pending());
    prepare(&mut giver, &ours, &mut other, &[]).await;
    giver.take_back();
    assert!(slots[0].poll_rest(&mut Context::from_waker(&waker)).is_pending());
    prepare(&mut giver, &ours, &mut other, &[]).await;
    assert_eq!(task.0.load(SeqCst), 0);
    commit(&mut giver, &ours);
    assert_eq!(task.0.load(SeqCst), 1);
    assert_eq!(slots[0].poll_rest(&mut Context::from_waker(&waker)), Poll::Ready(()));
}

#[tokio::test]
async fn who_is_engaged_while_on_offer_is_served_here_and_not_there() {
    let ((ours, theirs), mut giver) = (link(), Giver::new());
    // Of the last batch nothing is left.
    let (slots, mut other) = (resting(&giver, 3 * MOST, 8), Other::new(theirs));
    prepare(&mut giver, &ours, &mut other, &[]).await;
    let engaged = |number: usize| number.is_multiple_of(7) || number >= 2 * MOST;
    for (number, slot) in slots.iter().enumerate().filter(|(number, _)| engaged(*number)) {
        match number % 3 {
            0 => slot.engage(|state| state.push(1)).unwrap(),
            1 => assert!(slot.read(|| Ok(())).is_some()),
            _ => slot.cease_to_rest(),
        }
    }
    // Who rests again is not on offer again: the other process knows what was.
    assert!(!rests(&slots[7]));
    commit(&mut giver, &ours);
    let expected: Vec<_> = (0..3 * MOST).filter(|number| !engaged(*number)).collect();
    assert_eq!(numbers(&other.until_commit().await), expected);
    for (number, slot) in slots.iter().enumerate() {
        assert_eq!(slot.engage(|_| ()).is_ok(), engaged(number), "{number}");
    }
}

#[tokio::test]
async fn who_finds_nothing_to_read_goes_on_resting() {
    let ((ours, theirs), mut giver) = (link(), Giver::new());
    let (slots, mut other) = (resting(&giver, 1, 8), Other::new(theirs));
    prepare(&mut giver, &ours, &mut other, &[]).await;
    let found = slots[0].read(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    assert!(found.unwrap().is_err());
    commit(&mut giver, &ours);
    assert_eq!(other.until_commit().await.len(), 1);
    assert!(slots[0].read(|| Ok(())).is_none(), "its task will hear that it is gone");
    assert!(rests(&slots[0]));
    let error = slots[0].read(|| Ok(())).unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected, "it has heard");
}

#[tokio::test]
async fn a_commit_that_cannot_be_told_leaves_everything_here() {
    let ((ours, theirs), mut giver) = (link(), Giver::new());
    let (slots, mut other) = (resting(&giver, 3, 8), Other::new(theirs));
    prepare(&mut giver, &ours, &mut other, &[]).await;
    slots[1].engage(|_| ()).unwrap();
    let told = giver.conclude(&ours, || Err(io::ErrorKind::BrokenPipe.into()));
    assert_eq!(told.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(!slots.iter().any(rests));
    // It can be tried again.
    commit(&mut giver, &ours);
    assert_eq!(numbers(&other.until_commit().await), [0, 2]);

    let ((ours, theirs), mut giver) = (link(), Giver::new());
    let (slots, mut other) = (resting(&giver, 3, 8), Other::new(theirs));
    prepare(&mut giver, &ours, &mut other, &[]).await;
    drop(other);
    giver.conclude(&ours, || ours.send(&Order::Abort, &[])).unwrap_err();
    giver.take_back();
    assert!(!slots.iter().any(rests));
    assert!(slots.iter().all(|slot| slot.engage(|_| ()).is_ok()));
}

#[tokio::test]
async fn an_abort_gives_back_what_is_under_way_and_what_is_held() {
    let ((ours, theirs), mut giver) = (link(), Giver::new());
    let (slots, mut other) = (resting(&giver, (WINDOW + 2) * MOST, 8), Other::new(theirs));
    giver.call();
    assert!(!giver.is_prepared(&ours));
    other.obey(true).await;
    hear(&mut giver, &ours).await;
    assert_eq!((giver.held.len(), giver.under_way.len()), (1, WINDOW - 1));
    giver.take_back();
    drop(other);
    assert!(!slots.iter().any(rests));
    // All of them go with the next upgrade.
    let (ours, theirs) = link();
    let mut other = Other::new(theirs);
    prepare(&mut giver, &ours, &mut other, &[]).await;
    commit(&mut giver, &ours);
    assert_eq!(other.until_commit().await.len(), (WINDOW + 2) * MOST);
}

#[tokio::test]
async fn a_batch_that_is_declined_stays_and_the_others_go() {
    let ((ours, theirs), mut giver) = (link(), Giver::new());
    let (slots, mut other) = (resting(&giver, 2 * MOST, 8), Other::new(theirs));
    prepare(&mut giver, &ours, &mut other, &[1]).await;
    commit(&mut giver, &ours);
    assert_eq!(numbers(&other.until_commit().await), (MOST..2 * MOST).collect::<Vec<_>>());
    assert_eq!(slots.iter().filter(|slot| rests(slot)).count(), MOST);
}

/// Follows as far as there is anything to do.
async fn follow(giver: &mut Giver, link: &AsyncChannel) {
    let early = tokio::time::timeout(std::time::Duration::ZERO, giver.follow(link)).await;
    assert!(early.is_err(), "it follows for ever");
}

#[tokio::test]
async fn who_comes_to_rest_during_the_upgrade_or_after_it_follows() {
    let ((ours, theirs), mut giver) = (link(), Giver::new());
    let (slots, mut other) = (resting(&giver, 2, 8), Other::new(theirs));
    slots[0].engage(|_| ()).unwrap();
    prepare(&mut giver, &ours, &mut other, &[]).await;
    assert!(!rests(&slots[0]));
    commit(&mut giver, &ours);
    assert_eq!(numbers(&other.until_commit().await), [1]);

    giver.call_for_good();
    follow(&mut giver, &ours).await;
    assert!(other.obey(true).await.is_empty(), "it holds one that is not its own yet");
    slots[0].engage(|state| state[0] = 9).unwrap();
    hear(&mut giver, &ours).await;
    follow(&mut giver, &ours).await;
    let (withdrawn, serve) = (other.obey(true).await, other.obey(true).await);
    assert_eq!((withdrawn.len(), serve.len()), (0, 0), "it is served here");

    let late = resting(&giver, 1, 8);
    assert!(!rests(&slots[0]));
    follow(&mut giver, &ours).await;
    other.obey(true).await;
    hear(&mut giver, &ours).await;
    follow(&mut giver, &ours).await;
    assert_eq!(numbers(&other.obey(true).await), [0, 9]);
    assert!(late.iter().chain(&slots).all(rests));
}

#[tokio::test]
async fn what_is_held_after_serve_is_not_served_yet() {
    let (ours, theirs) = link();
    let mut other = Other::new(theirs);
    for batch in 1..=3 {
        let luggage = crate::upgrade::moves::luggage::Luggage { family: Family::Tcp, id: None, state: &[] };
        let mut bytes = Vec::new();
        luggage.pack(&mut bytes);
        let socket = UnixStream::pair().unwrap().0;
        ours.send(&Order::Offer { batch, luggage: bytes }, &[socket.as_fd()]).unwrap();
    }
    // Of a batch that nobody holds, and a place that no connection has.
    let mut withdrawn = [Withdrawal::of(1), Withdrawal::of(9)];
    withdrawn.iter_mut().for_each(|withdrawn| withdrawn.add(200));
    ours.send(&Order::Withdrawn(withdrawn.into()), &[]).unwrap();
    ours.send(&Order::Serve { batch: 2 }, &[]).unwrap();
    for _ in 0..4 {
        assert!(other.obey(true).await.is_empty());
    }
    assert_eq!((other.obey(true).await.len(), other.taker.all().len()), (2, 1));
}

#[tokio::test]
async fn an_answer_for_what_was_never_offered_is_noticed() {
    assert!(!Giver::new().answered(1, true));
}

#[tokio::test]
async fn a_batch_that_says_more_than_it_brings_is_declined() {
    let (ours, theirs) = link();
    let mut luggage = Vec::new();
    crate::upgrade::moves::luggage::Luggage { family: Family::Tcp, id: Some(7), state: b"x" }
        .pack(&mut luggage);
    let socket = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let memory = SharedMemory::create(c"test", luggage.len()).unwrap();
    memory.write(0, &luggage).unwrap();
    let memory = || memory.as_fd().try_clone_to_owned().unwrap();
    let (inline, len) = (|| Order::Offer { batch: 1, luggage: luggage.clone() }, luggage.len() as u64);
    let outside = |bytes| Order::OfferWithMemory { batch: 1, bytes };
    for (order, fds, whole) in [
        (inline(), vec![socket()], true),
        (inline(), vec![], false),
        (inline(), vec![socket(), socket()], false),
        (outside(len), vec![memory(), socket()], true),
        (outside(1 << 20), vec![memory(), socket()], false),
        (outside(u64::MAX), vec![memory(), socket()], false),
        (outside(len), vec![socket(), socket()], false),
        (outside(len), vec![], false),
    ] {
        let mut taker = Taker::default();
        assert!(taker.obey(order, fds, true, |answer| theirs.send(answer, &[])).unwrap().is_empty());
        let taken = matches!(ours.receive_now::<Report>().unwrap().message, Report::Taken { batch: 1 });
        assert_eq!((taken, taker.all().len()), (whole, usize::from(whole)));
    }
    assert!(Taker::default().obey(Order::Abort, vec![], true, |_| Ok(())).is_err());
}

/// Threads that engage what they can while it is decided, round after round.
#[tokio::test]
async fn of_two_sides_that_want_a_connection_at_once_exactly_one_has_it() {
    const SLOTS: usize = 48;
    const ROUNDS: usize = 400;
    const THREADS: usize = 3;
    let ((ours, theirs), mut giver) = (link(), Giver::new());
    let mut other = Other::new(theirs);
    let (mut here, mut there) = (0, 0);
    for round in 0..ROUNDS {
        let slots = resting(&giver, SLOTS, 8);
        prepare(&mut giver, &ours, &mut other, &[]).await;
        let start = std::sync::Barrier::new(THREADS + 1);
        let engaged: Vec<_> = std::thread::scope(|scope| {
            let engage = |thread: usize| {
                start.wait();
                // Each begins elsewhere, and at another moment.
                (0..round % 16).for_each(|_| std::thread::yield_now());
                let order = (0..SLOTS).map(|number| (number * (2 * thread + 1) + round) % SLOTS);
                order.filter(|number| slots[*number].engage(|_| ()).is_ok()).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || engage(thread))).collect();
            start.wait();
            commit(&mut giver, &ours);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let arrived = numbers(&other.until_commit().await);
        for (number, slot) in slots.iter().enumerate() {
            let is_here = engaged.iter().any(|engaged| engaged.contains(&number));
            assert_ne!(is_here, arrived.contains(&number), "round {round}, connection {number}");
            assert_eq!(slot.engage(|_| ()).is_ok(), is_here);
        }
        here += SLOTS - arrived.len();
        there += arrived.len();
        for slot in slots {
            slot.leave();
        }
    }
    assert!(here > 0 && there > 0, "{here} here, {there} there: nothing was decided");
}
