//! Socket activation, sd_listen_fds(3): what was passed to this process, by name, typed, owned once.
//!
//! A speaker (PID 1, the process that hands over to its successor, `handover run`, `handover pid1`,
//! systemd-socket-activate, systemfd) leaves open descriptors in a new process and says in the
//! environment how many they are, what they are called and for whom:
//!
//! ```text
//!   speaker               execve(2)              the program
//!  .socket unit  ---  fds 3, 4, 5 ...  --->  claim()      once: whose, how many, open, close-on-exec
//!  fd store      ---  LISTEN_PID       --->    |
//!  OpenFile=          LISTEN_PIDFDID         Inherited    each asked what it is: Kind
//!                     LISTEN_FDS               |
//!                     LISTEN_FDNAMES         take("web")  tcp_listener("web")  ...  leftover()
//! ```
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut inherited = handover::activation::claim()?;
//! let web = inherited.tcp_listener_or_bind("web", "127.0.0.1:8080")?; // non-blocking already
//! for passed in inherited.leftover() {
//!     eprintln!("nobody takes {passed}");
//! }
//! # Ok(()) }
//! ```
//!
//! Call [`claim`] first thing in `main`. What is in the environment stays there: children of this
//! process see that it is not for them by LISTEN_PID.
//!
//! A name may occur several times: all sockets of one `.socket` unit share it. Some names come from
//! PID 1 itself: `connection` (Accept=yes), `stored` (the fd store, without FDNAME=), the unit's own
//! name (`web.socket`) where FileDescriptorName= is not set. `unknown` stands for a speaker without
//! names. Names that start with `handover.` or `ho.` are handover's own and are
//! never shown.
//!
//! This chapter never changes the environment, never guesses a kind, never closes what it was given
//! because of an error in a name, never clears O_NONBLOCK (the flag is shared with other processes),
//! never binds an address on behalf of a unit that passes sockets, and knows no event loop.
#![forbid(unsafe_code)]

mod bind;
mod claim;
pub(crate) mod env;
mod inherited;
mod passed;

pub use self::bind::BindError;
pub use self::claim::{ClaimError, claim};
pub use self::env::{EnvError, NameError, check_name};
pub(crate) use self::inherited::is_reserved;
pub use self::inherited::{Inherited, Origin, TakeError};
pub use self::passed::{ConvertError, Passed};
pub use crate::sys::adopt::AdoptError;
pub use crate::sys::kind::{Kind, Role, Transport};
