//! cgroups(7): one cgroup a machine, made before it boots, emptied and removed after it.
//! Only the unified hierarchy is used; a host that mounts the old ones beside it does not matter.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Doing;

/// How the directory name of a machine's cgroup begins.
const PREFIX: &str = "handover-lab-";

/// Where cgroup2 is mounted.
pub(crate) fn mount() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").doing("/proc/self/mountinfo")?;
    let point = mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4)).flatten()
    });
    point.map(PathBuf::from).ok_or_else(|| "no cgroup2 is mounted".into())
}

/// The unified cgroup of a process, below [`mount`].
fn of(pid: &str) -> Result<PathBuf, String> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).doing(&path)?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    own.map(PathBuf::from).ok_or_else(|| format!("{path} names no unified cgroup"))
}

/// The place for a machine of this name, below our own cgroup if that can be seen.
pub(crate) fn place(name: &str) -> Result<PathBuf, String> {
    let (mount, own) = (mount()?, of("self")?);
    let parent = Some(mount.join(own)).filter(|path| path.is_dir()).unwrap_or(mount);
    Ok(parent.join(format!("{PREFIX}{name}")))
}

/// The cgroup of the machine in which `pid` of the host lives.
pub(crate) fn machine_of(pid: &str) -> Result<PathBuf, String> {
    let own = mount()?.join(of(pid)?);
    let is_machine = |path: &&Path| path.file_name().is_some_and(|f| f.to_string_lossy().starts_with(PREFIX));
    let found = own.ancestors().find(is_machine).map(Path::to_owned);
    found.ok_or_else(|| format!("process {pid} lives in no machine"))
}

/// Moves the calling process into the cgroup at `path`.
pub(crate) fn join(path: &Path) -> Result<(), String> {
    fs::write(path.join("cgroup.procs"), "0").doing(path.display())
}

/// Kills whoever is left in the cgroup at `path` and removes it with all below; fine if it is gone.
pub(crate) fn remove(path: &Path) -> Result<(), String> {
    let empty_and_remove = || {
        fs::write(path.join("cgroup.kill"), "1").doing(path.display())?;
        until_empty(path)?;
        remove_tree(path).doing(path.display())
    };
    // Twice, for a command that was just about to enter when all others were killed.
    if path.exists() { empty_and_remove().or_else(|_| empty_and_remove()) } else { Ok(()) }
}

/// Waits for the last process of the cgroup at `path` to be gone; the kernel says when.
fn until_empty(path: &Path) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut events = File::open(path.join("cgroup.events")).doing(path.display())?;
    loop {
        // poll(2) tells of what has changed since this very descriptor was read.
        let mut text = String::new();
        events.rewind().and_then(|()| events.read_to_string(&mut text)).doing(path.display())?;
        if text.contains("populated 0") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("{}: processes survive cgroup.kill", path.display()));
        }
        let mut changed = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        poll(&mut changed, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)).doing("poll")?;
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
