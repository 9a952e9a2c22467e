//! The service of the demo: a small `keeper`, whose sessions outlive its processes.
//!
//! It never closes a connection by itself, unless it was told to be a bad one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::session::{MOST_LINE, Request, STATE_BYTES, Session};
use crate::daemon::{Daemon, Error, Live, Options};
use crate::fdstore::StashError;

/// What its socket is called in `keeper.socket`.
const SOCKET: &str = "keeper";

/// Told to be a bad one, each process drops a session after so many requests.
const SABOTAGE: u64 = 50;

/// Serves until it is told to stop, or another process has taken over.
pub(super) async fn serve(sabotage: bool) -> Result<(), Error> {
    let options = Options::default().state_bytes(STATE_BYTES).drain_deadline(Duration::from_secs(5));
    let mut daemon = Daemon::start_with(options)?;
    let listener = daemon.listener(SOCKET)?;
    let connections = daemon.connections();
    let serving = daemon.ready().await?;
    let dropped = &*Box::leak(Box::new(AtomicBool::new(!sabotage)));
    let _ = serving.serve_connections(listener, connections, move |live| converse(live, dropped)).await;
    Ok(())
}

/// Serves one session, until its client leaves or another process goes on with it.
async fn converse(mut live: Live, dropped: &AtomicBool) {
    let Some(mut session) = Session::decode(&live.state()) else { return live.end() };
    let (mut buffer, mut known) = ([0; MOST_LINE], 0);
    loop {
        if let Some(end) = buffer[..known].iter().position(|byte| *byte == b'\n') {
            let served = answer(&mut live, &mut session, &buffer[..=end]).await;
            let sabotaged = session.count() == SABOTAGE && !dropped.swap(true, Relaxed);
            if served.is_err() || sabotaged {
                return live.end();
            }
            buffer.copy_within(end + 1..known, 0);
            known -= end + 1;
        } else if known == MOST_LINE {
            return live.end();
        } else {
            tokio::select! {
                () = live.rest() => return,
                seen = live.peek(&mut buffer, known) => match seen {
                    Ok(seen) if seen > known => known = seen,
                    // The client left.
                    Ok(_) | Err(_) => return live.end(),
                },
            }
        }
    }
}

/// Answers one line, in an order in which this process may be killed at any point: the line is counted
/// and kept before it is answered, and taken out of the kernel's buffer after that.
async fn answer(live: &mut Live, session: &mut Session, line: &[u8]) -> io::Result<()> {
    let request = Request::read(&line[..line.len() - 1]).ok_or(io::ErrorKind::InvalidData)?;
    if session.count() > 0 {
        keep(live).await?;
    }
    sleep(request.work).await;
    let answer = session.serve(request, std::process::id());
    live.save(&session.encode()).map_err(io::Error::other)?;
    live.write_all(answer.line().as_bytes()).await?;
    live.consume(line.len())
}

/// Gives PID 1 the connection, too. Only who asks for a second time is worth it: a visitor is gone before.
async fn keep(live: &mut Live) -> io::Result<()> {
    match live.stash().await {
        // Another process has taken over meanwhile, and keeps it when it gets it.
        Ok(()) | Err(StashError::Silent) => Ok(()),
        // Without a service manager, as in development, it lives as long as the process.
        Err(StashError::NoManager) => Ok(()),
        Err(why) => Err(io::Error::other(why)),
    }
}
