//! Limits of the calling process: getrlimit(2), by the system call alone, which a child in another's
//! memory may make.

use nix::errno::Errno;

/// A resource as getrlimit(2) numbers it.
pub(crate) type Resource = u32;

/// Sets one limit of the calling process as near to what is wanted as it may: who cannot raise the hard
/// bound, as in most containers, gets what there is.
pub(super) fn closest_limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Result<(), Errno> {
    match (limit(resource, soft, hard), bounds_of(resource)) {
        (Err(Errno::EPERM), Some(most)) => {
            let cut =
                |bound: Option<u64>| Some(bound.map_or(most.rlim_max, |bound| bound.min(most.rlim_max)));
            limit(resource, cut(soft), cut(hard))
        }
        (set, _) => set,
    }
}

/// Raises a limit of the calling process as far as it may; what cannot be had is left as it was.
pub(crate) fn raise_limit(resource: Resource) {
    if let Some(bounds) = bounds_of(resource) {
        let _ = limit(resource, Some(bounds.rlim_max), Some(bounds.rlim_max));
    }
}

/// The bounds of a limit of the calling process.
fn bounds_of(resource: Resource) -> Option<libc::rlimit> {
    let mut bounds = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one live local; 0 is this process.
    let asked = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, 0, &raw mut bounds) };
    (asked == 0).then_some(bounds)
}

/// Sets one limit of the calling process.
fn limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Result<(), Errno> {
    let value = |bound: Option<u64>| bound.unwrap_or(libc::RLIM_INFINITY);
    let bounds = libc::rlimit { rlim_cur: value(soft), rlim_max: value(hard) };
    // SAFETY: the kernel reads one live local; 0 is this process.
    let set = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const bounds, 0) };
    Errno::result(set).map(drop)
}
