//! PID 1's store as a service uses it: what would be dropped without a word is refused before, or told.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::gate::soon;
use crate::lab::{Machine, Systemd, executable};

/// How PID 1 says that it drops something.
const DROPPED: &str = "Cannot store more fds";

/// What tells systemd 252 the limit, which later ones tell by themselves.
const TELL: &str = "Environment=FDSTORE=";

on_every_systemd! {
    fn the_first_that_would_not_fit_is_refused_before_pid_1_drops_it(systemd) {
        let limit = "FileDescriptorStoreMax=4\n";
        let stash = Stash::start(systemd, &if systemd == Systemd::V252 { format!("{limit}{TELL}4") } else { limit.into() });
        assert_eq!(stash.ask("free"), "Some(4)");
        let answer = stash.ask("stash a 6");
        assert!(answer.starts_with("stashed 4: ") && answer.contains("FileDescriptorStoreMax="), "{answer}");
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 4));
        assert_eq!(stash.ask("forget a2"), "forgotten");
        assert_eq!(stash.ask("stash b 1"), "stashed 1");
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 4));
        assert!(!stash.journal().contains(DROPPED));
        stash.restart();
        assert_eq!((&*stash.ask("arrived"), &*stash.ask("free")), ("4", "Some(0)"));
    }

    fn where_pid_1_does_not_tell_the_limit_it_is_found_with_canaries(systemd) {
        if systemd != Systemd::V252 {
            // It is told. And what is not kept is closed by a process of its own, later than the barrier, on
            // a busy machine by more than anybody can wait for.
            return;
        }
        let stash = Stash::start(systemd, "FileDescriptorStoreMax=4");
        assert_eq!(stash.ask("free"), "None");
        let answer = stash.ask("stash a 6");
        assert!(answer.starts_with("stashed 4: ") && answer.contains("all 4 places taken"), "{answer}");
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 4));
        stash.restart();
        assert_eq!(stash.ask("arrived"), "4");
    }

    fn a_unit_that_may_store_nothing_is_told_what_to_set(systemd) {
        let disabled = Stash::start(systemd, "FileDescriptorStoreMax=0");
        let answer = disabled.ask("stash a 1");
        assert!(answer.starts_with("stashed 0: ") && answer.contains("FileDescriptorStoreMax="), "{answer}");
        assert_eq!(disabled.held(), 0);
    }

    fn a_process_that_pid_1_does_not_listen_to_is_told_what_to_set(systemd) {
        // A child of the main process.
        let wrapped = "Type=simple\nExecStart=\nExecStart=/bin/sh -c '/usr/bin/stash; exit 0'\n";
        let deaf = Stash::start(systemd, &format!("{wrapped}NotifyAccess=main\nFileDescriptorStoreMax=4"));
        let stashed = deaf.ask("stash a 1");
        let answer = if stashed == "stashed 1" { deaf.ask("confirm") } else { stashed };
        assert!(answer.contains("NotifyAccess=main"), "{answer}");
        assert_eq!(deaf.held(), 0);
    }

    fn a_unit_that_wants_nothing_said_and_something_stored_is_listened_to(systemd) {
        // NotifyAccess=none is the default, which FileDescriptorStoreMax= changes, asked for or not.
        let stash = Stash::start(systemd, "Type=simple\nNotifyAccess=none\nFileDescriptorStoreMax=4");
        assert_eq!(stash.ask("stash a 1"), "stashed 1");
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 1));
        assert_eq!(stash.machine.show("stash", "NotifyAccess"), "main");
    }

    fn a_store_that_strangers_have_filled_is_noticed(systemd) {
        let stash = Stash::start(systemd, "NotifyAccess=all\nFileDescriptorStoreMax=4");
        assert_eq!(stash.ask("stash a 1"), "stashed 1");
        assert_eq!(stash.ask("confirm"), "confirmed");
        // Not through the store: as any process of the unit could.
        assert_eq!(stash.ask("bare foreign 3"), "sent");
        let stashed = stash.ask("stash b 1");
        let answer = if stashed == "stashed 1" { stash.ask("confirm") } else { stashed };
        assert!(answer.contains("FileDescriptorStoreMax="), "{answer}");
        assert_eq!(stash.held(), 4);
        stash.restart();
        assert_eq!(stash.ask("arrived"), "4");
        let answer = stash.ask("stash b 1");
        assert!(answer.starts_with("stashed 0: "), "{answer}");
    }

    fn more_than_the_next_start_could_open_is_refused_and_it_starts(systemd) {
        let stash = Stash::start(systemd, "FileDescriptorStoreMax=2000");
        let answer = stash.ask("stash a 1500");
        // The soft limit is 1024, and each may need two numbers below it.
        assert!(answer.starts_with("stashed 478: ") && answer.contains("LimitNOFILE=1025"), "{answer}");
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 478));
        stash.restart();
        assert_eq!(stash.ask("arrived"), "478");
        assert_eq!(stash.machine.show("stash", "NRestarts"), "0");
    }

    fn with_a_limit_that_fits_all_of_many_come_back(systemd) {
        let stash = Stash::start(systemd, "FileDescriptorStoreMax=2000\nLimitNOFILE=65536");
        assert_eq!(stash.ask("stash a 1500"), "stashed 1500");
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 1500));
        stash.restart();
        assert_eq!(stash.ask("arrived"), "1500");
        assert_eq!(stash.machine.show("stash", "NRestarts"), "0");
    }

    fn names_longer_than_the_kernel_passes_on_are_refused_and_it_starts(systemd) {
        let stash = Stash::start(systemd, "FileDescriptorStoreMax=2000\nLimitNOFILE=65536");
        let long = "n".repeat(251);
        let answer = stash.ask(&format!("stash {long} 999"));
        // 9 of 253 bytes, 90 of 254, the others of 255, each with a colon: with one more, 131216 bytes.
        assert!(answer.starts_with("stashed 514: ") && answer.contains("131056"), "{answer}");
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 514));
        stash.restart();
        assert_eq!(stash.ask("arrived"), "514");
        assert_eq!(stash.machine.show("stash", "NRestarts"), "0");
    }

    fn what_a_peer_wrote_before_it_left_is_there_after_a_restart(systemd) {
        let stash = Stash::start(systemd, "FileDescriptorStoreMax=4");
        assert_eq!(stash.ask("stream s"), "stashed");
        assert_eq!(stash.ask("confirm"), "confirmed");
        stash.restart();
        assert_eq!(stash.ask("read s"), "left behind");
    }

    fn a_connection_that_is_reset_goes_by_itself_and_one_that_is_dropped_reaches_its_peer(systemd) {
        let stash = Stash::start(systemd, "FileDescriptorStoreMax=4");
        let listener = stash.machine.enter_network(|| std::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(stash.ask(&format!("connect a {port}")), "stashed");
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 1));
        assert_eq!(stash.ask("end"), "ended");
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(std::io::Read::read(&mut peer, &mut [0; 1]).unwrap(), 0);
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 0));

        assert_eq!(stash.ask(&format!("connect b {port}")), "stashed");
        let (peer, _) = listener.accept().unwrap();
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 1));
        reset(peer);
        soon("PID 1 drops the connection", || stash.held() == 0);
        // Its owner has yet to notice; that then is no harm.
        assert_eq!(stash.ask("end"), "ended");
        assert_eq!(stash.ask("stash c 3"), "stashed 3");
        assert_eq!((&*stash.ask("confirm"), stash.held()), ("confirmed", 3));
    }

    fn a_socket_that_listens_is_left_to_its_unit(systemd) {
        let stash = Stash::start(systemd, "FileDescriptorStoreMax=4");
        assert!(stash.ask("listener web").contains(".socket unit"));
        assert_eq!(stash.held(), 0);
    }

    fn no_canary_outlives_the_process_that_sent_it(systemd) {
        let stash = Stash::start(systemd, "FileDescriptorStoreMax=50\nUnsetEnvironment=FDSTORE");
        // The places for a burst are proven, and nobody confirms.
        assert_eq!(stash.ask("stash a 5"), "stashed 5");
        assert!(stash.held() > 5, "canaries hold places");
        stash.machine.succeed(&["systemctl", "kill", "-s", "KILL", "stash"]);
        soon("they are gone", || stash.held() == 5);
        soon("it starts again", || stash.machine.show("stash", "NRestarts") == "1");
        soon("it is ready", || stash.machine.show("stash", "ActiveState") == "active");
        assert_eq!(stash.ask("arrived"), "5");
    }
}

/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A machine with the sample service that does what it is told.
struct Stash {
    machine: Machine,
}

impl Stash {
    /// Boots, and starts the service with these settings.
    fn start(systemd: Systemd, settings: &str) -> Self {
        let program = executable().with_file_name("stash");
        let machine = Machine::with(systemd).copy(program, "/usr/bin/stash").boot();
        let unit = format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nExecStart=/usr/bin/stash\nRestart=always\n\
             RestartSec=100ms\n{settings}\n"
        );
        machine.unit("stash.service", &unit);
        machine.succeed(&["systemctl", "start", "stash"]);
        Self { machine }
    }

    /// `systemctl restart stash`, which must work at once.
    fn restart(&self) {
        self.machine.succeed(&["timeout", "30", "systemctl", "restart", "stash"]);
        assert_eq!(self.machine.show("stash", "ActiveState"), "active");
    }

    /// Gives one command.
    fn ask(&self, command: &str) -> String {
        let path = format!("/proc/{}/root/run/stash", self.machine.pid1());
        let mut stream = None;
        // A service of Type=simple has started before it listens.
        soon("the service listens", || {
            stream = UnixStream::connect(&path).ok();
            stream.is_some()
        });
        let mut stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        writeln!(stream, "{command}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// How many descriptors PID 1 holds.
    fn held(&self) -> usize {
        self.machine.show("stash", "NFileDescriptorStore").parse().unwrap()
    }

    /// What the journal has of the unit, PID 1's words with it.
    fn journal(&self) -> String {
        self.machine.journal(&["-u", "stash", "-o", "cat"])
    }
}

/// Closes a connection so that its peer sees a reset: socket(7), SO_LINGER with no time.
fn reset(peer: std::net::TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&peer, nix::sys::socket::sockopt::Linger, &at_once).unwrap();
}
