//! systemd.unit(5): services and sockets as their files describe them, with drop-ins.
//!
//! ```text
//!        load: files, templates, drop-ins       read: one pass over the assignments
//! paths ----------------------------------> Unit --------------------------------> Service, Socket
//!                                             sections, keys, values, lines          typed settings
//! ```
//!
//! What is wrong is never silent and rarely fatal, as under systemd: a [`Finding`] names file and line,
//! what was wanted, and what was done about it. Where systemd's versions differ, the newest is followed.
//!
//! This chapter never starts anything, opens no socket, asks no systemd, and prints nothing.

mod command;
mod common;
mod directive;
mod document;
mod environment;
mod exec;
mod exec_read;
mod files;
mod finding;
mod host;
mod kill;
mod line;
mod listen;
mod load;
mod name;
mod service;
mod service_read;
mod signal;
mod socket;
mod socket_read;
pub(crate) mod span;
mod specifier;
#[cfg(test)]
mod tests;
mod text;
mod value;
mod words;

pub use command::{Arguments, Command, Privilege};
pub use common::{Common, RateLimit};
pub(crate) use directive::nearest_in as nearest_directive;
pub use directive::{Directive, all as directives, find as directive};
pub use document::{Assignment, Unit};
pub use environment::read_environment_file;
pub use exec::{
    Directories, EnvironmentFile, Exec, Input, Limit, Output, PreserveMode, Resource, WorkingDirectory,
};
pub use finding::{Finding, Place, Severity};
pub use host::Host;
pub use kill::{Kill, KillMode};
pub use listen::{Address, Listen, ListenKind};
pub use load::{Loaded, load, load_files, look_up, survey};
pub use name::UnitName;
pub use service::{ExitStatuses, FdStorePreserve, NotifyAccess, Restart, RestartMode, Service, ServiceType};
pub use signal::Signal;
pub use socket::{BindIpv6Only, PartialLimit, Socket, SocketProtocol};
