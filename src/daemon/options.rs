//! The bounds of a service. Each has a value that suits the unit shipped with handover.

use std::time::Duration;

/// How long things may take, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub(super) init_deadline: Duration,
    pub(super) drain_deadline: Duration,
    pub(super) crash_grace: Duration,
    pub(super) max_draining: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            init_deadline: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(30),
            crash_grace: Duration::from_millis(500),
            max_draining: 4,
        }
    }
}

impl Options {
    /// How long a successor may take from the request to being ready; 60 s. Keep it below
    /// TimeoutStartSec= (90 s by default), after which PID 1 ends the reload without a reason.
    #[must_use]
    pub fn init_deadline(self, init_deadline: Duration) -> Self {
        Self { init_deadline, ..self }
    }

    /// How long work in flight may take to end after an upgrade or SIGTERM; 30 s. Keep it below
    /// TimeoutStopSec= (90 s by default), after which PID 1 kills what is left.
    #[must_use]
    pub fn drain_deadline(self, drain_deadline: Duration) -> Self {
        Self { drain_deadline, ..self }
    }

    /// How long a retired process may still take when its successor has crashed; 500 ms. PID 1 does
    /// not restart the service before it has left (KillMode=control-group).
    #[must_use]
    pub fn crash_grace(self, crash_grace: Duration) -> Self {
        Self { crash_grace, ..self }
    }

    /// How many older processes may still drain when an upgrade begins; 4. Beyond it an upgrade is
    /// refused.
    #[must_use]
    pub fn max_draining(self, max_draining: usize) -> Self {
        Self { max_draining, ..self }
    }
}
