//! The old process during an upgrade: carries out what the machine decides about callers,
//! successor and link, and tells it what happens there.
//!
//! It never speaks to the service manager and never stops accepting: its owner does, who has the
//! notifier and the drain, and hands the remaining actions over to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use nix::sys::signal::Signal;

use super::callers::{Callers, Wanted};
use super::channel::{AsyncChannel, Channel, Delivery, ReceiveError, hear};
use super::elder::Elder;
use super::estate::Estate;
use super::failure::{Failure, Reason};
use super::launch::{self, LINK};
use super::machine::{Action, By, Event, Limits, Machine};
use super::message::{Answer, Draining, Grant, Order, Report, Request};
use super::moves::{Exchange, Giver};
use crate::sys::pidfd::Pidfd;
use crate::sys::scm;
use crate::sys::watch::Watched;

/// The old process' side of an upgrade.
#[derive(Debug)]
pub(crate) struct Predecessor {
    machine: Machine,
    callers: Callers,
    estate: Estate,
    /// Who asked last, until it is known whether it may.
    asking: Option<AsyncChannel>,
    /// Who has just asked how things stand.
    curious: Option<AsyncChannel>,
    /// Who started the successor.
    helper: Option<AsyncChannel>,
    /// Our end of the link.
    link: Option<AsyncChannel>,
    successor: Option<(Pidfd, Watched)>,
    /// The oldest version of a connection's state reader that our connections may go to; `None` if
    /// they do not move.
    readable_by: Option<u32>,
    /// The version of the successor's reader, if it takes connections.
    takes: Option<u32>,
    giver: Giver,
    /// Connections are going over.
    preparing: bool,
}

impl Predecessor {
    /// Opens the control socket, from which on upgrades may be asked for. `after` is the process that
    /// this one is to take over from; `readable_by` the oldest version that reads the state of our
    /// connections, if they move at all.
    pub(crate) fn open(
        limits: Limits,
        estate: Estate,
        after: Option<i32>,
        readable_by: Option<u32>,
    ) -> io::Result<Self> {
        Ok(Self {
            machine: Machine::new(limits),
            callers: Callers::open(after)?,
            estate,
            asking: None,
            curious: None,
            helper: None,
            link: None,
            successor: None,
            readable_by,
            takes: None,
            giver: Giver::new(),
            preparing: false,
        })
    }

    /// Whether an upgrade is under way.
    pub(crate) fn under_way(&self) -> bool {
        self.machine.under_way()
    }

    /// Has a successor get these, too.
    pub(crate) fn bequeath(&mut self, fds: Vec<(String, OwnedFd)>) {
        self.estate.add(fds);
    }

    /// Where connections are entered that can be given away.
    pub(crate) fn exchange(&self) -> Exchange {
        self.giver.exchange()
    }

    /// The next thing that happens, or somebody who asks how things stand; `draining` is how many older
    /// processes still drain. Cancel safe.
    pub(crate) async fn event(&mut self, draining: usize) -> Result<Event, AsyncChannel> {
        loop {
            if let Some(event) = self.step(draining).await {
                return Ok(event);
            }
            if let Some(curious) = self.curious.take() {
                return Err(curious);
            }
        }
    }

    async fn step(&mut self, draining: usize) -> Option<Event> {
        let wake_at = self.machine.wake_at();
        // Who the successor is comes before anything that it says; what it says comes before its end,
        // which comes before anything else.
        let link = self.link.as_ref().filter(|_| self.successor.is_some());
        tokio::select! { biased;
            said = hear::<Report>(link) => self.link_event(said),
            said = hear::<Request>(self.helper.as_ref()) => Some(self.helper_event(said)),
            () = gone(self.successor.as_ref()) => self.last_words(),
            (caller, wanted) = self.callers.next() => {
                let looks = wanted == Wanted::Standing;
                *(if looks { &mut self.curious } else { &mut self.asking }) = Some(caller);
                (!looks).then_some(Event::Asked { by: By::Helper, draining })
            }
            () = until(wake_at) => Some(Event::Tick),
        }
    }

    /// What the machine makes of an event.
    pub(crate) fn decide(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle(event, Instant::now())
    }

    /// Lets whoever has just asked wait for its grant.
    pub(crate) fn hold(&mut self) {
        self.helper = self.asking.take();
    }

    /// Gives the helper what it needs to start a successor, and keeps our end of the link.
    pub(crate) fn grant(&mut self) -> Option<Event> {
        self.successor = None;
        let helper = self.asking.take().or_else(|| self.helper.take())?;
        let given = self.lay_link().and_then(|(grant, link)| self.send_grant(&helper, grant, &link));
        self.helper = Some(helper);
        given.err().map(Event::SpawnFailed)
    }

    /// Starts the successor from this process; for SIGHUP.
    pub(crate) async fn launch(&mut self) -> Event {
        match self.start().await {
            Ok(pid) => Event::Spawned { pid },
            Err(failure) => Event::SpawnFailed(failure),
        }
    }

    async fn start(&mut self) -> Result<i32, Failure> {
        let (mut grant, link) = self.lay_link()?;
        let mut fds = self.duplicates().map_err(no_descriptors)?;
        fds.push(link.into());
        grant.names.push(LINK.into());
        let started = tokio::task::spawn_blocking(move || launch::start(&grant, &fds, None)).await;
        let started = started.map_err(|panic| Failure::new(Reason::Spawn, panic.to_string()))??;
        let successor = started.map_err(|error| self.not_executed(&error))?;
        let pid = successor.pid();
        self.watch(successor)?;
        Ok(pid)
    }

    /// Tells whoever just asked that it will not be.
    pub(crate) fn refuse(&mut self, failure: &Failure) {
        if let Some(caller) = self.asking.take() {
            let _ = caller.send(&Answer::Failed(failure.clone()), &[]);
        }
    }

    /// Lets connections go over to the successor, to hold; the next event tells when they have. At
    /// once if it does not take any, or could not read their state.
    pub(crate) fn prepare(&mut self) -> Option<Event> {
        if !self.is_welcome() {
            return Some(Event::Prepared);
        }
        self.giver.call();
        self.preparing = true;
        self.prepared()
    }

    /// Whether the successor takes our connections, and reads their state.
    fn is_welcome(&self) -> bool {
        self.readable_by.zip(self.takes).is_some_and(|(readable_by, takes)| takes >= readable_by)
    }

    /// Offers what is left to offer; when everything was, that is an event.
    fn prepared(&mut self) -> Option<Event> {
        // Without a link: it has just ended, which is the next event.
        let prepared = self.preparing && self.giver.is_prepared(self.link.as_ref()?);
        self.preparing &= !prepared;
        prepared.then_some(Event::Prepared)
    }

    /// Tells the successor to leave, closes the link, and gives all connections back to their tasks.
    pub(crate) fn abort(&mut self) {
        self.preparing = false;
        self.takes = None;
        self.giver.take_back();
        if let Some(link) = self.link.take()
            && link.send(&Order::Abort, &[]).is_err()
        {
            // The end of the link alone would say that this process died, and that the successor is to serve.
            self.kill();
        }
    }

    /// Kills the successor.
    pub(crate) fn kill(&self) {
        if let Some((successor, _)) = &self.successor {
            let _ = successor.signal(Signal::SIGKILL);
        }
    }

    /// Tells the helper that the upgrade failed; there is no successor any more.
    pub(crate) fn report(&mut self, failure: &Failure) {
        (self.successor, self.link) = (None, None);
        if let Some(helper) = self.helper.take() {
            let _ = helper.send(&Answer::Failed(failure.clone()), &[]);
        }
    }

    /// Whether the successor is alive.
    pub(crate) fn successor_lives(&self) -> bool {
        self.successor.as_ref().is_some_and(|(successor, _)| !successor.is_gone().unwrap_or(true))
    }

    /// Gives the service to the successor, together with those who still drain, and tells the helper.
    /// What is left is the link, on which to tell how the drain gets on, and to give away the connections
    /// that come to rest; without a link all that are left stay here.
    pub(crate) fn hand_over(
        mut self,
        pid: i32,
        generation: u64,
        own: Draining,
        elders: &[Elder],
    ) -> (Option<AsyncChannel>, Giver) {
        let draining = [own].into_iter().chain(elders.iter().map(|elder| elder.draining)).collect();
        let links = elders.iter().map(|elder| elder.link.as_fd());
        // All pidfds or none: it is by their places that they are known.
        let this = Pidfd::open(std::process::id().cast_signed()).ok();
        let pidfds = [this.as_ref().map(AsFd::as_fd)].into_iter().chain(elders.iter().map(Elder::pidfd));
        let pidfds: Vec<BorrowedFd<'_>> = pidfds.collect::<Option<_>>().unwrap_or_default();
        let fds: Vec<BorrowedFd<'_>> = links.chain(pidfds).collect();
        let yours = Order::Yours { generation, draining };
        match self.link.as_ref().map(|link| self.giver.conclude(link, || link.send(&yours, &fds))) {
            Some(Ok(())) if self.is_welcome() => self.giver.call_for_good(),
            Some(Ok(())) => {}
            // A successor that is gone again is PID 1's to notice: it is its main process now. One that cannot
            // hear that the service is its own must go: it holds connections that are ours.
            Some(Err(_)) | None => {
                self.kill();
                self.giver.take_back();
                self.link = None;
            }
        }
        if let Some(helper) = self.helper {
            let _ = helper.send(&Answer::Switched { pid }, &[]);
        }
        (self.link, self.giver)
    }

    /// The service stops: nobody can ask for an upgrade any more. What is left is who gives connections
    /// away.
    pub(crate) fn stop(self) -> Giver {
        self.giver
    }

    /// What the machine is to hear of what was said; nothing, if it is about connections.
    fn link_event(&mut self, said: Result<Delivery<Report>, ReceiveError>) -> Option<Event> {
        Some(match said {
            Ok(Delivery { message: Report::Hello { version }, from, .. }) => Event::Hello { version, from },
            Ok(Delivery { message: Report::Ready { takes }, .. }) => {
                self.takes = takes;
                Event::Ready
            }
            Ok(Delivery { message: Report::Taken { batch }, .. }) => return self.answered(batch, true),
            Ok(Delivery { message: Report::Declined { batch }, .. }) => return self.answered(batch, false),
            Ok(Delivery { message: Report::Failed { errno, detail }, .. }) => {
                Event::SuccessorFailed(Failure { reason: Reason::Init, detail, errno })
            }
            Err(ReceiveError::Closed | ReceiveError::Io(_)) => {
                self.link = None;
                return self.last_words();
            }
            Ok(Delivery { message: Report::Stopping, .. }) => {
                let detail = "it stops although the service is not its own";
                Event::SuccessorFailed(Failure::new(Reason::Protocol, detail))
            }
            Err(error) => {
                let detail = format!("the successor cannot be understood: {error}");
                Event::SuccessorFailed(Failure::new(Reason::Protocol, detail))
            }
        })
    }

    fn answered(&mut self, batch: u64, taken: bool) -> Option<Event> {
        if self.giver.answered(batch, taken) {
            return self.prepared();
        }
        let detail =
            format!("the successor answers for connections of batch {batch}, which it was not offered");
        Some(Event::SuccessorFailed(Failure::new(Reason::Protocol, detail)))
    }

    fn helper_event(&mut self, said: Result<Delivery<Request>, ReceiveError>) -> Event {
        let wrong = |what: String| Event::SpawnFailed(Failure::new(Reason::Protocol, what));
        match said {
            Ok(Delivery { message: Request::Spawned { pid }, mut fds, .. }) => match fds.pop() {
                Some(pidfd) => match self.watch(Pidfd::new(pid, pidfd)) {
                    Ok(()) => Event::Spawned { pid },
                    Err(failure) => Event::SpawnFailed(failure),
                },
                None => wrong(format!("`handover reload` sent no pidfd for the successor {pid}")),
            },
            Ok(Delivery { message: Request::Failed(failure), .. }) => Event::SpawnFailed(failure),
            Ok(Delivery { message: Request::NotExecuted { errno }, .. }) => {
                Event::SpawnFailed(self.not_executed(&io::Error::from_raw_os_error(errno)))
            }
            Ok(Delivery {
                message: Request::Upgrade { .. } | Request::Renew { .. } | Request::Standing { .. },
                ..
            }) => wrong("`handover reload` asked twice on one connection".into()),
            Err(ReceiveError::Garbled(error)) => {
                wrong(format!("`handover reload` cannot be understood: {error}"))
            }
            Err(_) => {
                self.helper = None;
                Event::HelperGone
            }
        }
    }

    /// The successor is gone; it may have said why just before, on the link, or on the way there.
    fn last_words(&mut self) -> Option<Event> {
        if let Some(Ok(said)) = self.link.as_ref().map(AsyncChannel::receive_now::<Report>) {
            return self.link_event(Ok(said));
        }
        match self.helper.as_ref().map(AsyncChannel::receive_now::<Request>) {
            Some(Ok(said)) => Some(self.helper_event(Ok(said))),
            _ => Some(Event::SuccessorGone),
        }
    }

    fn not_executed(&self, error: &io::Error) -> Failure {
        Failure::from_io(Reason::Exec, String::from_utf8_lossy(&self.estate.program.path), error)
    }

    /// A new link; its other end, and the grant without it.
    fn lay_link(&mut self) -> Result<(Grant, Channel), Failure> {
        let (ours, theirs) = Channel::pair().map_err(no_descriptors)?;
        self.link = Some(AsyncChannel::new(ours).map_err(no_descriptors)?);
        let names = self.estate.sockets.iter().map(|(name, _)| name.clone()).collect();
        Ok((Grant { names, ..self.estate.program.clone() }, theirs))
    }

    /// Sends the grant, the link as the last of its descriptors, as many at a time as a message carries.
    fn send_grant(&self, helper: &AsyncChannel, mut grant: Grant, link: &Channel) -> Result<(), Failure> {
        grant.names.push(LINK.into());
        let fds: Vec<BorrowedFd<'_>> =
            self.estate.sockets.iter().map(|(_, fd)| fd.as_fd()).chain([link.as_fd()]).collect();
        let mut batches = fds.chunks(scm::MAX_FDS);
        let first = batches.next().unwrap_or_default();
        helper
            .send(&Answer::Grant(grant), first)
            .and_then(|()| batches.try_for_each(|batch| helper.send(&Answer::Descriptors, batch)))
            .map_err(|error| Failure::from_io(Reason::Spawn, "send the sockets to `handover reload`", &error))
    }

    fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        self.estate.sockets.iter().map(|(_, fd)| fd.try_clone()).collect()
    }

    fn watch(&mut self, successor: Pidfd) -> Result<(), Failure> {
        let watched =
            successor.as_fd().try_clone_to_owned().and_then(Watched::new).map_err(no_descriptors)?;
        self.successor = Some((successor, watched));
        Ok(())
    }
}

fn no_descriptors(error: io::Error) -> Failure {
    Failure::from_io(Reason::Spawn, "make the descriptors of an upgrade", &error)
}

/// The end of the successor.
async fn gone(successor: Option<&(Pidfd, Watched)>) {
    match successor {
        Some((_, watched)) if watched.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Waits for a moment; without one, for ever.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
