//! The kernel, made safe: file descriptors, sockets and processes as Linux has them.
//!
//! Every `unsafe` of the library is in here, each with the invariant that makes it true; what comes
//! out is owned (`OwnedFd`) or borrowed (`BorrowedFd`), never a number.
//!
//! This chapter never knows a systemd word: no LISTEN_FDS, no NOTIFY_SOCKET, no unit.
#![allow(unsafe_code, reason = "this is the one chapter that may talk to the kernel directly")]

pub(crate) mod adopt;
pub(crate) mod dgram;
#[cfg(feature = "cli")]
pub(crate) mod diag;
#[cfg(feature = "cli")]
pub(crate) mod door;
#[cfg(feature = "cli")]
pub(crate) mod exec;
#[cfg(feature = "cli")]
pub(crate) mod glob;
pub(crate) mod kind;
#[cfg(feature = "cli")]
pub(crate) mod listen;
pub(crate) mod memfd;
#[cfg(feature = "cli")]
pub(crate) mod mirror;
#[cfg(feature = "cli")]
pub(crate) mod other;
#[cfg(feature = "cli")]
pub(crate) mod pages;
pub(crate) mod pidfd;
pub(crate) mod process;
#[cfg(feature = "cli")]
pub(crate) mod same;
pub(crate) mod scm;
#[cfg(feature = "cli")]
pub(crate) mod seccomp;
pub(crate) mod seqpacket;
pub(crate) mod spawn;
#[cfg(feature = "cli")]
pub(crate) mod steer;
pub(crate) mod stream;
pub(crate) mod watch;
