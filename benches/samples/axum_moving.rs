//! The same service as `axum_plain`, with connections that move.
#![expect(clippy::print_stdout, reason = "the benchmark wants the address")]

mod pages;

use handover::daemon::{Daemon, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut daemon = Daemon::start()?;
    let listener = daemon.listener_or_bind("hello", "127.0.0.1:0")?;
    listener.tcp_addresses().for_each(|address| println!("{address}"));
    let connections = daemon.connections();
    let serving = daemon.ready().await?;
    let _ = handover::http::serve(serving, listener, connections, pages::routes()).await;
    Ok(())
}
