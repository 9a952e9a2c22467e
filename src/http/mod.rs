//! HTTP whose clients do not notice an upgrade: keep-alive connections that move.
//!
//! What `axum::serve` takes, [`serve`] takes, and what hyper serves, [`serve_hyper`] does:
//!
//! ```no_run
//! # #[cfg(feature = "axum")] mod example {
//! use axum::{Router, routing::get};
//! use handover::daemon::{Daemon, Error};
//! use handover::http;
//!
//! # async fn main() -> Result<(), Error> {
//! let app = Router::new().route("/", get(|| async { format!("pid {}\n", std::process::id()) }));
//! let mut daemon = Daemon::start()?;
//! let listener = daemon.listener_or_bind("web", "127.0.0.1:8080")?;
//! let connections = daemon.connections();
//! let serving = daemon.ready().await?;
//! http::serve(serving, listener, connections, app).await;
//! # Ok(())
//! # }
//! # }
//! ```
//!
//! ```text
//!                    between two requests
//!   HTTP/1   -------- moves, and part of the next request with it ------------> the next process
//!            in the middle of one
//!            -------- answered here, then moves ------------------------------>
//!   HTTP/2   -------- GOAWAY: what has come is answered, the client connects anew
//!   upgraded -------- told by Connection::leaving(): as its service has it
//! ```
//!
//! Before the drain deadline nothing is cut, and no connection ends between two requests that could move.
//! One that nobody takes is served on, and its next response says `Connection: close`.
//! [`manual`](crate::manual#http) has the table of what moves, what drains and what is lost.
//!
//! * A request is answered by one process: the one that has read the end of its head. What is read of a
//!   head that is not whole goes along, unless it is more than
//!   [`Options::state_bytes`](crate::daemon::Options::state_bytes).
//! * [`Connection::attach`] has the next process know what this one knows of a connection.
//! * [`Http::keep`] has PID 1 hold connections, so that they survive a crash, too.
//! * What cannot move, as TLS that ends in the process, drains with [`serve_here`].
//!
//! It never answers for the service but where hyper does, and never moves a connection in the middle of a
//! request.
#![forbid(unsafe_code)]

mod connection;
mod conversation;
mod here;
mod io;
pub(crate) mod luggage;
mod options;
mod places;
mod preface;
mod serve;
mod service;
mod wire;
#[cfg(feature = "axum")]
mod with_axum;

pub use self::connection::Connection;
pub use self::here::serve_here;
pub use self::options::{Http, Keep};
pub use self::serve::serve_hyper;
#[cfg(feature = "axum")]
pub use self::with_axum::serve;

#[cfg(test)]
mod tests;
