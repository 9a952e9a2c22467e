//! The one loop that owns every transition of a serving process, until it has nothing left to do.
//!
//! It listens to the control socket, to signals, to its successor and to those who still drain; it
//! asks the machine of an upgrade what to do, and does it. It never touches a client's connection.

mod standing;

use std::collections::VecDeque;
use std::pin::pin;

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::Options;
use super::connections::Incoming;
use super::ending::{Ending, Rest};
use super::live::Ways;
use super::post::Post;
use super::retreat::{Retreat, draining};
use super::signals::{Caught, Signals};
use super::vault::Vault;
use crate::drain::{Drain, Outcome};
use crate::fdstore::{Drainer, LastUpgrade};
use crate::notify::{NotifyState, Watchdog};
use crate::upgrade::elder::{Change, Elder};
use crate::upgrade::journal::{Phase, Scribe};
use crate::upgrade::machine::{Action, By, Event};
use crate::upgrade::moves::Arrival;
use crate::upgrade::predecessor::Predecessor;
use crate::upgrade::successor::Takeover;
use crate::upgrade::{Failure, status};

/// The status during an upgrade: whoever follows it can tell its failure from that of the one before.
const UPGRADING: &str = "upgrading";

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

/// What a steward works with.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) options: Options,
    pub(super) signals: Signals,
    pub(super) predecessor: Predecessor,
    pub(super) post: Post,
    pub(super) scribe: Scribe,
    pub(super) vault: Vault,
    /// The way in for connections that others accepted.
    pub(super) incoming: Option<mpsc::UnboundedSender<Incoming>>,
}

/// Everything about a serving process but the serving.
#[derive(Debug)]
pub(super) struct Steward {
    means: Means,
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
    pub(super) fn new(mut means: Means, takeover: Takeover) -> Self {
        let Takeover { generation, mut elders, arrivals, confirmed } = takeover;
        elders.iter_mut().for_each(|elder| elder.welcome = means.incoming.is_some());
        means.predecessor.bequeath(means.vault.bequest());
        means.vault.write_record(|record| {
            record.generation = generation;
            match elders.first() {
                Some(elder) => {
                    record.draining = elders.iter().rev().map(Elder::drainer).collect();
                    record.last_upgrade = Some(LastUpgrade::switched(elder.draining.pid));
                }
                // KillMode=process leaves them alone when the main process is restarted.
                None => record.draining.retain(Drainer::is_alive),
            }
        });
        let (drain, vault) = (Drain::new(), means.vault.clone());
        // A service that ends without a word, by a panic of its `main` perhaps: PID 1 keeps what it has.
        drain.when_abandoned(move || vault.leave());
        let this = Self { means, drain, generation, elders, confirmed, last_failure: None };
        this.arrive(arrivals);
        this
    }

    pub(super) fn drain(&self) -> Drain {
        self.drain.clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The ways out of this process for its connections.
    pub(super) fn ways(&self) -> Ways {
        Ways { exchange: self.means.predecessor.exchange(), vault: self.means.vault.clone() }
    }

    /// Takes connections in that another process gave away.
    fn arrive(&self, arrivals: Vec<Arrival>) {
        for arrival in arrivals {
            // A service that has ended serves nobody; the drain tells.
            let _ = self.means.incoming.as_ref().map(|incoming| incoming.send(Incoming::moved(arrival)));
        }
    }

    /// What one who drains has done.
    async fn note(&mut self, change: Change, text: &watch::Receiver<String>) {
        match change {
            Change::Drain => {
                self.means.vault.write_record(|record| {
                    record.draining = self.elders.iter().rev().map(Elder::drainer).collect()
                });
                self.announce(text, &[]).await;
            }
            Change::Arrived(arrivals) => self.arrive(arrivals),
            Change::Ended(names) => names.iter().for_each(|name| self.means.vault.forget_name(name)),
        }
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
        match self.serve(watchdog, &mut text).await {
            Some(pid) => self.retire(pid, tell, begun).await,
            None => self.stop(tell, begun).await,
        }
    }

    /// Does what comes, until another process serves, which is returned, or this one is to stop.
    async fn serve(&mut self, watchdog: Option<Watchdog>, text: &mut watch::Receiver<String>) -> Option<i32> {
        // It goes no further than this: half done, it would keep everybody else from asking PID 1.
        let (mut proof, mut proven) = (pin!(self.means.vault.clone().confirm()), false);
        loop {
            let event = tokio::select! {
                event = self.means.predecessor.event(self.elders.len()) => match event {
                    Ok(event) => event,
                    Err(curious) => {
                        self.tell_standing(&curious);
                        continue;
                    }
                },
                caught = self.means.signals.next() => match caught {
                    Caught::Hangup => Event::Asked { by: By::Signal, draining: self.elders.len() },
                    Caught::Stop => Event::Terminate,
                },
                change = Elder::next_change(&mut self.elders) => {
                    self.note(change, text).await;
                    continue;
                }
                trouble = &mut proof, if !proven => {
                    proven = true;
                    trouble.into_iter().for_each(|what| self.means.scribe.write(Phase::NotKept { what }));
                    continue;
                }
                () = changed(text) => {
                    self.announce(text, &[]).await;
                    continue;
                }
                () = feed(watchdog, &self.means.post) => continue,
            };
            match self.carry_out(event, text).await {
                None | Some(Turn::Events(_)) => {}
                Some(Turn::Retire(pid)) => return Some(pid),
                Some(Turn::Stop) => return None,
            }
        }
    }

    /// Does what the machine makes of an event, and of the events that doing so brings about.
    async fn carry_out(&mut self, event: Event, text: &watch::Receiver<String>) -> Option<Turn> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Event::Spawned { pid } = event {
                self.means.scribe.write_later(Phase::Started { successor: pid });
            }
            for action in self.means.predecessor.decide(event) {
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
        // What those who drain give us is ours or theirs, before we cease to be whom they give it to.
        if matches!(action, Action::Commit { .. } | Action::Stop) {
            for change in Elder::settle(&mut self.elders).await {
                self.note(change, text).await;
            }
        }
        match action {
            Action::AnnounceUpgrade => self.means.post.say(&[], Some(UPGRADING), &self.means.scribe).await,
            Action::AnnounceReload => self.announce_reload().await,
            Action::Grant => more.extend(self.means.predecessor.grant()),
            Action::Hold => {
                // The reload that the signal began ends here: the helper's is PID 1's to end.
                self.means.post.say(&[NotifyState::Ready], Some(UPGRADING), &self.means.scribe).await;
                self.means.predecessor.hold();
            }
            Action::Launch => more.push(self.means.predecessor.launch().await),
            Action::Refuse(by, failure) => self.refuse(by, failure, text).await,
            Action::Prepare => {
                // What is stashed from here on would belong to nobody: it waits for the end of the upgrade.
                self.means.vault.pause();
                more.extend(self.means.predecessor.prepare());
            }
            Action::Abort => {
                self.means.predecessor.abort();
                self.means.vault.resume();
            }
            Action::Kill => self.means.predecessor.kill(),
            Action::Report(failure) => self.report(failure, text).await,
            Action::Commit { pid } => {
                more.push(match self.means.post.hand_over(pid, &self.means.scribe).await {
                    Ok(()) => Event::Committed { alive: self.means.predecessor.successor_lives() },
                    Err(failure) => Event::CommitFailed(failure),
                })
            }
            Action::Reclaim => self.means.post.reclaim(),
            Action::HandOver { pid } => return Turn::Retire(pid),
            Action::Stop => return Turn::Stop,
        }
        Turn::Events(more)
    }

    /// systemd.service(5), Type=notify-reload: RELOADING=1 with a MONOTONIC_USEC= younger than the
    /// signal; and READY=1 at the end, whatever the end.
    async fn announce_reload(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => {
                self.means.post.say(&[NotifyState::Reloading, now], Some(UPGRADING), &self.means.scribe).await
            }
            Err(error) => self.means.scribe.write(Phase::Unheard { what: format!("RELOADING=1: {error}") }),
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
                self.means.predecessor.refuse(&failure);
            }
        }
        self.means.scribe.write(Phase::Refused { failure });
    }

    async fn report(&mut self, failure: Failure, text: &watch::Receiver<String>) {
        self.last_failure = Some(failure.clone());
        let Failure { reason, errno, detail } = failure.clone();
        let failed = LastUpgrade::failed(reason.exit_code(), errno, detail);
        self.means.vault.write_record(|record| record.last_upgrade = Some(failed));
        let errno = NotifyState::Errno(failure.errno.unsigned_abs());
        self.announce(text, &[NotifyState::Ready, errno]).await;
        self.means.predecessor.report(&failure);
        self.means.scribe.write(Phase::Failed { failure });
    }

    /// STATUS=: how the last upgrade went if it went wrong, what the service says, and who drains.
    async fn announce(&self, text: &watch::Receiver<String>, states: &[NotifyState<'_>]) {
        let own = text.borrow().clone();
        let own = if own.is_empty() { "serving".to_string() } else { own };
        let elders = self.elders.iter().map(Elder::describe);
        let mut text = [own].into_iter().chain(elders).collect::<Vec<_>>().join("; ");
        if let Some(failure) = &self.last_failure {
            text = status::write(failure, &text);
        }
        self.means.post.say(states, Some(&text), &self.means.scribe).await;
    }

    /// Gives the service away. The sockets and the control socket go with the predecessor.
    async fn retire(self, pid: i32, tell: oneshot::Sender<Why>, begun: oneshot::Receiver<()>) -> Outcome {
        let generation = self.generation + 1;
        let own = draining(&self.drain, self.means.options.drain_deadline);
        self.means.vault.hand_over();
        let (link, giver) = self.means.predecessor.hand_over(pid, generation, own, &self.elders);
        self.drain.begin();
        // The service may be gone already; then nobody accepts either.
        let _ = tell.send(Why::HandedOver);
        self.means.scribe.write(Phase::Switched { successor: pid, generation });
        let Means { options, signals, scribe, vault, .. } = self.means;
        let drain = self.drain;
        Retreat { options, signals, scribe, drain, vault, giver }.retired(link, begun).await
    }

    async fn stop(self, tell: oneshot::Sender<Why>, begun: oneshot::Receiver<()>) -> Outcome {
        let Self { means, drain, elders, confirmed, .. } = self;
        let Means { options, signals, predecessor, post, scribe, vault, .. } = means;
        let mut giver = predecessor.stop();
        // Before anybody can know that this process serves no longer, there is somebody who takes.
        giver.call_for_good();
        drain.begin();
        let _ = tell.send(Why::Told);
        // Not confirmed: PID 1 may never have heard of us, and waits to restart the service.
        let grace = if confirmed { options.drain_deadline } else { options.crash_grace };
        Retreat { options, signals, scribe, drain, vault, giver }.stopped(post, elders, grace, begun).await
    }
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
