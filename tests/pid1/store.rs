//! The FD store: what is kept, for how long, and what is dropped without a word.

use crate::standin::{Puppet, Standin, Way};

/// A puppet with room for descriptors.
fn run(way: Way, settings: &str) -> (Standin, Puppet) {
    crate::standin::run(way, &format!("Type=exec\nLimitNOFILE=20000\nRestartSec=0\n{settings}"))
}

fn held(standin: &Standin) -> String {
    standin.show("puppet", "NFileDescriptorStore")
}

in_both_ways! {
    fn what_is_stored_comes_back_newest_first_after_restart_and_after_kill(way) {
        let (standin, mut puppet) = run(way, "FileDescriptorStoreMax=9\nRestart=on-failure\n");
        assert_eq!(puppet.act("env FDSTORE"), "9");
        assert_eq!(puppet.act("env LISTEN_FDS"), "");
        for name in ["a", "b", "c"] {
            puppet.tell(&format!("store {name} 1"));
        }
        let back = |puppet: &mut Puppet| {
            assert_eq!(puppet.act("env LISTEN_PID"), puppet.pid.to_string());
            puppet.act("env LISTEN_FDNAMES")
        };
        standin.succeed(&["restart", "puppet"]);
        let mut puppet = standin.puppet();
        assert_eq!(back(&mut puppet), "c:b:a");
        puppet.kill();
        let mut puppet = standin.puppet();
        assert_eq!(back(&mut puppet), "c:b:a");
        // Each daemon-reload turns it around.
        standin.succeed(&["daemon-reload"]);
        standin.succeed(&["restart", "puppet"]);
        assert_eq!(back(&mut standin.puppet()), "a:b:c");
    }

    fn a_stop_ends_it_unless_it_is_to_be_preserved(way) {
        for (preserve, left) in [("restart", "0"), ("yes", "1"), ("no", "0"), ("on-success", "1")] {
            let settings = format!("FileDescriptorStoreMax=9\nFileDescriptorStorePreserve={preserve}\n");
            let (standin, mut puppet) = run(way, &settings);
            puppet.tell("store a 1");
            assert_eq!(held(&standin), "1");
            standin.succeed(&["stop", "puppet"]);
            assert_eq!(held(&standin), left, "{preserve}");
            if left == "1" {
                assert_eq!(standin.show("puppet", "SubState"), "dead-resources-pinned");
                standin.succeed(&["clean", "--what=fdstore", "puppet"]);
                assert_eq!(held(&standin), "0");
            }
        }
    }

    fn a_full_store_drops_the_rest_also_of_what_it_knows(way) {
        let (standin, mut puppet) = run(way, "FileDescriptorStoreMax=3\n");
        puppet.tell("store a 1");
        puppet.tell("again b");
        assert_eq!(held(&standin), "1", "it is the same, and keeps its name");
        puppet.tell("batch c 4");
        standin.await_log("cannot store more than FileDescriptorStoreMax=3");
        assert_eq!(held(&standin), "3");
        puppet.tell("say FDSTOREREMOVE=1\\nFDNAME=b");
        assert_eq!(held(&standin), "3");
        puppet.tell("say FDSTOREREMOVE=1\\nFDNAME=c");
        assert_eq!(held(&standin), "1");
        standin.succeed(&["restart", "puppet"]);
        assert_eq!(standin.puppet().act("env LISTEN_FDNAMES"), "a");
    }

    fn what_hangs_up_leaves_by_itself_unless_it_is_not_to_be_polled(way) {
        let (standin, mut puppet) = run(way, "FileDescriptorStoreMax=9\n");
        puppet.tell("pair a");
        puppet.tell("pair b FDPOLL=0");
        puppet.tell("store c 1");
        assert_eq!(held(&standin), "3");
        puppet.act("part");
        standin.await_property("puppet", "NFileDescriptorStore", "2");
        standin.succeed(&["restart", "puppet"]);
        assert_eq!(standin.puppet().act("env LISTEN_FDNAMES"), "c:b");
    }

    fn a_service_without_a_store_has_none(way) {
        let (standin, mut puppet) = run(way, "NotifyAccess=main\n");
        assert_eq!(puppet.act("env FDSTORE"), "");
        puppet.tell("store a 1");
        standin.await_log("cannot store more than FileDescriptorStoreMax=0");
        assert_eq!(held(&standin), "0");
    }

    fn a_bad_name_becomes_stored_and_a_limit_that_was_lowered_closes_the_rest(way) {
        let (standin, mut puppet) = run(way, "FileDescriptorStoreMax=9\n");
        puppet.tell("store a:b 2");
        puppet.tell("store c 2");
        standin.unit("puppet.service.d/less.conf", "[Service]\nFileDescriptorStoreMax=3\n");
        standin.succeed(&["daemon-reload"]);
        assert_eq!(held(&standin), "3");
        standin.succeed(&["restart", "puppet"]);
        assert_eq!(standin.puppet().act("env LISTEN_FDNAMES"), "stored:c:c");
    }

    fn ten_thousand_are_no_trouble(way) {
        let (standin, mut puppet) = run(way, "FileDescriptorStoreMax=10000\n");
        puppet.tell("store x 9900");
        for _ in 0..3 {
            puppet.tell("batch y 100");
        }
        assert_eq!(held(&standin), "10000");
        standin.succeed(&["restart", "puppet"]);
        assert_eq!(standin.puppet().act("env LISTEN_FDS"), "10000");
    }

    fn ten_thousand_that_are_too_many_are_closed_and_others_are_served_on(way) {
        let (standin, mut puppet) = run(way, "FileDescriptorStoreMax=9\n");
        let open = || std::fs::read_dir(format!("/proc/{}/fd", standin.pid())).unwrap().count();
        let before = open();
        std::thread::scope(|scope| {
            let offers = scope.spawn(|| puppet.tell("store x 10000"));
            let mut asked = 0;
            while !offers.is_finished() {
                assert_eq!(standin.show("puppet", "ActiveState"), "active");
                asked += 1;
            }
            assert!(asked > 0);
        });
        assert_eq!(held(&standin), "9");
        assert!(open() <= before + 20, "{before} before, {} now", open());
        assert_eq!(standin.log().matches("cannot store more than FileDescriptorStoreMax=9").count(), 1);
    }
}
