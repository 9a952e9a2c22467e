//! The integration tests: one binary, one module a scenario. What a module needs of a real systemd it
//! gets from `lab`; without root it says that it was skipped, and in CI that is a failure.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

#[macro_use]
mod lab;
mod crowd;
mod gate;
mod load;
mod process;
mod progress;
mod sessions;
#[macro_use]
mod standin;
mod web;

mod activation;
mod boot;
mod busy;
mod callers;
mod check;
mod corners;
mod credentials;
mod demo;
mod drain;
mod failures;
mod given;
mod http;
mod idle;
mod init;
mod keeper;
mod kill;
mod nix;
mod package;
mod pid1;
mod programs;
mod refusals;
mod reload;
mod renewal;
mod rollback;
mod run;
mod runner;
mod serial;
mod settings;
mod slots;
mod status;
mod store;
mod tidy;
mod unit;
mod upgrade;

/// What the sample `keeper` keeps of a session, with its unit tests.
#[path = "services/session.rs"]
mod session;

/// The bytes that the sample `web` answers with.
#[path = "services/pattern.rs"]
mod pattern;
