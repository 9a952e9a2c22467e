//! The files that a pattern stands for: glob(7), by libc's own glob(3).

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The files, sorted; a path without a pattern in it is one, if it is there.
///
/// Errors: `NotFound` if there is none; `InvalidInput` for a NUL; a folder that cannot be read, ENOMEM.
pub(crate) fn files(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let pattern = CString::new(pattern.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is a valid `glob_t` for glob(3), which fills it without GLOB_APPEND or GLOB_DOOFFS.
    let mut found: libc::glob_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pattern ends with a NUL, nobody is to be told of errors, and `found` is a live local.
    let done = unsafe { libc::glob(pattern.as_ptr(), 0, None, &raw mut found) };
    let count = if done == 0 { found.gl_pathc } else { 0 };
    let path = |at| {
        // SAFETY: after success `gl_pathv` has `gl_pathc` strings, which live until globfree(3).
        let text = unsafe { CStr::from_ptr(*found.gl_pathv.add(at)) };
        PathBuf::from(OsStr::from_bytes(text.to_bytes()))
    };
    let files = (0..count).map(path).collect();
    // SAFETY: glob(3) has filled it, also where it failed, and nobody has its strings any more.
    unsafe { libc::globfree(&raw mut found) };
    match done {
        0 => Ok(files),
        libc::GLOB_NOMATCH => Err(io::ErrorKind::NotFound.into()),
        libc::GLOB_NOSPACE => Err(io::ErrorKind::OutOfMemory.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_files_and_a_name_for_itself() {
        let folder = std::env::temp_dir().join(format!("handover-glob-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["b.env", "a.env", "c.txt"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(files(&folder.join("*.env")).unwrap(), [folder.join("a.env"), folder.join("b.env")]);
        assert_eq!(files(&folder.join("c.txt")).unwrap(), [folder.join("c.txt")]);
        assert_eq!(files(&folder.join("[d-z]*")).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
