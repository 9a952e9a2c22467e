//! Live connections go from the old process to the new one, between two requests.
//!
//! ```text
//!   connection tasks         Giver (old process)                    Taker (new process)
//!     rest() .. a slot ..... looks ----|                                          |
//!        :                             |---- Offer: <= 252 fds, luggage --------->| holds them
//!     engage: withdrawn, served here   |<--- Taken, or Declined ------------------|
//!        :                             |     (eight batches at most under way)    |
//!        :             PID 1 knows --->| seals what is still on offer             |
//!     engage waits                     |---- Withdrawn -------------------------->| closes those
//!        :                             |---- Yours (the commit) ----------------->| serves the others
//!     rest() returns <---- gone -------|                                          |
//!        :
//!     rest() goes on <---- back: an abort, Declined, the end of the link, at any moment before Yours
//! ```
//!
//! Prepare, commit, abort: until the service is handed over, the old process keeps every connection
//! that it has offered. No task is woken for an offer, and a connection on which something happens
//! is served by the old process at once, whatever has been offered (see `slot`). Who comes to rest after
//! the commit follows by the same steps; then Serve says what Yours says.
//!
//! What moves is the socket and its luggage: the number of its entry with PID 1, if it has one, and
//! bytes of the service's choice. Bytes that nobody has read stay in the kernel and move with the
//! socket; bytes that were read and not answered must be in the luggage, or are lost.
//!
//! It never reads or writes a connection, and never closes one that was not taken.

mod exchange;
mod giver;
mod luggage;
mod slot;
mod taker;

pub(crate) use self::exchange::Exchange;
pub(crate) use self::giver::{Batch, Giver};
pub(crate) use self::luggage::Family;
pub(crate) use self::slot::{Left, Moved, Slot};
pub(crate) use self::taker::{Arrival, Taker};
