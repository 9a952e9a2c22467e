//! This process executes another program, and stays who it is: execve(2). Its children stay its own, and
//! what it chooses of its descriptors stays open.
//!
//! Signals wait meanwhile: a handler does not outlive the execution, and the default of most is the end.
//! Whoever is executed lets them in once it has handlers of its own ([`let_signals_in`]).

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigSet, SigmaskHow};

use super::spawn::pointers;

/// The first descriptor behind standard input, output and error.
const FIRST: RawFd = 3;

/// Has signals of the calling thread wait, until they are let in again or this is dropped.
#[derive(Debug)]
pub(crate) struct SignalsWait(SigSet);

impl SignalsWait {
    /// From now on.
    pub(crate) fn begin() -> io::Result<Self> {
        Ok(Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?))
    }
}

impl Drop for SignalsWait {
    fn drop(&mut self) {
        // It was the mask before, so it is a good one.
        let _ = self.0.thread_set_mask();
    }
}

/// Lets all signals in.
pub(crate) fn let_signals_in() -> io::Result<()> {
    Ok(SigSet::all().thread_unblock()?)
}

/// Executes `path` in this process. Copies of `fds` stay open in it, one behind the other; `environment`
/// is told the first number. Everything else that is close-on-exec is closed; all other threads end.
///
/// Returns only the reason why it did not come to that: nothing is changed then.
pub(crate) fn replace(
    path: &CStr,
    argv: &[CString],
    environment: impl FnOnce(RawFd) -> Vec<CString>,
    fds: &[BorrowedFd<'_>],
) -> io::Error {
    let attempt = || -> io::Result<()> {
        let first = gap(fds.len())?;
        let mut copies = Vec::with_capacity(fds.len());
        for (fd, wanted) in fds.iter().zip(first..) {
            let number = fcntl(fd, FcntlArg::F_DUPFD(wanted))?;
            // SAFETY: the kernel has just made this descriptor for us.
            copies.push(unsafe { OwnedFd::from_raw_fd(number) });
            if number != wanted {
                return Err(Errno::EBUSY.into());
            }
        }
        let environment = environment(first);
        let argv = pointers(argv.iter().map(CString::as_c_str));
        let environment = pointers(environment.iter().map(CString::as_c_str));
        // SAFETY: all strings are NUL-terminated, both arrays end with a null pointer, and all of it lives.
        unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
        Err(Errno::last().into())
    };
    attempt().err().unwrap_or_else(|| io::ErrorKind::Other.into())
}

/// The lowest number from which on `count` in a row are free.
fn gap(count: usize) -> io::Result<RawFd> {
    let entries = fs::read_dir("/proc/self/fd")?.flatten();
    let mut used: Vec<RawFd> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    used.sort_unstable();
    let count = RawFd::try_from(count).map_err(|_| Errno::EMFILE)?;
    let mut first = FIRST;
    for number in used.into_iter().filter(|number| *number >= FIRST) {
        if number - first >= count {
            break;
        }
        first = number + 1;
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::fork;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn ends_well(pid: i32) -> bool {
        matches!(waitpid(Pid::from_raw(pid), None).unwrap(), WaitStatus::Exited(_, 0))
    }

    #[test]
    fn a_process_becomes_another_program_with_its_descriptors_and_its_pid() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let pid = fork(|| {
            let script = c"open(my $out, '>&=', $ENV{FD}); print $out \"$$ $ENV{WORD}\"";
            let argv = [c"perl".into(), c"-e".into(), script.into()];
            let environment = |first| vec![c"WORD=x".into(), CString::new(format!("FD={first}")).unwrap()];
            let _waits = SignalsWait::begin().unwrap();
            panic!("{}", replace(c"/usr/bin/perl", &argv, environment, &[theirs.as_fd()]));
        });
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        assert_eq!(said, format!("{pid} x"));
        assert!(ends_well(pid));
    }

    #[test]
    fn a_program_that_is_not_there_changes_nothing() {
        assert!(ends_well(fork(|| {
            let file = fs::File::open("/").unwrap();
            let open = || fs::read_dir("/proc/self/fd").unwrap().count();
            let before = open();
            let error = replace(c"/nonexistent", &[c"x".into()], |_| vec![], &[file.as_fd(); 3]);
            assert_eq!((error.kind(), open()), (io::ErrorKind::NotFound, before));
        })));
    }
}
