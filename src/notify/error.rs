//! Why a notification did not go out, or may not have been read.

use std::io;
use std::time::Duration;

use crate::notify::address::{Address, AddressError};
use crate::sys::scm::MAX_FDS;

/// Why a notification did not go out, or may not have been read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `NOTIFY_SOCKET` holds something else than an address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody listens at the address.
    #[error("wanted a manager at {address}, found nobody there ({source}): is it running?")]
    Unreachable {
        /// Where it should be.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// This process cannot have a socket of the family that the address needs.
    #[error(
        "wanted a socket to reach {address}, the kernel has none of that family ({source}): load vsock, or allow \
         the family in RestrictAddressFamilies="
    )]
    Unsupported {
        /// Where the message should have gone.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// More descriptors than one datagram carries.
    #[error("wanted at most {MAX_FDS} descriptors in a notification, found {found}: send them in several")]
    TooManyFds {
        /// How many there were.
        found: usize,
    },
    /// Descriptors, and so barriers, do not travel between machines.
    #[error(
        "wanted a unix socket to send descriptors to, found {address}: only messages without any go there"
    )]
    FdsOverVsock {
        /// The address of the other machine.
        address: Address,
    },
    /// Too many descriptors of this user are on their way: ETOOMANYREFS.
    #[error(
        "wanted to send {fds} descriptors, but this user has as many on their way as LimitNOFILE= allows: await \
         a barrier first, or raise the limit"
    )]
    InFlight {
        /// How many this message has.
        fds: usize,
    },
    /// The kernel refused to send. The manager has not got the message.
    #[error("cannot send to {address}: {source}")]
    Send {
        /// Where it should have gone.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// The deadline is over.
    #[error("{awaiting} was not there within {allowed:?}: the manager is busy or stuck; try again later")]
    Deadline {
        /// What was waited for.
        awaiting: Awaiting,
        /// How long.
        allowed: Duration,
    },
    /// The message is out, but whether it was read is unknown. Only over vsock.
    #[error("sent to {address}, but its receipt is unknown: {source}")]
    Unconfirmed {
        /// Where it went.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// This process has handed over, or leaves: it speaks no more. The message did not go out.
    #[error("this process has fallen silent: who is the service now speaks for it")]
    Silent,
    /// This process lacks something that waiting needs, descriptors as a rule.
    #[error("cannot make {what}: {source}")]
    Resource {
        /// What is lacking.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a deadline was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Awaiting {
    /// Room in the manager's queue. The message did not go out.
    Room,
    /// The end of a hand-over that was tried. The message did not go out.
    Pause,
    /// The connection to another machine. The message did not go out.
    Connection,
    /// The other machine's word that it has read the message.
    Receipt,
    /// The manager's sign that it has handled everything sent before the barrier.
    Barrier,
}

impl std::fmt::Display for Awaiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Room => "room in the manager's queue",
            Self::Pause => "the end of a pause for a hand-over",
            Self::Connection => "the connection to the manager",
            Self::Receipt => "the manager's receipt",
            Self::Barrier => "the end of the barrier",
        })
    }
}

impl Error {
    /// Whether the message is out all the same, so that it cannot be taken back.
    pub(super) fn left_us(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. } | Self::Deadline { awaiting: Awaiting::Receipt, .. })
    }

    /// The error for a socket to `address` that could not be opened.
    pub(super) fn no_socket(address: &Address, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Self::Resource { what: "a notify socket", source },
            _ => Self::Unsupported { address: address.clone(), source },
        }
    }

    /// Names what could not be made.
    pub(super) fn resource(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Resource { what, source }
    }
}
