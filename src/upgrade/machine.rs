//! The machine of the old process: what happens when, during an upgrade. Events in, actions out.
//!
//! ```text
//!              Asked             Spawned            Hello              Ready            Prepared
//!   Serving ----------> Granted ---------> Booting ------> Initialising ----> Preparing ------> Committing
//!    |  ^                  |                  |                 |                |               |     |
//!    |  |                  | SpawnFailed      | HelperGone, SuccessorFailed,     |               |     | Committed
//!    |  |                  | HelperGone       | SuccessorGone, the deadline      |               |     v
//!    |  |                  | the deadline     v                 v                v               |  HandedOver
//!    |  |<-----------------+               Aborting: told to leave, killed later                 |
//!    |  |                                     |                                                  |
//!    |  +------- SuccessorGone ---------------+<----------- CommitFailed, it died ---------------+
//!    |
//!    +-- Terminate, in every state before Committing --> Ending
//!
//! While it prepares, the connections that are between two requests go over to the successor, which
//! holds them and serves them only once the service is its own: an abort gives them back.
//! ```
//!
//! An upgrade that a signal began makes way for one that `handover reload` asks for, which knows the
//! unit's current settings: its successor is told to leave, and then it goes from Aborting to Granted.
//!
//! One upgrade is under way at a time; whatever fails, the machine is back in `Serving` once the
//! successor is gone, and whoever asked is answered exactly once. It never does anything itself:
//! no socket, no process, no clock; the time comes in with each event.

use std::time::{Duration, Instant};

use super::failure::{Failure, Reason};
use super::message::VERSION;

/// How long a successor that was told to leave may take before it is killed.
const LEAVE: Duration = Duration::from_secs(1);

/// Who wants the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// `handover reload`, over the control socket.
    Helper,
    /// SIGHUP.
    Signal,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An upgrade is wanted, while so many older generations still drain.
    Asked { by: By, draining: usize },
    /// The successor exists; it runs from now on.
    Spawned { pid: i32 },
    /// There is no successor, or its program could not be executed.
    SpawnFailed(Failure),
    /// `handover reload` has gone.
    HelperGone,
    /// The successor is there. `from` is who really said it.
    Hello { version: u16, from: Option<i32> },
    /// The successor could serve.
    Ready,
    /// It holds every connection that could go along.
    Prepared,
    /// The successor cannot serve, and says why.
    SuccessorFailed(Failure),
    /// The successor has ended, or has closed its end of the link.
    SuccessorGone,
    /// The service manager has the new main process, which was `alive` after that.
    Committed { alive: bool },
    /// The service manager could not be told.
    CommitFailed(Failure),
    /// The service is to stop: SIGTERM.
    Terminate,
    /// Time has passed.
    Tick,
}

/// What is to be done, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Say in the status that an upgrade is under way.
    AnnounceUpgrade,
    /// Tell the service manager that a reload has begun, which only READY=1 ends.
    AnnounceReload,
    /// Give the helper everything that it needs to start a successor.
    Grant,
    /// Let the helper that has just asked wait for its grant.
    Hold,
    /// Start a successor without a helper.
    Launch,
    /// Tell the one who asked that it will not be, and why; what is under way goes on.
    Refuse(By, Failure),
    /// Tell the successor to leave, and close the link.
    Abort,
    /// Kill the successor.
    Kill,
    /// The upgrade failed: tell the service manager, the journal and whoever asked.
    Report(Failure),
    /// Let the successor have the connections that are between two requests, to hold.
    Prepare,
    /// Tell the service manager about its new main process.
    Commit { pid: i32 },
    /// Speak to the service manager again: the process that it was told about is dead.
    Reclaim,
    /// Give the service to the successor, answer whoever asked, and retire.
    HandOver { pid: i32 },
    /// Stop the service.
    Stop,
}

/// Bounds of an upgrade.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long the successor may take from the request to being ready.
    pub(crate) init_deadline: Duration,
    /// How many older generations may still drain when an upgrade begins.
    pub(crate) max_draining: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Serving,
    Granted {
        by: By,
        until: Instant,
    },
    /// Booting, Initialising or Preparing, as the stage says.
    Coming {
        stage: Stage,
        by: By,
        pid: i32,
        until: Instant,
    },
    Committing {
        pid: i32,
    },
    Aborting {
        next: Next,
        kill_at: Option<Instant>,
    },
    HandedOver,
    Ending,
}

/// How far a successor that runs has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Booting,
    Initialising,
    Preparing,
}

/// What comes once a successor that was told to leave has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    /// The upgrade has failed.
    Report(Failure),
    /// The helper that waits starts another one.
    Grant,
}

/// See the picture above.
#[derive(Debug)]
pub(crate) struct Machine {
    state: State,
    limits: Limits,
}

impl Machine {
    /// A process that serves and has not been asked for anything yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { state: State::Serving, limits }
    }

    /// When [`Event::Tick`] is due at the latest, whatever else happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match &self.state {
            State::Granted { until, .. } | State::Coming { until, .. } => Some(*until),
            State::Aborting { kill_at, .. } => *kill_at,
            State::Serving | State::Committing { .. } | State::HandedOver | State::Ending => None,
        }
    }

    /// Takes an event in and gives out what is to be done about it.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Asked { by, draining } => self.asked(by, draining, now),
            Event::Terminate => self.terminate(),
            Event::Tick => self.tick(now),
            event => self.progress(event, now),
        }
    }

    fn asked(&mut self, by: By, draining: usize, now: Instant) -> Vec<Action> {
        let refusal = match &self.state {
            // PID 1 may send the reload signal *and* run ExecReload=: that is one request. It waits for
            // the helper then, and else for an announcement that is younger than the signal.
            State::Granted { by: By::Helper, .. } | State::Coming { by: By::Helper, .. }
                if by == By::Signal =>
            {
                return vec![];
            }
            _ if by == By::Signal && self.under_way() => return vec![Action::AnnounceReload],
            State::HandedOver | State::Ending => {
                Failure::new(Reason::Ending, "this process is stopping or has handed over already")
            }
            State::Serving if draining >= self.limits.max_draining => Failure::new(
                Reason::TooManyDraining,
                format!(
                    "{draining} older processes still drain; wait for one to leave, or raise max_draining"
                ),
            ),
            State::Serving => return self.begin(by, now),
            State::Coming { by: By::Signal, .. } => return self.make_way(now),
            _ => Failure::new(
                Reason::UnderWay,
                "another upgrade of this service is under way; wait for its end",
            ),
        };
        vec![Action::Refuse(by, refusal)]
    }

    fn begin(&mut self, by: By, now: Instant) -> Vec<Action> {
        self.state = State::Granted { by, until: now + self.limits.init_deadline };
        match by {
            // PID 1 runs the helper, so it knows that the service reloads. Up to 258 it would even wait
            // for our READY=1 after the helper's end, should we be killed, instead of restarting us.
            By::Helper => vec![Action::Grant, Action::AnnounceUpgrade],
            By::Signal => vec![Action::AnnounceReload, Action::Launch],
        }
    }

    /// The successor that a signal started leaves, for the helper that has just asked.
    fn make_way(&mut self, now: Instant) -> Vec<Action> {
        self.state = State::Aborting { next: Next::Grant, kill_at: Some(now + LEAVE) };
        vec![Action::Hold, Action::Abort]
    }

    /// Whether an upgrade is under way.
    pub(crate) fn under_way(&self) -> bool {
        !matches!(self.state, State::Serving | State::HandedOver | State::Ending)
    }

    fn progress(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match (self.state.clone(), event) {
            (State::Granted { by, until }, Event::Spawned { pid }) => {
                self.state = State::Coming { stage: Stage::Booting, by, pid, until };
                vec![]
            }
            (State::Granted { .. }, Event::HelperGone) => self.fail(Failure::helper_lost()),
            (
                State::Granted { .. } | State::Coming { stage: Stage::Booting, .. },
                Event::SpawnFailed(failure),
            ) => self.fail(failure),
            (State::Coming { stage: Stage::Booting, by, pid, until }, Event::Hello { version, from }) => {
                if let Err(failure) = recognise(pid, version, from) {
                    return self.abort(failure, Some(now + LEAVE));
                }
                self.state = State::Coming { stage: Stage::Initialising, by, pid, until };
                vec![]
            }
            (State::Coming { stage: Stage::Initialising, by, pid, until }, Event::Ready) => {
                self.state = State::Coming { stage: Stage::Preparing, by, pid, until };
                vec![Action::Prepare]
            }
            (State::Coming { stage: Stage::Preparing, by, pid, .. }, Event::Prepared) => {
                self.state = State::Committing { pid };
                match by {
                    // From 259 on Type=notify-reload sends the signal after ExecReload=, too, unless a
                    // reload begins and ends meanwhile; the commit ends it.
                    By::Helper => vec![Action::AnnounceReload, Action::Commit { pid }],
                    By::Signal => vec![Action::Commit { pid }],
                }
            }
            (State::Coming { by: By::Helper, .. }, Event::HelperGone) => {
                self.abort(Failure::helper_lost(), Some(now + LEAVE))
            }
            (State::Coming { .. }, Event::SuccessorFailed(failure)) => self.abort(failure, Some(now + LEAVE)),
            (State::Coming { pid, .. }, Event::SuccessorGone) => {
                self.abort(Failure::exited(pid), Some(now + LEAVE))
            }
            (State::Aborting { next: Next::Report(failure), .. }, Event::SuccessorGone) => self.fail(failure),
            (State::Aborting { next: Next::Grant, .. }, Event::SuccessorGone) => {
                self.state = State::Granted { by: By::Helper, until: now + self.limits.init_deadline };
                vec![Action::Grant]
            }
            (State::Aborting { next: Next::Grant, kill_at }, Event::HelperGone) => {
                self.state = State::Aborting { next: Next::Report(Failure::helper_lost()), kill_at };
                vec![]
            }
            (State::Committing { pid }, Event::Committed { alive: true }) => {
                self.state = State::HandedOver;
                vec![Action::HandOver { pid }]
            }
            // PID 1 refuses a dead main process, and then we are still its main process; or it took
            // it, and will stop us soon. To serve on is right in both cases.
            (State::Committing { pid }, Event::Committed { alive: false }) => {
                let mut actions = vec![Action::Reclaim];
                actions.extend(self.fail(Failure::exited(pid)));
                actions
            }
            (State::Committing { .. }, Event::CommitFailed(failure)) => {
                self.abort(failure, Some(now + LEAVE))
            }
            _ => vec![],
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        if self.wake_at().is_none_or(|at| now < at) {
            return vec![];
        }
        let limit = self.limits.init_deadline.as_secs_f64();
        match &mut self.state {
            State::Granted { .. } => {
                self.fail(Failure::new(Reason::Spawn, format!("no successor was started within {limit} s")))
            }
            State::Coming { stage, pid, .. } => {
                let (reason, what, perhaps) = match stage {
                    Stage::Booting => {
                        (Reason::Mute, "did not reach handover", ": it hangs, or is not built on it")
                    }
                    Stage::Initialising => (Reason::NeverReady, "was not ready", ""),
                    Stage::Preparing => {
                        (Reason::NeverReady, "was ready, but did not take the connections", "")
                    }
                };
                let detail = format!("the successor {pid} {what} within {limit} s{perhaps}");
                self.kill(Failure::new(reason, detail))
            }
            State::Aborting { kill_at, .. } => {
                *kill_at = None;
                vec![Action::Kill]
            }
            State::Serving | State::Committing { .. } | State::HandedOver | State::Ending => vec![],
        }
    }

    fn terminate(&mut self) -> Vec<Action> {
        let stopped = Failure::new(Reason::Stopped, "the service was told to stop");
        match std::mem::replace(&mut self.state, State::Ending) {
            State::Serving => vec![Action::Stop],
            State::Granted { .. } => vec![Action::Abort, Action::Report(stopped), Action::Stop],
            State::Coming { .. } => {
                vec![Action::Abort, Action::Kill, Action::Report(stopped), Action::Stop]
            }
            State::Aborting { next, .. } => {
                let failure = match next {
                    Next::Report(failure) => failure,
                    Next::Grant => stopped,
                };
                vec![Action::Kill, Action::Report(failure), Action::Stop]
            }
            state @ (State::Committing { .. } | State::HandedOver | State::Ending) => {
                self.state = state;
                vec![]
            }
        }
    }

    /// There is no successor (any more): report, and serve on.
    fn fail(&mut self, failure: Failure) -> Vec<Action> {
        self.state = State::Serving;
        vec![Action::Abort, Action::Report(failure)]
    }

    /// The successor is to leave; the failure is reported once it has.
    fn abort(&mut self, failure: Failure, kill_at: Option<Instant>) -> Vec<Action> {
        self.state = State::Aborting { next: Next::Report(failure), kill_at };
        vec![Action::Abort]
    }

    /// The successor has had its time.
    fn kill(&mut self, failure: Failure) -> Vec<Action> {
        let mut actions = self.abort(failure, None);
        actions.push(Action::Kill);
        actions
    }
}

/// Whether it is the process that was started, and speaks our language.
fn recognise(pid: i32, version: u16, from: Option<i32>) -> Result<(), Failure> {
    if version != VERSION {
        let detail =
            format!("the successor speaks version {version} of the link, this process version {VERSION}");
        return Err(Failure::new(Reason::Protocol, detail));
    }
    match from {
        Some(from) if from != pid => Err(Failure::new(
            Reason::Protocol,
            format!(
                "process {from} answers for the successor {pid}: a wrapper must exec the service, not fork it"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
