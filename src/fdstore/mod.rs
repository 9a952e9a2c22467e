//! FileDescriptorStoreMax=: what PID 1 holds for a service over restart, crash and kill -9.
//!
//! A [`Store`] stashes descriptors there, and knows whether it worked: PID 1 answers nothing, closes
//! what it has no place for, and gives back everything at the next start, wanted or not.
//!
//! ```no_run
//! # async fn example(session: std::net::TcpStream) -> Result<(), Box<dyn std::error::Error>> {
//! use handover::fdstore::Store;
//!
//! let mut inherited = handover::activation::claim()?;
//! let store = Store::from_env(&inherited)?;
//! for passed in inherited.take_all("session") {
//!     let session = store.adopt("session", passed.into_tcp_stream()?); // from the process before
//! }
//! let session = store.stash("session", session).await?;
//! store.confirm().await?; // from here on it outlives this process
//! session.end(); // the peer hears of it, and PID 1 lets go
//! # Ok(()) }
//! ```
//!
//! ```text
//! stash     refused here if it would not fit -> FDSTORE=1
//! confirm   FDSTORE=1 with one end of a pipe, the canary -> BARRIER=1 -> is the canary still held?
//! drop      shutdown(2) -> FDSTOREREMOVE=1
//! ```
//!
//! Limits that nothing here can lift: a connection that PID 1 drops by itself because it was reset
//! counts until its owner ends it; and a stranger (another process of the unit, with NotifyAccess=all)
//! may fill the store at any moment, which the next [`Store::confirm`] tells.
//!
//! Two pieces of memory are in the store beside the connections. Both are memfds of a fixed, sealed
//! size, mapped by every process that needs them; saving is a few stores into memory, no system call
//! and no message to PID 1:
//!
//! ```text
//!  handover.state                                     handover.record
//!  +--------------------------------------------+     +---------------------------+
//!  | magic, format, shape, next id              |     | magic, format             |
//!  | state version                   [A]  [B]   |     | generation, who drains,   |
//!  | the service's own state         [A]  [B]   |     | the last upgrade [A] [B]  |
//!  | cells: id, owner, one each      [A]  [B]   |     +---------------------------+
//!  |        connection               [A]  [B]   |
//!  |        ...                      [A]  [B]   |     [A] [B]: two slots, each with a generation,
//!  +--------------------------------------------+     a length and a checksum
//! ```
//!
//! A save fills the older slot and publishes it with one store: bytes, then length and checksum, then
//! the generation. Whatever happens in between, the newer slot is whole, and is what is read.
//!
//! | what happens | sockets | saved state | the record |
//! |---|---|---|---|
//! | upgrade | move | stays, shared by both processes | stays |
//! | exit, crash, kill -9 between two saves | stay with PID 1 | as saved last | as saved last |
//! | kill -9 in the middle of a save | stay | as saved before | as saved before |
//! | daemon-reload, daemon-reexec | stay | stays | stays |
//! | a program that knows older state only | stay | refused with words, left as it is | stays |
//! | reboot | are gone | is gone | is gone |
//!
//! What is in a file is believed by nobody: a file that is cut, changed, enlarged, of a stranger or of
//! another version is an error with words, or reads as if that state had never been saved.
//!
//! This chapter never stores a socket that listens (a `.socket` unit holds it), never touches what it
//! did not store, never waits without a deadline, never speaks after a hand-over; it never knows what
//! the service's bytes mean, and never panics or raises SIGBUS over a file that it did not make.
#![forbid(unsafe_code)]

mod books;
mod bounds;
mod canary;
mod error;
#[cfg(test)]
pub(crate) mod fake_store;
mod layout;
pub(crate) mod names;
mod poll;
mod record;
mod sender;
mod slots;
mod stashed;
mod state;
mod store;

pub(crate) use self::bounds::Bounds;
pub use self::error::{Refused, StashError};
pub(crate) use self::layout::Shape;
pub use self::layout::StateVersion;
pub(crate) use self::record::file::RecordFile;
pub use self::record::{Drainer, LastUpgrade, Record, RecordError};
pub use self::stashed::Stashed;
pub use self::state::StateError;
pub(crate) use self::state::{Cell, StateFile};
pub(crate) use self::store::Pause;
pub use self::store::Store;
pub use crate::sys::memfd::MemoryError;
