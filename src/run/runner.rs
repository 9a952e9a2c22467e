//! The runner: hears what happens, asks the machine, and does what it says. It is the main process of the
//! service for good; generations are its children.
//!
//! One loop owns every transition. It never decides what follows from what: the machine does.

mod act;
mod kept;
mod look;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use self::kept::Left;
use super::fence::Ground;
use super::generation::{Fact, Generation, reap};
use super::intercept::{self, Asked};
use super::journal::{Entry, Journal};
use super::machine::{Event, Machine};
use super::options::Options;
use super::relay::Relays;
use super::slots::Slots;
use crate::activation::Inherited;
use crate::notify::{Message, Notifier, Watchdog};
use crate::sys::steer::Steering;
use crate::upgrade::callers::Callers;
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
    tell_relayed: mpsc::UnboundedSender<usize>,
    next_look: Instant,
    /// Slots at which a relay was told of.
    relayed: Vec<usize>,
    /// Why the generation that went last had not got ready.
    trouble: Option<(Reason, String)>,
    /// Of which generation the journal has that it lives.
    told_live: Option<u64>,
    /// The name under which PID 1 keeps the live generation.
    live_name: Option<String>,
    /// What the last upgrade failed with.
    last_failure: Option<Failure>,
    status: String,
    end: Option<Result<(), Failure>>,
}

/// What the loop waits for beside the machine's own times.
struct Ears {
    facts: mpsc::UnboundedReceiver<Fact>,
    relayed: mpsc::UnboundedReceiver<usize>,
    child: Signal,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Something that has happened.
enum Heard {
    Fact(Fact),
    Relayed(usize),
    Child,
    Stop,
    Hangup,
    Caller(AsyncChannel),
    CallerGone,
    Time,
}

/// Runs the service until it is told to stop. Needs a tokio runtime with I/O and time, and a process of
/// its own: it becomes the parent of orphans, and catches signals.
///
/// Errors: why the service could not start, or must end.
pub(crate) async fn run(options: Options, mut inherited: Inherited) -> Result<(), Failure> {
    let system = |what: &'static str| move |error: io::Error| Failure::from_io(Reason::Spawn, what, &error);
    let journal = Journal::open().map_err(system("start a thread"))?;
    let warn = |what: String| journal.write(Entry::Warning { what });
    crate::sys::other::adopt_orphans().map_err(system("become the parent of orphans"))?;
    let notifier = Notifier::from_env().map_err(|error| Failure::new(Reason::Commit, error.to_string()))?;
    let slots = Slots::of(&mut inherited, options.slots).map_err(system("look at what was passed"))?;
    let ground = Ground::find().inspect_err(|why| {
        warn(format!("generations are process groups, and programs may leave theirs: {why} (Delegate=yes?)"));
    });
    let ground = ground.ok();
    for shared in slots.shared() {
        warn(format!(
            "{shared} can have no second socket: all generations accept from it, the old one must stop by \
             itself at its signal, and loses what it had accepted and not answered if it does not finish that"
        ));
    }
    let (tell, facts) = mpsc::unbounded_channel();
    let left = Left::find(&mut inherited, ground.as_ref(), &slots, &tell);
    let shared = !slots.shared().is_empty();
    let (limits, now, others) = (options.limits(slots.width(), shared), Instant::now(), left.others());
    let slot = left.live.map_or_else(|| first_slot(&slots, &left.generations), |(_, slot)| slot);
    // Whoever serves without our knowing goes on to be served.
    if left.live.is_some() || others.is_empty() {
        slots.steer(Steering::to(u32::try_from(slot).unwrap_or(0))).map_err(system("steer the slots"))?;
    }
    let machine = match left.live {
        Some(live) => Machine::resume(limits, live, &others, now),
        None => Machine::new(limits, slot, &others, now),
    };
    if let Ok(Some(watchdog)) = Watchdog::from_env() {
        let notifier =
            Notifier::from_env().map_err(|error| Failure::new(Reason::Commit, error.to_string()))?;
        tokio::spawn(async move { watchdog.feed(&notifier).await });
    }
    let (tell_relayed, relayed) = mpsc::unbounded_channel();
    let mut ears = Ears::open(facts, relayed).map_err(system("catch signals"))?;
    let mut runner = Runner {
        options,
        slots,
        machine,
        generations: left.generations,
        live_name: left.live_name,
        ground,
        notifier,
        journal,
        relays: Relays::default(),
        callers: Callers::open(None).map_err(system("open the control socket"))?,
        asking: None,
        waiting: None,
        probes: HashMap::new(),
        tell,
        tell_relayed,
        next_look: Instant::now(),
        relayed: Vec::new(),
        trouble: None,
        told_live: None,
        last_failure: None,
        status: String::new(),
        end: None,
    };
    runner.serve(&mut ears).await
}

/// Where the first generation goes: where most wait, of the slots that nobody has; else where the oldest is.
fn first_slot(slots: &Slots, survivors: &BTreeMap<u64, Generation>) -> usize {
    let is_free = |slot: &usize| survivors.values().all(|one| one.slot != *slot);
    let free = Some(slots.fullest()).filter(is_free).or_else(|| (0..slots.width()).find(is_free));
    free.or_else(|| survivors.values().next().map(|oldest| oldest.slot)).unwrap_or(0)
}

impl Runner {
    async fn serve(&mut self, ears: &mut Ears) -> Result<(), Failure> {
        let mut events = VecDeque::from([Event::Tick]);
        if let Some((number, slot)) = self.machine.live() {
            self.journal.write(Entry::Resumed { number, slot });
            self.say_ready().await;
        }
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
            let until = self.machine.wake_at().map_or(self.next_look, |at| at.min(self.next_look));
            let heard = tokio::select! { biased;
                heard = ears.next() => heard,
                caller = self.callers.next() => Heard::Caller(caller),
                () = gone(self.waiting.as_ref()) => Heard::CallerGone,
                () = tokio::time::sleep_until(until.into()) => Heard::Time,
            };
            events.extend(self.learn(heard).await);
        }
    }

    /// What the machine is to hear of what has happened.
    async fn learn(&mut self, heard: Heard) -> Vec<Event> {
        match heard {
            Heard::Fact(fact) => self.learn_fact(fact).await,
            Heard::Relayed(slot) => {
                if !self.relayed.contains(&slot) {
                    self.relayed.push(slot);
                    self.journal.write(Entry::Relayed { slot });
                }
                vec![]
            }
            Heard::Child => self.children_ended(),
            Heard::Stop => {
                let _ = self.notifier.notify(&Message::stopping(), PATIENCE).await;
                vec![Event::Terminate]
            }
            Heard::Hangup => vec![Event::Asked],
            Heard::Caller(caller) => {
                self.asking = Some(caller);
                vec![Event::Asked]
            }
            Heard::CallerGone => {
                self.waiting = None;
                vec![Event::CallerGone]
            }
            Heard::Time => {
                let mut events = vec![Event::Tick];
                if Instant::now() >= self.next_look {
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
            Fact::Silent => {
                self.look_soon();
                vec![]
            }
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
        relayed: mpsc::UnboundedReceiver<usize>,
    ) -> io::Result<Self> {
        Ok(Self {
            facts,
            relayed,
            child: signal(SignalKind::child())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            Some(fact) = self.facts.recv() => Heard::Fact(fact),
            Some(slot) = self.relayed.recv() => Heard::Relayed(slot),
            _ = self.child.recv() => Heard::Child,
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hangup.recv() => Heard::Hangup,
        }
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
