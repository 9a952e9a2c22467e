//! The receiver of sd_notify(3): one socket for all services, and what a datagram means.
//!
//! Only what belongs to *reading* is here: the kernel says who sent it, the text is taken apart, the
//! barrier's descriptor is closed. Who may say what is decided by `messages`.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::notify::{MOST_BYTES, parse};
use crate::sys::watch::Watched;
use crate::sys::{scm, seqpacket};

/// A message of somebody's.
#[derive(Debug)]
pub(crate) struct Datagram {
    /// Who sent it, as the kernel vouches; 0 for somebody in a pid namespace that we cannot see.
    pub(crate) sender: i32,
    /// What it says.
    pub(crate) said: Said,
    /// The descriptors that came along.
    pub(crate) fds: Vec<OwnedFd>,
}

/// What came out of the queue.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Something to be obeyed, if its sender may say it.
    Message(Box<Datagram>),
    /// A barrier: everything that was sent before it has been handled, so its descriptor is closed.
    Barrier,
    /// Nothing that can be read; why.
    Dropped(String),
}

/// The assignments that are understood; all others say nothing. See sd_notify(3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) main_pid: Option<i32>,
    pub(crate) main_pidfd_id: Option<u64>,
    pub(crate) main_pidfd: bool,
    pub(crate) ready: bool,
    pub(crate) reloading: bool,
    pub(crate) stopping: bool,
    pub(crate) monotonic_usec: Option<u64>,
    pub(crate) status: Option<String>,
    pub(crate) errno: Option<i32>,
    pub(crate) access: Option<String>,
    pub(crate) extend_usec: Option<u64>,
    pub(crate) watchdog: Option<String>,
    pub(crate) watchdog_usec: Option<u64>,
    pub(crate) restart_reset: bool,
    pub(crate) store: bool,
    pub(crate) unstore: bool,
    pub(crate) name: Option<String>,
    pub(crate) unpolled: bool,
}

impl Said {
    /// Reads a datagram. Of a key that comes twice the first one counts, as `strv_find_startswith()` of
    /// PID 1 has it.
    pub(crate) fn read(lines: &[(&str, &str)]) -> Self {
        let value = |wanted: &str| lines.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        let number = |wanted: &str| value(wanted).and_then(|text| text.parse::<u64>().ok());
        let says = |key: &str, wanted: &str| lines.contains(&(key, wanted));
        Self {
            main_pid: value("MAINPID").and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0),
            main_pidfd_id: number("MAINPIDFDID"),
            main_pidfd: says("MAINPIDFD", "1"),
            ready: says("READY", "1"),
            reloading: says("RELOADING", "1"),
            stopping: says("STOPPING", "1"),
            monotonic_usec: number("MONOTONIC_USEC"),
            status: value("STATUS").map(str::to_owned),
            errno: value("ERRNO").and_then(|errno| errno.parse().ok()).filter(|errno| *errno >= 0),
            access: value("NOTIFYACCESS").map(str::to_owned),
            extend_usec: number("EXTEND_TIMEOUT_USEC"),
            watchdog: value("WATCHDOG").map(str::to_owned),
            watchdog_usec: number("WATCHDOG_USEC"),
            restart_reset: says("RESTART_RESET", "1"),
            store: says("FDSTORE", "1"),
            unstore: says("FDSTOREREMOVE", "1"),
            name: value("FDNAME").map(str::to_owned),
            unpolled: says("FDPOLL", "0"),
        }
    }
}

/// The socket behind NOTIFY_SOCKET.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: Watched,
}

impl Receiver {
    /// Binds `path`, to which everybody may send; who it is, the kernel says with each message.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        socket.set_nonblocking(true)?;
        seqpacket::pass_credentials(socket.as_fd())?;
        Ok(Self { socket: Watched::new(socket.into())? })
    }

    /// The next message, waited for. Cancel safe.
    pub(crate) async fn next(&self) -> io::Result<Incoming> {
        self.socket.try_when_readable(receive).await
    }

    /// The next message, if one is there.
    pub(crate) fn take(&self) -> Option<Incoming> {
        receive(self.socket.as_fd()).ok()
    }
}

/// Takes one datagram.
fn receive(socket: std::os::fd::BorrowedFd<'_>) -> io::Result<Incoming> {
    let mut buffer = [0; MOST_BYTES];
    let received = scm::receive(socket, &mut buffer)?;
    let sender = received.pid.unwrap_or(0);
    let dropped =
        |why: &str| Ok(Incoming::Dropped(format!("a message of process {sender} is dropped: {why}")));
    if received.truncated {
        return dropped("it is longer than 4096 bytes");
    }
    if received.fds_lost {
        return dropped("there is no room for its descriptors");
    }
    let bytes = buffer.get(..received.len).unwrap_or_default();
    let lines = match parse(bytes) {
        Ok(lines) => lines,
        Err(why) => return dropped(&why.to_string()),
    };
    // Before it is asked who sent it: everybody may wait for what they sent.
    if lines.contains(&("BARRIER", "1")) {
        return match (lines.len(), received.fds.len()) {
            (1, 1) => Ok(Incoming::Barrier),
            (1, _) => dropped("BARRIER=1 comes with one descriptor"),
            _ => dropped("BARRIER=1 comes alone"),
        };
    }
    if sender <= 0 {
        return dropped("its sender is in a pid namespace that cannot be seen from here");
    }
    Ok(Incoming::Message(Box::new(Datagram { sender, said: Said::read(&lines), fds: received.fds })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Said {
        Said::read(&parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn every_field_is_read_and_others_say_nothing() {
        let said = read("MAINPID=7\nREADY=1\nSTATUS=up = well\nERRNO=2\nX_MINE=1\nEXTEND_TIMEOUT_USEC=9");
        assert_eq!(
            (said.main_pid, said.ready, said.errno, said.extend_usec),
            (Some(7), true, Some(2), Some(9))
        );
        assert_eq!(said.status.as_deref(), Some("up = well"));
        assert_eq!(read("X_MINE=1\nnonsense"), Said::default());
    }

    #[test]
    fn a_value_that_is_none_is_as_good_as_not_there() {
        assert_eq!(
            read("MAINPID=0\nMAINPID=x\nREADY=yes\nERRNO=-1\nWATCHDOG_USEC=-3\nFDPOLL=1"),
            Said::default()
        );
    }

    proptest::proptest! {
        #[test]
        fn no_datagram_makes_it_panic(bytes: Vec<u8>) {
            if let Ok(lines) = parse(&bytes) {
                Said::read(&lines);
            }
        }
    }

    struct Place(std::path::PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn bound(name: &str) -> (Receiver, UnixDatagram, Place) {
        let path = std::env::temp_dir().join(format!("handover-{name}-{}", std::process::id()));
        let receiver = Receiver::bind(&path).unwrap();
        let client = UnixDatagram::unbound().unwrap();
        client.connect(&path).unwrap();
        (receiver, client, Place(path))
    }

    #[tokio::test]
    async fn a_barrier_is_closed_when_all_before_it_was_taken_and_only_alone() {
        let (receiver, client, _place) = bound("barrier");
        let (reader, writer) = crate::sys::dgram::pipe().unwrap();
        client.send(b"READY=1").unwrap();
        scm::send(client.as_fd(), b"BARRIER=1\nSTATUS=x", &[writer.as_fd()]).unwrap();
        scm::send(client.as_fd(), b"BARRIER=1", &[writer.as_fd()]).unwrap();
        drop(writer);
        let Incoming::Message(first) = receiver.next().await.unwrap() else { panic!() };
        assert!(first.said.ready && first.sender == std::process::id().cast_signed());
        assert!(matches!(receiver.next().await.unwrap(), Incoming::Dropped(_)));
        assert!(!crate::sys::dgram::at_end(reader.as_fd()).unwrap());
        assert!(matches!(receiver.next().await.unwrap(), Incoming::Barrier));
        assert!(crate::sys::dgram::at_end(reader.as_fd()).unwrap());
    }

    #[tokio::test]
    async fn what_is_too_long_is_dropped_with_its_descriptors() {
        let (receiver, client, _place) = bound("long");
        let (reader, writer) = crate::sys::dgram::pipe().unwrap();
        let text = format!("FDSTORE=1\nSTATUS={}", "x".repeat(5000));
        scm::send(client.as_fd(), text.as_bytes(), &[writer.as_fd()]).unwrap();
        drop(writer);
        assert!(matches!(receiver.next().await.unwrap(), Incoming::Dropped(_)));
        assert!(crate::sys::dgram::at_end(reader.as_fd()).unwrap());
        assert!(receiver.take().is_none());
    }
}
