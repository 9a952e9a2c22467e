//! What belongs to one generation: a cgroup of its own where the unit delegates them, cgroups(7), else
//! a process group.
//!
//! A cgroup holds whatever the program starts, daemons and orphans as well, and is killed whole. From a
//! process group a program may take its children away: they are found as the children of others that are in it,
//! and by a mark in their environment. Who has left the group, has lost its parent and has another environment is
//! nobody's, and this file never finds it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::sys::watch::Told;

/// How the folder of a generation begins.
const PREFIX: &str = "generation-";

/// How often at most those are looked for that were started while others were killed.
const ROUNDS: usize = 16;

/// Where the cgroups of generations are made: our own cgroup.
#[derive(Debug)]
pub(crate) struct Ground(PathBuf);

impl Ground {
    /// Our own cgroup, if we may make others in it.
    ///
    /// Errors: in words, why not.
    pub(crate) fn find() -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let mount = mounts.lines().find_map(cgroup2_mount).ok_or("no cgroup2 is mounted")?;
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no unified cgroup")?;
        let path = Path::new(mount).join(own);
        let trial = path.join("handover-trial");
        fs::create_dir(&trial)
            .and_then(|()| fs::remove_dir(&trial))
            .map_err(|error| format!("no cgroup can be made in {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// A new cgroup for a generation.
    pub(crate) fn make(&self, number: u64) -> io::Result<Fence> {
        let path = self.0.join(format!("{PREFIX}{number}"));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        Ok(Fence::Cgroup(path))
    }

    /// The cgroup of a generation that is there.
    pub(crate) fn of(&self, number: u64) -> Fence {
        Fence::Cgroup(self.0.join(format!("{PREFIX}{number}")))
    }

    /// Generations of a runner that was here before, in which something still runs.
    pub(crate) fn survivors(&self) -> Vec<(u64, Fence)> {
        let folders = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let number = |folder: &fs::DirEntry| folder.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok();
        let found = folders.filter_map(|folder| Some((number(&folder)?, Fence::Cgroup(folder.path()))));
        found.filter(|(_, fence)| fence.is_alive() || fence.remove().is_err()).collect()
    }
}

/// Where cgroup2 is mounted, if this line of proc_pid_mountinfo(5) tells.
fn cgroup2_mount(line: &str) -> Option<&str> {
    let (place, kind) = line.split_once(" - ")?;
    kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4)).flatten()
}

/// What belongs to one generation.
#[derive(Debug, Clone)]
pub(crate) enum Fence {
    /// The cgroup in this folder, and those below it.
    Cgroup(PathBuf),
    /// A process group, and what has left it.
    Group(Family),
}

/// A process group, and what has left it and bears a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Family {
    /// The number of the process group; no other process can have it while one of it lives.
    pub(crate) group: i32,
    /// What is in the environment of its processes, and in no other's.
    pub(crate) mark: String,
}

impl Fence {
    /// The file by which a process moves in; `None` for a process group.
    pub(crate) fn door(&self) -> io::Result<Option<File>> {
        match self {
            Self::Cgroup(path) => File::options().write(true).open(path.join("cgroup.procs")).map(Some),
            Self::Group(_) => Ok(None),
        }
    }

    /// The processes in it.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        match self {
            Self::Cgroup(path) => collect(path, &mut pids),
            Self::Group(family) => pids.extend(family.pids()),
        }
        pids
    }

    /// Whether anything runs in it; a process that nobody has reaped does not.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Cgroup(path) => {
                let events = fs::read_to_string(path.join("cgroup.events")).unwrap_or_default();
                events.lines().any(|line| line == "populated 1")
            }
            Self::Group(family) => !family.pids().is_empty(),
        }
    }

    /// Returns once nothing runs in it any more; of a process group nobody tells, but that its processes are
    /// children of ours when they end, or have been adopted.
    pub(crate) async fn emptied(&self) -> io::Result<()> {
        match self {
            Self::Cgroup(path) => {
                let events = Told::new(File::open(path.join("cgroup.events"))?.into())?;
                events.until(|events| events.lines().any(|line| line == "populated 0")).await
            }
            Self::Group(_) => std::future::pending().await,
        }
    }

    /// Kills all of it: nothing in a cgroup can get away meanwhile.
    pub(crate) fn kill(&self) {
        match self {
            Self::Cgroup(path) => {
                if fs::write(path.join("cgroup.kill"), "1").is_err() {
                    // Before Linux 5.14: what is started meanwhile is met by the next look.
                    for pid in self.pids() {
                        let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                }
            }
            Self::Group(family) => family.kill(),
        }
    }

    /// Removes the cgroup, in which nothing runs.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match self {
            Self::Cgroup(path) => remove(path),
            Self::Group(_) => Ok(()),
        }
    }
}

/// A process, as far as it matters who it belongs to: proc_pid_stat(5).
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

impl Family {
    /// Its processes, but for those that have ended and that nobody has reaped.
    fn pids(&self) -> Vec<i32> {
        let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let own = std::process::id().cast_signed();
        let all = numbers.filter_map(Process::find).filter(|one| one.pid != own);
        let (mut found, mut others): (Vec<_>, Vec<_>) =
            all.partition(|one| one.group == self.group || self.is_marked(one.pid));
        // And their children, and the children of those.
        let mut next = 0;
        while let Some(parent) = found.get(next).map(|one| one.pid) {
            found.extend(others.extract_if(.., |one| one.parent == parent));
            next += 1;
        }
        found.iter().map(|one| one.pid).collect()
    }

    /// Whether a process bears the mark, as far as we may look into its environment.
    fn is_marked(&self, pid: i32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(self.mark.len().max(1)).any(|part| part == self.mark.as_bytes())
    }

    /// Kills them, and those that were started meanwhile.
    fn kill(&self) {
        let _ = killpg(Pid::from_raw(self.group), Signal::SIGKILL);
        for _ in 0..ROUNDS {
            let pids = self.pids();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

impl Process {
    fn find(pid: i32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The second field is a name in parentheses, which may have spaces and parentheses in it.
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let mut fields = str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace();
        let lives = !matches!(fields.next()?, "Z" | "X");
        let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        lives.then_some(Self { pid, parent, group })
    }
}

/// The processes of a cgroup and of those below it.
fn collect(path: &Path, pids: &mut Vec<i32>) {
    let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    pids.extend(procs.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    below(path).for_each(|folder| collect(&folder, pids));
}

fn remove(path: &Path) -> io::Result<()> {
    below(path).try_for_each(|folder| remove(&folder))?;
    fs::remove_dir(path)
}

fn below(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_group_is_found_and_killed_whole_with_those_that_have_left_it() {
        let mark = format!("fence-test-{}", std::process::id());
        // One stays, one is in a session of its own, and one has lost its parent beside that.
        let rest = "tail -f /dev/null &";
        let script = format!("{rest} setsid {rest} (setsid {rest} exec true); echo; exec cat");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).env("MARK", &mark).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.process_group(0).spawn().unwrap();
        let mut said = [0];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut said).unwrap();
        let fence = Fence::Group(Family { group: shell.id().cast_signed(), mark });
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while fence.pids().len() < 4 {
            assert!(std::time::Instant::now() < until, "{:?}", fence.pids());
        }
        assert!(fence.is_alive() && fence.pids().contains(&shell.id().cast_signed()));
        fence.kill();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&shell.wait().unwrap()), Some(9));
        while fence.is_alive() {
            assert!(std::time::Instant::now() < until, "{:?}", fence.pids());
        }
    }

    #[tokio::test]
    async fn a_cgroup_tells_when_nothing_runs_in_it_any_more() {
        // Not everybody may make one; the scenarios can.
        let Ok(ground) = Ground::find() else { return };
        let fence = ground.make(u64::from(std::process::id())).unwrap();
        let mut cat = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let Fence::Cgroup(path) = &fence else { panic!("{fence:?}") };
        fs::write(path.join("cgroup.procs"), cat.id().to_string()).unwrap();
        let mut emptied = std::pin::pin!(fence.emptied());
        assert!(tokio::time::timeout(std::time::Duration::ZERO, &mut emptied).await.is_err());
        fence.kill();
        emptied.await.unwrap();
        cat.wait().unwrap();
        fence.remove().unwrap();
    }

    #[test]
    fn the_mount_is_found_among_others() {
        let line = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(cgroup2_mount(line), Some("/sys/fs/cgroup"));
        assert_eq!(cgroup2_mount("22 1 8:1 / / rw - ext4 /dev/sda1 rw"), None);
        assert_eq!(cgroup2_mount(""), None);
    }
}
