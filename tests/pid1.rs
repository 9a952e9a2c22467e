//! `handover pid1`: the shipped units without a systemd, and the rules of PID 1 that they rely on.

#[path = "pid1/clients.rs"]
mod clients;
#[path = "pid1/container.rs"]
mod container;
#[path = "pid1/control.rs"]
mod control;
#[path = "pid1/directives.rs"]
mod directives;
#[path = "pid1/life.rs"]
mod life;
#[path = "pid1/notify.rs"]
mod notify;
#[path = "pid1/sockets.rs"]
mod sockets;
#[path = "pid1/store.rs"]
mod store;
#[path = "pid1/upgrade.rs"]
mod upgrade;
#[path = "pid1/users.rs"]
mod users;
