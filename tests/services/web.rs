//! A sample service: HTTP/1.1 with keep-alive, HTTP/2 and WebSocket on the socket named `web`.
//!
//! | request | answer |
//! |---|---|
//! | `/`, also POST | `pid N` and `version V`, V from the environment variable WEB_VERSION |
//! | `/slow?ms=N`, also POST | the same after N ms |
//! | `/stream?ms=N` | a line every 100 ms, for N ms |
//! | POST `/echo` | the body, while it comes |
//! | POST `/reverse` | the body backwards, when all of it is there |
//! | `/bytes?length=N` | N bytes of a pattern; with `&chunked` in chunks |
//! | `/login?name=NAME` | `hello NAME`, who is logged in on this connection from now on |
//! | `/whoami` | that name, or `nobody` |
//! | `/whence` | `from ADDRESS` of a client over TCP, `user N` of one over a unix socket |
//! | CONNECT, to anywhere | a tunnel to an end that says what it hears, and goodbye when the process is to end |
//! | `/ws` | a WebSocket that says what it hears, and goodbye when the process is to end |
//!
//! With `number=N` in the query the answer is that request's own: `/` repeats the number, and the pattern
//! of `/bytes` is another one for each.
//!
//! Its connections live on in the next process, with who is logged in on each. WEB_KEEP says which of them
//! survive a crash: none, or with `idle:N` or `all:N` so many at most.
//!
//! It fails on purpose when WEB_FAIL, or the first line of the file named by WEB_FAIL_FILE, says so:
//! `init-exit` (exit 1 while it initialises), `init-hang` (before handover is reached), `init-error` (says
//! why), `never-ready`, `crash-after-ready`. WEB_DRAIN_MS and WEB_INIT_MS set its deadlines, WEB_SOCKET
//! the name of the socket that it wants, WEB_STATE=W:R the version of what it knows of a connection and the
//! oldest one that can read it.

#![expect(clippy::print_stderr, reason = "systemd has it in the journal")]

mod pages;
mod parting;
mod pattern;

use std::time::Duration;

use axum::middleware::from_fn;
use handover::daemon::{Daemon, Error, Options};
use handover::http::{Connection, Http, Keep};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let failure = failure();
    match failure.as_str() {
        "init-exit" => std::process::exit(1),
        "init-hang" => hang(&failure).await,
        _ => {}
    }
    let mut daemon = Daemon::start_with(options())?;
    match failure.as_str() {
        "init-error" => {
            daemon.fail("the sample was told to fail");
            std::process::exit(1);
        }
        "never-ready" => hang(&failure).await,
        _ => {}
    }
    let socket = std::env::var("WEB_SOCKET").unwrap_or_else(|_| "web".to_string());
    let listener = daemon.listener_or_bind(&socket, "127.0.0.1:8080")?;
    // From here on this program takes connections that others have accepted.
    let connections = daemon.connections();
    let serving = daemon.ready().await?;
    if failure == "crash-after-ready" {
        std::process::abort();
    }
    parting::begin(&serving);
    let pages = pages::routes().layer(from_fn(parting::answer));
    let pages = pages.into_make_service_with_connect_info::<Connection>();
    let _ = http().serve(serving, listener, connections, pages).await;
    parting::end();
    Ok(())
}

/// How to fail, if at all.
fn failure() -> String {
    let file = std::env::var_os("WEB_FAIL_FILE").and_then(|path| std::fs::read_to_string(path).ok());
    let wanted = file.or_else(|| std::env::var("WEB_FAIL").ok()).unwrap_or_default();
    wanted.lines().next().unwrap_or_default().to_string()
}

/// Gets no further, and says so.
async fn hang(how: &str) {
    eprintln!("{} hangs as told: {how}", std::process::id());
    std::future::pending().await
}

/// How HTTP is served.
fn http() -> Http {
    let keep = std::env::var("WEB_KEEP").unwrap_or_default();
    let keep = keep.split_once(':').and_then(|(which, most)| Some((which, most.parse().ok()?)));
    Http::new().keep(match keep {
        Some(("idle", most)) => Keep::Idle(most),
        Some(("all", most)) => Keep::All(most),
        _ => Keep::None,
    })
}

fn options() -> Options {
    let milliseconds = |name| Some(Duration::from_millis(std::env::var(name).ok()?.parse().ok()?));
    let versions = std::env::var("WEB_STATE").unwrap_or_default();
    let versions = versions.split_once(':').and_then(|(w, r)| Some((w.parse().ok()?, r.parse().ok()?)));
    let (written, readable_by) = versions.unwrap_or((1, 1));
    let mut options = Options::default().state_version(written, readable_by);
    if let Some(deadline) = milliseconds("WEB_DRAIN_MS") {
        options = options.drain_deadline(deadline);
    }
    if let Some(deadline) = milliseconds("WEB_INIT_MS") {
        options = options.init_deadline(deadline);
    }
    options
}
