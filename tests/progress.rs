//! How far clients have got, for whoever waits until they are further.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// See the banner.
#[derive(Debug)]
pub(crate) struct Progress {
    standing: Mutex<Standing>,
    /// Enough is done for somebody who waits, or something went wrong.
    enough: Condvar,
    /// How long nobody waits in vain.
    patience: Duration,
}

#[derive(Debug)]
struct Standing {
    /// Of each client, what it has finished.
    done: Vec<u64>,
    sum: u64,
    /// Nobody is woken before: a client in a hurry would wake who waits for ten thousand as often.
    wake_at: u64,
    /// The first that went wrong: nobody waits any longer then.
    failure: Option<String>,
}

impl Progress {
    /// For so many clients; whoever waits longer than `patience` has its test fail.
    pub(crate) fn of(clients: usize, patience: Duration) -> Self {
        let standing = Standing { done: vec![0; clients], sum: 0, wake_at: u64::MAX, failure: None };
        Self { standing: Mutex::new(standing), enough: Condvar::new(), patience }
    }

    /// A client has finished something.
    pub(crate) fn add(&self, client: usize) {
        let mut standing = self.standing();
        standing.done[client] += 1;
        standing.sum += 1;
        if standing.sum >= standing.wake_at {
            standing.wake_at = u64::MAX;
            self.enough.notify_all();
        }
    }

    /// A client cannot go on.
    pub(crate) fn fail(&self, words: &str) {
        self.standing().failure.get_or_insert_with(|| words.to_owned());
        self.enough.notify_all();
    }

    /// Lets them finish `more` together.
    pub(crate) fn pass(&self, more: u64) {
        let goal = self.standing().sum + more;
        self.wait(|standing| goal.saturating_sub(standing.sum));
    }

    /// Lets each finish `more`.
    pub(crate) fn pass_each(&self, more: u64) {
        let done = self.standing().done.clone();
        self.reach(done.into_iter().map(|done| done + more).collect());
    }

    /// Lets each finish its first.
    pub(crate) fn begin(&self) {
        let clients = self.standing().done.len();
        self.reach(vec![1; clients]);
    }

    fn reach(&self, goals: Vec<u64>) {
        self.wait(|standing| {
            let missing = standing.done.iter().zip(&goals).map(|(done, goal)| goal.saturating_sub(*done));
            missing.sum()
        });
    }

    /// Waits until nothing is missing, looking again when as much was finished as was.
    fn wait(&self, missing: impl Fn(&Standing) -> u64) {
        let waited = self.enough.wait_timeout_while(self.standing(), self.patience, |standing| {
            let missing = missing(standing);
            if missing == 0 || standing.failure.is_some() {
                return false;
            }
            standing.wake_at = standing.wake_at.min(standing.sum + missing);
            true
        });
        let (standing, result) = waited.expect("nobody panics with the standing in hand");
        let (failure, done) = (standing.failure.clone(), standing.done.clone());
        drop(standing);
        assert!(failure.is_none(), "{}", failure.unwrap_or_default());
        assert!(!result.timed_out(), "the clients stand still at {done:?}");
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().expect("nobody panics with the standing in hand")
    }
}
