//! The service that the chapter http is measured against: plain axum, as its manual has it.
#![expect(clippy::print_stdout, reason = "the benchmark wants the address")]

mod pages;

use std::io;

use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, pages::routes()).await
}
