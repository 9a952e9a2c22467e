//! The control socket of a service: whoever else may connect to it, no upgrade waits for them.
//!
//! It has an abstract name, which belongs to the network of the machine: everybody in there may call.
//! The tests call as root, who may look at every service and upgrade those that are its own, and as a stranger.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};

use crate::gate::soon;
use crate::lab::finish;
use crate::web::{RELOAD, Web};

on_every_systemd! {
    fn a_crowd_of_the_same_user_that_says_nothing_holds_nobody_up(systemd) {
        let web = Web::boot(systemd);
        let load = web.load();
        for _ in 0..3 {
            let name = Name::of(&web, web.main_pid());
            let crowd: Vec<_> = web.machine.enter_network(|| (0..200).map(|_| name.call().unwrap()).collect());
            web.upgrade();
            drop(crowd);
        }
        let by_hand = format!("MAINPID={}", web.main_pid());
        let refused = web.machine.run_as("tester", &["env", &by_hand, "handover", "reload"]);
        assert_eq!(refused.status, 14, "{refused:?}");
        load.stop().assert_nothing_lost();
    }

    fn another_user_is_turned_away_and_its_flood_holds_nobody_up(systemd) {
        let web = Web::boot_with(systemd, "[Service]\nUser=tester\n");
        let load = web.load();
        let name = Name::of(&web, web.main_pid());
        let stranger = web.machine.enter_network(|| as_stranger(|| name.call())).unwrap();
        let told = hear(&stranger);
        assert!(told.contains("the process that asks runs as uid 12345, this process as uid 1000"), "{told:?}");
        assert_eq!(hear(&stranger), "", "it is not listened to");
        // Root is let in, to look: an upgrade that it asks for is another matter.
        let root = web.machine.enter_network(|| name.call()).unwrap();
        let upgrade = [&[1][..], &1_u64.to_le_bytes(), &u64::from(web.main_pid()).to_le_bytes()].concat();
        send(root.as_raw_fd(), &upgrade, MsgFlags::empty()).unwrap();
        let told = hear(&root);
        assert!(told.contains("the process that asks runs as uid 0, this process as uid 1000"), "{told:?}");
        for _ in 0..3 {
            let flood = Flood::start(&web);
            web.upgrade();
            load.pass(20);
            assert!(flood.stop() > 0);
        }
        load.stop().assert_nothing_lost();
    }

    fn a_queue_that_another_user_has_filled_is_waited_for(systemd) {
        let web = Web::boot_with(systemd, "[Service]\nUser=tester\n");
        let load = web.load();
        let name = Name::of(&web, web.main_pid());
        let signal = |signal| web.machine.succeed(&["systemctl", "kill", "-s", signal, "--kill-whom=main", "web"]);
        signal("STOP");
        // A call waits in the queue also when the caller has gone.
        let full = web.machine.enter_network(|| (0..100_000).find_map(|_| name.call().err()));
        assert_eq!(full, Some(Errno::EAGAIN));
        let reload = web.machine.spawn(&RELOAD);
        soon("a helper that has tried for a while", || naps(&web) >= 20);
        signal("CONT");
        let done = finish(reload);
        assert_eq!(done.status, 0, "{done:?}");
        load.stop().assert_nothing_lost();
    }
}

/// The name of a control socket.
struct Name(String);

impl Name {
    /// That of the process `pid`.
    fn of(web: &Web, pid: u32) -> Self {
        web.machine.enter_network(|| Self::find(&format!("@handover/{pid}/"))).unwrap()
    }

    /// One that begins so, in the network of this thread.
    fn find(beginning: &str) -> Option<Self> {
        let table = fs::read_to_string("/proc/thread-self/net/unix").unwrap();
        let names = table.lines().filter_map(|line| line.split_whitespace().nth(7));
        names.filter(|name| name.starts_with(beginning)).map(|name| Self(name.to_owned())).next()
    }

    /// Connects, from the network of this thread.
    fn call(&self) -> Result<OwnedFd, Errno> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let caller = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        connect(caller.as_raw_fd(), &UnixAddr::new_abstract(&self.0.as_bytes()[1..])?)?;
        Ok(caller)
    }
}

/// Does something as a user whom nothing belongs to; this thread stays that user.
fn as_stranger<T>(work: impl FnOnce() -> T) -> T {
    let uid = rustix::process::Uid::from_raw(12345);
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
    work()
}

/// The next message; nothing at the end. One that takes 20 s has failed.
fn hear(caller: &OwnedFd) -> String {
    let mut fds = [PollFd::new(caller.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)), Ok(1));
    let mut bytes = [0; 4096];
    let len = recv(caller.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap();
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

/// How often the process of ExecReload= has gone to sleep; 0 while there is none.
fn naps(web: &Web) -> u64 {
    let status = format!("/proc/{}/status", web.machine.show("web", "ControlPID"));
    let status = web.machine.run(&["cat", &status]).stdout;
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

/// Calls without end, to whichever process of the machine has a control socket.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl Flood {
    /// Returns when it has begun.
    fn start(web: &Web) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, first) = (Arc::clone(&stop), web.main_pid());
        let mut name = Name::of(web, first);
        let (begun, begin) = std::sync::mpsc::channel();
        let thread = web.machine.network_thread("flood", move || {
            as_stranger(|| ());
            let mut calls = 0;
            while !stopped.load(Ordering::Relaxed) {
                match name.call() {
                    Ok(_) => calls += 1,
                    Err(Errno::EAGAIN) => std::thread::yield_now(),
                    Err(_) => name = Name::find("@handover/").unwrap_or(name),
                }
                // Only the first one is waited for.
                let _ = begun.send(());
            }
            calls
        });
        begin.recv().unwrap();
        Self { stop, thread }
    }

    /// How many calls there were.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
