//! A machine, played through the lives of a service.

mod any;

use super::*;
use crate::unit::{KillMode, RateLimit, Restart, ServiceType};

/// What a machine does, with a service that does what it is told.
struct Played {
    machine: Machine,
    now: u64,
    main: bool,
    control: Option<List>,
    /// Processes beside these two.
    others: bool,
    did: Vec<Action>,
}

const SECOND: u64 = 1_000_000;

fn settings(change: impl FnOnce(&mut Service)) -> Arc<Service> {
    let mut service =
        Service { exec_start: commands(&["main"]), kind: ServiceType::Notify, ..Service::default() };
    change(&mut service);
    Arc::new(service)
}

fn play(change: impl FnOnce(&mut Service)) -> Played {
    let machine = Machine::new(settings(change));
    Played { machine, now: SECOND, main: false, control: None, others: false, did: Vec::new() }
}

impl Played {
    fn tell(&mut self, event: Event) -> State {
        match event {
            Event::MainEnded(_) | Event::Emptied => self.main = false,
            Event::ControlEnded(_) => self.control = None,
            _ => {}
        }
        self.machine.handle(event, self.now);
        while let Some(action) = self.machine.next_action() {
            self.did.push(action);
            match action {
                Action::Run(List::Start, _) => {
                    self.main = true;
                    self.machine.handle(Event::Executed, self.now);
                }
                Action::Run(list, _) => self.control = Some(list),
                Action::Kill(strike) => {
                    let all = match strike {
                        Strike::Kill => self.machine.settings.kill.mode != KillMode::Process,
                        _ => self.machine.settings.kill.mode == KillMode::ControlGroup,
                    };
                    let some = self.main || self.control.is_some() || (all && self.others);
                    self.machine.handle(Event::Signalled { some }, self.now);
                }
                _ => {}
            }
        }
        self.machine.state()
    }

    fn exit(&mut self, status: i32) -> State {
        self.tell(Event::MainEnded(End::Exited(status)))
    }

    fn control_exits(&mut self, status: i32) -> State {
        self.tell(Event::ControlEnded(End::Exited(status)))
    }

    /// Time passes until something is due.
    fn wait(&mut self) -> State {
        self.now = self.machine.next_deadline().expect("something is due");
        self.tell(Event::Time)
    }

    /// Up and running.
    fn up(mut self) -> Self {
        assert_eq!(self.tell(Event::Start), State::Start);
        assert_eq!(self.tell(Event::Ready), State::Running);
        self
    }
}

fn commands(names: &[&str]) -> Vec<Command> {
    let command = |name: &&str| Command {
        path: (*name).into(),
        words: vec![(*name).into()],
        ignore_failure: false,
        expand: true,
        privilege: crate::unit::Privilege::Unit,
        via_shell: false,
        place: crate::unit::Place { file: std::path::Path::new("x.service").into(), line: 1 },
    };
    names.iter().map(command).collect()
}

#[test]
fn a_start_goes_through_its_commands_and_a_failure_ends_it() {
    let mut p = play(|s| {
        (s.exec_start_pre, s.exec_start_post) = (commands(&["a", "b"]), commands(&["c"]));
    });
    assert_eq!(p.tell(Event::Start), State::StartPre);
    assert_eq!(p.control_exits(0), State::StartPre);
    assert_eq!(p.control_exits(0), State::Start);
    assert_eq!(p.tell(Event::Ready), State::StartPost);
    assert_eq!(p.control_exits(1), State::StopSigterm);
    assert_eq!(p.exit(0), State::Failed);
    assert_eq!(p.machine.result(), Outcome::ExitCode);
}

#[test]
fn simple_and_exec_run_at_once_and_notify_waits_for_its_word_or_the_timeout() {
    for kind in [ServiceType::Simple, ServiceType::Exec] {
        assert_eq!(play(|s| s.kind = kind).tell(Event::Start), State::Running);
    }
    let mut p = play(|_| {});
    p.tell(Event::Start);
    assert_eq!(p.wait(), State::StopSigterm);
    assert_eq!(p.now, SECOND + 90 * SECOND);
    assert_eq!(p.exit(0), State::Failed);
    assert_eq!(p.machine.result(), Outcome::Timeout);
    let mut p = play(|_| {});
    p.tell(Event::Start);
    p.exit(0);
    assert_eq!((p.machine.state(), p.machine.result()), (State::Failed, Outcome::Protocol));
}

#[test]
fn a_oneshot_runs_its_commands_in_turn_and_is_dead_or_exited_then() {
    for (remains, end) in [(false, State::Dead), (true, State::Exited)] {
        let mut p = play(|s| {
            (s.kind, s.exec_start, s.remain_after_exit) =
                (ServiceType::Oneshot, commands(&["a", "b"]), remains);
        });
        assert_eq!(p.tell(Event::Start), State::Start);
        assert_eq!(p.exit(0), State::Start);
        assert_eq!(p.exit(0), end);
    }
}

#[test]
fn a_condition_that_does_not_hold_is_no_failure_and_no_reason_to_restart() {
    let mut p = play(|s| (s.exec_condition, s.restart) = (commands(&["a"]), Restart::Always));
    p.tell(Event::Start);
    assert_eq!(p.control_exits(1), State::Dead);
    assert_eq!(p.machine.result(), Outcome::ExecCondition);
    p.tell(Event::Start);
    assert_ne!(p.control_exits(255), State::Dead);
}

#[test]
fn a_stop_escalates_from_commands_to_sigterm_to_sigkill() {
    let mut p = play(|s| s.exec_stop = commands(&["bye"])).up();
    assert_eq!(p.tell(Event::Stop { again: false }), State::Stop);
    assert_eq!(p.control_exits(0), State::StopSigterm);
    assert_eq!(p.wait(), State::StopSigkill);
    assert_eq!(p.tell(Event::MainEnded(End::Killed { signal: 9, core: false })), State::Failed);
    assert_eq!(p.machine.result(), Outcome::Timeout);
}

// systemd.kill(5), KillMode=: "If set to mixed, the SIGTERM signal is sent to the main process while the
// subsequent SIGKILL signal is sent to all remaining processes of the unit's control group."
#[test]
fn what_is_left_when_the_main_process_is_gone_is_ended_as_kill_mode_says() {
    let strikes = |mode| {
        let mut p = play(|s| s.kill.mode = mode).up();
        p.others = true;
        p.tell(Event::Stop { again: false });
        p.did.clear();
        let state = p.exit(0);
        let struck =
            p.did.iter().filter(|action| matches!(action, Action::Kill(_))).copied().collect::<Vec<_>>();
        (state, struck)
    };
    let (term, kill) = (Action::Kill(Strike::Terminate), Action::Kill(Strike::Kill));
    assert_eq!(strikes(KillMode::ControlGroup), (State::FinalSigterm, vec![term]));
    assert_eq!(strikes(KillMode::Mixed), (State::FinalSigkill, vec![term, kill]));
    assert_eq!(strikes(KillMode::Process), (State::Dead, vec![term, kill]));
    let mut p = play(|_| {}).up();
    p.others = true;
    p.tell(Event::Stop { again: false });
    p.exit(0);
    assert_eq!(p.tell(Event::Emptied), State::Dead);
}

#[test]
fn restart_follows_the_table_of_the_manual() {
    let (ok, bad) = (End::Exited(0), End::Exited(1));
    let (term, segv) = (End::Killed { signal: 15, core: false }, End::Killed { signal: 11, core: true });
    for (restart, again) in [
        (Restart::No, [false, false, false, false]),
        (Restart::Always, [true, true, true, true]),
        (Restart::OnSuccess, [true, false, true, false]),
        (Restart::OnFailure, [false, true, false, true]),
        (Restart::OnAbnormal, [false, false, false, true]),
        (Restart::OnAbort, [false, false, false, true]),
        (Restart::OnWatchdog, [false, false, false, false]),
    ] {
        for (end, again) in [ok, bad, term, segv].into_iter().zip(again) {
            let mut p = play(|s| s.restart = restart).up();
            let state = p.tell(Event::MainEnded(end));
            assert_eq!(state == State::AutoRestart, again, "{restart:?} {end:?}: {state:?}");
        }
    }
    let ends = |status| crate::unit::ExitStatuses { statuses: [status].into(), ..Default::default() };
    let mut p = play(|s| (s.restart, s.restart_prevent_exit_status) = (Restart::Always, ends(1))).up();
    assert_eq!(p.exit(1), State::Failed);
    let mut p = play(|s| s.restart_force_exit_status = ends(0)).up();
    assert_eq!(p.exit(0), State::AutoRestart);
}

#[test]
fn restarts_are_counted_until_somebody_starts_it_and_too_many_are_the_end() {
    let mut p = play(|s| s.restart = Restart::Always).up();
    for count in 1..5 {
        p.exit(1);
        assert_eq!(p.wait(), State::Start);
        assert_eq!(p.machine.restarts(), count);
        p.tell(Event::Ready);
    }
    p.exit(1);
    assert_eq!(p.wait(), State::Failed);
    assert_eq!(p.machine.result(), Outcome::StartLimitHit);
    assert_eq!(p.tell(Event::Start), State::Failed);
    p.now += 11 * SECOND;
    assert_eq!(p.tell(Event::Start), State::Start);
    assert_eq!(p.machine.restarts(), 0);
}

#[test]
fn a_start_need_not_wait_for_the_restart_and_a_stop_gives_it_up() {
    let crashed = || {
        let mut p = play(|s| (s.restart, s.restart_after) = (Restart::Always, None)).up();
        assert_eq!(p.exit(1), State::AutoRestart);
        assert_eq!(p.machine.next_deadline(), None);
        p
    };
    assert_eq!(crashed().tell(Event::Start), State::Start);
    assert_eq!(crashed().tell(Event::Stop { again: false }), State::Dead);
}

#[test]
fn the_delay_grows_in_steps_to_its_bound() {
    let mut p = play(|s| {
        s.restart = Restart::Always;
        (s.restart_after, s.restart_max_delay) =
            (Some(Duration::from_secs(1)), Some(Duration::from_secs(16)));
        (s.restart_steps, s.common.start_limit) = (4, RateLimit { interval: None, burst: 0 });
    })
    .up();
    let mut delays = Vec::new();
    for _ in 0..6 {
        p.exit(1);
        delays.push((p.machine.next_deadline().unwrap() - p.now) / SECOND);
        p.wait();
        p.tell(Event::Ready);
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 16]);
}

#[test]
fn a_reload_is_what_its_command_makes_of_it_and_the_service_runs_on() {
    let mut p = play(|s| s.exec_reload = commands(&["reload"])).up();
    for (status, outcome) in [(21, Outcome::ExitCode), (0, Outcome::Success)] {
        assert_eq!(p.tell(Event::Reload), State::Reload);
        p.tell(Event::NewMain { alien: false });
        p.tell(Event::Ready);
        assert_eq!(p.control_exits(status), State::Running);
        assert_eq!(p.machine.reload_result(), outcome);
    }
    p.tell(Event::Reload);
    assert_eq!(p.wait(), State::Running);
    assert_eq!(p.machine.reload_result(), Outcome::Timeout);
    assert!(p.did.contains(&Action::KillControl));
}

#[test]
fn a_main_process_that_dies_while_a_reload_command_runs_is_missed_when_that_ends() {
    let mut p = play(|s| (s.exec_reload, s.restart) = (commands(&["reload"]), Restart::Always)).up();
    p.tell(Event::Reload);
    assert_eq!(p.exit(1), State::Reload);
    assert_eq!(p.control_exits(0), State::AutoRestart);
    assert_eq!(p.machine.result(), Outcome::ExitCode);
}

#[test]
fn notify_reload_wants_an_answer_younger_than_the_signal_and_then_an_end() {
    let mut p = play(|s| s.kind = ServiceType::NotifyReload).up();
    assert_eq!(p.tell(Event::Reload), State::ReloadSignal);
    assert!(p.did.contains(&Action::SignalReload));
    assert_eq!(p.tell(Event::Reloading(None)), State::ReloadSignal);
    assert_eq!(p.tell(Event::Reloading(Some(p.now - 1))), State::ReloadSignal);
    assert_eq!(p.tell(Event::Ready), State::ReloadSignal);
    assert_eq!(p.tell(Event::Reloading(Some(p.now))), State::ReloadNotify);
    assert_eq!(p.tell(Event::Ready), State::Running);
    assert_eq!(p.machine.reload_result(), Outcome::Success);
    p.tell(Event::Reload);
    p.tell(Event::Reloading(Some(p.now)));
    assert_eq!(p.wait(), State::Running, "it does not begin again for ever");
    assert_eq!(p.machine.reload_result(), Outcome::Timeout);
}

#[test]
fn stopping_is_final() {
    let mut p = play(|_| {}).up();
    assert_eq!(p.tell(Event::Stopping), State::StopSigterm);
    assert!(!p.did.contains(&Action::Kill(Strike::Terminate)), "it does that by itself");
    assert_eq!(p.tell(Event::Ready), State::StopSigterm);
    assert_eq!(p.wait(), State::StopSigkill);
}

#[test]
fn a_watchdog_bites_once_nobody_has_said_anything_for_that_long() {
    let mut p = play(|s| s.watchdog = Some(Duration::from_secs(2))).up();
    p.now += SECOND;
    p.tell(Event::Alive);
    assert_eq!(p.machine.next_deadline(), Some(p.now + 2 * SECOND));
    p.tell(Event::WatchdogUsec(SECOND));
    assert_eq!(p.machine.next_deadline(), Some(p.now + SECOND));
    assert_eq!(p.wait(), State::StopWatchdog);
    assert_eq!(p.tell(Event::MainEnded(End::Killed { signal: 6, core: true })), State::Failed);
    assert_eq!(p.machine.result(), Outcome::Watchdog);
}

#[test]
fn a_timeout_is_extended_and_never_shortened() {
    let mut p = play(|_| {});
    p.tell(Event::Start);
    let first = p.machine.next_deadline().unwrap();
    p.tell(Event::Extend(1));
    assert_eq!(p.machine.next_deadline(), Some(first));
    p.tell(Event::Extend(200 * SECOND));
    assert_eq!(p.machine.next_deadline(), Some(p.now + 200 * SECOND));
}

#[test]
fn an_alien_main_process_is_missed_when_nobody_is_left() {
    let mut p = play(|s| s.restart = Restart::Always).up();
    p.tell(Event::NewMain { alien: true });
    assert_eq!(p.tell(Event::Emptied), State::AutoRestart);
    assert_eq!(p.machine.result(), Outcome::Success);
}

#[test]
fn every_word_is_systemd_s_and_no_two_states_have_one() {
    let words: std::collections::BTreeSet<_> = State::ALL.iter().map(|state| state.word()).collect();
    assert_eq!(words.len(), State::ALL.len());
}
