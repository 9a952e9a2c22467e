//! Ways into the states: what is done on entering, and where it leads if there is nothing to do.

use std::time::Duration;

use super::{Action, List, Machine, Outcome, Said, State, Strike, usec};
use crate::unit::{Restart, ServiceType};

impl Machine {
    /// Is in `state` until something happens, at the latest until `timeout` is over.
    fn stay(&mut self, state: State, timeout: Option<Duration>, now: u64) {
        self.state = state;
        self.deadline = usec(timeout).and_then(|usec| now.checked_add(usec));
    }

    /// Keeps the first thing that went wrong.
    pub(super) fn note(&mut self, outcome: Outcome) {
        if self.result == Outcome::Success {
            self.result = outcome;
        }
    }

    /// Runs a control command, if the list has one; false when it has no more.
    pub(super) fn run_control(&mut self, state: State, list: List, at: usize, now: u64) -> bool {
        if at >= list.of(&self.settings).len() {
            return false;
        }
        let stop = matches!(list, List::Stop | List::StopPost);
        let timeout = if stop { self.settings.timeout_stop } else { self.settings.timeout_start };
        self.stay(state, timeout, now);
        self.control = Some((list, at));
        self.actions.push_back(Action::Run(list, at));
        true
    }

    /// A start from the beginning, if the start limit allows it.
    pub(super) fn begin(&mut self, now: u64) {
        self.deadline = None;
        let by_itself = std::mem::take(&mut self.by_itself);
        if !self.starts.allows(self.settings.common.start_limit, now) {
            self.result = Outcome::StartLimitHit;
            self.stopped = true;
            self.end(Outcome::StartLimitHit, now);
            return;
        }
        if !by_itself {
            self.restarts = 0;
        }
        (self.result, self.reload_result) = (Outcome::Success, Outcome::Success);
        (self.stopped, self.again) = (false, false);
        (self.main_end, self.main_command) = (None, 0);
        (self.said, self.watchdog_usec) = (Said::Nothing, None);
        self.actions.push_back(Action::Begin);
        self.condition(0, now);
    }

    /// ExecCondition=, from its command number `at`.
    pub(super) fn condition(&mut self, at: usize, now: u64) {
        if !self.run_control(State::Condition, List::Condition, at, now) {
            self.start_pre(0, now);
        }
    }

    /// ExecStartPre=, from its command number `at`.
    pub(super) fn start_pre(&mut self, at: usize, now: u64) {
        if !self.run_control(State::StartPre, List::StartPre, at, now) {
            self.start(0, now);
        }
    }

    /// ExecStart=: the main process.
    pub(super) fn start(&mut self, at: usize, now: u64) {
        let waits = !matches!(self.settings.kind, ServiceType::Simple | ServiceType::Idle);
        self.stay(State::Start, self.settings.timeout_start.filter(|_| waits), now);
        if self.settings.exec_start.is_empty() {
            return self.start_post(0, now);
        }
        (self.main, self.alien, self.main_command) = (true, false, at);
        self.actions.push_back(Action::Run(List::Start, at));
        if !waits {
            // It is forked, and whether it is executed is not waited for.
            self.start_post(0, now);
        }
    }

    /// ExecStartPost=, from its command number `at`.
    pub(super) fn start_post(&mut self, at: usize, now: u64) {
        self.watch(now);
        if !self.run_control(State::StartPost, List::StartPost, at, now) {
            self.run(Outcome::Success, now);
        }
    }

    /// It runs, unless nothing does, or something went wrong.
    pub(super) fn run(&mut self, outcome: Outcome, now: u64) {
        self.note(outcome);
        if self.result != Outcome::Success {
            self.strike(State::StopSigterm, Outcome::Success, now);
        } else if self.main && self.said == Said::Reloading {
            self.stay(State::ReloadNotify, self.settings.timeout_start, now);
        } else if self.main && self.said == Said::Stopping {
            self.stay(State::StopSigterm, self.settings.timeout_stop, now);
        } else if self.main {
            let most = self.settings.runtime_max;
            self.stay(State::Running, most, now);
        } else if self.settings.remain_after_exit {
            self.stay(State::Exited, None, now);
        } else {
            self.stop(Outcome::Success, now);
        }
    }

    /// A reload from its beginning.
    pub(super) fn reload(&mut self, now: u64) {
        self.reload_result = Outcome::Success;
        (self.reload_begun, self.said_in_reload) = (now, Said::Nothing);
        if !self.run_control(State::Reload, List::Reload, 0, now) {
            self.reload_signal(now);
        }
    }

    /// ReloadSignal=, for Type=notify-reload, unless the service has reloaded by itself meanwhile.
    pub(super) fn reload_signal(&mut self, now: u64) {
        let timeout = self.settings.timeout_start;
        match (self.settings.kind, self.said_in_reload) {
            (ServiceType::NotifyReload, Said::Reloading) => self.stay(State::ReloadNotify, timeout, now),
            (ServiceType::NotifyReload, Said::Nothing) if self.main => {
                self.stay(State::ReloadSignal, timeout, now);
                self.actions.push_back(Action::SignalReload);
            }
            _ => self.reload_post(0, now),
        }
    }

    /// ExecReloadPost=, from its command number `at`.
    pub(super) fn reload_post(&mut self, at: usize, now: u64) {
        if !self.run_control(State::ReloadPost, List::ReloadPost, at, now) {
            self.reloaded(Outcome::Success, now);
        }
    }

    /// The reload is over, and however it went, the service runs on.
    pub(super) fn reloaded(&mut self, outcome: Outcome, now: u64) {
        self.reload_result = outcome;
        if self.said == Said::Reloading {
            self.said = Said::Nothing;
        }
        self.run(Outcome::Success, now);
    }

    /// ExecStop=, then signals.
    pub(super) fn stop(&mut self, outcome: Outcome, now: u64) {
        self.note(outcome);
        if !self.run_control(State::Stop, List::Stop, 0, now) {
            self.strike(State::StopSigterm, Outcome::Success, now);
        }
    }

    /// Sends the signal of a state; [`Machine::struck`] goes on.
    pub(super) fn strike(&mut self, state: State, outcome: Outcome, now: u64) {
        self.note(outcome);
        let timeout = match state {
            State::StopWatchdog => self.settings.timeout_abort.unwrap_or(self.settings.timeout_stop),
            _ => self.settings.timeout_stop,
        };
        self.stay(state, timeout, now);
        self.watchdog_due = None;
        self.actions.push_back(Action::Kill(match state {
            State::StopWatchdog => Strike::Watchdog,
            State::StopSigkill | State::FinalSigkill => Strike::Kill,
            _ => Strike::Terminate,
        }));
    }

    /// The signal has been sent; `some`: to somebody whose end will be noticed, so there is something to
    /// wait for.
    pub(super) fn struck(&mut self, some: bool, now: u64) {
        let kills = self.settings.kill.send_sigkill;
        match self.state {
            _ if some => {}
            State::StopWatchdog | State::StopSigterm if kills => {
                self.strike(State::StopSigkill, Outcome::Success, now);
            }
            State::StopWatchdog | State::StopSigterm | State::StopSigkill => {
                self.stop_post(0, Outcome::Success, now);
            }
            State::FinalSigterm if kills => self.strike(State::FinalSigkill, Outcome::Success, now),
            State::FinalSigterm | State::FinalSigkill => self.end(Outcome::Success, now),
            _ => {}
        }
    }

    /// ExecStopPost=, from its command number `at`, then signals to whatever is left.
    pub(super) fn stop_post(&mut self, at: usize, outcome: Outcome, now: u64) {
        self.note(outcome);
        if !self.run_control(State::StopPost, List::StopPost, at, now) {
            self.strike(State::FinalSigterm, Outcome::Success, now);
        }
    }

    /// It is down: for good, or until RestartSec= is over.
    pub(super) fn end(&mut self, outcome: Outcome, now: u64) {
        self.note(outcome);
        (self.main, self.control, self.watchdog_due) = (false, None, None);
        let again = self.restarts_by_itself();
        if again {
            self.stay(State::AutoRestart, self.restart_delay(), now);
        } else {
            let well = matches!(self.result, Outcome::Success | Outcome::ExecCondition);
            self.stay(if well { State::Dead } else { State::Failed }, None, now);
        }
        self.actions.push_back(Action::Ended { again });
    }

    /// systemd.service(5), Restart=: the table, and its exceptions.
    fn restarts_by_itself(&self) -> bool {
        let (result, settings) = (self.result, &self.settings);
        let is_in = |ends| self.main_end.is_some_and(|end| end.is_in(ends));
        if self.stopped || is_in(&settings.restart_prevent_exit_status) {
            return false;
        }
        is_in(&settings.restart_force_exit_status)
            || match settings.restart {
                Restart::No => false,
                Restart::Always => result != Outcome::ExecCondition,
                Restart::OnSuccess => result == Outcome::Success,
                Restart::OnFailure => !matches!(result, Outcome::Success | Outcome::ExecCondition),
                Restart::OnAbnormal => {
                    !matches!(result, Outcome::Success | Outcome::ExitCode | Outcome::ExecCondition)
                }
                Restart::OnAbort => matches!(result, Outcome::Signal | Outcome::CoreDump),
                Restart::OnWatchdog => result == Outcome::Watchdog,
            }
    }

    /// RestartSec=, growing to RestartMaxDelaySec= within RestartSteps=.
    fn restart_delay(&self) -> Option<Duration> {
        let (first, steps) = (self.settings.restart_after, self.settings.restart_steps);
        let (Some(least), Some(most)) = (first, self.settings.restart_max_delay) else { return first };
        if steps == 0 || least.is_zero() || most <= least {
            return first;
        }
        if self.restarts >= steps {
            return Some(most);
        }
        let share = f64::from(self.restarts) / f64::from(steps);
        Some(least.mul_f64((most.as_secs_f64() / least.as_secs_f64()).powf(share)))
    }

    /// Waits for the next WATCHDOG=1, if it is to be watched.
    pub(super) fn watch(&mut self, now: u64) {
        self.watchdog_due = self.watchdog_usec().and_then(|usec| now.checked_add(usec));
    }
}
