//! Those who drain: older processes with work in flight, as the main process sees them.
//!
//! Each has a link, on which it tells how it gets on and gives away connections that come to rest. What
//! it says is for the main process alone; nothing in here ends an older process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use super::channel::{AsyncChannel, Channel, Delivery, ReceiveError};
use super::message::{Draining, Order};
use super::moves::{Arrival, Taker};
use crate::fdstore::Drainer;
use crate::sys::watch::Watched;
use crate::sys::{pidfd, process};

/// How long those who drain may take to say whose connections are that they gave us. They say it at once,
/// unless they are stopped.
const SETTLING: Duration = Duration::from_secs(1);

/// An older process that still drains, and how we hear of it.
#[derive(Debug)]
pub(crate) struct Elder {
    /// Our end of its link.
    pub(crate) link: AsyncChannel,
    /// Its pidfd. Its link may end before: KillMode=mixed kills what is still there when the main
    /// process has ended, be it a process that only has to exit.
    process: Option<Watched>,
    /// Whether its link has ended.
    silent: bool,
    /// Whether connections that it gives away are taken.
    pub(crate) welcome: bool,
    /// What we hold of it.
    taker: Taker,
    /// What it said last.
    pub(crate) draining: Draining,
    /// Since when and until when it drains, in milliseconds of CLOCK_BOOTTIME.
    since_ms: u64,
    until_ms: u64,
}

impl Elder {
    /// An older process behind `link`. Without a pidfd, or where it cannot be watched, the end of the
    /// link must do.
    fn new(link: AsyncChannel, pidfd: Option<OwnedFd>, draining: Draining) -> Self {
        let process = pidfd.and_then(|pidfd| Watched::new(pidfd).ok());
        let since_ms = process::boottime_ms();
        let until_ms = since_ms.saturating_add(draining.left_ms);
        let taker = Taker::default();
        Self { link, process, silent: false, welcome: false, taker, draining, since_ms, until_ms }
    }

    /// What the record says of it.
    pub(crate) fn drainer(&self) -> Drainer {
        let Self { since_ms, until_ms, .. } = *self;
        let pidfd_inode = self.pidfd().and_then(pidfd::inode);
        Drainer { pid: self.draining.pid, pidfd_inode, since_ms, until_ms }
    }

    /// What it said last, with the time that is left by now.
    pub(crate) fn now(&self) -> Draining {
        let left_ms = self.until_ms.saturating_sub(process::boottime_ms());
        Draining { left_ms: left_ms.min(self.draining.left_ms), ..self.draining }
    }

    /// What it does, in words.
    pub(crate) fn describe(&self) -> String {
        let Draining { pid, in_flight, left_ms } = self.draining;
        format!("{pid} drains ({in_flight} in flight, {} s left)", left_ms.div_ceil(1000))
    }

    /// Its pidfd, if it is known.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(AsFd::as_fd)
    }

    /// Hears of one of `elders` who has something new to say, or has left and is taken out. Never
    /// resolves while there are none. Cancel safe.
    pub(crate) async fn next_change(elders: &mut Vec<Self>) -> Change {
        std::future::poll_fn(|context| Self::poll_change(elders, context)).await
    }

    fn poll_change(elders: &mut Vec<Self>, context: &mut Context<'_>) -> Poll<Change> {
        for place in 0..elders.len() {
            match elders[place].poll(context) {
                Poll::Pending => continue,
                Poll::Ready(Some(change)) => return Poll::Ready(change),
                Poll::Ready(None) => drop(elders.remove(place)),
            }
            return Poll::Ready(Change::Drain);
        }
        Poll::Pending
    }

    /// Hears of those of `elders` whose connections we hold, until it is known whose each is: who has
    /// their links after us does not hold them. What they offer from then on waits in the links.
    pub(crate) async fn settle(elders: &mut [Self]) -> Vec<Change> {
        let mut changes = Vec::new();
        let settled = std::future::poll_fn(|context| {
            let mut open = false;
            for elder in elders.iter_mut() {
                while !elder.silent && !elder.taker.is_empty() {
                    let Poll::Ready(said) = elder.link.poll_receive(context) else {
                        open = true;
                        break;
                    };
                    changes.extend(elder.heard(said));
                }
            }
            if open { Poll::Pending } else { Poll::Ready(()) }
        });
        let _ = tokio::time::timeout(SETTLING, settled).await;
        changes
    }

    /// What is new; `None` once it has left.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Change>> {
        while !self.silent {
            let Poll::Ready(said) = self.link.poll_receive(context) else { break };
            if let Some(change) = self.heard(said) {
                return Poll::Ready(Some(change));
            }
        }
        match &self.process {
            Some(process) => process.poll_try(context, |_| Ok(())).map(|_| None),
            None if self.silent => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn heard(&mut self, said: Result<Delivery<Order>, ReceiveError>) -> Option<Change> {
        let Ok(said) = said else {
            self.silent = true;
            // It is gone, or will never say whose they are: nobody else serves them.
            let left = self.taker.all();
            return (!left.is_empty()).then_some(Change::Arrived(left));
        };
        match said.message {
            Order::Draining(draining) => {
                self.draining = draining;
                Some(Change::Drain)
            }
            Order::Ended { names } => Some(Change::Ended(names)),
            order => {
                let say = |answer: &_| self.link.send(answer, &[]);
                let arrivals = self.taker.obey(order, said.fds, self.welcome, say).ok()?;
                (!arrivals.is_empty()).then_some(Change::Arrived(arrivals))
            }
        }
    }
}

/// What is new about those who drain.
#[derive(Debug)]
pub(crate) enum Change {
    /// One has got on, or has left.
    Drain,
    /// One gave connections away: they are ours.
    Arrived(Vec<Arrival>),
    /// Entries of the fd store that one was the last to use.
    Ended(Vec<String>),
}

/// The predecessor and those who drained before it, paired with what it said of them. The service is
/// ours: one who cannot be followed is no reason not to serve.
pub(super) fn elders(link: AsyncChannel, draining: Vec<Draining>, fds: Vec<OwnedFd>) -> Vec<Elder> {
    let (mut fds, older) = (fds.into_iter(), draining.len().saturating_sub(1));
    let older_links: Vec<_> = fds.by_ref().take(older).collect();
    let older_links = older_links.into_iter().map(|fd| AsyncChannel::new(Channel::new(fd)).ok());
    let pidfds = fds.map(Some).chain(std::iter::repeat_with(|| None));
    let links = [Some(link)].into_iter().chain(older_links);
    let told = links.zip(pidfds).zip(draining);
    told.filter_map(|((link, pidfd), draining)| Some(Elder::new(link?, pidfd, draining))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::Pidfd;
    use crate::upgrade::message::Report;
    use crate::upgrade::moves::{Family, Giver};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};
    use std::task::Waker;

    #[tokio::test]
    async fn an_elder_has_left_when_its_process_has_and_not_when_it_is_silent() {
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let pidfd = Pidfd::open(cat.id().cast_signed()).unwrap().into();
        let mut elders = elders(AsyncChannel::new(ours).unwrap(), vec![Draining::default()], vec![pidfd]);
        let draining = Draining { in_flight: 1, ..Draining::default() };
        theirs.send(&Order::Draining(draining), &[]).unwrap();
        Elder::next_change(&mut elders).await;
        assert_eq!(elders[0].draining, draining);

        drop(theirs);
        assert!(tokio::time::timeout(Duration::ZERO, Elder::next_change(&mut elders)).await.is_err());
        drop(cat.stdin.take());
        Elder::next_change(&mut elders).await;
        assert!(elders.is_empty());
        assert!(cat.try_wait().unwrap().is_some());
    }

    #[tokio::test]
    async fn whose_connections_are_is_heard_before_somebody_else_has_the_link() {
        let channel = |channel: Channel| AsyncChannel::new(channel).unwrap();
        let (ours, theirs) = Channel::pair().map(|(ours, theirs)| (channel(ours), channel(theirs))).unwrap();
        let mut elders = elders(ours, vec![Draining::default()], Vec::new());
        elders[0].welcome = true;
        let mut giver = Giver::new();
        let offer = |giver: &mut Giver| {
            let slot = giver.exchange().enter(Family::Unix, UnixStream::pair().unwrap().0, Vec::new());
            assert!(slot.poll_rest(&mut Context::from_waker(Waker::noop())).is_pending());
            giver.call();
            assert!(!giver.is_prepared(&theirs));
            slot
        };
        let _first = offer(&mut giver);
        assert!(tokio::time::timeout(Duration::ZERO, Elder::next_change(&mut elders)).await.is_err());
        assert!(matches!(theirs.receive().await.unwrap().message, Report::Taken { batch: 1 }));
        assert!(giver.answered(1, true));
        giver.conclude(&theirs, || theirs.send(&Order::Serve { batch: 1 }, &[])).unwrap();
        let _second = offer(&mut giver);

        let changes = Elder::settle(&mut elders).await;
        assert!(matches!(&changes[..], [Change::Arrived(arrivals)] if arrivals.len() == 1), "{changes:?}");
        let waiting = elders[0].link.receive_now::<Order>().unwrap().message;
        assert!(matches!(waiting, Order::Offer { batch: 2, .. }), "{waiting:?}");
    }

    #[tokio::test]
    async fn whoever_is_older_comes_with_its_own_link_and_its_own_pidfd() {
        let channel = |channel: Channel| AsyncChannel::new(channel).unwrap();
        let ((mine, _), (older, _)) = (Channel::pair().unwrap(), Channel::pair().unwrap());
        let pidfd = || Pidfd::open(std::process::id().cast_signed()).unwrap().into();
        let told =
            vec![Draining { pid: 2, ..Draining::default() }, Draining { pid: 1, ..Draining::default() }];
        let fds = vec![older.as_fd().try_clone_to_owned().unwrap(), pidfd(), pidfd()];
        let followed = elders(channel(mine), told.clone(), fds);
        assert_eq!(followed.iter().map(|elder| elder.draining).collect::<Vec<_>>(), told);
        assert!(followed.iter().all(|elder| elder.pidfd().is_some()));

        let (mine, _) = Channel::pair().unwrap();
        let followed = elders(channel(mine), told, vec![older.as_fd().try_clone_to_owned().unwrap()]);
        assert_eq!(followed.len(), 2);
        assert!(followed.iter().all(|elder| elder.pidfd().is_none()));
    }
}
