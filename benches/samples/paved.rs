//! The same service as `plain`, on the paved path. An argument says for how many milliseconds it does as
//! if it had something to initialise.
#![expect(clippy::print_stdout, reason = "the benchmark wants the address")]

mod hello;

use std::time::Duration;

use handover::daemon::{Daemon, Error};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut daemon = Daemon::start()?;
    let listener = daemon.listener_or_bind("hello", "127.0.0.1:0")?;
    listener.tcp_addresses().for_each(|address| println!("{address}"));
    let busy = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(0);
    // Even a sleep of nothing takes a millisecond.
    if busy > 0 {
        tokio::time::sleep(Duration::from_millis(busy)).await;
    }
    let serving = daemon.ready().await?;
    let (body, drain) = (hello::body(), serving.drain().clone());
    let hello = move |stream, _peer| {
        let drain = drain.clone();
        hello::converse(stream, body.clone(), move || drain.ending())
    };
    let _ = serving.serve(listener, hello).await;
    Ok(())
}
