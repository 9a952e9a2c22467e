//! Retiring and stopping: what the service still has to do itself.

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::drain::Outcome;

/// Why this process serves no longer.
#[derive(Debug)]
#[must_use = "work in flight must be drained"]
pub enum Ending {
    /// Another process serves.
    Retiring(Retiring),
    /// The service stops: `systemctl stop` or `restart`.
    Stopping(Stopping),
}

/// Another process serves. This one cannot speak to the service manager any more.
#[derive(Debug)]
pub struct Retiring(Rest);

/// The service stops.
#[derive(Debug)]
pub struct Stopping(Rest);

/// What is left to do, in the steward's hands.
#[derive(Debug)]
pub(super) struct Rest {
    /// Tells the steward that nothing is accepted any more.
    pub(super) begin: oneshot::Sender<()>,
    /// The steward, until everything has ended.
    pub(super) steward: JoinHandle<Outcome>,
}

impl Rest {
    async fn drain(self) -> Outcome {
        // A steward that has ended already needs no word.
        let _ = self.begin.send(());
        // It ends by itself, and nobody aborts it; should the runtime, nothing is left to wait for.
        self.steward.await.unwrap_or(Outcome::Drained)
    }
}

impl Ending {
    pub(super) fn retiring(rest: Rest) -> Self {
        Self::Retiring(Retiring(rest))
    }

    pub(super) fn stopping(rest: Rest) -> Self {
        Self::Stopping(Stopping(rest))
    }

    /// Awaits the last unit of work, up to the drain deadline. Call it once nothing is accepted any
    /// more, and leave `main` after it.
    pub async fn drain(self) -> Outcome {
        match self {
            Self::Retiring(retiring) => retiring.drain().await,
            Self::Stopping(stopping) => stopping.drain().await,
        }
    }
}

impl Retiring {
    /// As [`Ending::drain`].
    pub async fn drain(self) -> Outcome {
        self.0.drain().await
    }
}

impl Stopping {
    /// As [`Ending::drain`].
    pub async fn drain(self) -> Outcome {
        self.0.drain().await
    }
}
