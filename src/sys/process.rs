//! This process, as the kernel started it.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The path that this process was executed by, absolute, symlinks as they were: AT_EXECFN of
/// getauxval(3). Executing it again runs what is there by then, as the service manager would.
///
/// Errors: the working directory, needed for a relative path, is gone.
pub(crate) fn executed_path() -> io::Result<PathBuf> {
    // SAFETY: getauxval only reads what the kernel laid down for this process.
    let at = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const libc::c_char;
    if at.is_null() {
        return std::env::current_exe();
    }
    // SAFETY: AT_EXECFN points to a NUL-terminated string that lives as long as the process.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(at) }.to_bytes()));
    // Executed by descriptor (fexecve(3)): the number means nothing to anybody else.
    if path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") {
        return std::env::current_exe();
    }
    std::path::absolute(path)
}

/// Milliseconds of CLOCK_BOOTTIME, clock_gettime(2): since boot, the same for all processes.
pub(crate) fn boottime_ms() -> u64 {
    // A clock that every kernel has does not fail.
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// Microseconds of CLOCK_MONOTONIC, clock_gettime(2).
#[cfg(feature = "cli")]
pub(crate) fn monotonic_usec() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// When a process started, in milliseconds of CLOCK_BOOTTIME, rounded down to a tick of the kernel
/// (10 ms as a rule): field 22 of proc_pid_stat(5).
///
/// Errors: no such process, or /proc does not show it.
pub(crate) fn started_ms(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may have spaces and parentheses in it.
    let after_name = stat.iter().rposition(|byte| *byte == b')').and_then(|at| stat.get(at + 1..));
    let fields = after_name.and_then(|fields| str::from_utf8(fields).ok());
    let ticks = fields.and_then(|fields| fields.split_ascii_whitespace().nth(19)?.parse::<u64>().ok());
    // SAFETY: sysconf only tells a number.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    let ticks = ticks.ok_or(io::ErrorKind::InvalidData)?;
    Ok(ticks.saturating_mul(1000) / per_second)
}

/// Forks; the child runs `child` and is gone, whatever comes of it. Of other threads' locks it may
/// need none but the allocator's.
#[cfg(test)]
pub(crate) fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child leaves through _exit(2) at the end of this block at the latest, so nothing of
    // the harness runs twice; malloc survives a fork by itself.
    match unsafe { libc::fork() } {
        0 => {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
            // SAFETY: _exit(2) does nothing but end the process.
            unsafe { libc::_exit(i32::from(ended.is_err())) }
        }
        pid => pid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Now, in the same time and with the same grain.
    fn uptime_ms() -> u64 {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        uptime.split(' ').next().unwrap().replace('.', "").parse::<u64>().unwrap() * 10
    }

    #[test]
    fn a_process_started_between_before_and_after() {
        let before = uptime_ms();
        let mut cat =
            std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let started = started_ms(cat.id().cast_signed()).unwrap();
        assert!((before.saturating_sub(10)..=uptime_ms()).contains(&started), "{started}, {before} before");
        cat.kill().unwrap();
        cat.wait().unwrap();
        assert_eq!(started_ms(0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_path_leads_to_this_very_program() {
        let path = executed_path().unwrap();
        assert!(path.is_absolute());
        assert_eq!(path.canonicalize().unwrap(), std::env::current_exe().unwrap().canonicalize().unwrap());
    }
}
