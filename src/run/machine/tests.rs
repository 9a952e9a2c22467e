//! What the machine promises, step by step and under whatever order of events.

use super::*;
use proptest::prelude::*;

pub(super) const LIMITS: Limits = Limits {
    slots: 3,
    ready: Duration::from_secs(30),
    settle: Duration::ZERO,
    drain: Duration::from_secs(60),
    stop: Duration::from_secs(10),
    linger: Duration::from_secs(1),
    probe: false,
    canary: None,
    on_busy: OnBusy::Wait,
    signal_first: false,
    serial: false,
};

/// A machine with its own clock.
struct Rig {
    machine: Machine,
    now: Instant,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        let now = Instant::now();
        Self { machine: Machine::new(limits, 0, &[], now), now }
    }

    /// One whose first generation, number 1 in slot 0, lives.
    fn serving(limits: Limits) -> Self {
        let mut rig = Self::new(limits);
        assert_eq!(rig.hear(Event::Tick), [Action::Start { number: 1, slot: 0 }]);
        rig.make_ready(1);
        assert_eq!(rig.machine.live(), Some((1, 0)));
        rig
    }

    fn hear(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle(event, self.now)
    }

    fn make_ready(&mut self, number: u64) -> Vec<Action> {
        let mut actions = self.hear(Event::Ready { number });
        actions.extend(self.hear(Event::Probed { number }));
        actions
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.hear(Event::Tick)
    }

    fn gone(&mut self, number: u64) -> Vec<Action> {
        self.hear(Event::Gone { number, how: "exited with status 1".into() })
    }
}

fn everybody_to(slot: usize) -> Action {
    Action::Steer { slot, but: None }
}

fn failed_with(actions: &[Action]) -> Option<Reason> {
    actions.iter().find_map(|action| match action {
        Action::Failed(failure) => Some(failure.reason),
        _ => None,
    })
}

#[test]
fn an_upgrade_takes_a_free_slot_switches_when_ready_and_then_drains_the_old_one() {
    let mut rig = Rig::serving(LIMITS);
    assert_eq!(rig.hear(Event::Asked), [Action::Hold, Action::Start { number: 2, slot: 1 }]);
    assert_eq!(rig.machine.live(), Some((1, 0)));
    assert_eq!(rig.make_ready(2), [everybody_to(1), Action::Switched { number: 2 }]);
    assert_eq!(rig.machine.draining().collect::<Vec<_>>(), [1]);
    assert_eq!(rig.hear(Event::Empty { number: 1 }), [], "a handshake may still be under way");
    rig.now += LIMITS.linger;
    assert_eq!(rig.hear(Event::Empty { number: 1 }), [Action::Signal { number: 1 }]);
    assert_eq!(rig.gone(1), [Action::Retired { number: 1, cut: false }]);
}

#[test]
fn the_first_generation_makes_the_service_ready_or_ends_the_runner() {
    let mut rig = Rig::new(LIMITS);
    rig.hear(Event::Tick);
    assert_eq!(rig.make_ready(1), [everybody_to(0), Action::Serving { number: 1 }]);
    let mut rig = Rig::new(LIMITS);
    rig.hear(Event::Tick);
    let actions = rig.gone(1);
    assert!(matches!(actions.last(), Some(Action::Exit(Err(failure))) if failure.reason == Reason::Exited));
}

#[test]
fn a_new_one_that_exits_or_hangs_is_told_and_the_old_one_never_noticed() {
    let mut rig = Rig::serving(LIMITS);
    rig.hear(Event::Asked);
    assert_eq!(failed_with(&rig.gone(2)), Some(Reason::Exited));
    rig.hear(Event::Asked);
    assert_eq!(rig.pass(LIMITS.ready), [Action::Kill { number: 3 }]);
    assert_eq!(failed_with(&rig.gone(3)), Some(Reason::NeverReady));
    assert_eq!(rig.machine.live(), Some((1, 0)));
    assert_eq!(rig.hear(Event::Asked), [Action::Hold, Action::Start { number: 4, slot: 1 }]);
}

#[test]
fn a_probe_comes_between_ready_and_live() {
    let mut rig = Rig::serving(Limits { probe: true, ..LIMITS });
    rig.hear(Event::Asked);
    assert_eq!(rig.hear(Event::Probed { number: 2 }), []);
    assert_eq!(rig.hear(Event::Ready { number: 2 }), [Action::Probe { number: 2, slot: 1 }]);
    assert_eq!(rig.hear(Event::Probed { number: 2 }), [everybody_to(1), Action::Switched { number: 2 }]);
}

#[test]
fn a_canary_has_a_share_until_its_time_is_up_and_none_if_it_fails() {
    let canary = Some((10, Duration::from_secs(30)));
    let mut rig = Rig::serving(Limits { canary, ..LIMITS });
    rig.hear(Event::Asked);
    let share = Action::Steer { slot: 0, but: Some((1, 10)) };
    assert_eq!(rig.make_ready(2), std::slice::from_ref(&share));
    let actions = rig.gone(2);
    assert_eq!((actions.first(), failed_with(&actions)), (Some(&everybody_to(0)), Some(Reason::Exited)));
    rig.hear(Event::Asked);
    assert_eq!(rig.make_ready(3), [share]);
    assert_eq!(rig.pass(Duration::from_secs(30)), [everybody_to(1), Action::Switched { number: 3 }]);
}

#[test]
fn a_canary_that_does_not_pass_its_probe_any_more_loses_its_share_at_once() {
    let canary = Some((10, Duration::from_secs(30)));
    let mut rig = Rig::serving(Limits { canary, probe: true, ..LIMITS });
    rig.hear(Event::Asked);
    let share = Action::Steer { slot: 0, but: Some((1, 10)) };
    let probe = Action::Probe { number: 2, slot: 1 };
    assert_eq!(rig.make_ready(2), [probe.clone(), share, probe]);
    let failed = Event::ProbeFailed { number: 2, why: "404".into() };
    assert_eq!(rig.hear(failed), [Action::Kill { number: 2 }, everybody_to(0)]);
    assert_eq!(failed_with(&rig.gone(2)), Some(Reason::Probe));
}

#[test]
fn a_new_one_gets_no_client_before_it_has_settled_and_none_if_it_ends_before() {
    let settle = Duration::from_millis(100);
    let mut rig = Rig::serving(Limits { settle, ..LIMITS });
    rig.hear(Event::Asked);
    assert_eq!(rig.make_ready(2), []);
    assert_eq!(failed_with(&rig.gone(2)), Some(Reason::Exited));
    rig.hear(Event::Asked);
    rig.make_ready(3);
    assert_eq!(rig.pass(settle), [everybody_to(1), Action::Switched { number: 3 }]);
}

#[test]
fn what_a_signal_began_makes_way_for_who_knows_more() {
    let mut rig = Rig::serving(LIMITS);
    rig.hear(Event::Asked);
    assert!(rig.machine.could_begin_again());
    assert_eq!(rig.hear(Event::AskedAgain), [Action::Hold, Action::Kill { number: 2 }]);
    assert_eq!(rig.gone(2), [Action::Start { number: 3, slot: 1 }]);
    assert_eq!(rig.make_ready(3), [everybody_to(1), Action::Switched { number: 3 }]);
}

#[test]
fn a_canary_is_better_than_nobody() {
    let mut rig = Rig::serving(Limits { canary: Some((10, Duration::from_secs(30))), ..LIMITS });
    rig.hear(Event::Asked);
    rig.make_ready(2);
    assert!(rig.gone(1).contains(&Action::Switched { number: 2 }));
}

#[test]
fn a_crash_is_followed_by_a_start_in_the_same_slot_later_and_later() {
    let mut rig = Rig::serving(LIMITS);
    let mut last = Duration::ZERO;
    for number in 1..5 {
        let actions = rig.gone(number);
        let [Action::Crashed { pause, .. }] = actions[..] else { panic!("{actions:?}") };
        assert!(pause > last);
        assert_eq!(rig.machine.wake_at(), Some(rig.now + pause));
        assert_eq!(rig.pass(pause), [Action::Start { number: number + 1, slot: 0 }]);
        assert_eq!(rig.make_ready(number + 1), [everybody_to(0)]);
        last = pause;
    }
    rig.now += STABLE;
    assert!(matches!(rig.gone(5)[..], [Action::Crashed { pause: FIRST_PAUSE, .. }]));
}

#[test]
fn when_every_slot_is_taken_it_waits_or_kills_or_refuses() {
    let full = |on_busy| {
        let mut rig = Rig::serving(Limits { slots: 2, on_busy, ..LIMITS });
        rig.hear(Event::Asked);
        rig.make_ready(2);
        let asked = rig.hear(Event::Asked);
        (rig, asked)
    };
    let (mut rig, asked) = full(OnBusy::Wait);
    assert_eq!(asked, [Action::Hold]);
    assert_eq!(
        rig.gone(1),
        [Action::Retired { number: 1, cut: false }, Action::Start { number: 3, slot: 0 }]
    );
    let (mut rig, asked) = full(OnBusy::KillOldest);
    assert_eq!(asked, [Action::Hold, Action::Kill { number: 1 }]);
    assert_eq!(rig.gone(1), [Action::Retired { number: 1, cut: true }, Action::Start { number: 3, slot: 0 }]);
    let (_, asked) = full(OnBusy::Refuse);
    assert!(matches!(&asked[..], [Action::Refuse(failure)] if failure.reason == Reason::TooManyDraining));
}

#[test]
fn serial_stops_the_old_one_first_while_clients_wait_in_another_slot_also_if_who_asked_goes() {
    let serial = Limits { serial: true, ..LIMITS };
    let mut rig = Rig::serving(serial);
    assert_eq!(rig.hear(Event::Asked), [Action::Hold, everybody_to(1)]);
    assert!(rig.machine.is_held_back() && rig.machine.taken().eq([0, 1]));
    assert_eq!(rig.hear(Event::Empty { number: 1 }), [Action::Signal { number: 1 }]);
    let actions = rig.gone(1);
    assert_eq!(actions, [Action::Retired { number: 1, cut: false }, Action::Start { number: 2, slot: 1 }]);
    assert!(rig.make_ready(2).contains(&Action::Switched { number: 2 }));

    assert_eq!(rig.hear(Event::Asked), [Action::Hold, everybody_to(0)]);
    assert_eq!(failed_with(&rig.hear(Event::CallerGone)), Some(Reason::HelperLost));
    assert_eq!(rig.pass(GRACE), [Action::Signal { number: 2 }]);
    rig.gone(2);
    assert_eq!(rig.hear(Event::Tick), [Action::Start { number: 3, slot: 0 }]);
}

#[test]
fn serial_never_has_two_also_where_there_is_one_socket() {
    let mut rig = Rig::serving(Limits { serial: true, slots: 1, ..LIMITS });
    assert_eq!(rig.hear(Event::Asked), [Action::Hold, Action::Signal { number: 1 }]);
    let actions = rig.gone(1);
    assert_eq!(actions, [Action::Retired { number: 1, cut: false }, Action::Start { number: 2, slot: 0 }]);
}

#[test]
fn on_one_shared_listener_the_old_one_gets_its_signal_at_the_switch() {
    let mut rig = Rig::serving(Limits { slots: 1, ..LIMITS });
    assert_eq!(rig.hear(Event::Asked), [Action::Hold, Action::Start { number: 2, slot: 0 }]);
    let wanted = [everybody_to(0), Action::Switched { number: 2 }, Action::Signal { number: 1 }];
    assert_eq!(rig.make_ready(2), wanted);
    assert_eq!(rig.pass(LIMITS.drain), [Action::Kill { number: 1 }]);
}

#[test]
fn survivors_of_an_earlier_runner_drain_once_the_first_generation_lives() {
    let now = Instant::now();
    let mut rig = Rig { machine: Machine::new(LIMITS, 1, &[(7, 0)], now), now };
    assert_eq!(rig.hear(Event::Tick), [Action::Start { number: 8, slot: 1 }]);
    assert_eq!(rig.make_ready(8), [everybody_to(1), Action::Serving { number: 8 }]);
    assert_eq!(rig.machine.draining().collect::<Vec<_>>(), [7]);
}

#[test]
fn a_runner_that_goes_on_starts_nothing_and_drains_what_drained() {
    let now = Instant::now();
    let clock = Clock { at: now, ms: 0 };
    let found = Kept::unwritten(&[(6, 0), (7, 2)], (7, 2), clock);
    let mut rig = Rig { machine: Machine::revive(LIMITS, &found, clock), now };
    assert_eq!(rig.hear(Event::Tick), []);
    assert_eq!((rig.machine.live(), rig.machine.draining().next()), (Some((7, 2)), Some(6)));
    assert_eq!(rig.hear(Event::Asked), [Action::Hold, Action::Start { number: 8, slot: 1 }]);
}

#[test]
fn where_survivors_have_every_slot_the_first_generation_waits_for_one() {
    let now = Instant::now();
    let limits = Limits { slots: 2, ..LIMITS };
    let mut rig = Rig { machine: Machine::new(limits, 0, &[(7, 0), (8, 1)], now), now };
    assert_eq!(rig.pass(LIMITS.linger), []);
    assert_eq!(rig.hear(Event::Empty { number: 7 }), [Action::Signal { number: 7 }]);
    assert_eq!(rig.gone(7), [Action::Retired { number: 7, cut: false }]);
    assert_eq!(rig.hear(Event::Tick), [Action::Start { number: 9, slot: 0 }]);
    rig.make_ready(9);
    assert_eq!(rig.machine.draining().collect::<Vec<_>>(), [8]);
}

#[test]
fn a_stop_signals_all_kills_who_stays_and_ends_when_they_are_gone() {
    let mut rig = Rig::serving(LIMITS);
    rig.hear(Event::Asked);
    let actions = rig.hear(Event::Terminate);
    assert_eq!(failed_with(&actions), Some(Reason::Stopped));
    assert_eq!(actions[1..], [Action::Signal { number: 1 }, Action::Signal { number: 2 }]);
    assert!(matches!(rig.hear(Event::Asked)[..], [Action::Refuse(_)]));
    rig.gone(1);
    assert_eq!(rig.pass(LIMITS.stop), [Action::Kill { number: 2 }]);
    assert_eq!(rig.gone(2), [Action::Retired { number: 2, cut: true }, Action::Exit(Ok(()))]);
}

/// What can happen next, by choice.
#[derive(Clone, Debug)]
enum Step {
    Asked,
    CallerGone,
    Ready(usize),
    Probed(usize),
    Empty(usize),
    Gone(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let one = prop_oneof![
        3 => Just(Step::Asked),
        1 => Just(Step::CallerGone),
        4 => (0..4_usize).prop_map(Step::Ready),
        4 => (0..4_usize).prop_map(Step::Probed),
        2 => (0..4_usize).prop_map(Step::Empty),
        2 => (0..4_usize).prop_map(Step::Gone),
        3 => (0..40_000_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(one, 0..80)
}

fn choices() -> impl Strategy<Value = Limits> {
    let on_busy = prop::sample::select(vec![OnBusy::Wait, OnBusy::KillOldest, OnBusy::Refuse]);
    (1..4_usize, any::<[bool; 4]>(), on_busy).prop_map(
        |(slots, [probe, canary, signal_first, serial], on_busy)| {
            let canary = canary.then_some((10, Duration::from_secs(5)));
            let settle = Duration::from_millis(if probe { 100 } else { 0 });
            Limits { slots, probe, settle, canary, signal_first, serial, on_busy, ..LIMITS }
        },
    )
}

proptest! {
    #[test]
    fn whatever_happens_one_lives_slots_are_its_own_and_who_asks_is_answered_once(
        limits in choices(), steps in steps(),
    ) {
        let mut rig = Rig::serving(limits);
        let (mut waiting, mut steered) = (0, 0);
        for step in steps.into_iter().chain([Step::Pass(100_000)]) {
            let pick = |rig: &Rig, place: usize| rig.machine.generations.get(place).map_or(0, |one| one.number);
            let (asked, event) = match step {
                Step::Asked => (1, Event::Asked),
                Step::CallerGone if waiting == 0 => continue,
                Step::CallerGone => (0, Event::CallerGone),
                Step::Ready(place) => (0, Event::Ready { number: pick(&rig, place) }),
                Step::Probed(place) => (0, Event::Probed { number: pick(&rig, place) }),
                Step::Empty(place) => (0, Event::Empty { number: pick(&rig, place) }),
                Step::Gone(place) => (0, Event::Gone { number: pick(&rig, place), how: "exited".into() }),
                Step::Pass(ms) => {
                    rig.now += Duration::from_millis(ms);
                    (0, Event::Tick)
                }
            };
            let clock = Clock { at: rig.now, ms: 1 << 30 };
            if let Some(kept) = rig.machine.keep(clock) {
                let next = Machine::revive(limits, &kept, clock);
                prop_assert_eq!(next.keep(clock), Some(kept));
                rig.machine = next;
            }
            let gone = event == Event::CallerGone;
            let actions = rig.hear(event);
            for action in &actions {
                match action {
                    Action::Hold => waiting += 1,
                    Action::Switched { .. } => waiting -= 1,
                    Action::Failed(failure) if failure.reason != Reason::HelperLost => {
                        waiting -= i32::from(waiting > 0);
                    }
                    Action::Steer { slot, .. } => steered = *slot,
                    _ => {}
                }
            }
            if gone {
                waiting = 0;
            }
            prop_assert_eq!(asked, actions.iter().filter(|a| matches!(a, Action::Hold | Action::Refuse(_))).count());
            prop_assert!((0..=1).contains(&waiting), "{} wait", waiting);
            let generations = &rig.machine.generations;
            let live: Vec<_> = generations.iter().filter(|one| matches!(one.state, State::Live { .. })).collect();
            prop_assert!(live.len() <= 1);
            prop_assert!(live.iter().all(|one| one.slot == steered), "clients go to slot {}", steered);
            let mut slots: Vec<_> = rig.machine.taken().collect();
            slots.sort_unstable();
            prop_assert!(limits.slots == 1 || slots.windows(2).all(|two| two[0] != two[1]), "{:?}", slots);
            let serves = generations.iter().any(|one| !matches!(one.state, State::Killed | State::Failed(_)));
            prop_assert!(serves || rig.machine.restart.is_some() || rig.machine.comes() || !generations.is_empty());
            prop_assert!(rig.machine.wake_at().is_some() || !live.is_empty() || !generations.is_empty());
        }
    }
}
