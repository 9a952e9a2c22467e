//! The bounds of a service. Each has a value that suits the unit shipped with handover.

use std::time::Duration;

use crate::fdstore::{Shape, StateVersion};

/// How long things may take, and how many there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub(super) init_deadline: Duration,
    pub(super) drain_deadline: Duration,
    pub(super) crash_grace: Duration,
    pub(super) max_draining: usize,
    pub(super) state_bytes: usize,
    /// 0: the service has no state of its own.
    pub(super) service_state_bytes: usize,
    pub(super) state_version: StateVersion,
    pub(super) connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            init_deadline: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(30),
            crash_grace: Duration::from_millis(500),
            max_draining: 4,
            state_bytes: 4096,
            service_state_bytes: 0,
            state_version: StateVersion { written: 1, readable_by: 1 },
            connections: 1024,
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

    /// Most bytes of state that belong to one connection; 4096, at most 1 MiB. Memory is used only as
    /// far as it is written, twice.
    ///
    /// The state file keeps its shape over upgrades: another bound holds from the next start on.
    #[must_use]
    pub fn state_bytes(self, state_bytes: usize) -> Self {
        Self { state_bytes, ..self }
    }

    /// Most bytes of the [state of the service](super::Serving::save_state) itself; 0, at most 64 MiB.
    /// Else as [`state_bytes`](Self::state_bytes).
    #[must_use]
    pub fn service_state_bytes(self, service_state_bytes: usize) -> Self {
        Self { service_state_bytes, ..self }
    }

    /// Most connections that PID 1 may hold at once where it does not say itself how many; 1024. From
    /// systemd 254 on FileDescriptorStoreMax= decides. Else as [`state_bytes`](Self::state_bytes).
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections, ..self }
    }

    /// The version of the state that this program writes, and the oldest version of the program that
    /// can read it; 1 and 1. Count the first up when the state changes, and the second when older
    /// programs cannot make sense of it any more.
    ///
    /// Connections do not move to a program that is too old for their state: they stay where they are
    /// until they end. One that PID 1 starts begins without that state, and says so.
    #[must_use]
    pub fn state_version(self, written: u32, readable_by: u32) -> Self {
        Self { state_version: StateVersion { written, readable_by }, ..self }
    }

    /// The shape of the state file, with a place for each of so many connections.
    pub(super) fn shape(self, connections: usize) -> Shape {
        let bound = |wanted: usize, most: u32| u32::try_from(wanted).unwrap_or(u32::MAX).min(most);
        Shape {
            cells: bound(connections, Shape::MOST.cells),
            cell_bytes: bound(self.state_bytes, Shape::MOST.cell_bytes),
            service_bytes: bound(self.service_state_bytes, Shape::MOST.service_bytes),
        }
    }
}
