//! What was asked of a service and is not done yet: at most one job each, as systemd has it.
//!
//! A second one like it is merged with the first; a different one takes its place, and whoever waited for
//! the first is told `canceled`. Pure, but for the channels on which those who wait are answered.

use tokio::sync::oneshot;

use super::machine::{Event, Machine, Outcome, State};
use crate::manager::wire::Reply;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Stop,
    Restart,
    Reload,
}

/// The job of a service.
#[derive(Debug)]
pub(crate) struct Installed {
    kind: Kind,
    /// The machine has been told.
    running: bool,
    /// A second one like it came while it ran.
    again: bool,
    waiters: Vec<oneshot::Sender<Reply>>,
}

/// What is to be done about a job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it waits for the machine.
    Wait,
    /// Tell the machine.
    Tell(Event),
    /// It has ended so.
    End(&'static str),
}

impl Installed {
    /// A job that nobody waits for.
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, running: false, again: false, waiters: Vec::new() }
    }

    /// What it does.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the service is to come up again.
    pub(crate) fn is_restart(&self) -> bool {
        matches!(self.kind, Kind::Restart | Kind::Start)
    }

    /// Somebody waits for its end.
    pub(crate) fn add_waiter(&mut self, waiter: oneshot::Sender<Reply>) {
        self.waiters.push(waiter);
    }

    /// Another like it was asked for: a reload that runs is not new enough for that.
    pub(crate) fn merge(&mut self) {
        self.again = self.running && self.kind == Kind::Reload;
    }

    /// Tells everybody who waits.
    pub(crate) fn finish(self, result: &str, why: &str) {
        for waiter in self.waiters {
            // One that does not wait any more needs no answer.
            let _ = waiter.send(Reply::Job { result: result.to_owned(), why: why.to_owned() });
        }
    }

    /// What is to be done, now that the machine is in this state.
    pub(crate) fn step(&mut self, machine: &Machine) -> Step {
        let state = machine.state();
        match self.kind {
            Kind::Start => self.start(machine, state),
            Kind::Stop => match state {
                State::Dead | State::Failed => Step::End("done"),
                _ => self.tell_once(Event::Stop { again: false }),
            },
            Kind::Restart => match state {
                State::Dead | State::Failed => {
                    (self.kind, self.running) = (Kind::Start, false);
                    self.start(machine, state)
                }
                _ => self.tell_once(Event::Stop { again: true }),
            },
            Kind::Reload => self.reload(machine, state),
        }
    }

    fn tell_once(&mut self, event: Event) -> Step {
        if std::mem::replace(&mut self.running, true) { Step::Wait } else { Step::Tell(event) }
    }

    fn start(&mut self, machine: &Machine, state: State) -> Step {
        let ended = || if machine.result() == Outcome::Success { "done" } else { "failed" };
        match state {
            _ if state.is_starting() => {
                self.running = true;
                Step::Wait
            }
            _ if state.is_stopping() => Step::Wait,
            State::Failed if self.running => Step::End("failed"),
            State::Dead if self.running && machine.result() == Outcome::ExecCondition => Step::End("skipped"),
            State::Dead | State::AutoRestart if self.running => Step::End(ended()),
            State::Dead | State::Failed | State::AutoRestart => self.tell_once(Event::Start),
            _ => Step::End("done"),
        }
    }

    fn reload(&mut self, machine: &Machine, state: State) -> Step {
        match state {
            _ if state.is_reloading() => Step::Wait,
            State::Running | State::Exited if !self.running || self.again => {
                (self.running, self.again) = (true, false);
                Step::Tell(Event::Reload)
            }
            State::Running | State::Exited if machine.reload_result() == Outcome::Success => {
                Step::End("done")
            }
            State::Running | State::Exited => Step::End("failed"),
            _ if !self.running => Step::End("invalid"),
            _ if machine.reload_result() != Outcome::Success => Step::End("failed"),
            _ => Step::End("canceled"),
        }
    }
}
