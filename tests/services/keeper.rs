//! A sample service: sessions over TCP and unix sockets that outlive the process, a line a request.
//!
//! | request | answer |
//! |---|---|
//! | `SET key value` | `ok`; the value is this session's own, and kept |
//! | `GET key` | `value ...`, or `none` |
//! | `COUNT` | `count N`: the lines served on this connection, by whichever processes |
//! | `PID` | `pid N`: who serves it now |
//! | `SLEEP ms` | `ok`, after that time |
//! | `QUIT` | `bye`, and the session ends |
//!
//! What is no request is answered `error: ...`, and the session goes on. A line longer than 512 bytes
//! ends it.
//!
//! # Why nothing is lost
//!
//! Every session is stashed when it is accepted, before its first answer: from then on PID 1 holds the
//! connection, too. A line is served in an order in which the process may be killed at any point:
//!
//! 1. *peek*: the line is read, and stays in the kernel's buffer;
//! 2. *apply* it to the session;
//! 3. *save* the session, which needs no system call;
//! 4. *answer*;
//! 5. *consume* the line.
//!
//! Killed before 3, the next process finds the line and a session that knows nothing of it: it serves it
//! as if it had just come. Killed after 3, the next one finds the line and a session that knows it
//! already. To tell that line from another one of the same words the client puts a tag of its choice
//! before it: `#17 SET a 1` is answered `#17 ok`. A line with the tag of the last one is answered again
//! and not applied again. So every request has its effect once, and may be answered twice; without tags
//! the last one before a crash may have its effect twice. An answer is one small write: only that of a
//! client which has stopped reading can be cut by a crash.
//!
//! # Settings
//!
//! | variable | meaning |
//! |---|---|
//! | KEEPER_STATE=W:R | the state is of version W, and programs of version R can read it; 1:1 |
//! | KEEPER_STASH=no | nothing is stashed before the service stops: sessions outlive upgrades and restarts, but no crash |
//! | KEEPER_DRAIN_MS | how long a line may take that is being served when the service stops; 30000 |
//! | KEEPER_FAIL_FILE | the first line of this file says how to fail: `init-exit` (exit 1 while it initialises), `init-error` (says why), `never-ready` |

#![expect(clippy::print_stderr, reason = "systemd has it in the journal")]

mod session;

use std::io;
use std::time::Duration;

use handover::daemon::{Daemon, Error, Live, Options};
use handover::fdstore::{LastUpgrade, Record, StashError};
use handover::upgrade::Reason;
use session::{Line, MOST_LINE, MOST_STATE, Session};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let failure = failure();
    if failure == "init-exit" {
        std::process::exit(1);
    }
    let mut daemon = Daemon::start_with(options())?;
    match failure.as_str() {
        "init-error" => {
            daemon.fail("the sample was told to fail");
            std::process::exit(1);
        }
        "never-ready" => {
            eprintln!("{} hangs as told", std::process::id());
            std::future::pending().await
        }
        _ => {}
    }
    let listener = daemon.listener("keeper")?;
    // From here on this program takes sessions that others have accepted.
    let connections = daemon.connections();
    let serving = daemon.ready().await?;
    eprintln!("keeper: {}", describe(&serving.record()));
    let _ = serving.serve_connections(listener, connections, converse).await;
    Ok(())
}

/// How the service got here.
fn describe(record: &Record) -> String {
    let upgraded = match &record.last_upgrade {
        None => "never upgraded".to_owned(),
        Some(LastUpgrade::Failed { reason, .. }) => {
            let name = Reason::from_exit_code(*reason).map_or("unknown", Reason::name);
            format!("last upgrade failed ({name})")
        }
        Some(_) => "upgraded".to_owned(),
    };
    let drains = record.draining.iter().map(|drainer| format!(", {} drains", drainer.pid));
    format!("generation {}, {upgraded}{}", record.generation, drains.collect::<String>())
}

/// How to fail, if at all.
fn failure() -> String {
    let file = std::env::var_os("KEEPER_FAIL_FILE").and_then(|path| std::fs::read_to_string(path).ok());
    file.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

fn options() -> Options {
    let versions = std::env::var("KEEPER_STATE").unwrap_or_default();
    let versions = versions.split_once(':').and_then(|(w, r)| Some((w.parse().ok()?, r.parse().ok()?)));
    let (written, readable_by) = versions.unwrap_or((1, 1));
    let options = Options::default().state_bytes(MOST_STATE).state_version(written, readable_by);
    match std::env::var("KEEPER_DRAIN_MS").ok().and_then(|ms| ms.parse().ok()) {
        Some(ms) => options.drain_deadline(Duration::from_millis(ms)),
        None => options,
    }
}

/// Serves one session, until its client leaves or another process goes on with it.
async fn converse(mut live: Live) {
    let mut session = match Session::decode(&live.state()) {
        Ok(session) => session,
        Err(why) => return refuse(live, &why.to_string()).await,
    };
    if std::env::var("KEEPER_STASH").as_deref() != Ok("no") {
        match live.stash().await {
            // Without a service manager, as in development, sessions live as long as the process.
            Ok(()) | Err(StashError::NoManager) => {}
            // It was accepted just before another process took over, which is to stash it.
            Err(StashError::Silent) => return live.rest().await,
            Err(why) => return refuse(live, &why.to_string()).await,
        }
    }
    let (mut buffer, mut known) = ([0; MOST_LINE], 0);
    loop {
        if let Some(end) = buffer[..known].iter().position(|byte| *byte == b'\n') {
            match serve(&mut live, &mut session, &buffer[..=end]).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return live.end(),
            }
            buffer.copy_within(end + 1..known, 0);
            known -= end + 1;
        } else if known == MOST_LINE {
            return refuse(live, &format!("a line has at most {MOST_LINE} bytes")).await;
        } else {
            // Between two requests: what has come of the next one is still in the kernel's buffer.
            tokio::select! {
                () = live.rest() => return,
                seen = live.peek(&mut buffer, known) => match seen {
                    Ok(seen) if seen > known => known = seen,
                    // The client left, or was cut off.
                    Ok(_) | Err(_) => return live.end(),
                },
            }
        }
    }
}

/// Serves one line, with its end; false if it was the last of the session.
async fn serve(live: &mut Live, session: &mut Session, line: &[u8]) -> io::Result<bool> {
    let request = Line::parse(&line[..line.len() - 1]);
    if let Some(time) = request.sleep() {
        sleep(time).await;
    }
    let answer = session.serve(&request, std::process::id());
    live.save(&session.encode()).map_err(io::Error::other)?;
    live.write_all(answer.as_bytes()).await?;
    live.consume(line.len())?;
    Ok(!request.is_last())
}

/// Ends a session, telling the client and the journal why.
async fn refuse(mut live: Live, why: &str) {
    eprintln!("a session ends: {why}");
    // A client that is gone already need not know.
    let _ = live.write_all(format!("error: {why}\n").as_bytes()).await;
    live.end();
}
