//! The old process after the switch: it finishes what it has, takes nothing new, and leaves.

use std::time::{Duration, Instant};

use crate::load::Sight;
use crate::web::Web;

on_every_systemd! {
    fn a_request_in_flight_is_answered_by_the_process_that_has_it(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        let old = web.main();
        let mut client = web.connect_to(&old);
        client.send("/slow?ms=1500", false).unwrap();
        web.upgrade();
        assert!(!old.has_left(), "it has a request to answer");
        let answer = client.answer().unwrap();
        assert_eq!(answer.pid(), Some(old.pid));
        assert!(!answer.last);
        old.leaves();
        assert_eq!(client.get("/", false).unwrap().pid(), Some(web.main_pid()), "the next is another's");
        load.stop().assert_nothing_lost();
    }

    fn the_old_process_leaves_within_100_ms_of_its_last_request(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        let mut delays = [(); 5].map(|()| {
            let old = web.main();
            let mut client = web.connect_to(&old);
            client.begin("/").unwrap();
            web.upgrade();
            assert_eq!(client.finish().unwrap().pid(), Some(old.pid));
            let answered = Instant::now();
            old.leaves();
            answered.elapsed()
        });
        load.stop().assert_nothing_lost();
        delays.sort();
        // A machine under load may be late once or twice; a process that waits for something never is not.
        assert!(delays[2] < Duration::from_millis(100), "{delays:?}");
    }

    fn a_retired_process_accepts_nothing(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        let old = web.main();
        let mut held = web.connect_to(&old);
        held.begin("/").unwrap();
        web.upgrade();
        let new = web.main();
        load.pass(20);
        for _ in 0..50 {
            assert_eq!(web.get("/").pid(), Some(new.pid));
        }
        assert!(!old.has_left(), "a request holds it");
        assert_eq!(old.listening(), 0);
        // The service's and the one that takes requests for upgrades.
        assert_eq!(new.listening(), 2);
        assert_eq!(held.finish().unwrap().pid(), Some(old.pid));
        old.leaves();
        load.stop().assert_nothing_lost();
    }

    fn what_is_left_is_ended_at_the_deadline_and_not_before(systemd) {
        const DEADLINE: Duration = Duration::from_millis(1500);
        let drop_in = format!("[Service]\nEnvironment=WEB_DRAIN_MS={}\n", DEADLINE.as_millis());
        let web = Web::boot_with(systemd, &drop_in);
        let load = web.load();
        let old = web.main();
        let [mut stream, mut half, mut late] = [(); 3].map(|()| web.connect_to(&old));
        half.begin("/").unwrap();
        late.begin("/").unwrap();
        stream.send("/stream?ms=60000", false).unwrap();
        stream.head().unwrap();
        let before = Instant::now();
        web.upgrade();
        let after = Instant::now();
        let half = std::thread::spawn(move || {
            assert_eq!(half.end().unwrap(), "");
            Instant::now()
        });

        let drains = format!("{} drains (", old.pid);
        while !web.status().contains(&drains) {
            // Every 100 ms, until the deadline.
            stream.chunk().expect("STATUS= says who drains");
        }
        assert_eq!(late.finish().unwrap().pid(), Some(old.pid));

        let loss = std::iter::repeat_with(|| stream.chunk()).find_map(Result::err).unwrap();
        assert_eq!(loss.sight, Sight::Cut);
        let stream_ended = Instant::now();
        let half_ended = half.join().unwrap();
        old.leaves();
        for ended in [stream_ended, half_ended] {
            assert!(ended - before >= DEADLINE, "ended after {:?}", ended - before);
            assert!(ended - after < DEADLINE + Duration::from_millis(500), "ended after {:?}", ended - after);
        }
        assert!(web.journal_has(&format!("{} leaves at its drain deadline; 2 connections were ended", old.pid)));
        assert!(!web.status().contains("drains"), "{}", web.status());
        load.stop().assert_nothing_lost();
    }

    // systemd.service(5), TimeoutStopSec=: EXTEND_TIMEOUT_USEC= repeatedly, each before the time is up.
    fn a_stop_may_take_longer_only_while_it_gets_somewhere(systemd) {
        let web = Web::boot_with(systemd, "[Service]\nTimeoutStopSec=2\n");
        let mut clients = ["/slow?ms=1000", "/slow?ms=3500", "/slow?ms=6000"].map(|path| {
            let mut client = web.connect_to(&web.main());
            client.send(path, false).unwrap();
            client
        });
        web.machine.succeed(&["systemctl", "stop", "--no-block", "web.socket", "web.service"]);
        for client in &mut clients {
            client.answer().unwrap();
        }
        web.machine.succeed(&["systemctl", "stop", "web.service"]);
        assert_eq!(web.machine.show("web", "Result"), "success");

        web.machine.succeed(&["systemctl", "start", "web.socket", "web.service"]);
        let mut stuck = web.connect_to(&web.main());
        stuck.send("/slow?ms=20000", false).unwrap();
        web.machine.succeed(&["systemctl", "stop", "web.socket", "web.service"]);
        assert_eq!(web.machine.show("web", "Result"), "timeout");
        assert!(matches!(stuck.answer().unwrap_err().sight, Sight::Cut | Sight::Reset));
    }
}
