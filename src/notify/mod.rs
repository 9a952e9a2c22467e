//! sd_notify(3): what a service says to its manager, and how it knows that it was heard.
//!
//! A [`Message`] is one datagram that PID 1 reads as it was meant; a [`Notifier`] sends it, to a path,
//! an abstract name or another machine, with a deadline, and tells [`Delivery::NoManager`] from
//! [`Delivery::Sent`]; a barrier knows that the manager has got there; [`Watchdog`] keeps saying that
//! the service lives. The words are those of the crate `sd-notify`: [`NotifyState`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use handover::notify::{Delivery, Message, NotifyState, Notifier};
//! use std::time::Duration;
//!
//! let manager = Notifier::from_env()?;
//! let ready = Message::new(&[NotifyState::Ready])?.with_status("serving 3 sites");
//! if manager.notify(&ready, Duration::from_secs(5)).await? == Delivery::NoManager {
//!     // Started by hand: nobody waits for us.
//! }
//! # Ok(()) }
//! ```
//!
//! PID 1 answers nothing. A message that it has no room for, does not understand or does not believe
//! (`NotifyAccess=`) is gone; so what can be known before it is sent is refused here.
//!
//! This chapter never changes the environment, never waits without a deadline, never blocks a
//! runtime, and never lets a process that has handed over speak again.
#![forbid(unsafe_code)]

mod address;
mod call;
mod error;
#[cfg(test)]
pub(crate) mod fake_manager;
mod gate;
mod message;
mod notifier;
mod steps;
mod watchdog;

pub use address::{Address, AddressError};
pub use error::{Awaiting, Error};
pub(crate) use gate::{Gated, Passage};
pub use message::{MOST_BYTES, Message, MessageError, ParseError, parse};
pub use notifier::{Delivery, HandedOver, Notifier};
pub use sd_notify::{NotifyState, booted};
pub use watchdog::{Watchdog, WatchdogError};
