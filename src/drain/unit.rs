//! One unit of work as a task that can be cut, at no cost for each poll.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};

use tokio::sync::futures::OwnedNotified;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::drain::Shared;

pin_project_lite::pin_project! {
    /// One unit of work as a task. Fields are dropped in their order: the work is gone when it counts
    /// as ended, and whoever awaits the last unit hears of it after that.
    pub(super) struct Unit<F> {
        // What it does.
        #[pin]
        work: F,
        // Wakes it to be dropped.
        #[pin]
        cut: OwnedNotified,
        // The waker that `cut` has, by its two addresses.
        registered: Option<(usize, usize)>,
        // How far it is; a panic leaves it at `Polling`.
        stage: Stage,
        // Counts its end.
        run: Run,
        // Counts it as in flight.
        token: TaskTrackerToken,
    }

    impl<F> PinnedDrop for Unit<F> {
        fn drop(this: Pin<&mut Self>) {
            let unit = this.project();
            if *unit.stage == Stage::Waiting
                && !unit.run.shared.cutting.load(SeqCst)
                && let Some(hook) = unit.run.shared.abandoned.get()
            {
                (hook.0)();
            }
        }
    }
}

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Polling,
    Done,
}

impl<F> Unit<F> {
    /// A unit that does `work`; a cut that happens from now on ends it.
    pub(super) fn new(work: F, shared: Arc<Shared>) -> Self {
        let cut = Arc::clone(&shared.cut).notified_owned();
        let token = shared.tracker.token();
        let run = Run { shared, was_cut: false };
        Self { work, cut, registered: None, stage: Stage::Waiting, run, token }
    }
}

impl<F: Future<Output = ()>> Future for Unit<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let unit = self.project();
        if unit.run.shared.cutting.load(SeqCst) {
            unit.run.was_cut = true;
            return Poll::Ready(());
        }
        *unit.stage = Stage::Polling;
        if unit.work.poll(context).is_ready() {
            *unit.stage = Stage::Done;
            return Poll::Ready(());
        }
        *unit.stage = Stage::Waiting;
        // A task keeps its waker, and polling `cut` takes a lock that all units share: once is enough.
        let waker =
            Some((context.waker().data().addr(), std::ptr::from_ref(context.waker().vtable()).addr()));
        if *unit.registered != waker {
            *unit.registered = waker;
            if unit.cut.poll(context).is_ready() {
                unit.run.was_cut = true;
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// Counts the end of a unit when it is dropped, so that a panic is an end too.
struct Run {
    /// Where to count.
    shared: Arc<Shared>,
    /// Whether the work was dropped before its end.
    was_cut: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.was_cut {
            self.shared.dropped.fetch_add(1, SeqCst);
            return;
        }
        // Sequentially consistent with `begin` and `finished_since`: either this sees that somebody
        // may wait, or the waiter sees this count.
        self.shared.finished.fetch_add(1, SeqCst);
        if self.shared.asked.load(SeqCst) {
            self.shared.progress.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;
    use std::sync::atomic::AtomicBool;
    use std::task::{Wake, Waker};

    #[test]
    fn a_unit_whose_waker_changes_is_still_woken_for_the_cut() {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, SeqCst);
            }
        }
        let drain = Drain::new();
        let mut unit = std::pin::pin!(Unit::new(std::future::pending(), Arc::clone(&drain.shared)));
        let wakers = [0; 2].map(|_| Arc::new(Woken(AtomicBool::new(false))));
        for waker in &wakers {
            let waker = Waker::from(Arc::clone(waker));
            assert!(unit.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert!(unit.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drain.cut();
        assert_eq!(wakers.map(|waker| waker.0.load(SeqCst)), [false, true]);
        assert!(unit.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }

    const LONG: std::time::Duration = std::time::Duration::from_secs(60);

    #[test]
    fn only_what_the_runtime_takes_down_is_abandoned() {
        let abandoned = |ends: fn(&Drain, tokio::runtime::Runtime)| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (drain, called) = (Drain::new(), Arc::new(AtomicBool::new(false)));
            let hook = Arc::clone(&called);
            drain.when_abandoned(move || hook.store(true, SeqCst));
            ends(&drain, runtime);
            called.load(SeqCst)
        };
        assert!(abandoned(|drain, runtime| {
            runtime.block_on(async {
                drain.spawn(std::future::pending());
                tokio::task::yield_now().await;
            });
        }));
        assert!(!abandoned(|drain, runtime| {
            runtime.block_on(async { drain.spawn(async {}) });
            assert_eq!(runtime.block_on(drain.wait(LONG)), crate::drain::Outcome::Drained);
        }));
        assert!(!abandoned(|drain, runtime| {
            runtime.block_on(async { drain.spawn(async { panic!("as tested") }) });
            let _ = runtime.block_on(drain.wait(LONG));
        }));
        assert!(!abandoned(|drain, runtime| {
            runtime.block_on(async {
                drain.spawn(std::future::pending());
                drain.cut();
            });
            let _ = runtime.block_on(drain.wait(LONG));
        }));
    }
}
