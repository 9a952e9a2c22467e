//! What a successor inherits: the program to run, what only a main process is told, and sockets.
//!
//! The sockets are duplicates, kept from the moment they arrive, so that a successor gets them
//! whatever the service does with its own. Nothing in here is handed over: that is the link's work.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use super::launch::{CREDENTIALS, PASSED_ON};
use super::message::Grant;
use crate::activation::{Inherited, Passed};
use crate::sys::process;

/// What a successor inherits from this process.
#[derive(Debug)]
pub(crate) struct Estate {
    /// Path, arguments and environment; no names yet.
    pub(crate) program: Grant,
    /// Duplicates of everything that was passed or bound, with names.
    pub(crate) sockets: Vec<(String, OwnedFd)>,
}

impl Estate {
    /// This process as it was started, and a duplicate of everything that it was passed.
    ///
    /// Errors: EMFILE for want of descriptors.
    pub(crate) fn of(inherited: &mut Inherited) -> io::Result<Self> {
        let environment = PASSED_ON.iter().filter_map(|name| {
            let value = std::env::var_os(name)?.into_vec();
            Some([name.as_bytes(), b"=", &value].concat())
        });
        let program = Grant {
            path: process::executed_path()?.into_os_string().into_vec(),
            argv: std::env::args_os().map(OsStringExt::into_vec).collect(),
            environment: environment.collect(),
            names: Vec::new(),
        };
        let duplicate =
            |passed: &Passed| Ok((passed.name().to_string(), passed.as_fd().try_clone_to_owned()?));
        let mut sockets = inherited.leftover().map(duplicate).collect::<io::Result<Vec<_>>>()?;
        sockets.extend(credentials(inherited)?.map(|folder| (CREDENTIALS.to_string(), folder)));
        Ok(Self { program, sockets })
    }

    /// Has the successor get these, too.
    pub(crate) fn add(&mut self, fds: Vec<(String, OwnedFd)>) {
        self.sockets.extend(fds);
    }

    /// Makes sure that the successor gets `socket` under `name`: one that was bound here is added,
    /// one that came without a name gets this one.
    pub(crate) fn keep(&mut self, name: &str, socket: BorrowedFd<'_>) -> io::Result<()> {
        let wanted = nix::sys::stat::fstat(socket)?.st_ino;
        for (kept_name, kept) in &mut self.sockets {
            if nix::sys::stat::fstat(&*kept)?.st_ino == wanted {
                name.clone_into(kept_name);
                return Ok(());
            }
        }
        self.sockets.push((name.to_string(), socket.try_clone_to_owned()?));
        Ok(())
    }
}

/// The folder of $CREDENTIALS_DIRECTORY, see systemd.exec(5).
///
/// PID 1 shows it to a main process only: in a sandbox, `handover reload` and thus the successor
/// cannot see it. A descriptor of it works everywhere.
fn credentials(inherited: &mut Inherited) -> io::Result<Option<OwnedFd>> {
    if let Some(passed) = inherited.take_reserved(CREDENTIALS).pop() {
        let (_, folder, _) = passed.into_parts();
        let kept = folder.try_clone()?;
        // The environment of this process names the number: it must not be used for anything else.
        std::mem::forget(folder);
        return Ok(Some(kept));
    }
    let Some(path) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    // One that is not there (any more) is the service's to miss, if it wants it at all.
    Ok(File::open(path).ok().map(OwnedFd::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_socket_is_kept_once_and_gets_the_name_that_the_service_gave_it() {
        let (first, second) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let passed = first.as_fd().try_clone_to_owned().unwrap();
        let mut estate = Estate { program: Grant::default(), sockets: vec![("unknown".into(), passed)] };
        estate.keep("web", first.as_fd()).unwrap();
        estate.keep("admin", second.as_fd()).unwrap();
        let names: Vec<_> = estate.sockets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["web", "admin"]);
    }
}
