//! Doing what the machine says.

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::super::address::Kind;
use super::super::generation::{Around, Fact, Generation};
use super::super::journal::Entry;
use super::super::machine::{Action, Event};
use super::super::options::Probe;
use super::super::probe::{EXEC_SOURCE, Target};
use super::{PATIENCE, Runner};
use crate::notify::Message;
use crate::sys::spawn::{Apart, Program, Variable, spawn_apart};
use crate::sys::steer::{Steering, Who};
use crate::upgrade::message::Answer;
use crate::upgrade::{Failure, Reason, status};

/// How soon to probe again.
const PAUSE: Duration = Duration::from_millis(100);

/// How soon to probe one again that has passed, and has a share of the clients.
const PAUSE_OF_A_CANARY: Duration = Duration::from_millis(500);

impl Runner {
    /// Does one thing; what comes of it at once.
    pub(super) async fn act(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start { number, slot } => {
                let failed = self.start(number, slot);
                self.keep_listener(number).await;
                return failed;
            }
            Action::Probe { number, slot } => self.probe(number, slot),
            Action::Steer { slot, but } => {
                self.steer(slot, but);
                if let (None, Some((number, _))) = (but, self.machine.live()) {
                    self.keep_live(number).await;
                }
            }
            Action::Signal { number } => {
                if let Some(generation) = self.generations.get(&number) {
                    generation.signal(self.options.signal());
                }
            }
            Action::Kill { number } => {
                if let Some(generation) = self.generations.get_mut(&number) {
                    if let Some(probe) = generation.probe.take() {
                        probe.abort();
                    }
                    generation.fence.kill();
                }
                // A probe may have steered for itself.
                if let Some((_, home)) = self.machine.live() {
                    self.steer(home, None);
                }
            }
            Action::Hold => {
                self.waiting = self.asking.take();
                self.answer(&Answer::Begun);
            }
            Action::Refuse(failure) => {
                match self.asking.take() {
                    Some(caller) => drop(caller.send(&Answer::Failed(failure.clone()), &[])),
                    None => self.end_reloading().await,
                }
                self.fresh_settings = None;
                self.journal.write(Entry::Refused { failure });
            }
            Action::Switched { number } => self.switched(number).await,
            Action::Failed(failure) => self.failed(failure).await,
            Action::Serving { .. } => {
                self.tell_status().await;
                self.say_ready().await;
            }
            Action::Crashed { how, pause } => self.journal.write(Entry::Crashed { how, pause }),
            Action::Retired { number, cut } => self.journal.write(Entry::Retired { number, cut }),
            Action::Exit(end) => {
                // Whoever comes next is to be let in, or to have PID 1 start the service.
                let _ = self.slots.open_up();
                self.forget().await;
                self.end = Some(end.map_err(|failure| self.last_failure.take().unwrap_or(failure)))
            }
        }
        self.look_soon();
        None
    }

    /// READY=1.
    pub(super) async fn say_ready(&self) {
        if let Err(error) = self.notifier.notify(&Message::ready(), PATIENCE).await {
            self.warn(format!("PID 1 was not told that the service is ready: {error}"));
        }
    }

    fn start(&mut self, number: u64, slot: usize) -> Option<Event> {
        let settings = self.fresh_settings.as_ref().or(self.settings.as_ref());
        let around = Around { ground: self.ground.as_ref(), settings, facts: &self.tell };
        self.trouble = None;
        match Generation::start(number, slot, &self.options.command, &self.slots, &around) {
            Ok(generation) => {
                let pid = generation.main.as_ref().map_or(0, |main| main.pid());
                self.generations.insert(number, generation);
                self.journal.write(Entry::Started { number, pid, slot });
                self.look_soon();
                None
            }
            Err(failure) => Some(Event::StartFailed { number, failure }),
        }
    }

    fn steer(&mut self, slot: usize, but: Option<(usize, u8)>) {
        // A probe would steer for itself, by what was before.
        self.generations.values_mut().filter_map(|one| one.probe.take()).for_each(|probe| probe.abort());
        let place = |slot: usize| u32::try_from(slot).unwrap_or(0);
        let all = Steering::to(place(slot));
        let steering = but.map_or(all, |(other, share)| all.but(Who::Percent(share), place(other)));
        self.steering = steering;
        // Before anybody goes there.
        self.tend_doors();
        if let Err(error) = self.slots.steer(steering) {
            self.warn(format!("new connections cannot be steered to slot {slot}: {error}"));
        }
        if let Some((_, percent)) = but {
            self.journal.write(Entry::Canary { percent });
        } else if let Some((number, live)) = self.machine.live()
            && live == slot
            && self.told_live.replace(number) != Some(number)
        {
            self.journal.write(Entry::Live { number, slot });
        }
    }

    /// Tells whoever waits.
    fn answer(&self, answer: &Answer) {
        if let Some(caller) = &self.waiting {
            let _ = caller.send(answer, &[]);
        }
    }

    async fn switched(&mut self, number: u64) {
        self.last_failure = None;
        self.settings = self.fresh_settings.take().or_else(|| self.settings.take());
        // For PID 1 that is what a signal would ask for: it need not send one.
        self.say_reloading().await;
        // Whoever hears of the end looks at the status next.
        self.tell_status().await;
        self.end_reloading().await;
        let main = self.generations.get(&number).and_then(|one| one.main.as_ref());
        self.answer(&Answer::Switched { pid: main.map_or(0, |main| main.pid()) });
        self.waiting = None;
    }

    async fn failed(&mut self, failure: Failure) {
        let failure = match self.trouble.take() {
            Some((reason, more)) if failure.reason == Reason::NeverReady => {
                Failure::new(reason, format!("{}: {more}", failure.detail))
            }
            _ => failure,
        };
        self.journal.write(Entry::Failed { failure: failure.clone() });
        self.last_failure = Some(failure.clone());
        self.tell_status().await;
        self.answer(&Answer::Failed(failure));
        (self.waiting, self.fresh_settings) = (None, None);
        self.end_reloading().await;
    }

    /// Keeps why a generation that is gone did not get ready, as far as that is known.
    pub(super) fn remember(&mut self, number: u64, generation: &Generation) {
        if self.machine.live().is_some_and(|(live, _)| live == number) {
            return;
        }
        let notes = generation.notes.text();
        self.trouble = if let Some(trouble) = &generation.probe_trouble {
            Some((Reason::Probe, trouble.clone()))
        } else if !notes.is_empty() {
            Some((Reason::Elsewhere, notes))
        } else {
            let mut trouble = format!("nobody in it waits on all of its sockets ({})", self.slots.words());
            if let Some(suspicion) = generation.notes.suspicion() {
                trouble = format!("{trouble}; {suspicion}");
            }
            Some((Reason::NeverReady, trouble))
        };
    }

    /// Looks after the slots in which no generation is.
    pub(super) fn tend(&mut self) {
        self.tend_doors();
        if self.machine.live().is_some() || self.machine.is_held_back() {
            let taken: Vec<_> = self.machine.taken().chain(self.machine.owed().iter().copied()).collect();
            self.relays.tend(&self.slots, &taken, &self.tell_stray);
        }
    }

    /// Lets nobody in while none is live, where that was chosen: who gets in is served by one that is ready.
    fn tend_doors(&mut self) {
        let shut = self.options.shuts_doors() && self.machine.live().is_none();
        if shut == self.is_shut {
            return;
        }
        let done = if shut { self.slots.shut() } else { self.slots.open_up() };
        match done {
            Ok(()) => self.is_shut = shut,
            Err(error) => self.warn(format!("the sockets cannot be shut or opened to clients: {error}")),
        }
    }

    /// STATUS=, if it has changed.
    pub(super) async fn tell_status(&mut self) {
        let live = self.machine.live().and_then(|(number, _)| Some((number, self.generations.get(&number)?)));
        let mut text = match live {
            Some((number, generation)) => {
                let pid = generation.main.as_ref().map_or(0, |main| main.pid());
                let own = generation.status.as_ref().map(|status| format!(": {status}")).unwrap_or_default();
                format!("{}{own}", status::write_generation(number, pid))
            }
            None => "no generation serves".to_owned(),
        };
        let leaving = self.machine.leaving();
        if leaving > 0 {
            text = format!("{text}; {leaving} older ones drain");
        }
        if let Some(failure) = &self.last_failure {
            text = status::write(failure, &text);
        }
        if text != self.status {
            let _ = self.notifier.notify(&Message::status(&text), PATIENCE).await;
            self.status = text;
        }
    }

    /// Probes a generation until it passes; one that has a share of the clients, until it does not.
    fn probe(&mut self, number: u64, slot: usize) {
        let is_canary = self.machine.is_canary(number);
        let (Some(probe), Some(target)) = (self.options.probe.clone(), self.target(slot)) else {
            // There is no port to be probed.
            let _ = self.tell.send(Fact::Probed(number, Ok(())));
            return;
        };
        let tell = self.tell.clone();
        let Some(generation) = self.generations.get_mut(&number) else { return };
        let handle = generation.tasks.spawn(async move {
            // Back-off towards a program that starts; its deadline, or the canary's, ends it.
            loop {
                if is_canary {
                    tokio::time::sleep(PAUSE_OF_A_CANARY).await;
                }
                let tried = try_once(&target, &probe, &tell).await;
                let passed = tried.is_ok();
                if is_canary && passed {
                    continue;
                }
                let told = tell.send(Fact::Probed(number, tried));
                if is_canary || passed || told.is_err() {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        generation.probe = Some(handle);
    }

    /// The first port that can be probed.
    fn target(&self, slot: usize) -> Option<Target> {
        let streams = self.slots.groups().iter().filter(|group| !group.is_shared());
        let (place, group) = streams
            .filter_map(|group| Some((group.place?, group)))
            .find(|(place, _)| place.kind == Kind::Stream)?;
        Some(Target {
            address: place.address,
            group: group.socket(0).try_clone_to_owned().ok()?,
            others: self.steering,
            slot: u32::try_from(slot).ok()?,
            inode: group.inode(slot),
            shut: self.is_shut.then(|| group.socket(slot).try_clone_to_owned()).transpose().ok()?,
        })
    }

    /// Runs the command of a probe; its connections from one address go to the new slot.
    pub(super) fn run_probe(&mut self, done: oneshot::Sender<bool>) {
        let Some(Probe::Exec(command)) = &self.options.probe else { return };
        let c_string = |text: String| std::ffi::CString::new(text);
        let variables = std::env::vars().map(|(name, value)| format!("{name}={value}"));
        let variables = variables.chain([format!("HANDOVER_PROBE_SOURCE={EXEC_SOURCE}")]);
        let environment = variables.filter_map(|text| Some(Variable::Fixed(c_string(text).ok()?))).collect();
        let Ok(command) = c_string(command.clone()) else { return };
        let argv = vec![c"sh".into(), c"-c".into(), command];
        let program = Program { path: c"/bin/sh".into(), argv, environment, fds: vec![] };
        if let Ok(child) = spawn_apart(&program, Apart::default()) {
            self.probes.insert(child.pid(), done);
        }
    }
}

/// Tries once whether a generation serves; the command of an `exec` probe is run by the runner.
async fn try_once(target: &Target, probe: &Probe, tell: &UnboundedSender<Fact>) -> Result<(), String> {
    target.try_once(probe).await?;
    let Probe::Exec(command) = probe else { return Ok(()) };
    let (done, ended) = oneshot::channel();
    let _ = tell.send(Fact::Runs(done));
    if ended.await.unwrap_or(false) { Ok(()) } else { Err(format!("{command:?} did not end well")) }
}
