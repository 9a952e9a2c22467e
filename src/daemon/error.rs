//! Why a service cannot start.

use crate::activation::{BindError, ClaimError, TakeError};
use crate::notify::{self, MessageError, WatchdogError};
use crate::upgrade::Failure;

/// Why a service cannot start. None of these arises once it serves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no tokio runtime with I/O and time here.
    #[error("no tokio runtime: call Daemon::start from an async fn under #[tokio::main]")]
    NoRuntime,
    /// What was passed could not be claimed.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A socket was not passed, or is of a wrong kind.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// A socket was neither passed nor could it be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The service manager cannot be reached.
    #[error(transparent)]
    Notify(#[from] notify::Error),
    /// A notification makes no sense.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The watchdog variables make no sense.
    #[error(transparent)]
    Watchdog(#[from] WatchdogError),
    /// This process was to take over from another, and will not.
    #[error(transparent)]
    Upgrade(#[from] Failure),
    /// SIGTERM or SIGINT came before the service was ready.
    #[error("told to stop before it was ready")]
    Stopped,
    /// The system failed.
    #[error("cannot {what}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl Error {
    pub(super) fn system(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
