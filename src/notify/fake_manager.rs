//! A manager for tests: a socket that receives, and reads only when it is told to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::notify::{Address, Message, Notifier};
use crate::sys::dgram::{self, Readiness};
use crate::sys::scm;

/// Longer than any test waits for what must come.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A receiving socket, and the directory it is in, if it is in one.
pub(crate) struct FakeManager {
    socket: UnixDatagram,
    pub(crate) address: Address,
    dir: Option<PathBuf>,
}

impl FakeManager {
    /// Listens at a path in a directory of its own.
    pub(crate) fn at_path() -> Self {
        let dir = std::env::temp_dir().join(unique("handover-notify"));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("notify");
        let address = Address::parse(path.as_os_str()).unwrap();
        Self { socket: UnixDatagram::bind(path).unwrap(), address, dir: Some(dir) }
    }

    /// Listens at an abstract name.
    pub(crate) fn at_abstract_name() -> Self {
        let name = unique("handover-notify");
        let place = SocketAddr::from_abstract_name(&name).unwrap();
        let address = format!("@{name}").parse().unwrap();
        Self { socket: UnixDatagram::bind_addr(&place).unwrap(), address, dir: None }
    }

    /// Closes the socket and listens at a new one at the same path.
    pub(crate) fn restart(&mut self) {
        let path = self.address.path().unwrap();
        std::fs::remove_file(path).unwrap();
        self.socket = UnixDatagram::bind(path).unwrap();
    }

    /// Any descriptor, to send along.
    pub(crate) fn any_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next message, waited for, with what it carried.
    pub(crate) fn receive(&self) -> (String, Vec<OwnedFd>) {
        dgram::wait(self.socket.as_fd(), Readiness::Readable, LONG).unwrap();
        self.try_receive().unwrap()
    }

    /// The next message, if one is there.
    pub(crate) fn try_receive(&self) -> Option<(String, Vec<OwnedFd>)> {
        let mut buffer = [0; 8192];
        let got = scm::receive(self.socket.as_fd(), &mut buffer).ok()?;
        Some((String::from_utf8(buffer[..got.len].to_vec()).unwrap(), got.fds))
    }

    /// Sends until there is no room for one more message, and says how many went in.
    pub(crate) fn fill(&self, notifier: &Notifier) -> usize {
        let mut sent = 0;
        while notifier.send(&Message::ready(), Duration::ZERO).is_ok() {
            sent += 1;
        }
        sent
    }
}

impl Drop for FakeManager {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// A name that no other test has.
fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
