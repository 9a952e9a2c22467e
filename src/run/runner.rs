//! The runner: hears what happens, asks the machine, and does what it says. It is the main process of the
//! service for good; generations are its children.
//!
//! One loop owns every transition. It never decides what follows from what: the machine does.

mod act;
mod ask;
mod begin;
mod kept;
mod look;
mod memory;
mod renew;

pub(crate) use self::begin::run;
pub(crate) use self::renew::self_test;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use self::memory::Memory;
use self::renew::Renewal;
use super::fence::Ground;
use super::generation::{Fact, Generation, reap};
use super::intercept::{self, Asked};
use super::journal::{Entry, Journal};
use super::machine::{Event, Machine};
use super::options::Options;
use super::relay::{Relays, Stray};
use super::settings::Settings;
use super::slots::Slots;
use crate::notify::{Message, Notifier};
use crate::sys::steer::Steering;
use crate::upgrade::callers::{Callers, Wanted};
use crate::upgrade::channel::{AsyncChannel, ReceiveError};
use crate::upgrade::message::Request;
use crate::upgrade::{Failure, Reason};

/// How long PID 1 may take to hear something.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the banner.
pub(crate) struct Runner {
    options: Options,
    slots: Slots,
    machine: Machine,
    generations: BTreeMap<u64, Generation>,
    ground: Option<Ground>,
    notifier: Notifier,
    journal: Journal,
    relays: Relays,
    callers: Callers,
    /// Who has just asked.
    asking: Option<AsyncChannel>,
    /// Who waits for its answer.
    waiting: Option<AsyncChannel>,
    /// Commands of probes that run, by pid.
    probes: HashMap<i32, oneshot::Sender<bool>>,
    tell: mpsc::UnboundedSender<Fact>,
    tell_stray: mpsc::UnboundedSender<Stray>,
    /// When to look again, whatever happens until then.
    next_look: Option<Instant>,
    /// Nothing was to be looked for any more at the last look.
    rests: bool,
    /// Slots at which a relay was told of.
    relayed: Vec<usize>,
    /// Why the generation that went last had not got ready.
    trouble: Option<(Reason, String)>,
    /// Of which generation the journal has that it lives.
    told_live: Option<u64>,
    /// The name under which PID 1 keeps the live generation.
    live_name: Option<String>,
    /// What new generations run with, if not with what the runner does.
    settings: Option<Settings>,
    /// The same for the one that somebody has just asked for.
    fresh_settings: Option<Settings>,
    /// PID 1 was told RELOADING=1, and waits for READY=1.
    reloading: bool,
    /// What the next runner finds when this one is killed.
    memory: Memory,
    /// The runner is about to execute itself anew.
    renewal: Option<Renewal>,
    /// Where new connections go, but for those of probes.
    steering: Steering,
    /// Nobody is let in at the moment.
    is_shut: bool,
    /// What the last upgrade failed with.
    last_failure: Option<Failure>,
    status: String,
    end: Option<Result<(), Failure>>,
}

/// What the loop waits for beside the machine's own times.
struct Ears {
    facts: mpsc::UnboundedReceiver<Fact>,
    strays: mpsc::UnboundedReceiver<Stray>,
    child: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Something that has happened.
enum Heard {
    Fact(Fact),
    Stray(Stray),
    Child,
    Stop,
    Hangup,
    Caller(AsyncChannel, Wanted),
    CallerGone,
    Time,
}

impl Runner {
    async fn serve(&mut self, ears: &mut Ears, events: Vec<Event>) -> Result<(), Failure> {
        let mut events = VecDeque::from(events);
        loop {
            while let Some(event) = events.pop_front() {
                for action in self.machine.handle(event, Instant::now()) {
                    events.extend(self.act(action).await);
                }
            }
            if let Some(end) = self.end.take() {
                return end;
            }
            self.tend();
            self.tell_status().await;
            self.write_down().await;
            events.extend(self.renew(ears).await);
            // What was heard while the next runner was to be executed may have no consequence.
            if !events.is_empty() || self.renewal.as_ref().is_some_and(Renewal::is_due) {
                continue;
            }
            let until = self.machine.wake_at().into_iter().chain(self.next_look).min();
            let heard = tokio::select! { biased;
                heard = ears.next() => heard,
                (caller, wanted) = self.callers.next() => Heard::Caller(caller, wanted),
                () = gone(self.waiting.as_ref()) => Heard::CallerGone,
                () = due(until) => Heard::Time,
            };
            events.extend(self.learn(heard).await);
        }
    }

    /// What the machine is to hear of what has happened.
    async fn learn(&mut self, heard: Heard) -> Vec<Event> {
        match heard {
            Heard::Fact(fact) => self.learn_fact(fact).await,
            Heard::Stray(Stray::Connection { slot }) => {
                if !self.relayed.contains(&slot) {
                    self.relayed.push(slot);
                    self.journal.write(Entry::Relayed { slot });
                }
                vec![]
            }
            Heard::Stray(Stray::Datagrams { slot, count }) => {
                self.journal.write(Entry::Dropped { slot, count });
                vec![]
            }
            Heard::Child => self.children_ended(),
            Heard::Stop => {
                let _ = self.notifier.notify(&Message::stopping(), PATIENCE).await;
                vec![Event::Terminate]
            }
            Heard::Hangup => self.called(None, Wanted::Upgrade).await,
            Heard::Caller(caller, wanted) => self.called(Some(caller), wanted).await,
            Heard::CallerGone => {
                self.waiting = None;
                vec![Event::CallerGone]
            }
            Heard::Time => {
                let mut events = vec![Event::Tick];
                if self.next_look.is_some_and(|at| at <= Instant::now()) {
                    events.extend(self.look());
                }
                events
            }
        }
    }

    async fn learn_fact(&mut self, fact: Fact) -> Vec<Event> {
        match fact {
            Fact::Asks(number, notification) => {
                let may_open = !self.slots.are_from_units() && !self.machine.has_served();
                let Some(generation) = self.generations.get_mut(&number) else { return vec![] };
                let Some(listener) = generation.listener() else { return vec![] };
                let asked = Asked {
                    listener: std::os::fd::AsFd::as_fd(&*listener),
                    notification: &notification,
                    slot: generation.slot,
                    may_open,
                };
                match intercept::answer(&asked, &mut self.slots, &mut generation.notes) {
                    Ok(Some(made)) => self.keep_slots(made).await,
                    Ok(None) => {}
                    Err(error) => self.warn(format!("a bind or listen could not be answered: {error}")),
                }
                self.look_soon();
                vec![]
            }
            Fact::Silent => self.look(),
            Fact::Ended(number) => {
                if let Some(generation) = self.generations.get_mut(&number) {
                    generation.ended = Some("ended".into());
                    generation.fence.kill();
                }
                self.look()
            }
            Fact::Says(number, word) => {
                let Some(generation) = self.generations.get_mut(&number) else { return vec![] };
                if !generation.fence.pids().contains(&word.pid) {
                    return vec![];
                }
                if word.status.is_some() {
                    generation.status = word.status;
                }
                if word.ready { vec![Event::Ready { number }] } else { vec![] }
            }
            Fact::Probed(number, Ok(())) => vec![Event::Probed { number }],
            Fact::Probed(number, Err(why)) if self.machine.is_canary(number) => {
                vec![Event::ProbeFailed { number, why }]
            }
            Fact::Probed(number, Err(why)) => {
                if let Some(generation) = self.generations.get_mut(&number) {
                    generation.probe_trouble = Some(why);
                }
                vec![]
            }
            Fact::Runs(done) => {
                self.run_probe(done);
                vec![]
            }
            Fact::Tested(result) => self.tested(result).await,
        }
    }

    /// Children have ended: main processes, commands of probes, orphans.
    fn children_ended(&mut self) -> Vec<Event> {
        for (pid, how, well) in reap() {
            if let Some(done) = self.probes.remove(&pid) {
                let _ = done.send(well);
            }
            let is_main = |one: &Generation| one.main.as_ref().is_some_and(|main| main.pid() == pid);
            if let Some((number, generation)) = self.generations.iter_mut().find(|(_, one)| is_main(one)) {
                // One that ends well while it starts has left a daemon behind.
                if !(well && self.machine.starts(*number)) {
                    generation.fence.kill();
                }
                generation.ended = Some(how);
            }
        }
        self.look()
    }

    fn warn(&self, what: String) {
        self.journal.write(Entry::Warning { what });
    }
}

impl Ears {
    fn open(
        facts: mpsc::UnboundedReceiver<Fact>,
        strays: mpsc::UnboundedReceiver<Stray>,
    ) -> io::Result<Self> {
        let this = Self {
            facts,
            strays,
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        // A runner that has executed itself anew has had them wait.
        crate::sys::exec::let_signals_in()?;
        Ok(this)
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            Some(fact) = self.facts.recv() => Heard::Fact(fact),
            Some(stray) = self.strays.recv() => Heard::Stray(stray),
            _ = self.child.recv() => Heard::Child,
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hangup.recv() => Heard::Hangup,
        }
    }
}

/// This time, which may never come.
async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The end of the one who waits.
async fn gone(caller: Option<&AsyncChannel>) {
    match caller {
        // It has nothing more to say.
        Some(caller) => {
            while !matches!(
                caller.receive::<Request>().await,
                Err(ReceiveError::Closed | ReceiveError::Io(_))
            ) {}
        }
        None => std::future::pending().await,
    }
}
