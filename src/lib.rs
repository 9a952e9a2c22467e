//! **handover** lets a Linux service be upgraded, restarted or crash without its clients noticing.
//!
//! PID 1 holds what must not be lost, the old process drains while the new one serves, and whoever
//! asked for the upgrade learns the truth. handover is no service manager and no proxy: it makes
//! systemd's own parts do the work.
//!
//! The chapters, in their order. A chapter uses only chapters above it; a test enforces that.
//!
//! | chapter | what it is for |
//! |---|---|
//! | `sys` | the kernel, safe: the only `unsafe`; knows no systemd word |
//! | [`activation`] | sd_listen_fds(3): what was passed to me, by name, typed, owned once |
//! | [`notify`] | sd_notify(3): messages, barrier, watchdog |
//! | [`fdstore`] | FileDescriptorStoreMax=: what PID 1 keeps for the service: connections, state, the record |
//! | [`drain`] | work in flight: watch it, ask it to end, await the last, up to a deadline |
//! | [`upgrade`] | one process replaces another: the machine, the link, the successor |
//! | [`daemon`] | the paved path for a tokio service: `Starting -> Serving -> Retiring \| Stopping` |
//! | `http` | axum and hyper: keep-alive connections that move (features `http`, `axum`) |
//! | [`manual`] | what survives, what is lost, and what to do about it |
//! | `unit` | systemd.unit(5): services and sockets as their files describe them (feature `cli`) |
//! | `manager` | org.freedesktop.systemd1 from outside (feature `cli`) |
//! | `check` | what is wrong with these units, and the line that mends it (feature `cli`) |
//! | `status` | how a service stands: by the manager, the kernel, and its own word (feature `cli`) |
//! | `pid1` | a stand-in for PID 1, for where no systemd runs (feature `cli`) |
//! | `run` | unmodified programs: slots, steering, generations (feature `cli`) |
//! | `cli` | words for people (feature `cli`) |

// A blank line between them, or rustfmt would sort them.

mod sys;

pub mod activation;

pub mod notify;

pub mod fdstore;

pub mod drain;

pub mod upgrade;

pub mod daemon;

#[cfg(feature = "http")]
pub mod http;

pub mod manual;

#[cfg(feature = "cli")]
pub mod unit;

#[cfg(feature = "cli")]
pub mod manager;

#[cfg(feature = "cli")]
pub mod check;

#[cfg(feature = "cli")]
pub mod status;

#[cfg(feature = "cli")]
pub mod pid1;

#[cfg(feature = "cli")]
pub mod run;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(all(fuzzing, feature = "cli"))]
#[doc(hidden)]
pub mod fuzz;

/// The README's code is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
