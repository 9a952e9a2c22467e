//! Work in flight: watch it, ask it to end, await the last, up to a deadline.
//!
//! ```text
//! working --begin--> ending --the last unit is done-----------------> drained
//!                       \----the deadline, or cut--> cutting --------> ended by force
//! ```
//!
//! A unit of work is a future, as a rule one connection or one request. It runs until it is done. Asked
//! to end, it may finish what it is at; what is left at the deadline is dropped where it stands. On
//! tokio-util's `TaskTracker` and `CancellationToken`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use handover::drain::{Drain, Outcome};
//! use std::time::Duration;
//!
//! let drain = Drain::new();
//! let asked = drain.clone();
//! drain.spawn(async move { asked.asked_to_end().await });
//! assert_eq!(drain.wait(Duration::from_secs(30)).await, Outcome::Drained);
//! # }
//! ```
//!
//! A unit costs one spawn, three reference counts, and one short lock when it is first polled and one
//! when it is dropped; nothing for every further poll.
//!
//! This chapter never ends work before it was asked to, never waits without a deadline, and knows
//! neither sockets nor the manager.
#![forbid(unsafe_code)]

mod unit;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::drain::unit::Unit;

/// How long units may take to be dropped. Only one that blocks its thread needs any of it.
const DROP_LIMIT: Duration = Duration::from_secs(1);

/// Work in flight. Clones watch the same work.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// What the clones and the units have in common.
    shared: Arc<Shared>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "work may have been cut off"]
pub enum Outcome {
    /// Every unit ran to its end.
    Drained,
    /// The deadline came first, or somebody cut the drain short.
    DeadlineEnded {
        /// How many units were dropped before their end.
        cut: usize,
        /// How many could not be dropped, for they block their threads; they end when they return.
        stuck: usize,
    },
}

/// The state of a drain.
#[derive(Debug, Default)]
struct Shared {
    /// Counts the units in flight.
    tracker: TaskTracker,
    /// Asks units to end.
    ask: CancellationToken,
    /// Whether they have been asked; `ask` has the same answer behind a lock.
    asked: AtomicBool,
    /// Whether units are to be dropped now.
    cutting: AtomicBool,
    /// Wakes all units, to be dropped.
    cut: Arc<Notify>,
    /// Units that ran to their end.
    finished: AtomicU64,
    /// Units that were dropped before.
    dropped: AtomicUsize,
    /// Reports each end of a unit after `asked`.
    progress: Notify,
    /// The earliest deadline that anybody has set.
    deadline: watch::Sender<Option<Instant>>,
    /// Told when the runtime takes units down.
    abandoned: OnceLock<Hook>,
}

/// What to do when the runtime takes units down.
struct Hook(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl Drain {
    /// No work yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` as a unit: to its end, or until the drain is cut. Needs a tokio runtime. Work that
    /// comes while the drain is ending is watched like any other; after a cut it is dropped unrun.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(Unit::new(work, Arc::clone(&self.shared)));
    }

    /// Asks everything to end. Asking twice is asking once.
    pub fn begin(&self) {
        self.shared.asked.store(true, SeqCst);
        self.shared.ask.cancel();
        self.shared.tracker.close();
    }

    /// Whether everything has been asked to end: one atomic load.
    pub fn ending(&self) -> bool {
        self.shared.asked.load(SeqCst)
    }

    /// Resolves when everything has been asked to end. For work to select on.
    pub async fn asked_to_end(&self) {
        self.shared.ask.cancelled().await;
    }

    /// Whether what was in flight has been dropped.
    pub(crate) fn is_cut(&self) -> bool {
        self.shared.cutting.load(SeqCst)
    }

    /// Has `hook` be called when a unit is about to be dropped before its end although nobody has cut the
    /// drain: its runtime goes down. Once; later hooks are not called.
    pub(crate) fn when_abandoned(&self, hook: impl Fn() + Send + Sync + 'static) {
        // The first one stays.
        let _ = self.shared.abandoned.set(Hook(Box::new(hook)));
    }

    /// How many units are not done.
    pub fn in_flight(&self) -> usize {
        self.shared.tracker.len()
    }

    /// How many units have run to their end since the beginning. A unit that panicked counts.
    pub fn finished(&self) -> u64 {
        self.shared.finished.load(SeqCst)
    }

    /// Resolves, once the drain has begun, as soon as [`finished`](Self::finished) is more than
    /// `seen`, with the new count. Nothing that happens between two calls is missed.
    pub async fn finished_since(&self, seen: u64) -> u64 {
        self.asked_to_end().await;
        loop {
            // It hears everything from its creation on, so nothing is lost between the count and the wait.
            let more = self.shared.progress.notified();
            let finished = self.finished();
            if finished > seen {
                return finished;
            }
            more.await;
        }
    }

    /// Asks everything to end, and resolves as soon as the last unit is done. What is left after
    /// `deadline`, or after an earlier one set by [`shorten`](Self::shorten) or another wait, is
    /// dropped.
    ///
    /// A unit that blocks its thread cannot be dropped; a second after the deadline it is given up. A
    /// wait that is itself dropped enforces no deadline; the drain goes on, and may be waited for again.
    pub async fn wait(&self, deadline: Duration) -> Outcome {
        self.begin();
        self.shorten(deadline);
        let mut deadlines = self.shared.deadline.subscribe();
        let last_is_done = self.shared.tracker.wait();
        tokio::pin!(last_is_done);
        loop {
            let deadline = *deadlines.borrow_and_update();
            tokio::select! {
                biased;
                () = &mut last_is_done => return self.outcome(),
                _ = deadlines.changed() => {}
                () = reached(deadline) => break,
            }
        }
        self.cut();
        let _stuck = tokio::time::timeout(DROP_LIMIT, last_is_done).await;
        self.outcome()
    }

    /// Gives running and coming waits a deadline of at most `deadline` from now.
    pub fn shorten(&self, deadline: Duration) {
        // Past the end of time there is no deadline.
        let Some(new) = Instant::now().checked_add(deadline) else { return };
        self.shared.deadline.send_if_modified(|old| {
            let earlier = old.is_none_or(|old| new < old);
            if earlier {
                *old = Some(new);
            }
            earlier
        });
    }

    /// Drops everything that is in flight, now; a running wait ends when that is done.
    pub fn cut(&self) {
        self.begin();
        self.shared.cutting.store(true, SeqCst);
        self.shared.cut.notify_waiters();
        self.shorten(Duration::ZERO);
    }

    /// What a wait has to say at its end.
    fn outcome(&self) -> Outcome {
        match (self.shared.dropped.load(SeqCst), self.in_flight()) {
            (0, 0) => Outcome::Drained,
            (cut, stuck) => Outcome::DeadlineEnded { cut, stuck },
        }
    }
}

/// Resolves at `deadline`; without one, never.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::sync::oneshot;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Work that only the drain can end, and which shows by its count whether it is gone.
    fn endless(drain: &Drain, held: &Arc<()>) {
        let held = Arc::clone(held);
        drain.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_unit_ends_the_wait_at_once() {
        let (drain, held) = (Drain::new(), Arc::new(()));
        for _ in 0..100 {
            let (drain, held) = (drain.clone(), Arc::clone(&held));
            drain.clone().spawn(async move {
                drain.asked_to_end().await;
                drop(held);
            });
        }
        let begin = Instant::now();
        assert_eq!((drain.in_flight(), drain.ending()), (100, false));
        assert_eq!(drain.wait(DEADLINE).await, Outcome::Drained);
        // Time is virtual: had anything waited for a timer, it would have passed.
        assert_eq!((begin.elapsed(), Arc::strong_count(&held)), (Duration::ZERO, 1));
        assert_eq!((drain.in_flight(), drain.finished(), drain.ending()), (0, 100, true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_at_the_deadline_is_dropped_before_the_wait_ends() {
        let (drain, held) = (Drain::new(), Arc::new(()));
        endless(&drain, &held);
        endless(&drain, &held);
        drain.spawn(async {});
        let begin = Instant::now();
        assert_eq!(drain.wait(DEADLINE).await, Outcome::DeadlineEnded { cut: 2, stuck: 0 });
        assert_eq!(begin.elapsed().as_secs(), DEADLINE.as_secs());
        assert_eq!((Arc::strong_count(&held), drain.finished()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_wait_takes_an_earlier_deadline_and_no_later_one() {
        let (drain, held) = (Drain::new(), Arc::new(()));
        endless(&drain, &held);
        let begin = Instant::now();
        let (outcome, ()) = tokio::join!(drain.wait(DEADLINE), async {
            tokio::time::advance(Duration::from_secs(1)).await;
            drain.shorten(Duration::from_secs(4));
            drain.shorten(Duration::MAX);
            drain.shorten(DEADLINE);
        });
        assert_eq!(outcome, Outcome::DeadlineEnded { cut: 1, stuck: 0 });
        assert_eq!(begin.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_ends_everything_and_every_wait_now() {
        let (drain, held) = (Drain::new(), Arc::new(()));
        endless(&drain, &held);
        let begin = Instant::now();
        let (one, other, ()) =
            tokio::join!(drain.wait(DEADLINE), drain.wait(Duration::MAX), async { drain.cut() });
        assert_eq!((one, other), (Outcome::DeadlineEnded { cut: 1, stuck: 0 }, one));
        assert!(begin.elapsed() < Duration::from_millis(10));
        let late = Arc::clone(&held);
        drain.spawn(async move { panic!("run after the cut, holding {late:?}") });
        assert_eq!(drain.wait(DEADLINE).await, Outcome::DeadlineEnded { cut: 2, stuck: 0 });
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_blocks_its_thread_does_not_hold_the_wait_for_ever() {
        let drain = Drain::new();
        let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (release, blocked) = mpsc::channel::<()>();
        let (running, run) = oneshot::channel();
        let entered = elsewhere.enter();
        drain.spawn(async move {
            running.send(()).unwrap();
            let _ = blocked.recv();
        });
        drop(entered);
        run.await.unwrap();
        let (outcome, ()) = tokio::join!(drain.wait(Duration::MAX), async { drain.cut() });
        assert_eq!(outcome, Outcome::DeadlineEnded { cut: 0, stuck: 1 });
        drop(release);
        drain.shared.tracker.wait().await;
        assert_eq!(drain.in_flight(), 0);
        elsewhere.shutdown_background();
    }

    #[tokio::test(start_paused = true)]
    async fn a_unit_that_panics_has_ended() {
        let drain = Drain::new();
        drain.spawn(async { panic!("as the test wants it") });
        assert_eq!(drain.wait(DEADLINE).await, Outcome::Drained);
        assert_eq!(drain.finished(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_is_reported_once_the_drain_has_begun_and_none_is_missed() {
        let drain = Drain::new();
        drain.spawn(async {});
        let (done, wait) = oneshot::channel::<()>();
        drain.spawn(async { drop(wait.await) });
        let early = tokio::time::timeout(DEADLINE, drain.finished_since(0)).await;
        assert!(early.is_err(), "the drain has not begun");
        drain.begin();
        assert_eq!(drain.finished_since(0).await, 1);
        let (finished, ()) = tokio::join!(drain.finished_since(1), async { drop(done) });
        assert_eq!(finished, 2);
    }
}
