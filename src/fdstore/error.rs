//! Why PID 1 does not hold something.

use std::io;
use std::sync::Arc;

use super::StateError;
use crate::activation::{Kind, NameError};
use crate::notify;

/// Why PID 1 does not hold something, or is not known to.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StashError {
    /// The store is full. Nothing was sent: PID 1 would have closed it without a word.
    #[error(
        "wanted room in the service manager's store, found all {limit} places taken: end or forget something, or \
         raise FileDescriptorStoreMax= in the unit"
    )]
    Full {
        /// How many the store takes, as `$FDSTORE` said or as was found out.
        limit: usize,
    },
    /// The service manager did not keep what was sent to find out whether it would.
    #[error(
        "wanted the service manager to keep a descriptor in its store, found that it closed it: the unit needs \
         FileDescriptorStoreMax= above what everybody stores there ({held} from here), and NotifyAccess=main or \
         all"
    )]
    NotKept {
        /// How many this process believes to be in the store.
        held: usize,
    },
    /// At its next start the service would be given more descriptors than it may have, and would not
    /// start at all.
    #[error(
        "wanted to store so much that the next start needs {wanted} descriptors, found that it may have {found}: \
         set LimitNOFILE={wanted} or more in the unit"
    )]
    OpenFiles {
        /// What `LimitNOFILE=` would have to be.
        wanted: usize,
        /// What it was when this process started.
        found: usize,
    },
    /// At its next start the service would be given longer names than the kernel passes on, and would
    /// not start at all.
    #[error(
        "wanted names of at most {most} bytes in LISTEN_FDNAMES of the next start, found that they would have \
         {wanted}: use shorter names, or store less than FileDescriptorStoreMax= allows"
    )]
    Names {
        /// How long they would be.
        wanted: usize,
        /// How long they may be.
        most: usize,
    },
    /// The service manager would not take this name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name is handover's own.
    #[error("wanted a name of the service's own, found {name:?}: handover. and ho. begin handover's names")]
    Reserved {
        /// The name.
        name: String,
    },
    /// Something is stored under this name, and one could not be ended without the other.
    #[error(
        "wanted a name that is free, found that {name:?} is in the store: end that first, or use another"
    )]
    Taken {
        /// The name.
        name: String,
    },
    /// A socket that listens comes from a `.socket` unit; out of the store it would come a second time.
    #[error(
        "wanted something to store as {name:?}, found a {kind}: leave it to a .socket unit, which holds it over \
         every restart"
    )]
    Listening {
        /// The name it should have had.
        name: String,
        /// What it is.
        kind: Kind,
    },
    /// What it is cannot be said.
    #[error("cannot ask what is to be stored as {name:?}: {source}")]
    Kind {
        /// The name it should have had.
        name: String,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// This process can have no pipe to find out whether something is held.
    #[error("cannot make a pipe to see whether the service manager keeps what it is sent: {source}")]
    Pipe {
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// No later process would serve it.
    #[error(
        "wanted a later process to serve the connection, found that this service takes none: call \
         Daemon::connections before Daemon::ready"
    )]
    Undeclared,
    /// There is no place for its state.
    #[error(transparent)]
    State(Arc<StateError>),
    /// This process was not started by a service manager.
    #[error("wanted a service manager to hold a descriptor, found no NOTIFY_SOCKET: start it as a service")]
    NoManager,
    /// This process has handed over, or leaves: only the service itself may store something.
    #[error("wanted to speak for the service, but this process has handed over or leaves: nothing was sent")]
    Silent,
    /// The service manager could not be reached, or did not get there in time.
    #[error("cannot reach the service manager's store: {0}")]
    Notify(Arc<notify::Error>),
}

impl From<StateError> for StashError {
    fn from(error: StateError) -> Self {
        Self::State(Arc::new(error))
    }
}

impl From<notify::Error> for StashError {
    fn from(error: notify::Error) -> Self {
        match error {
            notify::Error::Silent => Self::Silent,
            error => Self::Notify(Arc::new(error)),
        }
    }
}

/// What was not stashed, unharmed, and why.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Refused<T> {
    /// Why.
    pub error: StashError,
    /// What was to be stashed.
    pub thing: T,
}
