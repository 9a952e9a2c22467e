//! What is left of a process that serves no longer: to see its work in flight to the end.
//!
//! It never accepts, and a retired one never speaks to the service manager.

use std::io;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Options;
use super::post::Post;
use super::signals::{Caught, Signals};
use super::vault::Vault;
use crate::drain::{Drain, Outcome};
use crate::notify::NotifyState;
use crate::upgrade::channel::{AsyncChannel, Delivery, ReceiveError};
use crate::upgrade::elder::{Change, Elder};
use crate::upgrade::journal::{Phase, Scribe};
use crate::upgrade::message::{Draining, Order, Report};
use crate::upgrade::moves::{Batch, Giver};

/// How long the last entries in the journal may take; and if PID 1 waits for us to restart the service.
const WRITING: Duration = Duration::from_secs(1);
const WRITING_IN_HASTE: Duration = Duration::from_millis(100);

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
    pub(super) vault: Vault,
    pub(super) giver: Giver,
}

impl Retreat {
    /// Retires: until nothing is left, or the deadline. `link` leads to whoever is the main process.
    pub(super) async fn retired(
        mut self,
        link: Option<AsyncChannel>,
        begun: oneshot::Receiver<()>,
    ) -> Outcome {
        let mut until = Instant::now() + self.options.drain_deadline;
        let mut drained = pin!(drained(self.drain.clone(), begun));
        let mut progress = interval(PROGRESS);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut main, mut leaving) = (Main { link, stops: false }, false);
        let outcome = loop {
            tokio::select! {
                outcome = &mut drained => break outcome,
                () = reached(until, &self.drain) => self.cut(leaving),
                said = main.hear() => self.heard(&mut main, said),
                offers = give(&mut self.giver, main.link.as_ref(), leaving) => self.vault.keep(offers).await,
                names = self.vault.ended() => main.tell(&Order::Ended { names }),
                _ = progress.tick() => {
                    let left = until.saturating_duration_since(Instant::now());
                    main.tell(&Order::Draining(draining(&self.drain, left)));
                }
                // SIGHUP is for the main process now. SIGTERM is for all.
                caught = self.signals.next() => if caught == Caught::Stop {
                    while let Some(said) = main.hear_now() {
                        self.heard(&mut main, said);
                    }
                    leaving = true;
                    until = self.hurry(&main, until);
                },
            }
        };
        // The last ones that ended here.
        if let Some(names) = self.vault.ended_now().await {
            main.tell(&Order::Ended { names });
        }
        self.scribe.write(Phase::Drained { cut: cut(outcome) });
        self.scribe.finish(if leaving { WRITING_IN_HASTE } else { WRITING }).await;
        outcome
    }

    /// Ends what is left, at the deadline. If no process serves after this one, `leaving`, PID 1 keeps
    /// what it has.
    fn cut(&self, leaving: bool) {
        if leaving {
            self.vault.leave();
        }
        self.drain.cut();
    }

    /// What the main process says to one who drains.
    fn heard(&mut self, main: &mut Main, said: Result<Delivery<Report>, ReceiveError>) {
        match said.map(|said| said.message) {
            Ok(Report::Taken { batch }) => {
                self.giver.answered(batch, true);
            }
            Ok(Report::Declined { batch }) => {
                self.giver.answered(batch, false);
            }
            Ok(Report::Stopping) => main.stops = true,
            Ok(_) | Err(ReceiveError::Garbled(_)) => {}
            Err(_) => {
                // It is gone. What it has not taken is still ours.
                main.link = None;
                self.giver.take_back();
            }
        }
    }

    /// SIGTERM reached this process, too: what rests may go to PID 1. Only if the main process crashed
    /// does PID 1 wait for us to restart it, and that is a reason to hurry.
    fn hurry(&mut self, main: &Main, until: Instant) -> Instant {
        self.giver.take_back();
        self.giver.call_for_good();
        match main.link.is_none() && !main.stops {
            true => until.min(Instant::now() + self.options.crash_grace),
            false => until,
        }
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
        let until = Instant::now() + grace;
        for elder in &mut elders {
            elder.welcome = false;
            // One that cannot hear it takes our end for a crash, and hurries.
            let _ = elder.link.send(&Report::Stopping, &[]);
        }
        self.announce(&post, &[NotifyState::Stopping]).await;
        let mut drained = pin!(drained(self.drain.clone(), begun));
        let (mut finished, mut extended) = (self.drain.finished(), None::<Instant>);
        let mut outcome = None;
        // KillMode=mixed kills all others once the main process ends: the elders come first.
        while outcome.is_none() || !elders.is_empty() {
            tokio::select! {
                end = &mut drained, if outcome.is_none() => outcome = Some(end),
                () = reached(until, &self.drain), if outcome.is_none() => self.cut(true),
                offers = self.giver.next_offers(), if outcome.is_none() => self.vault.keep(offers).await,
                more = self.drain.finished_since(finished), if outcome.is_none() => {
                    finished = more;
                    if extended.is_none_or(|extended| extended.elapsed() >= EXTEND_EVERY) {
                        extended = Some(Instant::now());
                        self.extend(&post, until).await;
                    }
                }
                change = Elder::next_change(&mut elders) => if let Change::Ended(names) = change {
                    names.iter().for_each(|name| self.vault.forget_name(name));
                },
                () = tokio::time::sleep_until(until), if outcome.is_some() => break,
                // Told twice: somebody at a keyboard is out of patience.
                caught = self.signals.next() => if caught == Caught::Stop {
                    self.cut(true);
                    elders.clear();
                },
            }
        }
        self.vault.leave();
        self.scribe.finish(WRITING).await;
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

/// What is left of `draining` work, until `left` is over.
pub(super) fn draining(drain: &Drain, left: Duration) -> Draining {
    Draining {
        pid: std::process::id().cast_signed(),
        in_flight: drain.in_flight() as u64,
        left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
    }
}

/// The end of all work, once the service accepts nothing more; a service that ends without saying so
/// does not either. The deadline is whoever's who cuts it.
async fn drained(drain: Drain, begun: oneshot::Receiver<()>) -> Outcome {
    let _ = begun.await;
    drain.wait(Duration::MAX).await
}

/// The deadline of a drain; once.
async fn reached(until: Instant, drain: &Drain) {
    match drain.is_cut() {
        false => tokio::time::sleep_until(until).await,
        true => std::future::pending().await,
    }
}

/// Whoever serves now, and the link to it.
struct Main {
    /// `None` once it is gone.
    link: Option<AsyncChannel>,
    /// It has said that it stops: its end is no crash.
    stops: bool,
}

impl Main {
    /// What it says next; never, once it is gone. Cancel safe.
    async fn hear(&self) -> Result<Delivery<Report>, ReceiveError> {
        match &self.link {
            Some(link) => link.receive().await,
            None => std::future::pending().await,
        }
    }

    /// What it has said already.
    fn hear_now(&self) -> Option<Result<Delivery<Report>, ReceiveError>> {
        match self.link.as_ref()?.receive_now() {
            Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            said => Some(said),
        }
    }

    /// A main process that does not listen misses nothing that matters.
    fn tell(&self, order: &Order) {
        let _ = self.link.as_ref().map(|link| link.send(order, &[]));
    }
}

/// Gives away what comes to rest, while there is somebody to take it; and once this process is to
/// leave, returns it: PID 1 may keep it.
async fn give(giver: &mut Giver, link: Option<&AsyncChannel>, leaving: bool) -> Batch {
    match (leaving, link) {
        (true, _) => giver.next_offers().await,
        (false, Some(link)) => match giver.follow(link).await {},
        (false, None) => std::future::pending().await,
    }
}

fn cut(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Drained => 0,
        Outcome::DeadlineEnded { cut, stuck } => cut + stuck,
    }
}
