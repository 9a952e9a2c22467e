//! Live connections go from the old process to the new one, between two requests.
//!
//! ```text
//!   connection tasks            Giver (old process)                    the new process
//!     wanted() <------ call -----|                                          |
//!     hand_on() ---- offer ----->|---- Offer: <= 253 fds, luggage --------->| holds them
//!        :                       |<--- Taken, or Declined ------------------|
//!        :                       |     (three batches at most under way)    |
//!        :                       |---- Yours (the commit) ----------------->| serves them
//!     Ok: gone <-----------------|                                          |
//!
//!     Err: go on <---- an abort, Declined, the end of the link: at any moment before Yours
//! ```
//!
//! Prepare, commit, abort: until the service is handed over, the old process keeps every connection
//! it has offered, untouched, and an abort gives each back to the task that gave it away. Connections
//! that were busy at that moment follow when they come to rest: then Taken is the commit, for by then
//! the old process is not the service any more.
//!
//! What moves is the socket and its luggage: the number of its entry with PID 1, if it has one, and
//! bytes of the service's choice. Bytes that nobody has read stay in the kernel and move with the
//! socket; bytes that were read and not answered must be in the luggage, or are lost.
//!
//! It never reads or writes a connection, and never closes one that was not taken.

mod exchange;
mod giver;
mod luggage;
mod taker;

pub use self::exchange::Wanted;
pub(crate) use self::exchange::{Exchange, Offered};
pub(crate) use self::giver::Giver;
pub(crate) use self::luggage::{Family, Luggage};
pub(crate) use self::taker::{Arrival, answer, unpack};
