//! HTTP over upgrades and restarts: clients whose connections go on, and who notice nothing.

mod conversations;
mod crowd;
mod cuts;
mod outside;
mod peers;
mod restarts;
mod script;
mod streams;
mod tls;
mod tunnel;
mod upgrades;
mod websocket;
