//! What PID 1 does for a service with FileDescriptorStoreMax=: it holds what it is given by name, and
//! passes it to the next start. It takes all, and compares nothing.

use std::io::{IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::time::{ClockId, clock_gettime};

use crate::service::{Running, started};
use crate::{sample, service::PATIENCE};

/// The argument by which this program takes descriptors and becomes the service that they are for.
pub(crate) const STARTER: &str = "starter";

/// Descriptors of a message; less than the kernel's most (SCM_MAX_FD).
const BATCH: usize = 250;

/// The manager, and what it holds.
pub(crate) struct Store {
    socket: UnixDatagram,
    name: String,
    held: Vec<(String, OwnedFd)>,
}

impl Store {
    /// An empty one, under a name of its own.
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("handover-bench-{name}-{}", std::process::id());
        let address = UnixAddress::from_abstract_name(&name).expect("an abstract name");
        let socket = UnixDatagram::bind_addr(&address).expect("a notify socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        Self { socket, name, held: Vec::new() }
    }

    /// Starts the service with all that is held, or with `nothing`, and hears READY=1; how long that took
    /// from its exec.
    pub(crate) fn start(&mut self, nothing: bool) -> (Running, Duration) {
        let held = if nothing { &[][..] } else { &self.held };
        let names: Vec<&str> = held.iter().map(|(name, _)| &**name).collect();
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        let this = std::env::current_exe().expect("name of this program");
        let mut command = Command::new(this);
        command.arg(STARTER).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
        command.env("NOTIFY_SOCKET", format!("@{}", self.name)).env("FDSTORE", "4096");
        if !held.is_empty() {
            command.env("LISTEN_FDS", held.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        let fds: Vec<RawFd> = held.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        for batch in fds.chunks(BATCH) {
            let rights = [ControlMessage::ScmRights(batch)];
            let part = [std::io::IoSlice::new(&[1])];
            sendmsg::<()>(ours.as_raw_fd(), &part, &rights, MsgFlags::empty(), None).expect("sendmsg");
        }
        let running = started(&mut command);
        self.until("READY=1");
        let ready = now();
        let mut began = [0; 16];
        (&ours).read_exact(&mut began).expect("when it began");
        (running, ready - Duration::from_nanos(u128::from_le_bytes(began) as u64))
    }

    /// Does what the service asks until a message has this line.
    fn until(&mut self, line: &str) {
        while !self.hear().expect("a message to the manager").lines().any(|one| one == line) {}
    }

    /// Does what the service asks until each client has been answered once; when that was.
    pub(crate) fn until_answered(&mut self, clients: &mut [TcpStream]) -> Instant {
        self.socket.set_read_timeout(Some(Duration::from_millis(20))).expect("SO_RCVTIMEO");
        let last = std::thread::scope(|scope| {
            let answers = scope.spawn(|| {
                clients.iter_mut().for_each(answered);
                Instant::now()
            });
            while !answers.is_finished() {
                self.hear();
            }
            answers.join().expect("each client is answered")
        });
        self.socket.set_read_timeout(Some(PATIENCE)).expect("SO_RCVTIMEO");
        last
    }

    /// The next message, after doing what it says; `None` if there is none in time.
    fn hear(&mut self) -> Option<String> {
        let (mut buffer, mut control) = ([0; 4096], nix::cmsg_space!([RawFd; BATCH]));
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let mut fds = Vec::new();
        for control in message.cmsgs().expect("no control message was cut") {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                #[expect(unsafe_code, reason = "a descriptor arrives as a number")]
                // SAFETY: the kernel has just made these descriptors for us; nobody else knows of them.
                fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        let len = message.bytes;
        let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
        if text.starts_with("FDSTORE=1") {
            self.held.extend(fds.into_iter().map(|fd| (name.to_owned(), fd)));
        } else if text.starts_with("FDSTOREREMOVE=1") {
            self.held.retain(|(held, _)| held != name);
        }
        Some(text)
    }
}

/// Reads one answer of the sample `live`.
fn answered(client: &mut TcpStream) {
    client.read_exact(&mut [0; 8]).expect("an answer");
}

/// CLOCK_MONOTONIC, which all processes share.
fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC").into()
}

/// The starter's life: what arrives gets the numbers from 3 on, for nothing else is open.
pub(crate) fn start() -> ExitCode {
    let count = std::env::var("LISTEN_FDS").map_or(0, |count| count.parse().expect("a number"));
    let stdin = std::io::stdin().as_raw_fd();
    // What the terminal or cargo may have left open.
    for number in 3..1024 {
        let _ = nix::unistd::close(number);
    }
    let mut fds = Vec::new();
    let mut control = nix::cmsg_space!([RawFd; BATCH]);
    while fds.len() < count {
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let message = recvmsg::<()>(stdin, &mut parts, Some(&mut control), MsgFlags::empty());
        for control in message.expect("recvmsg").cmsgs().expect("no control message was cut") {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                fds.extend(numbers);
            }
        }
    }
    assert!(fds.iter().copied().eq((3..).take(count)), "the numbers are those that LISTEN_FDS means");
    let mut command = Command::new(sample("live"));
    command.arg("kept").env("LISTEN_PID", std::process::id().to_string());
    let socket = std::io::stdin();
    let began = now().as_nanos().to_le_bytes();
    nix::unistd::write(&socket, &began).expect("say when it began");
    std::io::stdout().flush().expect("stdout");
    panic!("cannot execute {command:?}: {}", command.exec());
}
