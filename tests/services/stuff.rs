//! Puts strange things into the FD store of its own unit, as no service should: for the scenarios that
//! find them there. It is an ExecStartPre=, so that the service itself is started with them; the unit
//! needs NotifyAccess=all.
//!
//! Each argument is `NAME=WHAT`; what PID 1 holds under NAME is removed first.
//!
//! | WHAT | the thing |
//! |---|---|
//! | `nothing` | none |
//! | `sealed:PATH` | a memfd with the contents of a file, which nobody can make smaller or larger |
//! | `loose:PATH` | the same, which everybody can |
//! | `pipe` | the end of a pipe that is read, and nobody writes |
//! | `listener` | a listening socket |
//! | `datagram` | a socket without connections |
//! | `null` | /dev/null |

#![expect(clippy::expect_used, reason = "a test's hands: what fails, fails the test")]

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use handover::notify::{Message, Notifier, NotifyState};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let notifier = Notifier::from_env().expect("NOTIFY_SOCKET");
    let say = |state: &str, name: &str, things: &[OwnedFd]| {
        let name = format!("FDNAME={name}");
        // Whatever it is, PID 1 shall not look whether it still lives.
        let states = [state, name.as_str(), "FDPOLL=0"].map(NotifyState::Custom);
        let fds: Vec<_> = things.iter().map(AsFd::as_fd).collect();
        let message = Message::new(&states).expect("a message");
        let _ = notifier.send_with_fds(&message, &fds, PATIENCE).expect("PID 1 listens");
    };
    for word in std::env::args().skip(1) {
        let (name, what) = word.split_once('=').expect("NAME=WHAT");
        say("FDSTOREREMOVE=1", name, &[]);
        if what != "nothing" {
            say("FDSTORE=1", name, &[thing(what)]);
        }
    }
    let _ = notifier.barrier(PATIENCE).expect("PID 1 has seen it all");
}

/// What `what` says.
fn thing(what: &str) -> OwnedFd {
    match what.split_once(':').unwrap_or((what, "")) {
        ("sealed", path) => {
            let memory = memory(path);
            let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
            fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).expect("seals");
            memory
        }
        ("loose", path) => memory(path),
        ("pipe", _) => nix::unistd::pipe().expect("a pipe").0,
        ("listener", _) => TcpListener::bind("127.0.0.1:0").expect("a socket").into(),
        ("datagram", _) => UdpSocket::bind("127.0.0.1:0").expect("a socket").into(),
        ("null", _) => File::open("/dev/null").expect("/dev/null").into(),
        (what, _) => panic!("{what}: no such thing"),
    }
}

/// A memfd with the contents of a file.
fn memory(path: &str) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut memory = File::from(memfd_create("stuff", flags).expect("memory"));
    memory.write_all(&fs::read(path).expect(path)).expect("memory");
    memory.into()
}
