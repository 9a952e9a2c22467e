//! A sample service that does and says what a test tells it, right or wrong, without a line of handover in
//! it. It connects to the unix socket that PUPPET names; each line is a command and has one line as its
//! answer. The first line is its own: `pid N`.
//!
//! | command | what it does | answer |
//! |---|---|---|
//! | `say TEXT` | one datagram to NOTIFY_SOCKET; `\n` in it is a line break | `ok` |
//! | `big N` | the same with a STATUS= of N bytes | `ok` |
//! | `flood N` | N datagrams STATUS=number | `ok` |
//! | `store NAME N` | N new eventfds under NAME, one datagram each | `ok` |
//! | `batch NAME N` | the same in one datagram | `ok` |
//! | `pair NAME FIELDS` | one end of a new pair of sockets; FIELDS are more assignments | `ok` |
//! | `part` | closes the other ends of all pairs | `ok` |
//! | `again NAME` | the last descriptor once more, under this name | `ok` |
//! | `barrier` | waits until all of this has been handled | `ok` |
//! | `env NAME` | a variable | its value |
//! | `fork` | starts itself as a child, which connects, too | `pid N` |
//! | `double-fork` | the same as a grandchild whose parent has gone | `ok` |
//! | `catch SIGNAL` | has a handler for a signal, by its number, that does nothing | `ok` |
//! | `await` | waits until the signal comes that was caught last | its number |
//! | `print TEXT` | to standard output, without a line break; `\n` is one | `ok` |
//! | `limit` | | the soft limit for descriptors |
//! | `exit N` | exits | |

#![expect(clippy::expect_used, reason = "a test's hands: what fails, fails the test")]

use std::io::{BufRead, BufReader, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, exit};

use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;

/// What it has in its hands.
struct Puppet<'a> {
    /// Where signals come.
    runtime: &'a Runtime,
    last: Option<OwnedFd>,
    others: Vec<UnixStream>,
    handlers: Vec<(usize, tokio::signal::unix::Signal)>,
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("middle") {
        // Nobody waits for it: it is to lose its parent.
        std::mem::forget(child(&[]));
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _inside = runtime.enter();
    let address = std::env::var_os("PUPPET").expect("PUPPET");
    let mut test = UnixStream::connect(address).expect("the test listens");
    writeln!(test, "pid {}", std::process::id()).expect("the test reads");
    let mut puppet = Puppet { runtime: &runtime, last: None, others: Vec::new(), handlers: Vec::new() };
    for line in BufReader::new(test.try_clone().expect("a copy")).lines() {
        let line = line.expect("the test writes");
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = puppet.act(command, rest);
        writeln!(test, "{answer}").expect("the test reads");
    }
}

impl Puppet<'_> {
    fn act(&mut self, command: &str, rest: &str) -> String {
        let (name, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match command {
            "say" => say(&rest.replace("\\n", "\n"), &[]),
            "big" => say(&format!("STATUS={}", "x".repeat(number(rest))), &[]),
            "flood" => (0..number(rest)).for_each(|at| say(&format!("STATUS={at}"), &[])),
            "store" => (0..number(more)).for_each(|_| self.store(name, "", 1)),
            "batch" => self.store(name, "", number(more)),
            "pair" => {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                self.others.push(theirs);
                self.offer(name, &more.replace("\\n", "\n"), vec![ours.into()]);
            }
            "part" => self.others.clear(),
            "again" => {
                let last = self.last.as_ref().expect("a descriptor").try_clone().expect("a copy");
                self.offer(name, "", vec![last]);
            }
            "barrier" => barrier(),
            "env" => return std::env::var(name).unwrap_or_default(),
            "fork" => return format!("pid {}", child(&[]).id()),
            "double-fork" => drop(child(&["middle"]).wait()),
            "catch" => {
                let kind = SignalKind::from_raw(i32::try_from(number(rest)).expect("a signal"));
                self.handlers.push((number(rest), tokio::signal::unix::signal(kind).expect("a handler")));
            }
            "await" => {
                let (number, handler) = self.handlers.last_mut().expect("a signal that is caught");
                self.runtime.block_on(handler.recv());
                return number.to_string();
            }
            "print" => {
                let mut out = std::io::stdout();
                out.write_all(rest.replace("\\n", "\n").as_bytes())
                    .and_then(|()| out.flush())
                    .expect("stdout");
            }
            "limit" => return getrlimit(Resource::RLIMIT_NOFILE).expect("a limit").0.to_string(),
            "exit" => exit(rest.parse().expect("a status")),
            other => return format!("{other}: no such command"),
        }
        "ok".into()
    }

    fn store(&mut self, name: &str, more: &str, count: usize) {
        let fds = (0..count).map(|_| EventFd::new().expect("an eventfd").into()).collect();
        self.offer(name, more, fds);
    }

    fn offer(&mut self, name: &str, more: &str, fds: Vec<OwnedFd>) {
        let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        say(&format!("FDSTORE=1\nFDNAME={name}\n{more}"), &numbers);
        self.last = fds.into_iter().last();
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// Another of itself.
fn child(arguments: &[&str]) -> std::process::Child {
    Command::new(std::env::current_exe().expect("a program")).args(arguments).spawn().expect("a child")
}

/// One datagram.
fn say(text: &str, fds: &[RawFd]) {
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.connect(std::env::var_os("NOTIFY_SOCKET").expect("NOTIFY_SOCKET")).expect("somebody listens");
    let carried = [ControlMessage::ScmRights(fds)];
    let carried = if fds.is_empty() { &[][..] } else { &carried[..] };
    let parts = [IoSlice::new(text.as_bytes())];
    sendmsg::<()>(socket.as_raw_fd(), &parts, carried, MsgFlags::MSG_NOSIGNAL, None).expect("it is sent");
}

/// sd_notify_barrier(3).
fn barrier() {
    let (mut read, written) = std::io::pipe().expect("a pipe");
    say("BARRIER=1", &[written.as_raw_fd()]);
    drop(written);
    let _ = std::io::Read::read(&mut read, &mut [0]).expect("the barrier");
}
