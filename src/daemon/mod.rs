//! The paved path for a tokio service: sockets by name, readiness, upgrades, drain; connections and
//! state that outlive the process.
//!
//! ```text
//!   PID 1 or a predecessor starts this process
//!        |
//!        v                    ready()                 an upgrade            drain()
//!   Daemon (Starting) ---------------------> Serving -----------> Retiring ---------> exit
//!        |                                      |                                      ^
//!        | an error, or not needed              | SIGTERM, SIGINT                      |
//!        v                                      v                   drain()            |
//!      exit                                  Stopping ---------------------------------+
//! ```
//!
//! A whole service, which `systemctl reload` upgrades without losing a connection:
//!
//! ```no_run
//! use handover::daemon::{Daemon, Error};
//! use tokio::io::AsyncWriteExt;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Error> {
//!     let mut daemon = Daemon::start()?;
//!     let listener = daemon.listener_or_bind("hello", "127.0.0.1:8080")?;
//!     let serving = daemon.ready().await?;
//!     serving
//!         .serve(listener, |mut stream, _peer| async move {
//!             let _ = stream.write_all(b"hello, world\n").await;
//!         })
//!         .await;
//!     Ok(())
//! }
//! ```
//!
//! * While it starts, SIGTERM has its default action and ends it: nobody is served yet.
//! * Serving, it can be asked for an upgrade by `handover reload` (ExecReload=) or by SIGHUP.
//! * Retiring, it has handed over: it accepts nothing, answers what it has, speaks no more to the
//!   service manager, and leaves as soon as nothing is left, at its drain deadline at the latest.
//! * Stopping, it does the same on behalf of `systemctl stop`; it announces STOPPING=1, and asks for
//!   more time (EXTEND_TIMEOUT_USEC=) only while it gets somewhere.
//!
//! With [`Daemon::connections`] and [`Serving::serve_connections`] each connection is a [`Live`] one:
//! it moves to the next process while it [rests](Live::rest) between two requests, and survives a restart
//! or a crash once it is [stashed](Live::stash); what is [saved](Live::save) goes with it.
//! [`manual`](crate::manual) says what survives what.
//!
//! This chapter never prints, never exits, never changes the environment, and never closes a
//! connection before the drain deadline: that is the service's to do, which knows its protocol.
#![forbid(unsafe_code)]

mod connections;
mod ending;
mod error;
mod kept;
mod listener;
mod live;
mod memory;
mod options;
mod post;
mod retreat;
mod serving;
mod signals;
mod starting;
mod steward;
mod stream;
mod vault;

pub use self::connections::Connections;
pub use self::ending::{Ending, Retiring, Stopping};
pub use self::error::Error;
pub use self::listener::Listener;
pub use self::live::{Live, Origin};
pub use self::options::Options;
pub use self::serving::Serving;
pub use self::starting::Daemon;
pub use self::stream::{Peer, Stream};
