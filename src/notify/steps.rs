//! Sending cut into steps that never wait, and the two ways of waiting between them.
//!
//! ```text
//! unix      send -> done          queue full: wait for room, send
//!                                 nobody there: connect again, once, send
//! barrier   send BARRIER=1 with one end of a pipe, as above -> close it -> wait until nobody has it
//! vsock     see `call`
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::notify::address::{Address, Place};
use crate::notify::call::Call;
use crate::notify::error::{Awaiting, Error};
use crate::notify::message::BARRIER;
use crate::sys::dgram::{self, Readiness};
use crate::sys::scm;

/// What a step came to.
pub(super) enum Step<'a> {
    /// There is nothing more to do.
    Done,
    /// The next step makes sense when this descriptor is ready.
    Wait(BorrowedFd<'a>, Readiness, Awaiting),
}

/// Something that is done in steps, none of which waits.
pub(super) trait Steps {
    /// Goes on as far as it can.
    fn step(&mut self) -> Result<Step<'_>, Error>;
}

/// A deadline that has begun to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// When it began.
    started: Instant,
    /// How long it is.
    allowed: Duration,
}

impl Limit {
    /// A deadline of `allowed` from now.
    pub(super) fn from_now(allowed: Duration) -> Self {
        Self { started: Instant::now(), allowed }
    }

    /// What is left of it.
    pub(super) fn left(self) -> Duration {
        self.allowed.saturating_sub(self.started.elapsed())
    }

    /// The error for reaching it.
    pub(super) fn over(self, awaiting: Awaiting) -> Error {
        Error::Deadline { awaiting, allowed: self.allowed }
    }
}

/// Does all steps, and blocks this thread between them; at least one is tried however short the limit.
pub(super) fn blocking(steps: &mut impl Steps, limit: Limit) -> Result<(), Error> {
    while let Step::Wait(fd, readiness, awaiting) = steps.step()? {
        let left = limit.left();
        if left.is_zero() {
            return Err(limit.over(awaiting));
        }
        dgram::wait(fd, readiness, left).map_err(Error::resource("a wait for the notify socket"))?;
    }
    Ok(())
}

/// Does all steps, and lets the runtime do other things between them. It needs a tokio runtime with
/// I/O and time, and, only when there is something to wait for, one more descriptor.
pub(super) async fn on_tokio(steps: &mut impl Steps, limit: Limit) -> Result<(), Error> {
    while let Step::Wait(fd, readiness, awaiting) = steps.step()? {
        match tokio::time::timeout(limit.left(), dgram::ready(fd, readiness)).await {
            Ok(ready) => ready.map_err(Error::resource("a wait for the notify socket"))?,
            Err(_elapsed) => return Err(limit.over(awaiting)),
        }
    }
    Ok(())
}

/// The way to one manager.
#[derive(Debug)]
pub(super) struct Line {
    /// Where it leads.
    pub(super) address: Address,
    /// A unix socket is opened and connected once: a service that is out of descriptors, or has left
    /// the file system that it started in, can still speak. Over vsock each message has its own.
    socket: Option<OwnedFd>,
}

impl Line {
    /// Opens the way to `address`.
    pub(super) fn open(address: Address) -> Result<Self, Error> {
        let socket = match address.place() {
            Place::Vsock { .. } => None,
            Place::Path(_) | Place::Abstract(_) => {
                let socket = dgram::unix().map_err(|source| Error::no_socket(&address, source))?;
                connect(&address, socket.as_fd())?;
                Some(socket)
            }
        };
        Ok(Self { address, socket })
    }
}

/// Connects a unix socket to `address`; once more for a manager that has bound a new socket there.
fn connect(address: &Address, socket: BorrowedFd<'_>) -> Result<(), Error> {
    let connected = match address.place() {
        Place::Path(path) => dgram::connect_path(socket, path),
        Place::Abstract(name) => dgram::connect_abstract(socket, name),
        Place::Vsock { .. } => Ok(()),
    };
    connected.map_err(|source| Error::Unreachable { address: address.clone(), source })
}

/// One message on its way.
pub(super) enum Parcel<'a> {
    /// To a unix socket.
    Unix {
        /// The way.
        line: &'a Line,
        /// The connected socket of that way.
        socket: BorrowedFd<'a>,
        /// The message.
        text: &'a str,
        /// What goes with it.
        fds: &'a [BorrowedFd<'a>],
        /// Whether the socket was connected a second time.
        again: bool,
    },
    /// To another machine.
    Vsock(Call<'a>),
}

impl<'a> Parcel<'a> {
    /// A message for `line`. Errors: descriptors where none can go, or no way to call another machine.
    pub(super) fn new(line: &'a Line, text: &'a str, fds: &'a [BorrowedFd<'a>]) -> Result<Self, Error> {
        let address = &line.address;
        match (&line.socket, address.place()) {
            (Some(socket), _) => Ok(Self::Unix { line, socket: socket.as_fd(), text, fds, again: false }),
            (None, Place::Vsock { kind, cid, port }) if fds.is_empty() => {
                Ok(Self::Vsock(Call::dial(address, *kind, (*cid, *port), text.as_bytes())?))
            }
            (None, _) => Err(Error::FdsOverVsock { address: address.clone() }),
        }
    }
}

impl Steps for Parcel<'_> {
    fn step(&mut self) -> Result<Step<'_>, Error> {
        match self {
            Self::Unix { line, socket, text, fds, again } => datagram(line, *socket, text, fds, again),
            Self::Vsock(call) => call.step(),
        }
    }
}

/// Sends one datagram to a unix socket, whole or not at all.
fn datagram<'a>(
    line: &Line,
    socket: BorrowedFd<'a>,
    text: &str,
    fds: &[BorrowedFd<'_>],
    again: &mut bool,
) -> Result<Step<'a>, Error> {
    loop {
        let Err(source) = scm::send(socket, text.as_bytes(), fds) else { return Ok(Step::Done) };
        match source.raw_os_error() {
            Some(libc::EAGAIN) => return Ok(Step::Wait(socket, Readiness::Writable, Awaiting::Room)),
            Some(libc::ETOOMANYREFS) => return Err(Error::InFlight { fds: fds.len() }),
            Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ENOTCONN) if !*again => {
                *again = true;
                connect(&line.address, socket)?;
            }
            _ => return Err(Error::Send { address: line.address.clone(), source }),
        }
    }
}

/// `BARRIER=1` and the wait for its end. sd_notify(3): the manager closes the descriptor when it has
/// handled everything that was sent before, so ours must be closed too.
pub(super) struct Barrier<'a> {
    /// The way.
    line: &'a Line,
    /// The connected socket of that way.
    socket: BorrowedFd<'a>,
    /// Reports when nobody has `theirs` any more.
    ours: OwnedFd,
    /// What the manager is to close; ours until it is sent.
    theirs: Option<OwnedFd>,
    /// Whether the socket was connected a second time.
    again: bool,
}

impl<'a> Barrier<'a> {
    /// A barrier behind everything sent on `line` so far. Errors: no descriptors go there, or none
    /// are left in this process.
    pub(super) fn new(line: &'a Line) -> Result<Self, Error> {
        let Some(socket) = &line.socket else {
            return Err(Error::FdsOverVsock { address: line.address.clone() });
        };
        let (ours, theirs) = dgram::pipe().map_err(Error::resource("a pipe for the barrier"))?;
        Ok(Self { line, socket: socket.as_fd(), ours, theirs: Some(theirs), again: false })
    }
}

impl Steps for Barrier<'_> {
    fn step(&mut self) -> Result<Step<'_>, Error> {
        if let Some(theirs) = &self.theirs {
            let fds = [theirs.as_fd()];
            if let wait @ Step::Wait(..) = datagram(self.line, self.socket, BARRIER, &fds, &mut self.again)? {
                return Ok(wait);
            }
            self.theirs = None;
        }
        match dgram::at_end(self.ours.as_fd()).map_err(Error::resource("a wait for the barrier"))? {
            true => Ok(Step::Done),
            false => Ok(Step::Wait(self.ours.as_fd(), Readiness::Readable, Awaiting::Barrier)),
        }
    }
}
