//! A service at work: its machine, its processes, its FD store, and what it said of itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::exec::{self, ExecError, Facts, Order, Started};
use super::jobs::Installed;
use super::kill::signal;
use super::load::Source;
use super::machine::{Action, End, Event, List, Machine, Outcome, State};
use super::members::{Members, Traces};
use super::output::Output;
use super::sockets::SocketUnit;
use super::store::Store;
use super::watches::Watches;
use crate::manager::wire::Run;
use crate::sys::pidfd::Pidfd;
use crate::unit::{FdStorePreserve, NotifyAccess, PreserveMode, Service, Signal};

/// A process of a service whose end matters.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pidfd: Pidfd,
    /// When it was started, or named: CLOCK_MONOTONIC, microseconds.
    pub(crate) since: u64,
}

impl Process {
    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.pidfd.pid()
    }
}

/// What the services share.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) members: Members,
    pub(crate) output: Output,
    pub(crate) hangups: Watches,
    pub(crate) traffic: Watches,
    /// NOTIFY_SOCKET.
    pub(crate) notify: std::path::PathBuf,
    /// Below which RuntimeDirectory= is.
    pub(crate) runtime: std::path::PathBuf,
}

/// One service.
#[derive(Debug)]
pub(crate) struct ServiceUnit {
    pub(crate) name: String,
    pub(crate) settings: Arc<Service>,
    /// The files it was read from.
    pub(crate) source: Source,
    pub(crate) machine: Machine,
    pub(crate) main: Option<Process>,
    pub(crate) control: Option<Process>,
    pub(crate) traces: Traces,
    pub(crate) store: Store,
    /// NOTIFYACCESS=, until the next start.
    pub(crate) access: Option<NotifyAccess>,
    pub(crate) status: String,
    pub(crate) statuses: u64,
    pub(crate) errno: i32,
    /// The runs of ExecReload=, in the order of the lines.
    pub(crate) reloads: Vec<Run>,
    /// The last main process: pid, when it began, and how it ended.
    pub(crate) last_main: (i32, u64, Option<End>),
    /// When the main process said WATCHDOG=1 last.
    pub(crate) alive_at: u64,
    /// When it became active last.
    pub(crate) active_since: u64,
    pub(crate) job: Option<Installed>,
    /// Somebody was told that their messages do not count.
    pub(crate) told_unheard: bool,
    /// It was told, in this life, that its FD store takes no more.
    pub(crate) told_full: bool,
    output: Option<(OwnedFd, JoinHandle<()>)>,
}

impl ServiceUnit {
    /// A service that has never run.
    pub(crate) fn new(name: String, settings: Arc<Service>, source: Source) -> Self {
        Self {
            machine: Machine::new(settings.clone()),
            name,
            settings,
            source,
            main: None,
            control: None,
            traces: Traces::default(),
            store: Store::default(),
            access: None,
            status: String::new(),
            statuses: 0,
            errno: 0,
            reloads: Vec::new(),
            last_main: (0, 0, None),
            alive_at: 0,
            active_since: 0,
            job: None,
            told_unheard: false,
            told_full: false,
            output: None,
        }
    }

    /// Whose messages count.
    pub(crate) fn access(&self) -> NotifyAccess {
        self.access.unwrap_or(self.settings.notify_access)
    }

    /// Whether `pid` is the main or the control process.
    pub(crate) fn is_known(&self, pid: i32) -> bool {
        [&self.main, &self.control].into_iter().flatten().any(|process| process.pid() == pid)
    }

    /// The processes that live.
    pub(crate) fn members(&self, around: &Surroundings) -> Vec<i32> {
        around.members.of(&self.name, &self.traces)
    }

    /// Takes in an event and does all that follows from it.
    pub(crate) fn handle(&mut self, event: Event, now: u64, around: &Surroundings, sockets: &[SocketUnit]) {
        let before = self.machine.state();
        self.machine.handle(event, now);
        while let Some(action) = self.machine.next_action() {
            self.act(action, now, around, sockets);
        }
        let after = self.machine.state();
        if before.is_starting() && after == State::Running {
            self.active_since = now;
        }
        if before != State::Failed && after == State::Failed {
            self.say_why_it_failed(around);
        }
    }

    /// Says that it is down, and that nobody starts it again.
    fn say_why_it_failed(&self, around: &Surroundings) {
        let result = self.machine.result();
        let limit = &self.settings.common.start_limit;
        let more = match (result, limit.interval) {
            (Outcome::StartLimitHit, Some(span)) => format!(
                ", for it was started {} times within {} s: reset-failed lets it start again",
                limit.burst,
                span.as_secs_f64()
            ),
            _ => String::new(),
        };
        around.output.say_of(&self.name, &format!("it has failed with the result {}{more}", result.word()));
    }

    fn act(&mut self, action: Action, now: u64, around: &Surroundings, sockets: &[SocketUnit]) {
        match action {
            Action::Begin => self.begin(around),
            Action::Run(list, at) => match self.run(list, at, around, sockets) {
                Ok(started) => {
                    let executed = list == List::Start && started.failed.is_none();
                    self.note_started(list, at, started, now, around);
                    if executed {
                        self.machine.handle(Event::Executed, now);
                    }
                }
                Err(why) => {
                    around.output.say_of(&self.name, &format!("nothing was started: {why}"));
                    self.machine.handle(Event::NotRun, now);
                }
            },
            Action::Kill(strike) => {
                let some = self.kill(strike, around);
                self.machine.handle(Event::Signalled { some }, now);
            }
            Action::KillControl => signal(self.control.as_ref(), libc::SIGKILL),
            Action::SignalReload => signal(self.main.as_ref(), self.settings.reload_signal.number()),
            Action::Ended { again } => self.ended(again, around),
        }
    }

    /// A new life.
    fn begin(&mut self, around: &Surroundings) {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        self.traces.invocation = id.trim().replace('-', "");
        (self.access, self.errno, self.told_unheard, self.told_full) = (None, 0, false, false);
        self.status.clear();
        self.reloads.clear();
        let left = self.members(around);
        if !left.is_empty() {
            let text = format!("processes of its last life are left: {left:?}; they may be in its way");
            around.output.say_of(&self.name, &text);
        }
    }

    /// Starts a command.
    fn run(
        &mut self,
        list: List,
        at: usize,
        around: &Surroundings,
        sockets: &[SocketUnit],
    ) -> Result<Started, ExecError> {
        let settings = self.settings.clone();
        // The settings may have been read anew since the machine decided.
        let command = list.of(&settings).get(at).ok_or_else(|| std::io::Error::other("its line is gone"))?;
        if self.output.is_none() {
            let name = self.name.trim_end_matches(".service");
            self.output = Some(around.output.of_service(name)?);
        }
        if (list, at) == (List::Reload, 0) {
            self.reloads = settings.exec_reload.iter().map(never_run).collect();
        }
        let main = list == List::Start;
        let of_unit =
            |socket: &&SocketUnit| socket.service() == self.name || settings.sockets.contains(&socket.name);
        let sockets = sockets.iter().filter(|_| main).filter(of_unit);
        sockets.clone().for_each(|socket| socket.set_non_blocking(settings.non_blocking));
        let passed = sockets
            .flat_map(|socket| socket.fds().map(|fd| (socket.fd_name(), std::os::fd::AsFd::as_fd(fd))));
        let fds = passed.chain(self.store.passed().filter(|_| main)).collect();
        let Some((output, _)) = &self.output else { return Err(std::io::Error::other("no output").into()) };
        let order = Order {
            service: &settings,
            list,
            command,
            facts: self.facts(list, around),
            fds,
            output: std::os::fd::AsFd::as_fd(output),
            cgroup: around.members.folder(&self.name)?,
        };
        exec::run(&order)
    }

    /// What a process is told of the service.
    fn facts<'a>(&'a self, list: List, around: &'a Surroundings) -> Facts<'a> {
        let main = list == List::Start;
        let watchdog_usec = self.machine.watchdog_usec().filter(|_| main);
        let mut end = Vec::new();
        if matches!(list, List::Stop | List::StopPost) {
            end.push(("SERVICE_RESULT", self.machine.result().word().to_owned()));
            let (code, status) = match self.last_main.2 {
                Some(End::Exited(status)) => ("exited", status.to_string()),
                Some(End::Killed { signal, core }) => (
                    if core { "dumped" } else { "killed" },
                    signal_name(signal).trim_start_matches("SIG").to_owned(),
                ),
                None => ("", String::new()),
            };
            if !code.is_empty() {
                end.extend([("EXIT_CODE", code.to_owned()), ("EXIT_STATUS", status)]);
            }
        }
        Facts {
            invocation: &self.traces.invocation,
            notify: &around.notify,
            runtime: &around.runtime,
            main_pid: self.main.as_ref().map(Process::pid),
            watchdog_usec,
            watched: watchdog_usec.is_some(),
            end,
        }
    }

    /// Notes a process that there is now.
    fn note_started(&mut self, list: List, at: usize, started: Started, now: u64, around: &Surroundings) {
        let Started { process, failed } = started;
        if let Some(why) = failed {
            let command = list.of(&self.settings).get(at);
            let path = command.map_or("", |command| command.path.as_str());
            let place = command.map_or_else(String::new, |command| format!(" ({})", command.place));
            let text = format!("{path} cannot be run{place}: {why}");
            around.output.say_of(&self.name, &text);
        }
        self.traces.sessions.insert(process.pid());
        if let (List::Reload, Some(run)) = (list, self.reloads.get_mut(at)) {
            (run.pid, run.started_usec) = (process.pid().unsigned_abs(), now);
        }
        if list == List::Start {
            self.last_main = (process.pid(), now, None);
            self.main = Some(Process { pidfd: process, since: now });
        } else {
            self.control = Some(Process { pidfd: process, since: now });
        }
    }

    /// Another process is the main one from now on.
    pub(crate) fn set_main(&mut self, pidfd: Pidfd, now: u64) {
        self.last_main = (pidfd.pid(), now, None);
        self.main = Some(Process { pidfd, since: now });
    }

    /// A process that we reaped was the main one, or the control process.
    pub(crate) fn reaped(&mut self, pid: i32, end: End) -> Option<Event> {
        if self.main.take_if(|main| main.pid() == pid).is_some() {
            self.last_main.2 = Some(end);
            return Some(Event::MainEnded(end));
        }
        self.control.take_if(|control| control.pid() == pid)?;
        if let Some(run) = self.reloads.iter_mut().find(|run| run.pid == pid.unsigned_abs()) {
            match end {
                End::Exited(status) => run.exited = Some(status),
                End::Killed { signal, .. } => run.killed = Some(signal),
            }
        }
        Some(Event::ControlEnded(end))
    }

    /// It is down.
    fn ended(&mut self, again: bool, around: &Surroundings) {
        self.access = None;
        // What is still there was given up on.
        (self.main, self.control) = (None, None);
        let preserve = self.settings.exec.runtime_directory_preserve;
        let restarts = again || self.job.as_ref().is_some_and(Installed::is_restart);
        if preserve == PreserveMode::No || (preserve == PreserveMode::Restart && !restarts) {
            exec::remove_folders(&self.settings.exec, &around.runtime);
        }
        if self.settings.fd_store_preserve == FdStorePreserve::No {
            self.store.clear(&around.hangups);
        }
        around.members.leave(&self.name);
    }

    /// Lets go of the FD store, if the service is down for now and FileDescriptorStorePreserve= says so.
    pub(crate) fn release(&mut self, around: &Surroundings) {
        let state = self.machine.state();
        let keeps = match self.settings.fd_store_preserve {
            FdStorePreserve::Yes => true,
            FdStorePreserve::OnSuccess => state != State::Failed,
            FdStorePreserve::Restart | FdStorePreserve::No => false,
        };
        if state.is_down() && self.job.is_none() && !keeps {
            self.store.clear(&around.hangups);
        }
    }

    /// Gives its output back, so that who reads it comes to an end.
    pub(crate) fn take_output(&mut self) -> Option<JoinHandle<()>> {
        self.output.take().map(|(_, reader)| reader)
    }

    /// The folder of its cgroup.
    pub(crate) fn control_group(&self, around: &Surroundings) -> String {
        around.members.control_group(&self.name)
    }
}

/// A command without a run.
pub(super) fn never_run(command: &crate::unit::Command) -> Run {
    Run { command: command.words.clone(), may_fail: command.ignore_failure, ..Run::default() }
}

/// `SIGTERM`, or the number of a signal without a name.
pub(crate) fn signal_name(number: i32) -> String {
    Signal::from_number(number).map_or_else(|| number.to_string(), |signal| signal.to_string())
}
