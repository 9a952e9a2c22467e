//! A process of a machine, as the host sees it. The machine has its own numbers for processes; here a
//! process is found by the machine's number, and from then on cannot be mistaken for another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::lab::Machine;

/// statfs(2): what a pidfd is made of, on kernels where its inode is the process's own.
const PID_FS_MAGIC: FsType = FsType(0x5049_4446);

/// A process that was alive when it was found.
#[derive(Debug)]
pub(crate) struct Process {
    /// As the machine counts.
    pub(crate) pid: u32,
    host: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// The process of a system service that the machine knows as `pid`.
    pub(crate) fn find(machine: &Machine, service: &str, pid: u32) -> Self {
        let all = Self::all(machine, service);
        let pids: Vec<_> = all.iter().map(|process| process.pid).collect();
        let found = all.into_iter().find(|process| process.pid == pid);
        found.unwrap_or_else(|| panic!("no process {pid} in {service}, but {pids:?}"))
    }

    /// A process of a system service that runs `program` and is none of `others`, if there is one.
    pub(crate) fn running(machine: &Machine, service: &str, program: &str, others: &[u32]) -> Option<Self> {
        let mut all = Self::all(machine, service).into_iter();
        all.find(|process| !others.contains(&process.pid) && process.runs(program))
    }

    /// The processes of a system service but the one that the machine knows as `pid`.
    pub(crate) fn others(machine: &Machine, service: &str, pid: u32) -> Vec<Self> {
        Self::all(machine, service).into_iter().filter(|process| process.pid != pid).collect()
    }

    /// All processes of a system service.
    fn all(machine: &Machine, service: &str) -> Vec<Self> {
        let folder = machine.cgroup().join("system.slice").join(service);
        // A control process may have a cgroup of its own, as a generation of `handover run` has.
        let below = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let procs = below.chain([folder]).map(|folder| folder.join("cgroup.procs"));
        let hosts: String = procs.map(|procs| fs::read_to_string(procs).unwrap_or_default()).collect();
        let find = |host: u32| {
            let pidfd = pidfd_open(Pid::from_raw(host.cast_signed())?, PidfdFlags::empty()).ok()?;
            // Read after the pidfd was opened: before it, the number could pass to another process.
            let numbers = status(host, "NSpid")?;
            let pid = numbers.split_whitespace().next_back()?.parse().ok()?;
            Some(Self { pid, host, pidfd })
        };
        hosts.lines().map(|host| host.parse().unwrap()).filter_map(find).collect()
    }

    /// Whether it runs `program`; not when it has ended.
    fn runs(&self, program: &str) -> bool {
        fs::read_link(self.proc("exe")).is_ok_and(|link| link == Path::new(program))
    }

    /// Sends it a signal, if it lives.
    pub(crate) fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => panic!("signal to {}: {error}", self.pid),
        }
    }

    /// How many descriptors it has open; 0 when it has ended.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).map_or(0, Iterator::count)
    }

    /// A line of proc_pid_status(5) that is a size.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        let line = status(self.host, name).unwrap();
        line.strip_suffix(" kB").unwrap().trim().parse().unwrap()
    }

    /// Whether it has ended.
    pub(crate) fn has_left(&self) -> bool {
        self.ends_within(PollTimeout::ZERO)
    }

    /// Waits for its end; a process that stays for 20 s has failed.
    pub(crate) fn leaves(&self) {
        assert!(self.ends_within(PollTimeout::from(20_000_u16)), "process {} stays", self.pid);
    }

    fn ends_within(&self, patience: PollTimeout) -> bool {
        poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], patience).unwrap() == 1
    }

    /// Its parent, as the host counts.
    pub(crate) fn parent(&self) -> u32 {
        status(self.host, "PPid").unwrap().parse().unwrap()
    }

    /// The program that it runs; ` (deleted)` follows the name of one that was removed or replaced.
    pub(crate) fn program(&self) -> String {
        fs::read_link(self.proc("exe")).unwrap().display().to_string()
    }

    /// What it was started with.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.proc("environ")).unwrap();
        let variables = text.split_terminator('\0').map(|variable| variable.split_once('=').unwrap());
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The soft and the hard limit with this name in proc_pid_limits(5).
    pub(crate) fn limits(&self, name: &str) -> Vec<String> {
        let table = fs::read_to_string(self.proc("limits")).unwrap();
        let row = table.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        row.split_whitespace().take(2).map(str::to_owned).collect()
    }

    /// The number that no other process has, as LISTEN_PIDFDID says it; None on kernels without it.
    pub(crate) fn pidfd_id(&self) -> Option<u64> {
        let unique = fstatfs(&self.pidfd).unwrap().filesystem_type() == PID_FS_MAGIC;
        unique.then(|| fstat(&self.pidfd).unwrap().st_ino)
    }

    /// How many listening sockets it holds: TCP and unix.
    pub(crate) fn listening(&self) -> usize {
        let fds = fs::read_dir(self.proc("fd")).unwrap();
        let held: BTreeSet<PathBuf> = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect();
        // proc_pid_net(5): the TCP state 0A is LISTEN, the unix flag 00010000 is __SO_ACCEPTCON.
        let tables = [("net/tcp", "0A", 9), ("net/tcp6", "0A", 9), ("net/unix", "00010000", 6)];
        let sockets = tables.into_iter().flat_map(|(table, listens, inode)| {
            let table = fs::read_to_string(self.proc(table)).unwrap();
            let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let listening = rows.filter(|row| row.get(3) == Some(&listens));
            listening.map(|row| format!("socket:[{}]", row[inode]).into()).collect::<Vec<PathBuf>>()
        });
        sockets.filter(|socket| held.contains(socket)).count()
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.host).into()
    }
}

/// A field of proc_pid_status(5); None if the process has gone.
fn status(host: u32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{host}/status")).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim().to_owned()))
}
