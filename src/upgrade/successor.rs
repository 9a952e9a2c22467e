//! The new process: says hello, gets ready, and takes the service over.
//!
//! ```text
//!   Successor::find --Hello--> ... initialise ... --Ready--> Yours        -> Takeover
//!        |                           |                |----> Abort        -> leave
//!        |                           |                `----> (it died)    -> Takeover, unconfirmed
//!        `- no link: PID 1 started us`- (it died), Abort                  -> leave
//! ```
//!
//! A successor that said Ready and then finds its predecessor dead serves: whether it is the main
//! process is for PID 1 to decide. One that has not said it leaves. It never touches the service
//! manager: until the predecessor handed over, PID 1 would drop what it says.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use super::channel::{AsyncChannel, Channel, Delivery, ReceiveError};
use super::failure::{Failure, Reason};
use super::launch::LINK;
use super::message::{Draining, Order, Report, VERSION};
use crate::activation::{Inherited, Kind, Passed, Role, Transport};
use crate::sys::seqpacket;
use crate::sys::watch::Watched;

/// This process, while its predecessor still serves.
#[derive(Debug)]
pub(crate) struct Successor {
    link: Option<Channel>,
    /// The last thing that went wrong, to be told if this process gives up.
    trouble: Option<String>,
}

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
    /// What it said last.
    pub(crate) draining: Draining,
}

impl Elder {
    /// An older process behind `link`. Without a pidfd, or where it cannot be watched, the end of the
    /// link must do.
    fn new(link: AsyncChannel, pidfd: Option<OwnedFd>, draining: Draining) -> Self {
        let process = pidfd.and_then(|pidfd| Watched::new(pidfd).ok());
        Self { link, process, silent: false, draining }
    }

    /// Its pidfd, if it is known.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(AsFd::as_fd)
    }

    /// Hears of one of `elders` who has something new to say, or has left and is taken out. Never
    /// resolves while there are none. Cancel safe.
    pub(crate) async fn next_change(elders: &mut Vec<Self>) {
        std::future::poll_fn(|context| Self::poll_change(elders, context)).await;
    }

    fn poll_change(elders: &mut Vec<Self>, context: &mut Context<'_>) -> Poll<()> {
        for place in 0..elders.len() {
            match elders[place].poll(context) {
                Poll::Pending => continue,
                Poll::Ready(News::Said(draining)) => elders[place].draining = draining,
                Poll::Ready(News::Left) => drop(elders.remove(place)),
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<News> {
        if !self.silent {
            match self.link.poll_receive::<Order>(context) {
                Poll::Ready(Ok(Delivery { message: Order::Draining(draining), .. })) => {
                    return Poll::Ready(News::Said(draining));
                }
                Poll::Ready(_) => self.silent = true,
                Poll::Pending => {}
            }
        }
        match &self.process {
            Some(process) => process.poll_try(context, |_| Ok(())).map(|_| News::Left),
            None if self.silent => Poll::Ready(News::Left),
            None => Poll::Pending,
        }
    }
}

/// What is new about an elder.
enum News {
    /// So much is left.
    Said(Draining),
    /// It is gone.
    Left,
}

/// The service is ours.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// One more than the predecessor's; counted anew from 1 if it could not tell.
    pub(crate) generation: u64,
    /// Whoever drains; the predecessor first.
    pub(crate) elders: Vec<Elder>,
    /// The predecessor told PID 1 and said so. If not, it died when we were ready.
    pub(crate) confirmed: bool,
}

impl Successor {
    /// Takes the link out of what was passed, and says hello. `None` when there is no link: this
    /// process was started by PID 1, or by hand.
    ///
    /// Fails with `Protocol` when what is passed as the link is none, or more than one is.
    pub(crate) fn find(inherited: &mut Inherited) -> Result<Option<Self>, Failure> {
        let mut links = inherited.take_reserved(LINK);
        let Some(link) = links.pop() else { return Ok(None) };
        if !links.is_empty() {
            return Err(Failure::new(
                Reason::Protocol,
                format!("{} descriptors are named {LINK}", links.len() + 1),
            ));
        }
        let link = Channel::new(connected(link)?);
        link.send(&Report::Hello { version: VERSION }, &[]).map_err(|error| {
            Failure::from_io(Reason::PredecessorLost, "say hello to the predecessor", &error)
        })?;
        Ok(Some(Self { link: Some(link), trouble: None }))
    }

    /// The process that this one is to take over from: who made the link, as the kernel vouches.
    pub(crate) fn predecessor(&self) -> Option<i32> {
        Some(seqpacket::peer(self.link.as_ref()?.as_fd()).ok()?.pid)
    }

    /// Remembers what went wrong.
    pub(crate) fn note_trouble(&mut self, trouble: impl fmt::Display) {
        self.trouble = Some(trouble.to_string());
    }

    /// Says Ready and waits to be given the service.
    ///
    /// Fails when this process is not needed (any more); it must leave then, having served nobody.
    pub(crate) async fn ready(mut self) -> Result<Takeover, Failure> {
        let Some(link) = self.link.take() else { return Err(not_needed("the link is closed")) };
        let link = AsyncChannel::new(link).map_err(|error| not_needed(&error))?;
        // An order that is there already can only be to leave.
        match link.receive_now::<Order>() {
            Err(ReceiveError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(not_needed(&error)),
            Ok(_) => return Err(not_needed("the predecessor aborted the upgrade")),
        }
        link.send(&Report::Ready, &[]).map_err(|error| not_needed(&error))?;
        match link.receive::<Order>().await {
            Ok(Delivery { message: Order::Yours { generation, draining }, fds, .. }) => {
                Ok(Takeover { generation, elders: elders(link, draining, fds), confirmed: true })
            }
            Ok(Delivery { message: Order::Abort, .. }) => {
                Err(not_needed("the predecessor aborted the upgrade"))
            }
            // It died, or what it said did not arrive whole: no order to leave, and PID 1 may have made
            // this process the main process already.
            Ok(_) | Err(_) => Ok(Takeover { generation: 1, elders: Vec::new(), confirmed: false }),
        }
    }
}

impl Drop for Successor {
    /// A process that gives up before it was ready says why, and its predecessor need not guess.
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        let detail = self.trouble.take().unwrap_or_else(|| "it gave up before it was ready".into());
        // The predecessor sees the end of the link in any case.
        let _ = link.send(&Report::Failed { errno: libc::ECANCELED, detail: cut(&detail) }, &[]);
    }
}

/// The predecessor and those who drained before it, paired with what it said of them. The service is
/// ours: one who cannot be followed is no reason not to serve.
fn elders(link: AsyncChannel, draining: Vec<Draining>, fds: Vec<OwnedFd>) -> Vec<Elder> {
    let (mut fds, older) = (fds.into_iter(), draining.len().saturating_sub(1));
    let older_links: Vec<_> = fds.by_ref().take(older).collect();
    let older_links = older_links.into_iter().map(|fd| AsyncChannel::new(Channel::new(fd)).ok());
    let pidfds = fds.map(Some).chain(std::iter::repeat_with(|| None));
    let links = [Some(link)].into_iter().chain(older_links);
    let told = links.zip(pidfds).zip(draining);
    told.filter_map(|((link, pidfd), draining)| Some(Elder::new(link?, pidfd, draining))).collect()
}

fn not_needed(why: impl fmt::Display) -> Failure {
    Failure::new(Reason::PredecessorLost, format!("this process is not needed and leaves: {why}"))
}

/// The socket, if it can be a link.
fn connected(link: Passed) -> Result<OwnedFd, Failure> {
    match link.into_parts() {
        (_, fd, Kind::Socket(Transport::UnixSeqpacket, Role::Connected)) => Ok(fd),
        (name, _, kind) => {
            let detail = format!("{name} must be a connected unix seqpacket socket, and is a {kind}");
            Err(Failure::new(Reason::Protocol, detail))
        }
    }
}

/// No more than a message carries.
fn cut(text: &str) -> String {
    const LONGEST: usize = 2000;
    text.char_indices().take_while(|(at, _)| *at < LONGEST).map(|(_, c)| c).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pidfd::Pidfd;
    use std::process::{Command, Stdio};
    use std::time::Duration;

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
