//! What a process runs with beside its words: limits, umask, nice level, OOM score. Those of another one are
//! read, and a child about to execute its program takes them on.
//!
//! Who may not raise a bound, or be nicer to itself, stays as it is: no error.

use std::ffi::CString;
use std::fs;
use std::io;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::limits::{Resource, closest_limit};

/// Resources of getrlimit(2) that there are: RLIMIT_CPU to RLIMIT_RTTIME.
const RESOURCES: std::ops::RangeInclusive<Resource> = 0..=15;

/// A resource, with soft and hard bound; `None` is infinity.
pub(crate) type Limit = (Resource, Option<u64>, Option<u64>);

/// See the banner. What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conditions {
    /// Resources.
    pub(crate) limits: Vec<Limit>,
    /// The mode bits that it takes away from files it makes.
    pub(crate) umask: Option<u32>,
    /// Its priority for the scheduler: nice(2).
    pub(crate) nice: Option<i32>,
    /// How soon it is killed when memory runs out: proc_pid_oom_score_adj(5).
    pub(crate) oom_score_adj: Option<i32>,
}

/// What a process of the same user runs with.
///
/// Errors: it has ended, or is not ours to look at.
pub(crate) fn conditions_of(pid: i32) -> io::Result<Conditions> {
    let limits = RESOURCES.filter_map(|resource| limit_of(pid, resource).transpose());
    let limits = limits.collect::<Result<_, Errno>>()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let umask =
        status.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("Umask:")?.trim(), 8).ok());
    // SAFETY: takes two numbers. The kernel gives 20 less the level, so that it is no error.
    let nice = Errno::result(unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, pid) });
    let nice = nice.ok().and_then(|level| i32::try_from(20 - level).ok());
    let oom = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
    Ok(Conditions { limits, umask, nice, oom_score_adj: oom.ok().and_then(|text| text.trim().parse().ok()) })
}

/// One limit of a process; `None` for a resource that this kernel does not have.
fn limit_of(pid: i32, resource: Resource) -> Result<Option<Limit>, Errno> {
    let mut bounds = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one live local.
    let asked = unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, 0, &raw mut bounds) };
    let bound = |value: u64| (value != libc::RLIM_INFINITY).then_some(value);
    match Errno::result(asked) {
        Ok(_) => Ok(Some((resource, bound(bounds.rlim_cur), bound(bounds.rlim_max)))),
        Err(Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The same, as a child needs it that must not allocate.
pub(super) struct Ready {
    conditions: Conditions,
    oom_score_adj: Option<CString>,
}

impl Ready {
    pub(super) fn new(conditions: &Conditions) -> Self {
        // There is no NUL in a number.
        let oom_score_adj = conditions.oom_score_adj.and_then(|score| CString::new(score.to_string()).ok());
        Self { conditions: conditions.clone(), oom_score_adj }
    }

    /// Has the calling process run with it.
    pub(super) fn take_on(&self) {
        for (resource, soft, hard) in &self.conditions.limits {
            let _ = closest_limit(*resource, *soft, *hard);
        }
        if let Some(umask) = self.conditions.umask {
            // SAFETY: takes a number.
            unsafe { libc::umask(umask) };
        }
        if let Some(nice) = self.conditions.nice {
            // SAFETY: takes three numbers; 0 is this process.
            unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) };
        }
        if let Some(score) = &self.oom_score_adj {
            let bytes = score.as_bytes();
            // SAFETY: plain system calls on a NUL-terminated name and live bytes; the descriptor is closed
            // before anything else is opened.
            unsafe {
                let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                if file >= 0 {
                    libc::write(file, bytes.as_ptr().cast(), bytes.len());
                    libc::close(file);
                }
            }
        }
    }
}
