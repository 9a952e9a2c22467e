//! A service whose connections outlive their process. Each byte of a client is a request, and has eight
//! bytes as its answer: who answers, or with `s` how many nanoseconds a million saves took.
//!
//! With `kept` as an argument, PID 1 holds each connection from the start.
#![expect(clippy::print_stdout, reason = "the benchmark wants the address")]

use std::time::Instant;

use handover::daemon::{Daemon, Error, Live};
use tokio::io::AsyncWriteExt;

/// Bytes of state of a connection: those of one that PID 1 holds, 1 MiB for 500 of them; and of others.
const KEPT: usize = (1 << 20) / 500 + 1;
const MOVED: usize = 32;

/// How many saves are timed, and of how many bytes.
const SAVES: usize = 1_000_000;
const SAVED: usize = 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let kept = std::env::args().nth(1).as_deref() == Some("kept");
    let mut daemon = Daemon::start()?;
    let listener = daemon.listener_or_bind("live", "127.0.0.1:0")?;
    listener.tcp_addresses().for_each(|address| println!("{address}"));
    let connections = daemon.connections();
    let serving = daemon.ready().await?;
    let _ = serving.serve_connections(listener, connections, move |live| converse(live, kept)).await;
    Ok(())
}

/// Serves one connection. What cannot be stashed or read ends, which the benchmark notices.
async fn converse(mut live: Live, kept: bool) {
    if live.state().is_empty() {
        let state = vec![1; if kept { KEPT } else { MOVED }];
        if kept && live.stash().await.is_err() || live.save(&state).is_err() {
            return;
        }
    }
    let mut request = [0];
    loop {
        tokio::select! {
            biased;
            seen = live.peek(&mut request, 0) => if !matches!(seen, Ok(1)) {
                return;
            },
            () = live.rest() => return,
        }
        let answer = if request == *b"s" { save(&live) } else { u64::from(std::process::id()) };
        if live.write_all(&answer.to_le_bytes()).await.is_err() || live.consume(1).is_err() {
            return;
        }
    }
}

/// Saves again and again; how long it took, in nanoseconds. 0 is a failure.
fn save(live: &Live) -> u64 {
    let (mut state, begin) = ([0; SAVED], Instant::now());
    for number in 0..SAVES {
        state[..8].copy_from_slice(&number.to_le_bytes());
        if live.save(&state).is_err() {
            return 0;
        }
    }
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
