//! Which processes belong to which service.
//!
//! With a cgroup2 that we may write to, a service has a cgroup, and the kernel says: as under systemd, a
//! process cannot leave it by forking, or by anything else. Without, a process belongs to the service
//! whose session it is in ([`crate::sys::spawn`] gives each process that we start one), else to the one of
//! its parent; who has left the session *and* lost all parents is found by the INVOCATION_ID that it was
//! started with. Only a process that also wiped that out is nobody's.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// How processes are followed.
#[derive(Debug)]
pub(crate) enum Members {
    /// By the cgroups below `folder`, which a process sees as `path`.
    Cgroups { folder: PathBuf, path: String, made: bool },
    /// By session and parentage.
    Sessions,
}

/// What is known of the processes of a service when there are no cgroups.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// The sessions that were made for it.
    pub(crate) sessions: BTreeSet<i32>,
    /// Its INVOCATION_ID, the present one or the last.
    pub(crate) invocation: String,
}

/// A process as /proc shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    session: i32,
    /// It has ended, and waits for its parent to notice.
    zombie: bool,
}

impl Members {
    /// Uses cgroups where `wanted` and possible; else says why not.
    pub(crate) fn new(wanted: bool) -> (Self, Option<String>) {
        if !wanted {
            return (Self::Sessions, None);
        }
        match Self::cgroups() {
            Ok(cgroups) => (cgroups, None),
            Err(why) => (Self::Sessions, Some(why)),
        }
    }

    /// Finds our own cgroup, and makes one below it, unless we are PID 1 of a container that has its own.
    fn cgroups() -> Result<Self, String> {
        let text = |path: &str| fs::read_to_string(path).map_err(|why| format!("{path}: {why}"));
        let own = text("/proc/self/cgroup")?;
        let own =
            own.lines().find_map(|line| line.strip_prefix("0::")).ok_or("this kernel has no cgroup2")?;
        let (root, mounted) = mount_point(&text("/proc/self/mountinfo")?).ok_or("no cgroup2 is mounted")?;
        let below = own.strip_prefix(root.trim_end_matches('/')).unwrap_or(own);
        let mut folder = Path::new(&mounted).join(below.trim_start_matches('/'));
        let mut path = own.trim_end_matches('/').to_owned();
        let procs = folder.join("cgroup.procs");
        if let Err(why) = File::options().write(true).open(&procs) {
            return Err(format!("{}: {why}", procs.display()));
        }
        let made = std::process::id() != 1 || own != "/";
        if made {
            let name = format!("handover-pid1-{}", std::process::id());
            folder.push(&name);
            path = format!("{path}/{name}");
            fs::create_dir(&folder).map_err(|why| format!("{}: {why}", folder.display()))?;
        }
        Ok(Self::Cgroups { folder, path, made })
    }

    /// In words, for the log.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Cgroups { folder, .. } => {
                format!("processes are followed by cgroups in {}", folder.display())
            }
            Self::Sessions => "processes are followed by session and parentage".to_owned(),
        }
    }

    /// The cgroup of a service: where systemd has it, so that tools for one find it under the other.
    fn cgroup(&self, unit: &str) -> Option<PathBuf> {
        match self {
            Self::Cgroups { folder, .. } => Some(folder.join("system.slice").join(unit)),
            Self::Sessions => None,
        }
    }

    /// ControlGroup=: as a process of the service sees it.
    pub(crate) fn control_group(&self, unit: &str) -> String {
        match self {
            Self::Cgroups { path, .. } => format!("{path}/system.slice/{unit}"),
            Self::Sessions => String::new(),
        }
    }

    /// The folder of the service's cgroup, which is made if need be.
    pub(crate) fn folder(&self, unit: &str) -> io::Result<Option<File>> {
        let Some(cgroup) = self.cgroup(unit) else { return Ok(None) };
        fs::create_dir_all(&cgroup)?;
        File::open(cgroup).map(Some)
    }

    /// The processes of a service that live.
    pub(crate) fn of(&self, unit: &str, traces: &Traces) -> Vec<i32> {
        if let Some(cgroup) = self.cgroup(unit) {
            let procs = with_those_below(cgroup).into_iter().map(|cgroup| cgroup.join("cgroup.procs"));
            let procs: String = procs.map(|procs| fs::read_to_string(procs).unwrap_or_default()).collect();
            return procs.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| lives(*pid)).collect();
        }
        let all = all();
        let belongs = |pid: &i32| all.get(pid).is_some_and(|p| !p.zombie) && belongs(*pid, traces, &all);
        all.keys().copied().filter(belongs).collect()
    }

    /// Whether a process is one of a service.
    pub(crate) fn has(&self, unit: &str, traces: &Traces, pid: i32) -> bool {
        match self {
            Self::Cgroups { path, .. } => {
                let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
                let wanted = format!("{path}/system.slice/{unit}");
                own.strip_prefix(&wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Sessions => belongs(pid, traces, &chain(pid)),
        }
    }

    /// Removes the cgroup of a service that has no process left.
    pub(crate) fn leave(&self, unit: &str) {
        if let Some(cgroup) = self.cgroup(unit) {
            // One with a process in it stays, and is used again.
            for cgroup in with_those_below(cgroup).into_iter().rev() {
                let _ = fs::remove_dir(cgroup);
            }
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        if let Self::Cgroups { folder, made, .. } = self {
            let slice = folder.join("system.slice");
            // One with a process in it stays, and so does all above it.
            for cgroup in fs::read_dir(&slice).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(cgroup.path());
            }
            let _ = fs::remove_dir(slice);
            if *made {
                let _ = fs::remove_dir(folder);
            }
        }
    }
}

/// A cgroup, and those that its service has made below it, each behind the one in which it is.
fn with_those_below(cgroup: PathBuf) -> Vec<PathBuf> {
    let mut all = vec![cgroup];
    let mut next = 0;
    while let Some(folder) = all.get(next) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let below: Vec<_> = folders.map(|entry| entry.path()).collect();
        all.extend(below);
        next += 1;
    }
    all
}

/// Whether a process lives, and is not only waited for by its parent.
pub(crate) fn lives(pid: i32) -> bool {
    read(pid).is_some_and(|process| !process.zombie)
}

/// Whether a process has a handler for a signal: proc_pid_status(5), SigCgt.
pub(crate) fn catches(pid: i32, signal: i32) -> bool {
    has_signal(pid, "SigCgt:", signal)
}

/// Whether a process holds a signal back: SigBlk. Many do for a moment, while they start another process.
pub(crate) fn blocks(pid: i32, signal: i32) -> bool {
    has_signal(pid, "SigBlk:", signal)
}

/// Whether a signal is in a mask of a process.
fn has_signal(pid: i32, mask: &str, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(mask)?.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// The parent of a process.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    Some(read(pid)?.parent)
}

/// Goes from a process up to us, and asks of each on the way whose session it is in.
fn belongs(pid: i32, traces: &Traces, processes: &HashMap<i32, Process>) -> bool {
    let me = std::process::id().cast_signed();
    let mut at = pid;
    // A pid that is used again while we look could make a circle.
    for _ in 0..processes.len() {
        let Some(process) = processes.get(&at) else { return false };
        if traces.sessions.contains(&process.session) {
            return true;
        }
        if process.parent == me {
            return !traces.invocation.is_empty() && started_with(at, &traces.invocation);
        }
        at = process.parent;
    }
    false
}

/// Whether a process has this INVOCATION_ID in the environment that it was executed with.
fn started_with(pid: i32, invocation: &str) -> bool {
    let wanted = format!("INVOCATION_ID={invocation}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
}

/// A process and all above it, up to us.
fn chain(pid: i32) -> HashMap<i32, Process> {
    let me = std::process::id().cast_signed();
    let (mut found, mut at) = (HashMap::new(), pid);
    while at > 0 && at != me && !found.contains_key(&at) {
        let Some(process) = read(at) else { break };
        found.insert(at, process);
        at = process.parent;
    }
    found
}

/// Every process that /proc shows.
fn all() -> HashMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, read(pid)?))).collect()
}

/// proc_pid_stat(5).
fn read(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may have spaces and parentheses in it.
    let fields = stat.get(stat.iter().rposition(|byte| *byte == b')')? + 1..)?;
    let mut fields = str::from_utf8(fields).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let (parent, _group, session) = (number()?, number()?, number()?);
    Some(Process { parent, session, zombie: matches!(state, "Z" | "X") })
}

/// The root and the place of the first cgroup2 in proc_pid_mountinfo(5).
fn mount_point(mountinfo: &str) -> Option<(String, String)> {
    let (fields, _) = mountinfo
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .find(|(_, kind)| kind.starts_with("cgroup2 "))?;
    let mut fields = fields.split(' ').skip(3).map(|path| path.replace("\\040", " "));
    Some((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn the_mount_of_cgroup2_is_found_beside_older_ones() {
        let text = "31 25 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro\n\
                    32 31 0:27 /docker/a\\040b /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(text), Some(("/docker/a b".into(), "/sys/fs/cgroup/unified".into())));
        assert_eq!(mount_point("31 25 0:26 / / rw - ext4 /dev/vda rw\n"), None);
    }

    #[test]
    fn a_process_belongs_by_session_by_parent_or_by_what_it_was_started_with() {
        let mut cat = Command::new("cat");
        let mut cat =
            cat.env("INVOCATION_ID", "abc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Its environment is there a moment after the parent knows of it.
        cat.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let pid = cat.id().cast_signed();
        let by = |sessions: &[i32], invocation: &str| {
            let traces =
                Traces { sessions: sessions.iter().copied().collect(), invocation: invocation.into() };
            let (has, of) = (Members::Sessions.has("x", &traces, pid), Members::Sessions.of("x", &traces));
            assert_eq!(has, of.contains(&pid));
            has
        };
        let session = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap().as_raw();
        assert!(by(&[session], ""));
        assert!(by(&[], "abc"));
        assert!(!by(&[], "abcd"));
        assert!(!by(&[], ""));
        drop(cat.stdin.take());
        cat.wait().unwrap();
        assert!(!by(&[session], "abc"));
    }
}
