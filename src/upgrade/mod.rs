//! One process replaces another: the machine, the link, the successor.
//!
//! ```text
//!   PID 1            handover reload          old process             new process
//!     | ExecReload= ------>|                      |
//!     |                    |---- Upgrade -------->|
//!     |                    |<--- Grant, sockets --|
//!     |  (its child) <-----+---- clone, exec ---------------------------->|
//!     |                    |                      |<------ Hello ---------|
//!     |                    |                      |                       | initialises
//!     |                    |                      |<------ Ready ---------|
//!     |                    |                      |------- Offer -------->| holds connections
//!     |                    |                      |<------ Taken ---------|
//!     |<------------- MAINPID= READY=1 -----------|                       |
//!     |-------------- the barrier closes -------->|------- Yours -------->| accepts
//!     |<---- exit 0 -------|<--- Switched --------|                       |
//!                                                 | drains, leaves        | serves them
//! ```
//!
//! Until Yours the old process accepts, from then on the new one does; both hold the same listening
//! sockets, so there is no moment without an acceptor. The successor is a child of PID 1, with the
//! unit's current environment, limits and sandbox, because `handover reload` is. With SIGHUP the old
//! process starts the successor itself: all the rest is the same, but it inherits the settings that
//! the old one was started with.
//!
//! Connections go along if the service takes them, between two requests (see `moves`); until Yours they
//! are the old process', whatever happens.
//!
//! | what fails | what happens |
//! |---|---|
//! | the program cannot be executed, exits, hangs, is not ready in time, wants other sockets, has no room for the connections | it is gone, the old process serves on, [`reload`] fails with the [`Reason`], the next upgrade works |
//! | `handover reload` is killed | the same: the old process tells the successor to leave |
//! | the old process dies before the successor is ready | the successor leaves, PID 1 restarts the service, clients wait in the backlog |
//! | the old process dies after the successor said Ready | the successor serves, also the connections that it holds; PID 1 decides whether it is the main process |
//! | the new process dies while the old one drains | PID 1 notices at once and restarts; the old one hurries ([`Options::crash_grace`](crate::daemon::Options::crash_grace)) |
//!
//! Credentials are those of the process that PID 1 started: it gives them to a main process and not
//! to a control process. `$CREDENTIALS_DIRECTORY` of a successor is a descriptor of that folder.
//!
//! This chapter never talks to the service manager, never reads or writes a client's connection, and never
//! lets the old process go before the new one has said Ready.
#![forbid(unsafe_code)]

pub(crate) mod callers;
pub(crate) mod channel;
mod control;
pub(crate) mod elder;
pub(crate) mod estate;
mod failure;
mod helper;
pub(crate) mod journal;
pub(crate) mod launch;
pub(crate) mod machine;
pub(crate) mod message;
pub(crate) mod moves;
pub(crate) mod predecessor;
pub(crate) mod standing;
pub mod status;
pub(crate) mod successor;

pub use self::failure::{Failure, Reason};
pub use self::helper::reload;
#[cfg(feature = "cli")]
pub(crate) use self::helper::renew;
pub use self::message::Draining;
pub use self::standing::Standing;
