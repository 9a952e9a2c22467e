//! What a service does next: systemd's own states for it, as a machine without I/O and without a clock.
//!
//! ```text
//!  dead --start--> condition -> start-pre -> start -> start-post -> running --main ended well--> exited
//!   ^                  |            |   (READY=1,         |         ^  |  |      (RemainAfterExit=)
//!   |                  |            |    exec, fork)      |         |  |  | reload, RELOADING=1
//!   |                  |            |       |             |         |  |  v
//!   |                  |            |       |             |         |  | reload -> reload-signal -> reload-notify
//!   |                  |            |       |             |         +--|----+------------+-> reload-post
//!   |                  v            v       v             v            v
//!   |                  +------------+-------+------> stop-sigterm <- stop     stop-watchdog
//!   |                     (a failure, a timeout)     |        |                |
//!   |                                                v        +-> stop-sigkill-+
//!   |                                               stop-post <--+-------------+
//!   |                                                |
//!   |                            final-sigterm <-----+---> final-sigkill
//!   |                                  |                        |
//!   +-- failed <-----------------------+------------------------+--> auto-restart --RestartSec=--> start
//! ```
//!
//! [`Machine::handle`] takes what happened and the time, and leaves in [`Machine::next_action`] what is to
//! be done. Two actions are answered before the next one is taken: [`Action::Kill`] by
//! [`Event::Signalled`], and [`Action::Run`] by [`Event::NotRun`] if it could not be.
//!
//! Where versions of systemd differ, it does as the newest one (262): STOPPING=1 is final, ExecReload=
//! comes before the signal of Type=notify-reload, a reload that never says READY=1 times out.

mod enter;
mod events;
mod words;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::words::{End, Outcome, State};
use super::rate::Rate;
use crate::unit::{Command, Service};

/// The commands of a service, by the directive that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    Condition,
    StartPre,
    Start,
    StartPost,
    Reload,
    ReloadPost,
    Stop,
    StopPost,
}

impl List {
    /// The commands themselves.
    pub(crate) fn of(self, service: &Service) -> &[Command] {
        match self {
            Self::Condition => &service.exec_condition,
            Self::StartPre => &service.exec_start_pre,
            Self::Start => &service.exec_start,
            Self::StartPost => &service.exec_start_post,
            Self::Reload => &service.exec_reload,
            Self::ReloadPost => &service.exec_reload_post,
            Self::Stop => &service.exec_stop,
            Self::StopPost => &service.exec_stop_post,
        }
    }

    /// The state in which they run.
    fn state(self) -> State {
        match self {
            Self::Condition => State::Condition,
            Self::StartPre => State::StartPre,
            Self::Start => State::Start,
            Self::StartPost => State::StartPost,
            Self::Reload => State::Reload,
            Self::ReloadPost => State::ReloadPost,
            Self::Stop => State::Stop,
            Self::StopPost => State::StopPost,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Somebody, or traffic, wants it to run.
    Start,
    /// Somebody wants it not to run; `again`: for a moment only.
    Stop { again: bool },
    /// Somebody wants it to reload.
    Reload,
    /// What was to be run could not even be forked.
    NotRun,
    /// The program of ExecStart= is executed: what Type=exec waits for.
    Executed,
    /// How many processes [`Action::Kill`] reached whose end will be noticed.
    Signalled { some: bool },
    /// The main process has ended.
    MainEnded(End),
    /// The control process has ended.
    ControlEnded(End),
    /// No process of the service is left.
    Emptied,
    /// READY=1.
    Ready,
    /// READY=1 of Type=notify-reload by a process that its signal would kill.
    Unfit,
    /// RELOADING=1, and its MONOTONIC_USEC=.
    Reloading(Option<u64>),
    /// STOPPING=1.
    Stopping,
    /// MAINPID= named another process of the service; `alien`: it is not our child.
    NewMain { alien: bool },
    /// EXTEND_TIMEOUT_USEC=.
    Extend(u64),
    /// WATCHDOG=1.
    Alive,
    /// WATCHDOG=trigger.
    WatchdogTrigger,
    /// WATCHDOG_USEC=.
    WatchdogUsec(u64),
    /// RESTART_RESET=1.
    RestartReset,
    /// A deadline may have passed.
    Time,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A new life begins: a new InvocationID, the folders, nothing said yet.
    Begin,
    /// Run this command: as the main process if it is of ExecStart=, else as the control process.
    Run(List, usize),
    /// Send a signal, and answer with [`Event::Signalled`].
    Kill(Strike),
    /// SIGKILL to the control process.
    KillControl,
    /// ReloadSignal= to the main process.
    SignalReload,
    /// It is down, for good or until RestartSec= is over (`again`).
    Ended { again: bool },
}

/// Which signal, to whom: KillMode= and KillSignal= have the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strike {
    /// KillSignal=, or RestartKillSignal=.
    Terminate,
    /// WatchdogSignal=.
    Watchdog,
    /// FinalKillSignal=.
    Kill,
}

/// What the service said last of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    Ready,
    Reloading,
    Stopping,
}

/// One service. All times are microseconds of CLOCK_MONOTONIC.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Arc<Service>,
    state: State,
    result: Outcome,
    reload_result: Outcome,
    /// A main process lives, as far as we know.
    main: bool,
    /// It is not our child: its end may pass unnoticed.
    alien: bool,
    /// A control process lives, and this is what it runs.
    control: Option<(List, usize)>,
    /// The command of ExecStart= that is the main process.
    main_command: usize,
    main_end: Option<End>,
    said: Said,
    /// What it said since the reload began.
    said_in_reload: Said,
    reload_begun: u64,
    /// When the state is over if nothing happens.
    deadline: Option<u64>,
    /// When the next WATCHDOG=1 is due.
    watchdog_due: Option<u64>,
    watchdog_usec: Option<u64>,
    /// Nobody but a new command may start it again.
    stopped: bool,
    /// A restart is under way: RestartKillSignal=.
    again: bool,
    restarts: u32,
    /// The start under way is one that Restart= wanted.
    by_itself: bool,
    starts: Rate,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A service that has never run.
    pub(crate) fn new(settings: Arc<Service>) -> Self {
        Self {
            settings,
            state: State::Dead,
            result: Outcome::Success,
            reload_result: Outcome::Success,
            main: false,
            alien: false,
            control: None,
            main_command: 0,
            main_end: None,
            said: Said::Nothing,
            said_in_reload: Said::Nothing,
            reload_begun: 0,
            deadline: None,
            watchdog_due: None,
            watchdog_usec: None,
            stopped: false,
            again: false,
            restarts: 0,
            by_itself: false,
            starts: Rate::default(),
            actions: VecDeque::new(),
        }
    }

    /// What is to be done next, in order.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Event::Time`] is due.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        [self.deadline, self.watchdog_due].into_iter().flatten().min()
    }

    /// SubState=.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Result=.
    pub(crate) fn result(&self) -> Outcome {
        self.result
    }

    /// ReloadResult=.
    pub(crate) fn reload_result(&self) -> Outcome {
        self.reload_result
    }

    /// NRestarts=.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// How long the service may be silent, if it is watched: WATCHDOG_USEC=, else WatchdogSec=.
    pub(crate) fn watchdog_usec(&self) -> Option<u64> {
        self.watchdog_usec
            .or_else(|| usec(self.settings.watchdog))
            .filter(|usec| *usec > 0 && *usec < u64::MAX)
    }

    /// Whether its main process is one whose end may pass unnoticed.
    pub(crate) fn main_is_alien(&self) -> bool {
        self.main && self.alien
    }

    /// Whether a restart is under way.
    pub(crate) fn goes_again(&self) -> bool {
        self.again
    }

    /// Whether it can be reloaded at all.
    pub(crate) fn can_reload(&self) -> bool {
        !self.settings.exec_reload.is_empty() || self.settings.kind == crate::unit::ServiceType::NotifyReload
    }

    /// Takes over settings that were read anew. What runs, runs on.
    pub(crate) fn set_settings(&mut self, settings: Arc<Service>) {
        self.settings = settings;
    }

    /// Forgets a failure, and how often it was started: `systemctl reset-failed`.
    pub(crate) fn reset_failed(&mut self) {
        (self.starts, self.restarts) = (Rate::default(), 0);
        if self.state == State::Failed {
            (self.state, self.result) = (State::Dead, Outcome::Success);
        }
    }
}

/// Microseconds; `None`, and what does not fit, is infinity.
fn usec(span: Option<Duration>) -> Option<u64> {
    u64::try_from(span?.as_micros()).ok()
}

#[cfg(test)]
mod tests;
