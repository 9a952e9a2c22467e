//! What each event means in each state.

use super::{Action, End, Event, List, Machine, Outcome, Said, State};
use crate::unit::ServiceType;

impl Machine {
    /// Takes in what happened `now`.
    pub(crate) fn handle(&mut self, event: Event, now: u64) {
        match event {
            Event::Start => self.on_start(now),
            Event::Stop { again } => self.on_stop(again, now),
            Event::Reload if matches!(self.state, State::Running | State::Exited) => self.reload(now),
            Event::Reload => {}
            Event::NotRun => self.on_not_run(now),
            Event::Executed if self.state == State::Start && self.settings.kind == ServiceType::Exec => {
                self.start_post(0, now);
            }
            Event::Executed => {}
            Event::Signalled { some } => self.struck(some, now),
            Event::MainEnded(end) => self.on_main_ended(end, now),
            Event::ControlEnded(end) => self.on_control_ended(end, now),
            Event::Emptied => self.on_emptied(now),
            Event::Ready | Event::Reloading(_) | Event::Stopping => self.on_said(event, now),
            Event::Unfit if self.state == State::Start => {
                self.strike(State::StopSigterm, Outcome::Protocol, now);
            }
            Event::Unfit => {}
            Event::NewMain { alien } => (self.main, self.alien, self.main_end) = (true, alien, None),
            Event::Extend(usec) => self.on_extend(usec, now),
            Event::Alive if self.watchdog_due.is_some() => self.watch(now),
            Event::Alive => {}
            Event::WatchdogTrigger => self.on_watchdog(now),
            Event::WatchdogUsec(usec) => {
                self.watchdog_usec = Some(usec);
                if self.main && !self.state.is_stopping() {
                    self.watch(now);
                }
            }
            Event::RestartReset => {
                if matches!(self.state, State::Running | State::Stop) {
                    self.restarts = 0;
                }
            }
            Event::Time => self.on_time(now),
        }
    }

    fn on_start(&mut self, now: u64) {
        match self.state {
            // `systemctl start` need not wait for RestartSec=, and counts as a restart.
            State::AutoRestart => self.on_restart_due(now),
            State::Dead | State::Failed => self.begin(now),
            _ => {}
        }
    }

    fn on_restart_due(&mut self, now: u64) {
        self.restarts = self.restarts.saturating_add(1);
        self.by_itself = true;
        self.begin(now);
    }

    fn on_stop(&mut self, again: bool, now: u64) {
        self.stopped = true;
        self.again = again;
        match self.state {
            State::Dead | State::Failed => {}
            State::AutoRestart => {
                (self.state, self.deadline) = (State::Dead, None);
                self.actions.push_back(Action::Ended { again: false });
            }
            State::Running | State::Exited => self.stop(Outcome::Success, now),
            state if state.is_stopping() => {}
            // ExecStop= is for a service that has started, and a reload leaves no time for it.
            _ => self.strike(State::StopSigterm, Outcome::Success, now),
        }
    }

    /// The last command could not be forked.
    fn on_not_run(&mut self, now: u64) {
        match self.control.take() {
            Some((List::Reload | List::ReloadPost, _)) => self.reloaded(Outcome::Resources, now),
            Some((List::Stop, _)) => self.strike(State::StopSigterm, Outcome::Resources, now),
            Some((List::StopPost, _)) => self.strike(State::FinalSigterm, Outcome::Resources, now),
            Some(_) => self.strike(State::StopSigterm, Outcome::Resources, now),
            None => {
                self.main = false;
                self.strike(State::StopSigterm, Outcome::Resources, now);
            }
        }
    }

    fn on_main_ended(&mut self, end: End, now: u64) {
        if !self.main {
            return;
        }
        (self.main, self.alien, self.main_end) = (false, false, Some(end));
        let kind = self.settings.kind;
        let command = self.settings.exec_start.get(self.main_command);
        let outcome = match end.outcome(kind != ServiceType::Oneshot, &self.settings.success_exit_status) {
            _ if command.is_some_and(|command| command.ignore_failure) => Outcome::Success,
            outcome => outcome,
        };
        self.note(outcome);
        let alone = self.control.is_none();
        match self.state {
            State::Start => match kind {
                ServiceType::Oneshot if outcome != Outcome::Success => {
                    self.strike(State::StopSigterm, outcome, now);
                }
                ServiceType::Oneshot if self.main_command + 1 < self.settings.exec_start.len() => {
                    self.start(self.main_command + 1, now);
                }
                ServiceType::Oneshot => self.start_post(0, now),
                // A line that may fail, and was not executed: as good as one that ended at once.
                ServiceType::Exec => self.run(outcome, now),
                // Only READY=1 ends this state well.
                _ if outcome != Outcome::Success => self.strike(State::StopSigterm, outcome, now),
                _ => self.strike(State::StopSigterm, Outcome::Protocol, now),
            },
            State::Running => self.run(outcome, now),
            state if state.is_reloading() && alone => self.stop(outcome, now),
            State::StopWatchdog | State::StopSigterm | State::StopSigkill if alone => {
                self.stop_post(0, outcome, now);
            }
            State::FinalSigterm | State::FinalSigkill if alone => self.end(outcome, now),
            // A control process is at work: its end decides.
            _ => {}
        }
    }

    fn on_control_ended(&mut self, end: End, now: u64) {
        let Some((list, at)) = self.control.take() else { return };
        let command = list.of(&self.settings).get(at);
        let outcome = match end.outcome(false, &crate::unit::ExitStatuses::default()) {
            _ if command.is_some_and(|command| command.ignore_failure) => Outcome::Success,
            outcome => outcome,
        };
        let skip = list == List::Condition && matches!(end, End::Exited(1..=254));
        let well = outcome == Outcome::Success;
        // systemd.service(5): a failure is the end of the list, but for ExecStop=.
        if well && self.state == list.state() && self.run_control(self.state, list, at + 1, now) {
            return;
        }
        match self.state {
            State::Condition if skip => self.strike(State::StopSigterm, Outcome::ExecCondition, now),
            State::Condition | State::StartPre | State::StartPost if !well => {
                self.strike(State::StopSigterm, outcome, now);
            }
            State::Condition => self.start_pre(0, now),
            State::StartPre => self.start(0, now),
            State::StartPost => self.run(Outcome::Success, now),
            State::Reload if well => self.reload_signal(now),
            State::Reload | State::ReloadPost => self.reloaded(outcome, now),
            State::Stop => self.strike(State::StopSigterm, outcome, now),
            State::StopWatchdog | State::StopSigterm | State::StopSigkill if !self.main => {
                self.stop_post(0, outcome, now);
            }
            State::StopPost => self.strike(State::FinalSigterm, outcome, now),
            State::FinalSigterm | State::FinalSigkill if !self.main => self.end(outcome, now),
            _ => {}
        }
    }

    /// Nobody is left, so nobody's end will be heard of, not even that of an alien main process.
    fn on_emptied(&mut self, now: u64) {
        if self.control.is_some() {
            return;
        }
        if self.alien {
            (self.main, self.alien) = (false, false);
        }
        match self.state {
            _ if self.main => {}
            State::Running => self.run(Outcome::Success, now),
            State::StopWatchdog | State::StopSigterm | State::StopSigkill => {
                self.stop_post(0, Outcome::Success, now);
            }
            State::FinalSigterm | State::FinalSigkill => self.end(Outcome::Success, now),
            _ => {}
        }
    }

    /// READY=1, RELOADING=1, STOPPING=1. The last one is final.
    fn on_said(&mut self, event: Event, now: u64) {
        if self.said == Said::Stopping {
            return;
        }
        let notifies = matches!(self.settings.kind, ServiceType::Notify | ServiceType::NotifyReload);
        match (event, self.state) {
            (Event::Ready, State::Start) if notifies => {
                self.said = Said::Ready;
                self.start_post(0, now);
            }
            (Event::Ready, State::ReloadNotify) => {
                self.said = Said::Ready;
                self.reload_post(0, now);
            }
            (Event::Ready, _) => (self.said, self.said_in_reload) = (Said::Ready, self.ready_in_reload()),
            (Event::Reloading(_), State::Running) => {
                self.said = Said::Reloading;
                self.run(Outcome::Success, now);
            }
            // Older than the signal, it answers something else.
            (Event::Reloading(at), State::ReloadSignal) if at.is_none_or(|at| at < self.reload_begun) => {}
            (Event::Reloading(_), state) => {
                (self.said, self.said_in_reload) = (Said::Reloading, Said::Reloading);
                if state == State::ReloadSignal {
                    self.state = State::ReloadNotify;
                }
            }
            (_, State::Running | State::ReloadSignal | State::ReloadNotify) => {
                self.said = Said::Stopping;
                self.run(Outcome::Success, now);
            }
            _ => self.said = Said::Stopping,
        }
    }

    /// What READY=1 means for a reload in which ExecReload= is still at work.
    fn ready_in_reload(&self) -> Said {
        if self.said_in_reload == Said::Reloading { Said::Ready } else { self.said_in_reload }
    }

    /// EXTEND_TIMEOUT_USEC= never shortens, and gives no timeout to a state without one.
    fn on_extend(&mut self, usec: u64, now: u64) {
        let until = now.saturating_add(usec);
        for deadline in [&mut self.deadline, &mut self.watchdog_due].into_iter().flatten() {
            *deadline = until.max(*deadline);
        }
    }

    fn on_time(&mut self, now: u64) {
        if self.watchdog_due.is_some_and(|due| due <= now) {
            self.on_watchdog(now);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.on_deadline(now);
        }
    }

    fn on_watchdog(&mut self, now: u64) {
        self.watchdog_due = None;
        if self.main && !self.state.is_stopping() {
            self.strike(State::StopWatchdog, Outcome::Watchdog, now);
        }
    }

    /// The state has lasted as long as it may.
    fn on_deadline(&mut self, now: u64) {
        let late = Outcome::Timeout;
        match self.state {
            State::AutoRestart => self.on_restart_due(now),
            State::Running => self.stop(late, now),
            state if state.is_starting() => self.strike(State::StopSigterm, late, now),
            state if state.is_reloading() => {
                if self.control.take().is_some() {
                    self.actions.push_back(Action::KillControl);
                }
                self.reloaded(late, now);
            }
            State::Stop => self.strike(State::StopSigterm, late, now),
            State::StopWatchdog | State::StopSigterm if self.settings.kill.send_sigkill => {
                self.strike(State::StopSigkill, late, now);
            }
            State::StopWatchdog | State::StopSigterm | State::StopSigkill => {
                self.control = None;
                self.stop_post(0, late, now);
            }
            State::StopPost => {
                self.strike(State::FinalSigterm, late, now);
            }
            State::FinalSigterm if self.settings.kill.send_sigkill => {
                self.strike(State::FinalSigkill, late, now);
            }
            State::FinalSigterm | State::FinalSigkill => self.end(late, now),
            _ => {}
        }
    }
}
