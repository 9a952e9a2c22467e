//! The end of all processes that the demo has started, and of those that they have.
//!
//! This process is a subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)): a process whose parent has ended is
//! its child. So to end one's children, until there are none, ends all. It never waits for ever.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::sys::pidfd::Pidfd;
use crate::sys::watch::Watched;

/// A process that is killed leaves at once, unless the kernel holds it.
const PATIENCE: Duration = Duration::from_secs(5);

/// All processes that were started since; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Children(());

impl Children {
    /// From now on whoever loses its parent is a child of this process.
    pub(super) fn adopt() -> io::Result<Self> {
        prctl::set_child_subreaper(true)?;
        Ok(Self(()))
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        end_all();
    }
}

/// A process that cannot be mistaken for another.
#[derive(Debug)]
pub(super) struct Process {
    pidfd: Pidfd,
    /// The same, which tokio waits for.
    end: Watched,
}

impl Process {
    /// One that exists now.
    pub(super) fn find(pid: u32) -> io::Result<Self> {
        let pidfd = Pidfd::open(pid.cast_signed())?;
        let end = Watched::new(pidfd.as_fd().try_clone_to_owned()?)?;
        Ok(Self { pidfd, end })
    }

    /// Sends it a signal.
    ///
    /// Errors: ESRCH when it has gone.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        self.pidfd.signal(signal)
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn ends(&self) -> io::Result<()> {
        self.end.readable().await
    }
}

/// Kills every child of this process with its own, and waits until they have gone.
fn end_all() {
    let until = Instant::now() + PATIENCE;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            // ECHILD: nobody is left.
            Err(Errno::ECHILD) => return,
            // One was reaped; its children are ours now.
            Ok(status) if status != WaitStatus::StillAlive => continue,
            _ => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        let killed: Vec<_> = children().into_iter().filter_map(kill).collect();
        let mut ends: Vec<_> =
            killed.iter().map(|child| PollFd::new(child.as_fd(), PollFlags::POLLIN)).collect();
        // The first of them: it may leave us its own.
        let waited = poll(&mut ends, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        if left.is_zero() || waited.is_err() {
            return;
        }
    }
}

/// Kills a child. It cannot be another process: nobody has reaped it.
fn kill(child: Pid) -> Option<Pidfd> {
    let child = Pidfd::open(child.as_raw()).ok()?;
    // One that has ended meanwhile is told of as well.
    let _ = child.signal(Signal::SIGKILL);
    Some(child)
}

/// The children of this process: of all its threads, proc_pid_task(5).
fn children() -> Vec<Pid> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().filter_map(Result::ok);
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>());
    pids.filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}
