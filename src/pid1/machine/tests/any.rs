//! A machine to which anything may happen: every state has a way out.

use proptest::prelude::*;

use super::*;

fn any_event() -> impl Strategy<Value = Event> {
    let end = prop_oneof![
        (0..3).prop_map(End::Exited),
        Just(End::Killed { signal: 15, core: false }),
        Just(End::Killed { signal: 9, core: false })
    ];
    prop_oneof![
        Just(Event::Start),
        any::<bool>().prop_map(|again| Event::Stop { again }),
        Just(Event::Reload),
        Just(Event::Ready),
        any::<Option<u64>>().prop_map(Event::Reloading),
        Just(Event::Stopping),
        any::<bool>().prop_map(|alien| Event::NewMain { alien }),
        (0..1000 * SECOND).prop_map(Event::Extend),
        Just(Event::Alive),
        Just(Event::WatchdogTrigger),
        (0..1000 * SECOND).prop_map(Event::WatchdogUsec),
        Just(Event::Time),
        Just(Event::Emptied),
        end.clone().prop_map(Event::MainEnded),
        end.prop_map(Event::ControlEnded),
    ]
}

proptest! {
    /// Whatever has happened: a stop, and then nothing but the ends of what runs and time, leads down.
    #[test]
    fn from_every_state_a_stop_leads_down(events in prop::collection::vec(any_event(), 0..40), kind in 0..5, list in any::<[bool; 8]>()) {
        use ServiceType::{Exec, Notify, NotifyReload, Oneshot, Simple};
        let kinds = [Simple, Notify, NotifyReload, Oneshot, Exec];
        let mut p = play(|s| {
            s.kind = kinds[kind as usize];
            s.restart = Restart::Always;
            s.watchdog = Some(Duration::from_secs(1));
            let fill = |on: bool| if on { commands(&["x"]) } else { Vec::new() };
            (s.exec_condition, s.exec_start_pre, s.exec_start_post) = (fill(list[0]), fill(list[1]), fill(list[2]));
            (s.exec_reload, s.exec_reload_post) = (fill(list[3]), fill(list[4]));
            (s.exec_stop, s.exec_stop_post) = (fill(list[5]), fill(list[6]));
            s.kill.send_sigkill = list[7];
        });
        for event in events {
            match event {
                // Nobody dies who does not live.
                Event::MainEnded(_) if !p.main => continue,
                Event::ControlEnded(_) if p.control.is_none() => continue,
                Event::NewMain { .. } if !p.main => continue,
                Event::Emptied if p.main || p.control.is_some() => continue,
                Event::Time if p.machine.next_deadline().is_some() => { p.wait(); }
                other => { p.tell(other); }
            }
            let (state, main) = (p.machine.state(), p.main);
            prop_assert!(!(state.is_down() && p.machine.next_deadline().is_some()), "{state:?} waits for nothing");
            prop_assert!(state != State::Running || main, "nobody runs");
        }
        p.tell(Event::Stop { again: false });
        for _ in 0..20 {
            if p.machine.state().is_down() {
                break;
            }
            if p.machine.next_deadline().is_some() {
                p.wait();
            } else {
                p.tell(if p.control.is_some() { Event::ControlEnded(End::Exited(0)) } else { Event::MainEnded(End::Exited(0)) });
            }
        }
        prop_assert!(p.machine.state().is_down(), "{:?} is stuck", p.machine.state());
    }
}
