//! org.freedesktop.systemd1 from outside: whoever asks for an upgrade learns what became of it.
//!
//! An upgrade is a reload of the unit. `systemctl reload` reports how the *job* ended; this reports
//! who *serves*:
//!
//! ```text
//!  handover upgrade          systemd (PID 1 or a user's)         the service
//!        | JobRemoved, PropertiesChanged: match, Subscribe
//!        |------------------------->|
//!        | look: MainPID=1234, InvocationID (drained: and a pidfd on 1234)
//!        |<------------------------>|
//!        | ReloadUnit(web.service)  |
//!        |------------------------->| ExecReload=handover reload
//!        |                          |---------------------------->| starts 1250
//!        |   ActiveState=reloading  |                             |
//!        |<-------------------------|   MAINPID=1250 READY=1      |
//!        |                          |<----------------------------| 1234 drains
//!        |   JobRemoved: done       | exit 0 (else 1234 serves on,|
//!        |<-------------------------| and STATUS= says why)       |
//!        | look: active, MainPID=1250, the same InvocationID
//!        |<------------------------>|
//!        | --wait=drained: the pidfd on 1234                      x exits
//! ```
//!
//! The InvocationID is the proof that the unit never left `active`: systemd makes a new one at every
//! start, however short the gap, and never when only the main process changes.
//!
//! Where no systemd runs there may be the stand-in of `handover pid1`. It is asked over a socket of its own
//! (`wire`), without signals: its answer to a reload comes when the reload has ended.
//!
//! This chapter never starts, stops or restarts a unit, never changes its files, never speaks the
//! service's own protocol, and prints nothing: words are the business of `cli`.

mod connect;
mod describe;
pub(crate) mod facts;
mod follower;
mod proxy;
mod remote;
mod service;
pub(crate) mod standin;
mod state;
mod units;
mod upgrade;
mod verdict;
pub(crate) mod wire;

pub use connect::{Error, Manager, Scope};
pub use describe::Described;
pub use state::{ActiveState, End, FdStore, Helper};
pub use units::Loaded;
pub use upgrade::{Drain, Options, Report, Wait, upgrade};
pub(crate) use verdict::refuse;
pub use verdict::{Failure, Reason, Refusal, Verdict};
