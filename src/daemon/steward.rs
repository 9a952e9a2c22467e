//! The one loop that owns every transition of a serving process, until it has nothing left to do.
//!
//! It listens to the control socket, to signals, to its successor and to those who still drain; it
//! asks the machine of an upgrade what to do, and does it. It never touches a client's connection.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::Options;
use super::ending::{Ending, Rest};
use super::post::Post;
use super::retreat::Retreat;
use crate::drain::{Drain, Outcome};
use crate::notify::{NotifyState, Watchdog};
use crate::upgrade::journal::{Phase, Scribe};
use crate::upgrade::machine::{Action, By, Event};
use crate::upgrade::message::Draining;
use crate::upgrade::predecessor::Predecessor;
use crate::upgrade::successor::{Elder, Takeover};
use crate::upgrade::{Failure, status};

/// The status during an upgrade: whoever follows it can tell its failure from that of the one before.
const UPGRADING: &str = "upgrading";

/// The signals that a service lives by.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Signal,
    stop: Option<(Signal, Signal)>,
}

impl Signals {
    /// While the service starts: SIGHUP is kept for later, SIGTERM and SIGINT end it.
    pub(super) fn starting() -> io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, stop: None })
    }

    /// From now on SIGTERM and SIGINT are requests.
    pub(super) fn serving(&mut self) -> io::Result<()> {
        self.stop = Some((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
        Ok(())
    }

    /// The next one that was caught. Cancel safe.
    pub(super) async fn next(&mut self) -> Caught {
        let Self { hangup, stop } = self;
        tokio::select! {
            () = stopped(stop) => Caught::Stop,
            _ = hangup.recv() => Caught::Hangup,
        }
    }

    /// SIGTERM or SIGINT; SIGHUP is left for later. Cancel safe.
    pub(super) async fn stop(&mut self) {
        stopped(&mut self.stop).await;
    }
}

/// What a signal means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    /// SIGHUP: upgrade.
    Hangup,
    /// SIGTERM or SIGINT: stop.
    Stop,
}

async fn stopped(signals: &mut Option<(Signal, Signal)>) {
    match signals {
        Some((terminate, interrupt)) => {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        }
        None => std::future::pending().await,
    }
}

/// How a process ceases to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Another one serves.
    HandedOver,
    /// The service stops.
    Told,
}

/// The service's view of the steward: when to stop accepting, and what comes then.
#[derive(Debug)]
pub(super) struct End {
    why: oneshot::Receiver<Why>,
    known: Option<Why>,
    rest: Rest,
}

impl End {
    /// A view of a steward that tells the end through `why`.
    pub(super) fn new(why: oneshot::Receiver<Why>, rest: Rest) -> Self {
        Self { why, known: None, rest }
    }

    /// Resolves when the service must stop accepting. Cancel safe.
    pub(super) async fn decided(&mut self) {
        if self.known.is_none() {
            // A steward that is gone cannot hand over: all that is left is to stop.
            self.known = Some((&mut self.why).await.unwrap_or(Why::Told));
        }
    }

    /// Whether [`decided`](Self::decided) would resolve at once.
    pub(super) fn is_decided(&mut self) -> bool {
        if self.known.is_none() {
            self.known = match self.why.try_recv() {
                Ok(why) => Some(why),
                Err(TryRecvError::Closed) => Some(Why::Told),
                Err(TryRecvError::Empty) => None,
            };
        }
        self.known.is_some()
    }

    pub(super) fn into_ending(self) -> Ending {
        match self.known {
            Some(Why::HandedOver) => Ending::retiring(self.rest),
            Some(Why::Told) | None => Ending::stopping(self.rest),
        }
    }
}

/// Everything about a serving process but the serving.
#[derive(Debug)]
pub(super) struct Steward {
    options: Options,
    signals: Signals,
    predecessor: Predecessor,
    post: Post,
    scribe: Scribe,
    drain: Drain,
    generation: u64,
    elders: Vec<Elder>,
    confirmed: bool,
    /// How the last upgrade failed, until one succeeds.
    last_failure: Option<Failure>,
}

/// What an action leads to.
enum Turn {
    Events(Vec<Event>),
    Retire(i32),
    Stop,
}

impl Steward {
    pub(super) fn new(
        options: Options,
        signals: Signals,
        predecessor: Predecessor,
        post: Post,
        scribe: Scribe,
        takeover: Takeover,
    ) -> Self {
        let Takeover { generation, elders, confirmed } = takeover;
        let (drain, last_failure) = (Drain::new(), None);
        Self {
            options,
            signals,
            predecessor,
            post,
            scribe,
            drain,
            generation,
            elders,
            confirmed,
            last_failure,
        }
    }

    pub(super) fn drain(&self) -> Drain {
        self.drain.clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Runs the steward beside the service.
    pub(super) fn take_charge(self, watchdog: Option<Watchdog>, text: watch::Receiver<String>) -> End {
        let (tell, why) = oneshot::channel();
        let (begin, begun) = oneshot::channel();
        let steward: JoinHandle<Outcome> = tokio::spawn(self.run(watchdog, text, tell, begun));
        End::new(why, Rest { begin, steward })
    }

    async fn run(
        mut self,
        watchdog: Option<Watchdog>,
        mut text: watch::Receiver<String>,
        tell: oneshot::Sender<Why>,
        begun: oneshot::Receiver<()>,
    ) -> Outcome {
        if self.generation > 1 {
            self.announce(&text, &[NotifyState::Errno(0)]).await;
        }
        loop {
            let event = tokio::select! {
                event = self.predecessor.event(self.elders.len()) => event,
                caught = self.signals.next() => match caught {
                    Caught::Hangup => Event::Asked { by: By::Signal, draining: self.elders.len() },
                    Caught::Stop => Event::Terminate,
                },
                () = Elder::next_change(&mut self.elders) => {
                    self.announce(&text, &[]).await;
                    continue;
                }
                () = changed(&mut text) => {
                    self.announce(&text, &[]).await;
                    continue;
                }
                () = feed(watchdog, &self.post) => continue,
            };
            match self.carry_out(event, &text).await {
                None | Some(Turn::Events(_)) => {}
                Some(Turn::Retire(pid)) => return self.retire(pid, tell, begun).await,
                Some(Turn::Stop) => return self.stop(tell, begun).await,
            }
        }
    }

    /// Does what the machine makes of an event, and of the events that doing so brings about.
    async fn carry_out(&mut self, event: Event, text: &watch::Receiver<String>) -> Option<Turn> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Event::Spawned { pid } = event {
                self.scribe.write_later(Phase::Started { successor: pid });
            }
            for action in self.predecessor.decide(event) {
                match self.act(action, text).await {
                    Turn::Events(more) => events.extend(more),
                    end => return Some(end),
                }
            }
        }
        None
    }

    async fn act(&mut self, action: Action, text: &watch::Receiver<String>) -> Turn {
        let mut more = Vec::new();
        match action {
            Action::AnnounceUpgrade => self.post.say(&[], Some(UPGRADING), &self.scribe).await,
            Action::AnnounceReload => self.announce_reload().await,
            Action::Grant => more.extend(self.predecessor.grant()),
            Action::Hold => {
                // The reload that the signal began ends here: the helper's is PID 1's to end.
                self.post.say(&[NotifyState::Ready], Some(UPGRADING), &self.scribe).await;
                self.predecessor.hold();
            }
            Action::Launch => more.push(self.predecessor.launch().await),
            Action::Refuse(by, failure) => self.refuse(by, failure, text).await,
            Action::Abort => self.predecessor.abort(),
            Action::Kill => self.predecessor.kill(),
            Action::Report(failure) => self.report(failure, text).await,
            Action::Commit { pid } => more.push(match self.post.hand_over(pid, &self.scribe).await {
                Ok(()) => Event::Committed { alive: self.predecessor.successor_lives() },
                Err(failure) => Event::CommitFailed(failure),
            }),
            Action::Reclaim => self.post.reclaim(),
            Action::HandOver { pid } => return Turn::Retire(pid),
            Action::Stop => return Turn::Stop,
        }
        Turn::Events(more)
    }

    /// systemd.service(5), Type=notify-reload: RELOADING=1 with a MONOTONIC_USEC= younger than the
    /// signal; and READY=1 at the end, whatever the end.
    async fn announce_reload(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.post.say(&[NotifyState::Reloading, now], Some(UPGRADING), &self.scribe).await,
            Err(error) => self.scribe.write(Phase::Unheard { what: format!("RELOADING=1: {error}") }),
        }
    }

    async fn refuse(&mut self, by: By, failure: Failure, text: &watch::Receiver<String>) {
        self.last_failure = Some(failure.clone());
        let errno = NotifyState::Errno(failure.errno.unsigned_abs());
        match by {
            By::Signal => {
                self.announce_reload().await;
                self.announce(text, &[NotifyState::Ready, errno]).await;
            }
            By::Helper => {
                self.announce(text, &[errno]).await;
                self.predecessor.refuse(&failure);
            }
        }
        self.scribe.write(Phase::Refused { failure });
    }

    async fn report(&mut self, failure: Failure, text: &watch::Receiver<String>) {
        self.last_failure = Some(failure.clone());
        let errno = NotifyState::Errno(failure.errno.unsigned_abs());
        self.announce(text, &[NotifyState::Ready, errno]).await;
        self.predecessor.report(&failure);
        self.scribe.write(Phase::Failed { failure });
    }

    /// STATUS=: how the last upgrade went if it went wrong, what the service says, and who drains.
    async fn announce(&self, text: &watch::Receiver<String>, states: &[NotifyState<'_>]) {
        let own = text.borrow().clone();
        let own = if own.is_empty() { "serving".to_string() } else { own };
        let elders = self.elders.iter().map(|elder| describe(elder.draining));
        let mut text = [own].into_iter().chain(elders).collect::<Vec<_>>().join("; ");
        if let Some(failure) = &self.last_failure {
            text = status::write(failure, &text);
        }
        self.post.say(states, Some(&text), &self.scribe).await;
    }

    /// Gives the service away. The sockets and the control socket go with the predecessor.
    async fn retire(self, pid: i32, tell: oneshot::Sender<Why>, begun: oneshot::Receiver<()>) -> Outcome {
        let generation = self.generation + 1;
        let own = draining(&self.drain, self.options.drain_deadline);
        let link = self.predecessor.hand_over(pid, generation, own, &self.elders);
        self.drain.begin();
        // The service may be gone already; then nobody accepts either.
        let _ = tell.send(Why::HandedOver);
        self.scribe.write(Phase::Switched { successor: pid, generation });
        let Self { options, signals, scribe, drain, .. } = self;
        Retreat { options, signals, scribe, drain }.retired(link, begun).await
    }

    async fn stop(self, tell: oneshot::Sender<Why>, begun: oneshot::Receiver<()>) -> Outcome {
        let Self { options, signals, predecessor, post, scribe, drain, elders, confirmed, .. } = self;
        drop(predecessor);
        drain.begin();
        let _ = tell.send(Why::Told);
        // Not confirmed: PID 1 may never have heard of us, and waits to restart the service.
        let grace = if confirmed { options.drain_deadline } else { options.crash_grace };
        Retreat { options, signals, scribe, drain }.stopped(post, elders, grace, begun).await
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

/// One who drains, in words.
fn describe(draining: Draining) -> String {
    let Draining { pid, in_flight, left_ms } = draining;
    format!("{pid} drains ({in_flight} in flight, {} s left)", left_ms.div_ceil(1000))
}

/// The service has new words of its own. Never, once it has dropped the means to say them.
async fn changed(text: &mut watch::Receiver<String>) {
    if text.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Feeds the watchdog for as long as it is polled; without one, nothing.
async fn feed(watchdog: Option<Watchdog>, post: &Post) {
    match (watchdog, post.notifier()) {
        (Some(watchdog), Some(notifier)) => watchdog.feed(notifier).await,
        _ => std::future::pending().await,
    }
}
