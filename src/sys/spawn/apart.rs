//! A child of our own, set apart: a process group and a cgroup of its own, and asked about bind and listen.
//!
//! All of it happens in the child before its program runs: nothing in here allocates.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::conditions::{Conditions, Ready};
use super::{Program, SpawnError, clone_into, duplicate, errno_of};
use crate::sys::pidfd::Pidfd;
use crate::sys::{scm, seccomp};

/// How a child is set apart from us.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Apart<'a> {
    /// `cgroup.procs` of the cgroup that it moves into, open for writing: cgroups(7).
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// A connected socket that gets the listener of its [`seccomp`] filter, with a message of one byte.
    pub(crate) asked: Option<BorrowedFd<'a>>,
    /// What it runs with, if not with what we do.
    pub(crate) conditions: Option<&'a Conditions>,
}

/// Starts a program as a child of ours, set apart so. Blocks until it is executed.
///
/// Errors: as for one that is not; `NotExecuted` also with what kept it from being set apart.
pub(crate) fn spawn_apart(program: &Program<'_>, apart: Apart<'_>) -> Result<Pidfd, SpawnError> {
    clone_into(program, None, |above| Prepared::new(apart, above).map(Some))
}

/// The same, as the child needs it.
pub(super) struct Prepared {
    cgroup: Option<OwnedFd>,
    asked: Option<OwnedFd>,
    conditions: Option<Ready>,
}

impl Prepared {
    /// Copies what is needed to numbers from `lowest` on.
    pub(super) fn new(apart: Apart<'_>, lowest: RawFd) -> Result<Self, Errno> {
        let copy = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| duplicate(fd, lowest)).transpose();
        let conditions = apart.conditions.map(Ready::new);
        Ok(Self { cgroup: copy(apart.cgroup)?, asked: copy(apart.asked)?, conditions })
    }

    /// Sets the calling process apart.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0))?;
        if let Some(cgroup) = &self.cgroup {
            nix::unistd::write(cgroup, b"0")?;
        }
        if let Some(conditions) = &self.conditions {
            conditions.take_on();
        }
        if let Some(asked) = &self.asked {
            let listener = seccomp::filter()?;
            // SAFETY: the filter has just opened it, close-on-exec, and nobody closes it before execve(2).
            let listener = unsafe { BorrowedFd::borrow_raw(listener) };
            scm::send(asked.as_fd(), &[1], &[listener]).map_err(errno_of)?;
        }
        Ok(())
    }
}
