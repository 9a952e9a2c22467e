//! What the machine must hold, whatever comes in.

use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits { init_deadline: Duration::from_secs(10), max_draining: 4 };

fn asked(by: By) -> Event {
    Event::Asked { by, draining: 0 }
}

fn hello() -> Event {
    Event::Hello { version: VERSION, from: Some(7) }
}

/// Feeds events at one moment; the actions of the last one.
fn after(events: &[Event], now: Instant) -> (Machine, Vec<Action>) {
    let mut machine = Machine::new(LIMITS);
    let mut actions = Vec::new();
    for event in events {
        actions = machine.handle(event.clone(), now);
    }
    (machine, actions)
}

fn reason(actions: &[Action]) -> Option<Reason> {
    actions.iter().find_map(|action| match action {
        Action::Report(failure) | Action::Refuse(_, failure) => Some(failure.reason),
        _ => None,
    })
}

#[test]
fn a_good_successor_gets_the_service() {
    let now = Instant::now();
    let (mut machine, actions) = after(&[asked(By::Helper)], now);
    assert_eq!(actions, [Action::Grant, Action::AnnounceUpgrade]);
    assert_eq!(machine.handle(Event::Spawned { pid: 7 }, now), []);
    assert_eq!(machine.handle(hello(), now), []);
    assert_eq!(machine.handle(Event::Ready, now), [Action::Prepare]);
    assert_eq!(machine.handle(Event::Prepared, now), [Action::AnnounceReload, Action::Commit { pid: 7 }]);
    assert_eq!(machine.handle(Event::Committed { alive: true }, now), [Action::HandOver { pid: 7 }]);
    assert_eq!(machine.wake_at(), None);
}

#[test]
fn each_failure_has_its_own_reason_and_the_next_upgrade_may_begin() {
    let now = Instant::now();
    let late = now + LIMITS.init_deadline;
    let spawned = Event::Spawned { pid: 7 };
    let only_spawned = [spawned.clone()];
    let exec = Failure::new(Reason::Exec, "");
    let init = Failure::new(Reason::Init, "");
    let ready = [spawned.clone(), hello(), Event::Ready];
    let cases: [(&[Event], Event, Reason); 11] = [
        (&[], Event::SpawnFailed(exec.clone()), Reason::Exec),
        (&[], Event::HelperGone, Reason::HelperLost),
        (&only_spawned, Event::SpawnFailed(exec), Reason::Exec),
        (&only_spawned, Event::Tick, Reason::Mute),
        (&[spawned.clone(), hello()], Event::Tick, Reason::NeverReady),
        (&[spawned.clone(), hello()], Event::HelperGone, Reason::HelperLost),
        (&[spawned.clone(), hello()], Event::SuccessorFailed(init), Reason::Init),
        (&[spawned, hello()], Event::SuccessorGone, Reason::Exited),
        (&ready, Event::Tick, Reason::NeverReady),
        (&ready, Event::HelperGone, Reason::HelperLost),
        (&ready, Event::SuccessorGone, Reason::Exited),
    ];
    for (before, event, expected) in cases {
        let (mut machine, _) = after(&[&[asked(By::Helper)], before].concat(), now);
        let mut actions = machine.handle(event.clone(), late);
        if reason(&actions).is_none() {
            assert!(actions.contains(&Action::Abort), "{event:?}");
            actions = machine.handle(Event::SuccessorGone, late);
        }
        assert_eq!(reason(&actions), Some(expected), "{event:?}");
        assert!(!machine.under_way());
        assert_eq!(machine.handle(asked(By::Helper), late)[0], Action::Grant);
    }
}

#[test]
fn a_successor_that_does_not_leave_is_killed_once() {
    let now = Instant::now();
    let (mut machine, _) = after(&[asked(By::Helper), Event::Spawned { pid: 7 }, Event::HelperGone], now);
    assert_eq!(machine.wake_at(), Some(now + LEAVE));
    assert_eq!(machine.handle(Event::Tick, now + LEAVE), [Action::Kill]);
    assert_eq!((machine.handle(Event::Tick, now + LEAVE), machine.wake_at()), (vec![], None));
}

/// Where it is killed meanwhile, systemd 253 to 258 waits for the READY=1 that ends a reload.
#[test]
fn an_upgrade_by_the_helper_announces_a_reload_only_together_with_its_end() {
    let now = Instant::now();
    let mut machine = Machine::new(LIMITS);
    for event in [asked(By::Helper), Event::Spawned { pid: 7 }, hello(), Event::Ready] {
        assert!(!machine.handle(event, now).contains(&Action::AnnounceReload));
    }
    assert_eq!(machine.handle(Event::Prepared, now), [Action::AnnounceReload, Action::Commit { pid: 7 }]);
}

#[test]
fn a_second_request_is_refused_and_a_signal_is_the_same_request() {
    let now = Instant::now();
    let (mut machine, _) = after(&[asked(By::Helper)], now);
    assert_eq!(reason(&machine.handle(asked(By::Helper), now)), Some(Reason::UnderWay));
    assert_eq!(machine.handle(asked(By::Signal), now), []);
    let (mut machine, _) = after(&[asked(By::Signal)], now);
    assert_eq!(machine.handle(asked(By::Signal), now), [Action::AnnounceReload]);
}

#[test]
fn an_upgrade_by_signal_makes_way_for_one_that_the_helper_asks_for() {
    let now = Instant::now();
    let steps = [asked(By::Signal), Event::Spawned { pid: 7 }, hello(), Event::Ready];
    // However far its successor has come: up to the commit it can leave.
    for far in 2..=steps.len() {
        let (mut machine, _) = after(&steps[..far], now);
        assert_eq!(machine.handle(asked(By::Helper), now), [Action::Hold, Action::Abort]);
        assert_eq!(reason(&machine.handle(asked(By::Helper), now)), Some(Reason::UnderWay));
        assert_eq!(machine.handle(Event::Prepared, now), [], "the last word of one who leaves");
        assert_eq!(machine.handle(Event::SuccessorGone, now), [Action::Grant]);
        assert_eq!(machine.wake_at(), Some(now + LIMITS.init_deadline));
    }
}

#[test]
fn a_helper_that_is_lost_while_it_waits_for_its_grant_has_failed() {
    let events = [
        asked(By::Signal),
        Event::Spawned { pid: 7 },
        asked(By::Helper),
        Event::HelperGone,
        Event::SuccessorGone,
    ];
    let (machine, actions) = after(&events, Instant::now());
    assert_eq!(reason(&actions), Some(Reason::HelperLost));
    assert!(!machine.under_way());
}

#[test]
fn too_many_draining_generations_refuse_another() {
    let full = Event::Asked { by: By::Helper, draining: 4 };
    assert_eq!(reason(&after(&[full], Instant::now()).1), Some(Reason::TooManyDraining));
}

#[test]
fn a_successor_that_died_during_the_commit_leaves_the_old_one_serving() {
    let events = [
        asked(By::Signal),
        Event::Spawned { pid: 7 },
        hello(),
        Event::Ready,
        Event::Prepared,
        Event::Committed { alive: false },
    ];
    let (machine, actions) = after(&events, Instant::now());
    assert_eq!((actions[0].clone(), reason(&actions)), (Action::Reclaim, Some(Reason::Exited)));
    assert!(!machine.under_way());
}

#[test]
fn a_foreigner_on_the_link_is_not_taken_for_the_successor() {
    for hello in
        [Event::Hello { version: 9, from: Some(7) }, Event::Hello { version: VERSION, from: Some(8) }]
    {
        let events =
            [asked(By::Helper), Event::Spawned { pid: 7 }, hello, Event::Ready, Event::SuccessorGone];
        assert_eq!(reason(&after(&events, Instant::now()).1), Some(Reason::Protocol));
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(asked(By::Helper)),
        Just(asked(By::Signal)),
        Just(Event::Asked { by: By::Helper, draining: 4 }),
        Just(Event::Spawned { pid: 7 }),
        Just(Event::SpawnFailed(Failure::new(Reason::Exec, ""))),
        Just(Event::HelperGone),
        Just(hello()),
        Just(Event::Ready),
        Just(Event::Prepared),
        Just(Event::SuccessorFailed(Failure::new(Reason::Init, ""))),
        Just(Event::SuccessorGone),
        any::<bool>().prop_map(|alive| Event::Committed { alive }),
        Just(Event::CommitFailed(Failure::new(Reason::Commit, ""))),
        Just(Event::Terminate),
        Just(Event::Tick),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_each_upgrade_is_answered_exactly_once(
        steps in prop::collection::vec((any_event(), 0..4000u64), 0..60)
    ) {
        let mut now = Instant::now();
        let mut machine = Machine::new(LIMITS);
        let (mut open, mut held) = (false, false);
        for (event, later) in steps {
            now += Duration::from_millis(later);
            for action in machine.handle(event, now) {
                match action {
                    Action::Grant | Action::Launch => {
                        prop_assert!(!open || held, "two at a time");
                        (open, held) = (true, false);
                    }
                    Action::Hold => {
                        prop_assert!(open && !held);
                        held = true;
                    }
                    Action::Report(_) | Action::HandOver { .. } => {
                        prop_assert!(open, "answered twice, or never asked");
                        (open, held) = (false, false);
                    }
                    Action::Commit { .. } | Action::Kill => prop_assert!(open),
                    _ => {}
                }
            }
            prop_assert_eq!(open, machine.under_way());
        }
    }
}
