//! What is left of a process that serves no longer: to see its work in flight to the end.
//!
//! It never accepts, and a retired one never speaks to the service manager.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Options;
use super::post::Post;
use super::steward::{Caught, Signals, draining};
use crate::drain::{Drain, Outcome};
use crate::notify::NotifyState;
use crate::upgrade::channel::{AsyncChannel, ReceiveError};
use crate::upgrade::journal::{Phase, Scribe};
use crate::upgrade::message::{Order, Report};
use crate::upgrade::successor::Elder;

/// How often a retired process says how it gets on.
const PROGRESS: Duration = Duration::from_millis(500);

/// How much more time is asked for when a stopping process got somewhere, and how often at most.
const EXTENSION: Duration = Duration::from_secs(5);
const EXTEND_EVERY: Duration = Duration::from_secs(1);

/// A process that serves no longer.
#[derive(Debug)]
pub(super) struct Retreat {
    pub(super) options: Options,
    pub(super) signals: Signals,
    pub(super) scribe: Scribe,
    pub(super) drain: Drain,
}

impl Retreat {
    /// Retires: until nothing is left, or the deadline. `link` leads to whoever is the main process.
    pub(super) async fn retired(
        mut self,
        link: Option<AsyncChannel>,
        begun: oneshot::Receiver<()>,
    ) -> Outcome {
        let until = Instant::now() + self.options.drain_deadline;
        let mut drained = pin!(drained(self.drain.clone(), begun, self.options.drain_deadline));
        let mut progress = interval(PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                outcome = &mut drained => break outcome,
                _ = progress.tick() => {
                    if let Some(link) = &link {
                        let left = until.saturating_duration_since(Instant::now());
                        // A main process that does not listen misses nothing that matters.
                        let _ = link.send(&Order::Draining(draining(&self.drain, left)), &[]);
                    }
                }
                // SIGHUP is for the main process now. SIGTERM is for all, and a reason to hurry only if
                // PID 1 waits for us to restart a main process that crashed.
                caught = self.signals.next() => {
                    if caught == Caught::Stop && link.as_ref().is_none_or(has_crashed) {
                        self.drain.shorten(self.options.crash_grace);
                    }
                }
            }
        };
        self.scribe.write(Phase::Drained { cut: cut(outcome) });
        self.scribe.finish().await;
        outcome
    }

    /// Stops: the same on behalf of `systemctl stop`, and waits for those who retired before.
    pub(super) async fn stopped(
        mut self,
        post: Post,
        mut elders: Vec<Elder>,
        grace: Duration,
        begun: oneshot::Receiver<()>,
    ) -> Outcome {
        self.drain.begin();
        self.drain.shorten(grace);
        let until = Instant::now() + grace;
        for elder in &elders {
            // One that cannot hear it takes our end for a crash, and hurries.
            let _ = elder.link.send(&Report::Stopping, &[]);
        }
        self.announce(&post, &[NotifyState::Stopping]).await;
        let mut drained = pin!(drained(self.drain.clone(), begun, grace));
        let (mut finished, mut extended) = (self.drain.finished(), None::<Instant>);
        let mut outcome = None;
        // KillMode=mixed kills all others once the main process ends: the elders come first.
        while outcome.is_none() || !elders.is_empty() {
            tokio::select! {
                end = &mut drained, if outcome.is_none() => outcome = Some(end),
                more = self.drain.finished_since(finished), if outcome.is_none() => {
                    finished = more;
                    if extended.is_none_or(|extended| extended.elapsed() >= EXTEND_EVERY) {
                        extended = Some(Instant::now());
                        self.extend(&post, until).await;
                    }
                }
                () = Elder::next_change(&mut elders) => {}
                () = tokio::time::sleep_until(until), if outcome.is_some() => break,
                // Told twice: somebody at a keyboard is out of patience.
                caught = self.signals.next() => if caught == Caught::Stop {
                    self.drain.cut();
                    elders.clear();
                },
            }
        }
        self.scribe.finish().await;
        outcome.unwrap_or(Outcome::Drained)
    }

    async fn announce(&self, post: &Post, states: &[NotifyState<'_>]) {
        let status = format!("stopping: {} in flight", self.drain.in_flight());
        post.say(states, Some(&status), &self.scribe).await;
    }

    /// systemd.service(5), TimeoutStopSec=: never shortened by this, and never beyond our own deadline.
    async fn extend(&self, post: &Post, until: Instant) {
        let more = EXTENSION.min(until.saturating_duration_since(Instant::now()));
        let microseconds = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        self.announce(post, &[NotifyState::ExtendTimeoutUsec(microseconds)]).await;
    }
}

/// The end of all work, once the service accepts nothing more; a service that ends without saying so
/// does not either.
async fn drained(drain: Drain, begun: oneshot::Receiver<()>, deadline: Duration) -> Outcome {
    let _ = begun.await;
    drain.wait(deadline).await
}

/// Whether whoever holds the other end of the link is gone without having said that it stops.
fn has_crashed(link: &AsyncChannel) -> bool {
    loop {
        match link.receive_now::<Report>() {
            Ok(said) if said.message == Report::Stopping => return false,
            Ok(_) => {}
            Err(error) => return matches!(error, ReceiveError::Closed),
        }
    }
}

fn cut(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Drained => 0,
        Outcome::DeadlineEnded { cut, stuck } => cut + stuck,
    }
}
