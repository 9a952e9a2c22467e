//! Sessions that end: by the client, by the service, while the service is down. PID 1 holds a copy of
//! every connection, and lets go of it then.

use super::Keeper;
use super::talk::Talk;
use crate::gate::{Gate, soon};
use crate::session::MOST_LINE;

/// What handover itself has in the store: the state file and the record.
const OWN: usize = 2;

on_every_systemd! {
    fn a_client_that_leaves_is_forgotten_by_pid_1_as_well(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let mut crowd = Crowd::gather(&keeper, 6);
        soon("PID 1 has them all", || keeper.stored() == OWN + 12);
        let change: [(&str, &dyn Fn()); 4] = [
            ("here", &|| {}),
            ("moved", &|| _ = keeper.upgrade()),
            ("restored", &|| keeper.systemctl("restart")),
            ("restored after a kill", &|| keeper.kill()),
        ];
        for (what, change) in change {
            change();
            crowd.answer();
            crowd.one_leaves();
            crowd.one_is_reset();
            soon(&format!("PID 1 forgets who was {what}"), || keeper.stored() == OWN + crowd.len());
            crowd.answer();
        }
        keeper.assert_calm();
    }

    fn a_session_that_the_service_ends_is_over_for_the_client_at_once(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let change: [&dyn Fn(); 3] = [&|| {}, &|| _ = keeper.upgrade(), &|| keeper.systemctl("restart")];
        for change in change {
            for mut talk in [keeper.talk(), keeper.talk_unix()] {
                talk.ask("SET a 1");
                change();
                // Also what was sent behind the last line ends nothing but the session.
                talk.send("#71 GET a\n#72 QUIT\nGET a\n").unwrap();
                assert_eq!([talk.answer().unwrap(), talk.answer().unwrap()], ["#71 value 1", "#72 bye"]);
                assert_eq!(talk.end(), "");
            }
        }
        let mut talk = keeper.talk();
        talk.send(&"x".repeat(MOST_LINE)).unwrap();
        assert_eq!(talk.end(), format!("error: a line has at most {MOST_LINE} bytes\n"));
        soon("PID 1 forgets them", || keeper.stored() == OWN);
        keeper.assert_calm();
    }

    fn who_left_while_the_service_was_down_is_forgotten_when_it_is_back(systemd) {
        let keeper = Keeper::boot(systemd, "");
        let mut crowd = Crowd::gather(&keeper, 6);
        let gate = Gate::shut(&keeper.machine);
        keeper.kill();
        // It has got all descriptors, and knows of none yet.
        let arrival = gate.arrival();
        // A FIN is neither HUP nor ERR, and stays with PID 1. A reset is both. A unix socket without its other
        // end is one, but may have unread bytes: PID 1 was told not to look.
        drop(crowd.tcp.drain(..2));
        drop(crowd.unix.drain(..1));
        crowd.tcp.drain(..2).for_each(Talk::reset);
        soon("PID 1 forgets those who cannot come back", || keeper.stored() == OWN + 12 - 2);
        drop(gate);
        drop(arrival);
        crowd.answer();
        soon("the service forgets the others", || keeper.stored() == OWN + crowd.len());
        assert_eq!(crowd.len(), 7);
        keeper.kill();
        crowd.answer();
        // That clients leave is no trouble.
        let journal = keeper.journal();
        assert!(!journal.contains("not kept by the service manager"), "{journal}");
        keeper.assert_calm();
    }

    fn a_session_too_many_is_refused_and_has_room_when_another_has_left(systemd) {
        let keeper = Keeper::boot(systemd, "FileDescriptorStoreMax=16\n");
        let mut crowd = Vec::new();
        let refusal = loop {
            let mut talk = keeper.talk();
            match talk.ask("SET n 1") {
                answer if answer == "ok" => crowd.push(talk),
                refusal => break (refusal, talk),
            }
        };
        assert!(refusal.0.contains("FileDescriptorStoreMax="), "{}", refusal.0);
        assert_eq!(refusal.1.end(), "");
        assert!(crowd.len() >= 8, "{} sessions in 16 places", crowd.len());
        // However they leave, their places are free again: the service may not count on in its own way.
        crowd.pop().unwrap().reset();
        drop(crowd.pop());
        assert_eq!(crowd.pop().unwrap().ask("QUIT"), "bye");
        let full = crowd.len() + 3;
        keeper.kill();
        while crowd.len() < full {
            let mut talk = keeper.talk();
            // Until the service has noticed that they have left.
            if talk.ask("SET n 1") == "ok" {
                crowd.push(talk);
            }
        }
        crowd.iter_mut().for_each(|talk| assert_eq!(talk.ask("GET n"), "value 1"));
        keeper.upgrade();
        crowd.iter_mut().for_each(|talk| assert_eq!(talk.ask("GET n"), "value 1"));
        keeper.assert_calm();
    }
}

/// Sessions of both kinds, each with a value of its own.
struct Crowd {
    tcp: Vec<Talk>,
    unix: Vec<Talk>,
}

impl Crowd {
    /// So many of each kind.
    fn gather(keeper: &Keeper, each: usize) -> Self {
        Self {
            tcp: (0..each).map(|_| keeper.talk().served()).collect(),
            unix: (0..each).map(|_| keeper.talk_unix().served()).collect(),
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Talk> {
        self.tcp.iter_mut().chain(&mut self.unix)
    }

    fn len(&self) -> usize {
        self.tcp.len() + self.unix.len()
    }

    /// Each gets its own answer.
    fn answer(&mut self) {
        self.all().for_each(|talk| assert_eq!(talk.ask("GET a"), "value 1"));
    }

    fn one_leaves(&mut self) {
        drop(self.unix.pop());
    }

    fn one_is_reset(&mut self) {
        self.tcp.pop().unwrap().reset();
    }
}
