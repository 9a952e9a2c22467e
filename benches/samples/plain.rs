//! The service that the library is measured against: plain tokio, and nothing to stop it but a signal.
//!
//! Its handler asks a flag whether the service ends, as any does that ends politely: what is measured
//! is the library, not what a compiler makes of a handler that never has to ask. An argument is the address.
#![expect(clippy::print_stdout, reason = "the benchmark wants the address")]

mod hello;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    let (body, ending) = (hello::body(), Arc::new(AtomicBool::new(false)));
    loop {
        let (stream, _peer) = listener.accept().await?;
        let ending = Arc::clone(&ending);
        tokio::spawn(hello::converse(stream, body.clone(), move || ending.load(SeqCst)));
    }
}
