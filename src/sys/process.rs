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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_leads_to_this_very_program() {
        let path = executed_path().unwrap();
        assert!(path.is_absolute());
        assert_eq!(path.canonicalize().unwrap(), std::env::current_exe().unwrap().canonicalize().unwrap());
    }
}
