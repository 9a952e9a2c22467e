//! Directives, each by what a process finds of it or by what becomes of it.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::standin::{Standin, run};

in_both_ways! {
    fn a_stop_and_a_restart_have_their_own_signals(way) {
        let settings = "Type=exec\nKillSignal=SIGUSR1\nRestartKillSignal=SIGUSR2\nTimeoutStopSec=20s\n";
        let (standin, first) = run(way, settings);
        standin.succeed(&["restart", "puppet"]);
        standin.await_log(&format!("the main process {} was killed by SIGUSR2", first.pid));
        let second = standin.puppet();
        standin.succeed(&["stop", "puppet"]);
        standin.await_log(&format!("the main process {} was killed by SIGUSR1", second.pid));
    }

    fn sighup_comes_with_the_stop_where_it_is_wanted(way) {
        let (standin, mut puppet) = run(way, "Type=exec\nSendSIGHUP=yes\nTimeoutStopSec=20s\n");
        puppet.act("catch 15");
        standin.succeed(&["stop", "puppet"]);
        standin.await_log("was killed by SIGHUP");
    }

    fn passed_sockets_block_or_do_not_as_the_service_wants_them(way) {
        for (wanted, expected) in [("yes", true), ("no", false)] {
            let standin = Standin::new(way);
            standin.unit("puppet.socket", "[Socket]\nListenStream=@/s\n");
            standin.puppet_unit(&format!("Type=exec\nNonBlocking={wanted}\n"));
            let standin = standin.argument("--now").start();
            let puppet = standin.puppet();
            let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/3", puppet.pid)).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let flags = i32::from_str_radix(flags, 8).unwrap();
            assert_eq!(flags & nix::libc::O_NONBLOCK != 0, expected, "NonBlocking={wanted}: {info}");
        }
    }

    fn as_many_clients_wait_as_the_backlog_has_room_for(way) {
        let standin = Standin::new(way);
        standin.unit("puppet.socket", "[Socket]\nListenStream=@/s\nBacklog=3\n");
        standin.puppet_unit("Type=exec\n");
        let standin = standin.argument("--now").start();
        let _puppet = standin.puppet();
        let address = UnixAddr::new(&standin.path("s")).unwrap();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let mut clients = Vec::new();
        let refused = loop {
            let client = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
            match connect(client.as_raw_fd(), &address) {
                Ok(()) => clients.push(client),
                Err(why) => break why,
            }
        };
        // listen(2): a unix socket has room for one more.
        assert_eq!((refused, clients.len()), (Errno::EAGAIN, 4));
    }

    fn a_service_gets_the_sockets_that_it_names_beside_its_own(way) {
        let standin = Standin::new(way);
        standin.unit("puppet.socket", "[Socket]\nListenStream=@/own\nFileDescriptorName=own\n");
        standin.unit("other.socket", "[Socket]\nListenStream=@/other\nFileDescriptorName=other\n");
        standin.unit("other.service", "[Service]\nExecStart=/bin/cat\n");
        standin.puppet_unit("Type=exec\nSockets=other.socket\n");
        let standin = standin.start();
        let _client = UnixStream::connect(standin.path("own")).unwrap();
        let mut puppet = standin.puppet();
        let mut names: Vec<_> = puppet.act("env LISTEN_FDNAMES").split(':').map(str::to_owned).collect();
        names.sort();
        assert_eq!(names, ["other", "own"]);
    }

    fn a_start_waits_for_the_program_only_where_the_type_says_so(way) {
        for (kind, status) in [("simple", 0), ("exec", 1)] {
            let standin = Standin::new(way);
            standin.unit("puppet.socket", "[Socket]\nListenStream=@/s\n");
            standin.unit("puppet.service", &format!("[Service]\nType={kind}\nExecStart=/nonexistent\n"));
            let standin = standin.start();
            assert_eq!(standin.ctl(&["start", "puppet.service"]).status, status, "Type={kind}");
            standin.await_property("puppet", "ActiveState", "failed");
            assert_eq!(standin.show("puppet", "ExecMainStatus"), "203");
        }
    }

    fn specifiers_are_replaced_in_what_a_service_runs_with(way) {
        let (standin, mut puppet) =
            run(way, "Type=exec\nEnvironment=WHO=%n,%N,%p,%% WHERE=%t RUNS_AS=%u,%U\n");
        assert_eq!(puppet.act("env WHO"), "puppet.service,puppet,puppet,%");
        assert_eq!(puppet.act("env WHERE"), standin.path("").display().to_string().trim_end_matches('/'));
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
        assert_eq!(puppet.act("env RUNS_AS"), format!("{},{}", user.name, user.uid));
    }

    fn what_a_service_says_of_itself_is_known(way) {
        let (standin, mut puppet) = run(way, "Type=notify\nNotifyAccess=main\n");
        puppet.tell("say READY=1\\nSTATUS=it works\\nERRNO=2");
        assert_eq!(standin.show("puppet", "StatusText"), "it works");
        assert_eq!(standin.show("puppet", "StatusErrno"), "2");
        puppet.tell("say STOPPING=1");
        assert_eq!(standin.show("puppet", "ActiveState"), "deactivating");
        puppet.exit(0);
        standin.await_property("puppet", "ActiveState", "inactive");
        assert_eq!(standin.show("puppet", "Result"), "success");
    }

    fn one_message_carries_as_many_descriptors_as_the_kernel_lets_it(way) {
        let (standin, mut puppet) = run(way, "Type=exec\nNotifyAccess=main\nFileDescriptorStoreMax=300\n");
        puppet.tell("batch x 253");
        assert_eq!(standin.show("puppet", "NFileDescriptorStore"), "253");
    }

    fn a_socket_for_one_process_a_connection_is_refused_in_words(way) {
        let standin = Standin::new(way);
        standin.unit("each.socket", "[Socket]\nListenStream=@/s\nAccept=yes\n");
        standin.unit("each@.service", "[Service]\nExecStart=/bin/cat\n");
        standin.puppet_unit("Type=exec\n");
        let standin = standin.start();
        standin.await_log("each.socket: it is not used: Accept=yes is not done here");
        let _served_on = standin.puppet();
    }

    fn what_a_socket_does_without_is_said_with_file_and_line(way) {
        let standin = Standin::new(way);
        standin.unit(
            "puppet.socket",
            "[Socket]\nListenStream=@/s\nTCPCongestion=reno\nFlushPending=yes\nSocketUser=root\nPollLimitBurst=3\n\
             ExecStartPre=/bin/true\nMaxConnections=3\nSmackLabel=x\nTimestamping=us\n",
        );
        standin.puppet_unit("Type=exec\n");
        let standin = standin.argument("--now").start();
        let _served_on = standin.puppet();
        let keys = ["FlushPending", "SocketUser", "PollLimitBurst", "ExecStartPre", "MaxConnections", "SmackLabel", "Timestamping"];
        for (line, key) in (4..).zip(keys) {
            standin.await_log(&format!("/puppet.socket:{line}: {key}= is not done by handover pid1"));
        }
        let told = standin.await_log("TCPCongestion= cannot be had: ");
        assert!(told.contains("puppet.socket: ") && told.contains("/puppet.socket:2: "), "{told}");
    }
}
