//! The one moment in which numbers become owners.

use std::sync::atomic::{AtomicBool, Ordering};

use listenfd::ListenFd;

use super::env::{self, Decision, EnvError, Variables};
use super::{AdoptError, Inherited, Origin};
use crate::sys::adopt;
use crate::sys::pidfd::Pidfd;

/// Whether [`claim`] was called in this process.
static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Why nothing could be claimed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// [`claim`] was called before; also if it failed then.
    #[error("the passed descriptors were claimed before: claim once, at the start, and hand Inherited on")]
    AlreadyClaimed,
    /// The environment contradicts itself.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// What the environment announces is not there, or somebody took it. Nothing was changed.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// The kernel did not say what a descriptor is.
    #[error("cannot find out what the descriptor {name:?} is")]
    Kind {
        /// Its name.
        name: String,
        /// What fstat(2) or getsockopt(2) said.
        source: std::io::Error,
    },
}

/// Claims what was passed to this process. The first call decides; every later one is
/// [`ClaimError::AlreadyClaimed`].
///
/// Nothing passed, or passed for another process, is no error: [`Inherited::origin`] says which.
/// Everything claimed is close-on-exec from then on; other flags are as they came.
///
/// Two things make two owners of one descriptor impossible: this works once, and a descriptor that is
/// close-on-exec, as everything is that std opens, is refused.
pub fn claim() -> Result<Inherited, ClaimError> {
    if CLAIMED.swap(true, Ordering::AcqRel) {
        return Err(ClaimError::AlreadyClaimed);
    }
    // A text that is not UTF-8 is no number and no valid name: lossy loses nothing.
    let text = |variable| std::env::var_os(variable).map(|value| value.to_string_lossy().into_owned());
    let found = Variables {
        pid: text("LISTEN_PID"),
        pidfd_id: text("LISTEN_PIDFDID"),
        fds: text("LISTEN_FDS"),
        names: text("LISTEN_FDNAMES"),
        first_fd: text("LISTEN_FDS_FIRST_FD"),
    };
    let own_id = found.pidfd_id.as_ref().and_then(|_| own_pidfd_id());
    match env::read(&found, std::process::id(), own_id)? {
        Decision::Nothing => Inherited::new(Origin::Nobody, Vec::new(), None),
        Decision::ForAnother { variable, value } => {
            Inherited::new(Origin::ForAnother { variable, value }, Vec::new(), None)
        }
        Decision::Take { first, count, names, by_manager } => {
            let origin = if by_manager { Origin::Manager } else { Origin::Development };
            Inherited::new(origin, adopt::adopt(first, count)?, names)
        }
    }
}

/// What LISTEN_PIDFDID would name this process by; `None` on kernels without pidfs.
fn own_pidfd_id() -> Option<u64> {
    Pidfd::open(std::process::id().cast_signed()).ok()?.id()
}

impl Inherited {
    /// Takes over what a [`ListenFd`] still holds, for programs that use that crate already.
    ///
    /// `ListenFd::from_env()` removes variables from the environment, which no library should do in a
    /// process with threads, and ignores names; prefer [`claim`], which reads the same protocol
    /// (`systemfd`, also with `--no-pid`). Without names, a typed call takes the first of its kind.
    pub fn from_listenfd(mut listenfd: ListenFd) -> Result<Self, ClaimError> {
        // It fails for no index and closes nothing when dropped.
        let numbers: Vec<_> =
            (0..listenfd.len()).filter_map(|index| listenfd.take_raw_fd(index).ok().flatten()).collect();
        Self::new(Origin::Development, adopt::adopt_each(&numbers)?, None)
    }
}
