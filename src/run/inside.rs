//! What can be seen of processes in /proc: which sockets they have, and whether they wait on them, proc(5).
//!
//! A process that ends meanwhile is one that has nothing. This file never touches what it looks at.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::c_long;

use crate::sys::other;

/// Calls in which a thread waits for a connection or a datagram on the descriptor that is their first argument.
const ACCEPTING: [c_long; 6] = [
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_read,
];

/// Calls in which a thread waits for one of several descriptors: an array of `pollfd`.
#[cfg(target_arch = "x86_64")]
const POLLING: [c_long; 2] = [libc::SYS_poll, libc::SYS_ppoll];
#[cfg(not(target_arch = "x86_64"))]
const POLLING: [c_long; 1] = [libc::SYS_ppoll];

/// The same, with a set of bits.
#[cfg(target_arch = "x86_64")]
const SELECTING: [c_long; 2] = [libc::SYS_select, libc::SYS_pselect6];
#[cfg(not(target_arch = "x86_64"))]
const SELECTING: [c_long; 1] = [libc::SYS_pselect6];

/// The sockets that these processes have, by inode.
pub(crate) fn sockets(pids: &[i32]) -> HashSet<u64> {
    pids.iter().flat_map(|pid| descriptors(*pid)).filter_map(|(_, link)| socket(&link)).collect()
}

/// The processes and numbers by which the sockets with these inodes can be got at, one of each.
pub(crate) fn holders(pids: &[i32], inodes: &HashSet<u64>) -> HashMap<u64, (i32, RawFd)> {
    let all =
        pids.iter().flat_map(|pid| descriptors(*pid).into_iter().map(move |(fd, link)| (*pid, fd, link)));
    let sockets = all.filter_map(|(pid, fd, link)| Some((socket(&link)?, (pid, fd))));
    sockets.filter(|(inode, _)| inodes.contains(inode)).collect()
}

/// Those of `wanted` that somebody in there waits on: in an epoll, or in accept(2), poll(2), select(2).
pub(crate) fn waits_on(pids: &[i32], wanted: &HashSet<u64>) -> HashSet<u64> {
    let mut found = HashSet::new();
    for pid in pids {
        let descriptors = descriptors(*pid);
        for (fd, link) in &descriptors {
            if link == "anon_inode:[eventpoll]" {
                let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
                found.extend(info.lines().filter_map(watched));
            }
        }
        let own: HashMap<RawFd, u64> =
            descriptors.iter().filter_map(|(fd, link)| Some((*fd, socket(link)?))).collect();
        if own.values().any(|inode| wanted.contains(inode)) {
            found.extend(calls(*pid).iter().flat_map(Call::descriptors).filter_map(|fd| own.get(&fd)));
        }
    }
    found.retain(|inode| wanted.contains(inode));
    found
}

/// Whether one of these processes has a lock on a file: proc_locks(5).
pub(crate) fn has_locks(pids: &[i32]) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    // `1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF`
    locks
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4)?.parse().ok())
        .any(|pid| pids.contains(&pid))
}

/// The process of a thread.
pub(crate) fn process_of(tid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// The process that a pidfd is of, while it lives.
pub(crate) fn process_behind(pidfd: &OwnedFd) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid: i32 = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())?;
    (pid > 0).then_some(pid)
}

/// Whether a descriptor is closed on execve(2).
pub(crate) fn is_close_on_exec(tid: i32, number: RawFd) -> bool {
    let info = fs::read_to_string(format!("/proc/{tid}/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC != 0)
}

/// The descriptors of a process, and what they are.
fn descriptors(pid: i32) -> Vec<(RawFd, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let entries = entries.filter_map(|entry| {
        let fd = entry.file_name().to_str()?.parse().ok()?;
        Some((fd, fs::read_link(entry.path()).ok()?.to_str()?.to_owned()))
    });
    entries.collect()
}

/// The inode of `socket:[4711]`.
fn socket(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The inode in a line of an epoll's fdinfo: `tfd: 5 events: 19 data: 5  pos:0 ino:126f sdev:8`.
fn watched(line: &str) -> Option<u64> {
    let inode = line.strip_prefix("tfd:")?.split_once("ino:")?.1.split(' ').next()?;
    u64::from_str_radix(inode, 16).ok()
}

/// What a thread is in, by proc_pid_syscall(5).
struct Call {
    tid: i32,
    number: c_long,
    first: u64,
    second: u64,
}

impl Call {
    /// The descriptors that it waits for to be readable.
    fn descriptors(&self) -> Vec<RawFd> {
        if ACCEPTING.contains(&self.number) {
            vec![self.first as RawFd]
        } else if POLLING.contains(&self.number) {
            let asked =
                other::bytes_at(self.tid, self.first, self.second.saturating_mul(8)).unwrap_or_default();
            asked.chunks_exact(8).filter_map(polled).collect()
        } else if SELECTING.contains(&self.number) && self.second != 0 {
            let set =
                other::bytes_at(self.tid, self.second, self.first.min(1024).div_ceil(8)).unwrap_or_default();
            let bits =
                (0..).zip(&set).flat_map(|(at, byte)| (0..8).map(move |bit| (at * 8 + bit, byte >> bit & 1)));
            bits.filter(|(_, set)| *set == 1).map(|(fd, _)| fd).collect()
        } else {
            vec![]
        }
    }
}

/// The descriptor in a `pollfd`, if it is asked whether it is readable.
fn polled(one: &[u8]) -> Option<RawFd> {
    let (fd, rest) = one.split_first_chunk()?;
    let readable = i16::from_ne_bytes(*rest.first_chunk()?) & libc::POLLIN != 0;
    readable.then_some(RawFd::from_ne_bytes(*fd))
}

/// What the threads of a process are in.
fn calls(pid: i32) -> Vec<Call> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let threads = threads.filter_map(|thread| {
        let call = fs::read_to_string(thread.path().join("syscall")).ok()?;
        let mut words = call.split(' ');
        let number = words.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let tid = thread.file_name().to_str()?.parse().ok()?;
        Some(Call { tid, number, first: argument()?, second: argument()? })
    });
    threads.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    fn inode(fd: impl AsFd) -> u64 {
        nix::sys::stat::fstat(fd).unwrap().st_ino
    }

    #[tokio::test]
    async fn a_listener_in_an_epoll_is_waited_on_and_one_that_only_lies_there_is_not() {
        let me = [std::process::id().cast_signed()];
        let idle = TcpListener::bind("127.0.0.1:0").unwrap();
        let used = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = HashSet::from([inode(&idle), inode(&used)]);
        assert!(sockets(&me).is_superset(&wanted));
        assert_eq!(waits_on(&me, &wanted), HashSet::from([inode(&used)]));
    }

    #[test]
    fn a_thread_in_accept_waits_on_that_listener() {
        let me = [std::process::id().cast_signed()];
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = HashSet::from([inode(&listener)]);
        std::thread::scope(|scope| {
            let accepting = scope.spawn(|| listener.accept().unwrap());
            let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while waits_on(&me, &wanted) != wanted {
                assert!(std::time::Instant::now() < until, "not seen");
            }
            let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            accepting.join().unwrap();
        });
    }

    #[test]
    fn a_thread_in_poll_or_select_waits_on_what_it_names_and_on_nothing_else() {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use nix::sys::select::{FdSet, select};
        let me = [std::process::id().cast_signed()];
        let [polled, selected, idle] = [0; 3].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let wanted = HashSet::from([inode(&polled), inode(&selected), inode(&idle)]);
        std::thread::scope(|scope| {
            scope.spawn(|| poll(&mut [PollFd::new(polled.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE));
            scope.spawn(|| {
                let mut set = FdSet::new();
                set.insert(selected.as_fd());
                select(None, &mut set, None, None, None)
            });
            let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while waits_on(&me, &wanted) != HashSet::from([inode(&polled), inode(&selected)]) {
                assert!(std::time::Instant::now() < until, "not seen");
            }
            let wake = |listener: &TcpListener| std::net::TcpStream::connect(listener.local_addr().unwrap());
            let _clients = (wake(&polled).unwrap(), wake(&selected).unwrap());
        });
    }

    #[test]
    fn a_process_with_a_lock_on_a_file_has_locks() {
        let me = std::process::id().cast_signed();
        let path = std::env::temp_dir().join(format!("handover-lock-{me}"));
        let file = fs::File::create(&path).unwrap();
        file.lock().unwrap();
        fs::remove_file(path).unwrap();
        assert!(has_locks(&[-1, me]) && !has_locks(&[-1]));
    }

    #[test]
    fn what_is_known_of_a_descriptor_and_a_thread() {
        let (me, file) = (std::process::id().cast_signed(), std::fs::File::open("/").unwrap());
        assert!(is_close_on_exec(me, file.as_raw_fd()));
        let inheritable = nix::unistd::dup(&file).unwrap();
        assert!(!is_close_on_exec(me, inheritable.as_raw_fd()));
        let thread = std::thread::spawn(|| process_of(nix::unistd::gettid().as_raw())).join().unwrap();
        assert_eq!((thread, process_of(-1)), (Some(me), None));
        let pidfd = OwnedFd::from(crate::sys::pidfd::Pidfd::open(me).unwrap());
        assert_eq!((process_behind(&pidfd), process_behind(&file.into())), (Some(me), None));
    }
}
