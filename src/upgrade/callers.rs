//! Those who connect to the control socket, until they have said what they want.
//!
//! An upgrade waits for nobody here: another user is turned away at once, a caller who says nothing
//! is dropped after a moment, and of too many silent ones the oldest goes first, unless it has spoken
//! meanwhile. Nothing in here starts an upgrade, and only a runner is told of who wants less than that.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::channel::{AsyncChannel, Channel, Delivery};
use super::control;
use super::failure::{Failure, Reason};
use super::message::{Answer, Request, VERSION};
use crate::sys::watch::Watched;

/// How long a caller may be silent.
const SILENCE: Duration = Duration::from_secs(2);

/// How many may be silent at a time.
const SILENT: usize = 16;

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// An upgrade of the service.
    Upgrade,
    /// That a runner executes itself anew.
    Renewal,
    /// To know how it stands.
    Standing,
}

/// The control socket and whoever has connected to it.
#[derive(Debug)]
pub(crate) struct Callers {
    listener: Watched,
    /// The process that this one took over from.
    after: Option<i32>,
    /// This process is a runner.
    is_runner: bool,
    /// Who has not spoken yet, and until when it may; the oldest first.
    silent: VecDeque<(AsyncChannel, Instant)>,
}

impl Callers {
    /// Opens the control socket of a process that takes over from `after`, if from any.
    pub(crate) fn open(after: Option<i32>) -> io::Result<Self> {
        let listener = Watched::new(control::open(after)?)?;
        Ok(Self { listener, after, is_runner: false, silent: VecDeque::new() })
    }

    /// Those of a runner; on the control socket that it had before it executed itself anew, if it did.
    #[cfg(feature = "cli")]
    pub(crate) fn of_runner(before: Option<std::os::fd::OwnedFd>) -> io::Result<Self> {
        let listener = Watched::new(before.map_or_else(|| control::open(None), Ok)?)?;
        Ok(Self { listener, after: None, is_runner: true, silent: VecDeque::new() })
    }

    /// The control socket.
    #[cfg(feature = "cli")]
    pub(crate) fn socket(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.listener)
    }

    /// The next one who asks for an upgrade. Cancel safe.
    pub(crate) async fn next(&mut self) -> (AsyncChannel, Wanted) {
        loop {
            let patience = self.silent.front().map(|(_, until)| *until);
            let spoken = tokio::select! {
                spoken = std::future::poll_fn(|context| poll_spoken(&mut self.silent, context)) => Some(spoken),
                accepted = self.listener.try_when_readable(control::accept) => match accepted {
                    Ok(caller) => self.welcome(caller),
                    // No descriptors left: the caller waits in the queue until there are.
                    Err(_) => {
                        tokio::time::sleep(SILENCE / 10).await;
                        None
                    }
                },
                () = super::predecessor::until(patience) => {
                    self.silent.pop_front();
                    None
                }
            };
            if let Some(caller) = spoken.and_then(|(caller, request)| self.understand(caller, request)) {
                return caller;
            }
        }
    }

    /// Lets a caller in; in a crowd the oldest has to go, and may have spoken by now.
    fn welcome(&mut self, caller: Result<Channel, (Channel, Failure)>) -> Option<(AsyncChannel, Request)> {
        let caller = match caller {
            Ok(caller) => caller,
            Err((stranger, failure)) => {
                let _ = stranger.send(&Answer::Failed(failure), &[]);
                return None;
            }
        };
        let oldest = if self.silent.len() < SILENT { None } else { self.silent.pop_front() };
        // One that cannot be watched is dropped, and sees it.
        self.silent.extend(AsyncChannel::new(caller).ok().map(|caller| (caller, Instant::now() + SILENCE)));
        let (oldest, _) = oldest?;
        let said = oldest.receive_now::<Request>().ok()?;
        Some((oldest, said.message))
    }

    /// Hears what a caller wants; gives it back if that is an upgrade that is still to be.
    fn understand(&self, caller: AsyncChannel, request: Request) -> Option<(AsyncChannel, Wanted)> {
        let allowed = control::may_change(&caller);
        let answer = match request {
            Request::Standing { version: VERSION } => return Some((caller, Wanted::Standing)),
            // Root, who may look at everything.
            Request::Upgrade { .. } | Request::Renew { .. } if allowed.is_err() => {
                Answer::Failed(allowed.err()?)
            }
            Request::Upgrade { version: VERSION, main } if self.after != Some(main) => {
                return Some((caller, Wanted::Upgrade));
            }
            Request::Renew { version: VERSION, .. } if self.is_runner => {
                return Some((caller, Wanted::Renewal));
            }
            // It was told of our predecessor, just before that handed over to us.
            Request::Upgrade { version: VERSION, .. } => {
                Answer::Switched { pid: std::process::id().cast_signed() }
            }
            Request::Renew { version: VERSION, .. } => {
                let detail = "the service is no `handover run`, and has no runner that could be renewed";
                Answer::Failed(Failure::new(Reason::NoService, detail))
            }
            Request::Upgrade { version, .. }
            | Request::Renew { version, .. }
            | Request::Standing { version } => {
                let detail =
                    format!("`handover reload` speaks version {version}, the service version {VERSION}");
                Answer::Failed(Failure::new(Reason::Protocol, detail))
            }
            Request::Spawned { .. } | Request::Failed(_) | Request::NotExecuted { .. } => return None,
        };
        // It need not wait for the answer.
        let _ = caller.send(&answer, &[]);
        None
    }
}

/// The next caller who has said something that makes sense; the others are dropped.
fn poll_spoken(
    silent: &mut VecDeque<(AsyncChannel, Instant)>,
    context: &mut Context<'_>,
) -> Poll<(AsyncChannel, Request)> {
    let mut place = 0;
    while let Some((caller, _)) = silent.get(place) {
        match caller.poll_receive::<Request>(context) {
            Poll::Pending => place += 1,
            Poll::Ready(said) => {
                if let (Some((caller, _)), Ok(Delivery { message, .. })) = (silent.remove(place), said) {
                    return Poll::Ready((caller, message));
                }
            }
        }
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADE: Request = Request::Upgrade { version: VERSION, main: 7 };

    /// Of all the sockets that the tests of this process have open, the one of the test that opened it
    /// with `after`.
    fn caller(after: i32) -> Channel {
        control::find(after, Duration::ZERO).unwrap()
    }

    async fn assert_heard(callers: &mut Callers, speaker: &Channel) {
        let (heard, _) = tokio::time::timeout(SILENCE / 2, callers.next()).await.unwrap();
        heard.send(&Answer::Switched { pid: 7 }, &[]).unwrap();
        assert_eq!(speaker.receive_now::<Answer>().unwrap().message, Answer::Switched { pid: 7 });
    }

    #[tokio::test]
    async fn idle_callers_do_not_hold_up_one_who_speaks() {
        let mut callers = Callers::open(Some(i32::MAX - 10)).unwrap();
        let early: Vec<_> = (0..SILENT * 3).map(|_| caller(i32::MAX - 10)).collect();
        let speaker = caller(i32::MAX - 10);
        speaker.send(&UPGRADE, &[]).unwrap();
        let late: Vec<_> = (0..SILENT * 3).map(|_| caller(i32::MAX - 10)).collect();
        assert_heard(&mut callers, &speaker).await;
        drop((early, late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_says_nothing_is_dropped_after_a_moment() {
        let mut callers = Callers::open(Some(i32::MAX - 11)).unwrap();
        let idle = caller(i32::MAX - 11);
        let gone = async { AsyncChannel::new(idle).unwrap().receive::<Answer>().await };
        tokio::select! {
            _ = callers.next() => panic!("it has said nothing"),
            end = gone => assert!(end.is_err()),
        }
    }

    #[tokio::test]
    async fn nonsense_and_foreign_versions_are_turned_away() {
        let mut callers = Callers::open(Some(i32::MAX - 12)).unwrap();
        let (wrong, foreign) = (caller(i32::MAX - 12), caller(i32::MAX - 12));
        wrong.send(&Request::Spawned { pid: 1 }, &[]).unwrap();
        foreign.send(&Request::Upgrade { version: 999, main: 7 }, &[]).unwrap();
        tokio::select! {
            _ = callers.next() => panic!("neither of them may ask"),
            () = async {
                let foreign = AsyncChannel::new(foreign).unwrap();
                let answer = foreign.receive::<Answer>().await.unwrap().message;
                assert!(matches!(answer, Answer::Failed(failure) if failure.reason == Reason::Protocol));
                let wrong = AsyncChannel::new(wrong).unwrap();
                assert!(wrong.receive::<Answer>().await.is_err());
            } => {}
        }
    }

    #[tokio::test]
    async fn one_who_wants_our_predecessor_replaced_is_told_that_it_has_been() {
        let mut callers = Callers::open(Some(i32::MAX - 13)).unwrap();
        let late = caller(i32::MAX - 13);
        late.send(&Request::Upgrade { version: VERSION, main: i32::MAX - 13 }, &[]).unwrap();
        let pid = std::process::id().cast_signed();
        tokio::select! {
            _ = callers.next() => panic!("there is nothing left to do"),
            answer = async { AsyncChannel::new(late).unwrap().receive::<Answer>().await } => {
                assert_eq!(answer.unwrap().message, Answer::Switched { pid });
            }
        }
    }
}
