//! How a runner begins: afresh, beside what is left of one that was killed, or where one was that has
//! executed itself anew.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Instant;

use tokio::sync::mpsc;

use super::kept::Left;
use super::memory::Memory;
use super::renew::{self, HandedOn};
use super::{Ears, Runner};
use crate::activation::Inherited;
use crate::notify::{Notifier, Watchdog};
use crate::run::fence::Ground;
use crate::run::generation::Generation;
use crate::run::journal::{Entry, Journal};
use crate::run::machine::{Clock, Event, Kept, Limits, Machine};
use crate::run::options::Options;
use crate::run::relay::Relays;
use crate::run::slots::Slots;
use crate::run::state::{Next, State};
use crate::sys::steer::Steering;
use crate::upgrade::callers::Callers;
use crate::upgrade::message::Answer;
use crate::upgrade::{Failure, Reason};

/// Runs the service until it is told to stop. Needs a tokio runtime with I/O and time, and a process of
/// its own: it becomes the parent of orphans, and catches signals.
///
/// Errors: why the service could not start, or must end.
pub(crate) async fn run(options: Options, mut inherited: Inherited) -> Result<(), Failure> {
    let handed_on = renew::handed_on(&mut inherited)?;
    let (mut runner, mut ears) = begin(options, inherited, handed_on.as_ref())?;
    let events = match handed_on {
        Some(handed_on) => runner.go_on(handed_on).await,
        None => runner.take_up().await,
    };
    runner.serve(&mut ears, events).await
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::from_io(Reason::Spawn, what, &error)
}

fn begin(
    options: Options,
    mut inherited: Inherited,
    handed_on: Option<&HandedOn>,
) -> Result<(Runner, Ears), Failure> {
    let journal = Journal::open().map_err(system("start a thread"))?;
    crate::sys::other::adopt_orphans().map_err(system("become the parent of orphans"))?;
    let slots = Slots::of(&mut inherited, options.slots).map_err(system("look at what was passed"))?;
    let ground = Ground::find();
    // One that was killed may have left them shut.
    slots.open_up().map_err(system("open the slots to everybody"))?;
    let (memory, written, unread) = Memory::take(&mut inherited);
    if handed_on.is_none() {
        tell_what_is_missing(&journal, &slots, ground.as_ref().err(), unread);
    }
    let (ground, (tell, facts)) = (ground.ok(), mpsc::unbounded_channel());
    let left = match handed_on {
        Some(before) => Left::handed_on(&before.state, &mut inherited, ground.as_ref(), &tell),
        None => Left::find(&mut inherited, written.as_ref(), ground.as_ref(), &slots, &tell),
    };
    let limits = options.limits(slots.width(), !slots.shared().is_empty());
    let machine = match handed_on {
        Some(before) => machine_handed_on(limits, &before.state.machine, &left, memory.clock),
        None => machine(limits, &slots, &left, written.as_ref().map(|state| &state.machine), memory.clock)?,
    };
    let before = handed_on.map(|before| &before.state);
    let told_live = before.map_or_else(|| Some(machine.live()?.0), |state| state.told_live);
    feed_the_watchdog()?;
    let steering = Steering::to(u32::try_from(machine.home()).unwrap_or(0));
    let (tell_stray, strays) = mpsc::unbounded_channel();
    let ears = Ears::open(facts, strays).map_err(system("catch signals"))?;
    let control = handed_on.and_then(|before| before.control.as_ref());
    let control =
        control.map(|socket| socket.try_clone()).transpose().map_err(system("take the control socket"))?;
    let runner = Runner {
        options,
        slots,
        machine,
        generations: left.generations,
        live_name: left.live_name,
        ground,
        notifier: notifier()?,
        journal,
        relays: Relays::default(),
        callers: Callers::of_runner(control).map_err(system("open the control socket"))?,
        asking: None,
        waiting: None,
        probes: HashMap::new(),
        tell,
        tell_stray,
        next_look: Some(Instant::now()),
        rests: false,
        relayed: Vec::new(),
        trouble: None,
        told_live,
        settings: before.and_then(|state| state.settings.clone()),
        fresh_settings: None,
        reloading: false,
        memory,
        renewal: None,
        steering,
        is_shut: false,
        last_failure: before.or(written.as_ref()).and_then(State::failure),
        status: String::new(),
        end: None,
    };
    Ok((runner, ears))
}

fn tell_what_is_missing(
    journal: &Journal,
    slots: &Slots,
    no_ground: Option<&String>,
    unread: Option<String>,
) {
    let warn = |what: String| journal.write(Entry::Warning { what });
    if let Some(why) = unread {
        warn(format!(
            "what the runner before this one has written down is not believed, drains and pauses begin anew: {why}"
        ));
    }
    if let Some(why) = no_ground {
        warn(format!(
            "generations have no cgroup of their own: {why} (Delegate=yes?). Whatever a program starts is ended with \
             it as far as its process group, its parents and its environment tell; who has left all three stays. \
             Nothing is accounted for each generation, and a look at them takes longer"
        ));
    }
    for shared in slots.shared() {
        warn(format!(
            "{shared} can have no second socket: all generations accept from it, the old one must stop by \
             itself at its signal, and loses what it had accepted and not answered if it does not finish that"
        ));
    }
}

/// The machine of a runner that has executed itself anew, with what still runs.
fn machine_handed_on(limits: Limits, kept: &Kept, left: &Left, clock: Clock) -> Machine {
    let mut kept = kept.clone();
    kept.generations.retain(|one| left.generations.contains_key(&one.number));
    Machine::revive(limits, &kept, clock)
}

/// The machine of a runner that no other one has handed anything on to; `before` is what one that was killed
/// has left in writing.
fn machine(
    limits: Limits,
    slots: &Slots,
    left: &Left,
    before: Option<&Kept>,
    clock: Clock,
) -> Result<Machine, Failure> {
    let others = left.others();
    let found: Vec<_> = left.generations.iter().map(|(number, one)| (*number, one.slot)).collect();
    let mut machine = match (before, left.live) {
        (Some(before), live) => {
            let mut kept = before.found(&found, live.map(|(number, _)| number), clock);
            let is_taken = left.generations.values().any(|one| one.slot == kept.home);
            if kept.home >= slots.width() || (is_taken && !kept.has_live()) {
                kept.home = first_slot(slots, &left.generations);
            }
            Machine::take_up(limits, &kept, clock)
        }
        (None, Some(live)) => Machine::revive(limits, &Kept::unwritten(&found, live, clock), clock),
        (None, None) => Machine::new(limits, first_slot(slots, &left.generations), &others, clock.at),
    };
    // Whoever serves without our knowing goes on to be served.
    if machine.live().is_some() || others.is_empty() {
        let to = Steering::to(u32::try_from(machine.home()).unwrap_or(0));
        slots.steer(to).map_err(system("steer the slots"))?;
    }
    if machine.live().is_none() && others.is_empty() {
        machine.owe(slots.with_datagrams());
    }
    Ok(machine)
}

/// Where the first generation goes: where most wait, of the slots that nobody has; else where the oldest is.
fn first_slot(slots: &Slots, survivors: &BTreeMap<u64, Generation>) -> usize {
    let is_free = |slot: &usize| survivors.values().all(|one| one.slot != *slot);
    let free = Some(slots.fullest()).filter(is_free).or_else(|| (0..slots.width()).find(is_free));
    free.or_else(|| survivors.values().next().map(|oldest| oldest.slot)).unwrap_or(0)
}

fn notifier() -> Result<Notifier, Failure> {
    Notifier::from_env().map_err(|error| Failure::new(Reason::Commit, error.to_string()))
}

/// WatchdogSec=: what PID 1 hears is that this process runs.
fn feed_the_watchdog() -> Result<(), Failure> {
    if let Ok(Some(watchdog)) = Watchdog::from_env() {
        let notifier = notifier()?;
        tokio::spawn(async move { watchdog.feed(&notifier).await });
    }
    Ok(())
}

impl Runner {
    /// The first events of a runner that was started by PID 1.
    async fn take_up(&mut self) -> Vec<Event> {
        if let Some((number, slot)) = self.machine.live() {
            self.tell_status().await;
            self.say_ready().await;
            self.journal.write(Entry::Resumed { number, slot });
        }
        self.pick_up().await;
        vec![Event::Tick]
    }

    /// The first events of a runner that has executed itself anew: children may have ended meanwhile, and
    /// somebody waits for an answer.
    async fn go_on(&mut self, before: HandedOn) -> Vec<Event> {
        let path = crate::sys::process::executed_path().unwrap_or_default().display().to_string();
        self.journal.write(Entry::Renewed { path });
        let mut events = vec![Event::Tick];
        events.extend(self.children_ended());
        match (before.state.next, before.caller) {
            (Next::Nothing, Some(caller)) => {
                // It need not wait for the answer.
                let _ = caller.send(&Answer::Switched { pid: std::process::id().cast_signed() }, &[]);
            }
            (Next::Nothing, None) => {}
            (Next::Upgrade, caller) => events.extend(self.ask(caller).await),
        }
        events
    }
}
