//! A NOTIFY_SOCKET of a generation's own, sd_notify(3): its program speaks to the runner, and never to
//! the service manager, for which the runner is the service.
//!
//! The name is abstract, so anybody in the network namespace can write to it: who said something is told
//! by the kernel, and whether it counts is for others to say. Descriptors that come along are closed,
//! which is all that a barrier waits for; nothing is kept in a store.

use std::ffi::OsString;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::{setsockopt, sockopt};

use crate::notify::{MOST_BYTES, parse};
use crate::sys::scm;
use crate::sys::watch::Watched;

/// The socket at which one generation is listened to.
#[derive(Debug)]
pub(crate) struct Herald {
    socket: Watched,
    name: String,
}

/// What a process said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Who it was.
    pub(crate) pid: i32,
    /// READY=1 was in it.
    pub(crate) ready: bool,
    /// STATUS=.
    pub(crate) status: Option<String>,
}

impl Herald {
    /// Opens it; only on a tokio runtime with I/O.
    pub(crate) fn open(generation: u64) -> io::Result<Self> {
        let (pid, random) = (std::process::id(), RandomState::new().hash_one(generation));
        let name = format!("handover-run/{pid}/{generation}/{random:016x}");
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Watched::new(OwnedFd::from(socket))?, name })
    }

    /// The one that an earlier program of this process opened; only on a tokio runtime with I/O.
    pub(crate) fn reopened(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Watched::new(socket)?, name: String::new() })
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The value of NOTIFY_SOCKET.
    pub(crate) fn address(&self) -> OsString {
        format!("@{}", self.name).into()
    }

    /// The next thing that is said, by whomever. Cancel safe.
    pub(crate) async fn next(&self) -> io::Result<Word> {
        loop {
            let mut text = vec![0; MOST_BYTES];
            let heard =
                self.socket.try_when_readable(|socket| scm::receive(socket.as_fd(), &mut text)).await?;
            let Some(pid) = heard.pid.filter(|_| !heard.truncated) else { continue };
            let Ok(states) = parse(&text[..heard.len]) else { continue };
            let status = states.iter().find(|(key, _)| *key == "STATUS").map(|(_, text)| (*text).to_owned());
            return Ok(Word { pid, ready: states.contains(&("READY", "1")), status });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_program_says_is_heard_with_its_pid() {
        let herald = Herald::open(3).unwrap();
        let name = herald.address().into_string().unwrap();
        let program = UnixDatagram::unbound().unwrap();
        let to = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        program.send_to_addr(b"no\0tice", &to).unwrap();
        program.send_to_addr(b"STATUS=warm\nREADY=1", &to).unwrap();
        let pid = std::process::id().cast_signed();
        assert_eq!(herald.next().await.unwrap(), Word { pid, ready: true, status: Some("warm".into()) });
    }
}
