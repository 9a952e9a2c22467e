//! The stand-in itself: everything there is, and the one loop that all that happens goes through.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::answer::Watcher;
use super::clock;
use super::control::Asked;
use super::jobs::{Installed, Kind, Step};
use super::kill::signal_pid;
use super::machine::{End, Event, Outcome, State};
use super::notify::Receiver;
use super::service::{ServiceUnit, Surroundings};
use super::sockets::{self, SocketUnit};
use super::watches::Ticket;
use crate::sys::pidfd::Pidfd;
use crate::sys::watch::Watched;

/// Messages that are taken before a death is looked at: as many as the kernel queues, and more.
const MOST_BEFORE_REAPING: usize = 1024;
/// A second wish to end, so much later, is one to end at once.
const IMPATIENCE_USEC: u64 = 500_000;

/// All of it.
#[derive(Debug)]
pub(crate) struct Standin {
    pub(super) around: Surroundings,
    pub(super) services: Vec<ServiceUnit>,
    pub(super) sockets: Vec<SocketUnit>,
    /// The files and folders to read units from.
    pub(super) paths: Vec<PathBuf>,
    /// Warnings that were said.
    pub(super) said: BTreeSet<String>,
    /// Everything is to be stopped, since then.
    pub(super) ending: Option<u64>,
    /// Clients that wait for a change.
    pub(super) watchers: Vec<Watcher>,
}

/// Signals that are for the stand-in itself, or pass through it, and the end of its parent. They are there
/// before the first process is, or its death could pass unnoticed.
#[derive(Debug)]
pub(super) struct Signals {
    /// On whom all depends, if on anybody.
    parent: Option<Watched>,
    /// Those by which a container, or what runs it, is asked to end.
    ends: Vec<(i32, Signal)>,
    /// Those that mean what each service has them mean.
    passed: Vec<(i32, Signal)>,
    hangup: Signal,
    child: Signal,
}

impl Signals {
    /// Has them come to us.
    pub(super) fn new(parent: Option<Pidfd>) -> io::Result<Self> {
        let all = |numbers: &[i32]| -> io::Result<Vec<_>> {
            numbers.iter().map(|number| Ok((*number, signal(SignalKind::from_raw(*number))?))).collect()
        };
        // SIGQUIT is what images of nginx have themselves stopped by, SIGPWR comes from lxc-stop(1), and
        // SIGRTMIN+3 from all who believe that process 1 is a systemd.
        let halt = libc::SIGRTMIN() + 3;
        Ok(Self {
            parent: parent.map(|parent| Watched::new(parent.into())).transpose()?,
            ends: all(&[libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGPWR, halt])?,
            passed: all(&[libc::SIGUSR1, libc::SIGUSR2])?,
            hangup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }
}

/// Waits for any of some signals; its number. Cancel safe.
async fn any(signals: &mut [(i32, Signal)]) -> i32 {
    let come = |(number, signal): &mut (i32, Signal), context: &mut Context<'_>| {
        signal.poll_recv(context).is_ready().then_some(*number)
    };
    poll_fn(|context| match signals.iter_mut().find_map(|signal| come(signal, context)) {
        Some(number) => Poll::Ready(number),
        None => Poll::Pending,
    })
    .await
}

impl Standin {
    /// One without units.
    pub(super) fn new(around: Surroundings, paths: Vec<PathBuf>) -> Self {
        let (services, sockets, said) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { around, services, sockets, paths, said, ending: None, watchers: Vec::new() }
    }

    /// Serves until everything is to end and has ended.
    pub(super) async fn serve(
        &mut self,
        mut signals: Signals,
        notify: &Receiver,
        mut asked: mpsc::UnboundedReceiver<Asked>,
    ) {
        while !(self.ending.is_some()
            && self.services.iter().all(|service| service.machine.state().is_down()))
        {
            // Whoever is ready has the same chance: a flood of one kind keeps nobody else waiting.
            tokio::select! {
                incoming = notify.next() => match incoming {
                    Ok(incoming) => self.obey(incoming),
                    Err(why) => self.around.output.say(&format!("NOTIFY_SOCKET: {why}")),
                },
                _ = signals.child.recv() => self.reap(notify),
                Some(asked) = asked.recv() => {
                    // As PID 1 does: nobody is told of the living who have died.
                    self.reap(notify);
                    self.answer(asked);
                }
                tickets = self.around.hangups.next() => {
                    for ticket in tickets {
                        let hangups = &self.around.hangups;
                        self.services.iter_mut().find_map(|service| service.store.hung_up(ticket, hangups));
                    }
                }
                tickets = self.around.traffic.next() => {
                    for ticket in tickets {
                        self.on_traffic(ticket);
                    }
                }
                () = until(self.next_deadline()) => self.on_time(),
                _ = any(&mut signals.ends) => self.end(),
                number = any(&mut signals.passed) => self.pass_on(number),
                _ = signals.hangup.recv() => self.daemon_reload(),
                () = ended(signals.parent.as_ref()) => {
                    signals.parent = None;
                    self.around.output.say("the process that started this has ended");
                    self.end();
                }
            }
            self.tell_watchers();
        }
    }

    /// Reads the unit files again.
    pub(super) fn daemon_reload(&mut self) {
        let units = self.load(&self.paths.clone());
        self.around.output.say(&format!("the unit files are read again: {units} units"));
        self.settle_all();
    }

    /// Stops everything; the second time without patience.
    pub(super) fn end(&mut self) {
        let now = clock::now();
        if let Some(since) = self.ending {
            // timeout(1) for one sends a signal to a process and to its group: that is one wish, not two.
            if now.saturating_sub(since) < IMPATIENCE_USEC {
                return;
            }
            let members = self.services.iter().flat_map(|service| service.members(&self.around));
            return members.collect::<Vec<_>>().into_iter().for_each(|pid| signal_pid(pid, libc::SIGKILL));
        }
        self.ending = Some(now);
        self.around.output.say("stopping all services");
        for id in 0..self.services.len() {
            self.install(id, Installed::new(Kind::Stop));
        }
    }

    /// Gives a job to a service, in the place of a different one.
    pub(super) fn install(&mut self, id: usize, job: Installed) {
        let Some(service) = self.services.get_mut(id) else { return };
        if let Some(old) = service.job.replace(job) {
            old.finish("canceled", "");
        }
        self.settle(id);
    }

    /// Passes an event to a service.
    pub(super) fn tell(&mut self, id: usize, event: Event) {
        if let Some(service) = self.services.get_mut(id) {
            service.handle(event, clock::now(), &self.around, &self.sockets);
        }
    }

    /// Everything that follows from the state a service is in now: its job, its store, its sockets.
    pub(super) fn settle(&mut self, id: usize) {
        loop {
            let Some(service) = self.services.get_mut(id) else { return };
            let Some(job) = &mut service.job else { break };
            match job.step(&service.machine) {
                Step::Wait => break,
                Step::Tell(event) => self.tell(id, event),
                Step::End(result) => {
                    let reload = job.kind() == Kind::Reload;
                    let machine = &service.machine;
                    let why = if reload { machine.reload_result() } else { machine.result() };
                    if let Some(job) = service.job.take() {
                        job.finish(result, why.word());
                    }
                    break;
                }
            }
        }
        if let Some(service) = self.services.get_mut(id) {
            service.release(&self.around);
        }
        self.settle_sockets(id);
    }

    /// The same for all services.
    pub(super) fn settle_all(&mut self) {
        (0..self.services.len()).for_each(|id| self.settle(id));
    }

    /// Traffic is waited for while the service is down, and by nobody while it has the sockets.
    fn settle_sockets(&mut self, id: usize) {
        let Some(service) = self.services.get(id) else { return };
        let state = service.machine.state();
        let waits = (state.is_down() || state == State::AutoRestart) && service.job.is_none();
        let hopeless = state == State::Failed && service.machine.result() == Outcome::StartLimitHit;
        let name = service.name.clone();
        for at in 0..self.sockets.len() {
            let Some(socket) = self.sockets.get_mut(at).filter(|socket| socket.service() == name) else {
                continue;
            };
            match socket.state {
                sockets::State::Listening | sockets::State::Running if hopeless => {
                    let text = format!("{name} was started too often; the sockets are closed");
                    self.around.output.say_of(&socket.name, &text);
                    socket.close(sockets::State::Failed, "service-start-limit-hit", &self.around.traffic);
                }
                sockets::State::Running if waits && self.ending.is_none() => {
                    socket.listen(&self.around.traffic);
                }
                sockets::State::Listening if !waits => socket.hand_over(&self.around.traffic),
                _ => {}
            }
        }
    }

    fn on_traffic(&mut self, ticket: Ticket) {
        let traffic = &self.around.traffic;
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.waits_by(ticket)) else { return };
        socket.hand_over(traffic);
        if self.ending.is_some() {
            return;
        }
        let (name, service) = (socket.name.clone(), socket.service());
        let say = |text: &str| self.around.output.say_of(&name, text);
        let Some(id) = self.services.iter().position(|one| one.name == service) else {
            say(&format!("there is traffic, and no {service}; the sockets are closed"));
            return socket.close(sockets::State::Failed, "resources", traffic);
        };
        if !socket.may_trigger(clock::now()) {
            say("there is traffic too often for TriggerLimit=; the sockets are closed");
            return socket.close(sockets::State::Failed, "trigger-limit-hit", traffic);
        }
        let down =
            self.services.get(id).is_some_and(|one| one.machine.state().is_down() && one.job.is_none());
        if down {
            say(&format!("traffic: {service} is started"));
            self.install(id, Installed::new(Kind::Start));
        }
    }

    /// Looks at what has died; what the dead said before comes first.
    fn reap(&mut self, notify: &Receiver) {
        for _ in 0..MOST_BEFORE_REAPING {
            let Some(incoming) = notify.take() else { break };
            self.obey(incoming);
        }
        let flags = Some(WaitPidFlag::WNOHANG);
        while let Ok(status) = waitpid(None, flags) {
            let (pid, end) = match status {
                WaitStatus::Exited(pid, status) => (pid.as_raw(), End::Exited(status)),
                WaitStatus::Signaled(pid, signal, core) => {
                    (pid.as_raw(), End::Killed { signal: signal as i32, core })
                }
                WaitStatus::StillAlive => break,
                _ => continue,
            };
            for id in 0..self.services.len() {
                let Some(service) = self.services.get_mut(id) else { continue };
                if let Some(event) = service.reaped(pid, end) {
                    self.log_end(id, pid, end, event);
                    self.tell(id, event);
                    self.settle(id);
                }
            }
        }
        self.look_for_emptied();
    }

    /// A service whose last process has gone unnoticed.
    fn look_for_emptied(&mut self) {
        for id in 0..self.services.len() {
            let Some(service) = self.services.get(id) else { continue };
            let waits = service.machine.state().is_stopping() || service.machine.main_is_alien();
            if waits && service.members(&self.around).is_empty() {
                self.tell(id, Event::Emptied);
                self.settle(id);
            }
        }
    }

    fn log_end(&self, id: usize, pid: i32, end: End, event: Event) {
        let Some(service) = self.services.get(id) else { return };
        let which = if matches!(event, Event::MainEnded(_)) { "main" } else { "control" };
        let how = match end {
            End::Exited(status) => match super::exec::status_word(status) {
                Some(word) => format!("exited with status {status}/{word}"),
                None => format!("exited with status {status}"),
            },
            End::Killed { signal, core } => {
                let core = if core { ", core dumped" } else { "" };
                format!("was killed by {}{core}", super::service::signal_name(signal))
            }
        };
        if event != Event::ControlEnded(End::Exited(0)) {
            self.around.output.say_of(&service.name, &format!("the {which} process {pid} {how}"));
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        self.services.iter().filter_map(|service| service.machine.next_deadline()).min()
    }

    fn on_time(&mut self) {
        let now = clock::now();
        for id in 0..self.services.len() {
            let due = self.services.get(id).and_then(|service| service.machine.next_deadline());
            if due.is_some_and(|due| due <= now) {
                self.tell(id, Event::Time);
                self.settle(id);
            }
        }
        self.look_for_emptied();
    }
}

/// Waits for the end of a process; for ever without one.
async fn ended(process: Option<&Watched>) {
    match process {
        // One that cannot be waited for never ends.
        Some(process) if process.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Waits for a time of our clock; for ever without one.
async fn until(deadline: Option<u64>) {
    match deadline {
        Some(at) => {
            sleep_until(Instant::now() + Duration::from_micros(at.saturating_sub(clock::now()))).await
        }
        None => std::future::pending().await,
    }
}
