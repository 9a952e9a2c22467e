//! A sample service: HTTP/1.1 with keep-alive on the socket named `web`.
//!
//! | request | answer |
//! |---|---|
//! | `/` | `pid N` and `version V`, V from the environment variable WEB_VERSION |
//! | `/slow?ms=N` | the same after N ms |
//! | `/stream?ms=N` | a line every 100 ms, for N ms |
//!
//! It fails on purpose when WEB_FAIL, or the first line of the file named by WEB_FAIL_FILE, says so:
//! `init-exit` (exit 1 while it initialises), `init-hang` (before handover is reached), `init-error` (says
//! why), `never-ready`, `crash-after-ready`. WEB_DRAIN_MS and WEB_INIT_MS set its deadlines, WEB_SOCKET
//! the name of the socket that it wants.
//!
//! While the process retires, a response says `Connection: close`; an idle connection is left open,
//! because a request may be on its way.

#![expect(clippy::print_stderr, reason = "systemd has it in the journal")]

use std::convert::Infallible;
use std::time::Duration;

use handover::daemon::{Daemon, Error, Options, Stream};
use handover::drain::Drain;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

type Body = BoxBody<Bytes, Infallible>;

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
    let serving = daemon.ready().await?;
    if failure == "crash-after-ready" {
        std::process::abort();
    }
    let drain = serving.drain().clone();
    let _ = serving.serve(listener, move |stream, _peer| converse(stream, drain.clone())).await;
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

fn options() -> Options {
    let milliseconds = |name| Some(Duration::from_millis(std::env::var(name).ok()?.parse().ok()?));
    let mut options = Options::default();
    if let Some(deadline) = milliseconds("WEB_DRAIN_MS") {
        options = options.drain_deadline(deadline);
    }
    if let Some(deadline) = milliseconds("WEB_INIT_MS") {
        options = options.init_deadline(deadline);
    }
    options
}

/// Serves one connection, request after request.
async fn converse(stream: Stream, drain: Drain) {
    let service = service_fn(|request| answer(request, drain.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    // A client that went away is no news.
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, drain: Drain) -> Result<Response<Body>, Infallible> {
    let milliseconds = milliseconds(request.uri().query());
    let mut response = match request.uri().path() {
        "/" => Response::new(full(greeting())),
        "/slow" => {
            sleep(milliseconds).await;
            Response::new(full(greeting()))
        }
        "/stream" => Response::new(lines(milliseconds)),
        path => {
            let mut response = Response::new(full(format!("nothing at {path}\n")));
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    };
    if drain.ending() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

fn greeting() -> String {
    let version = std::env::var("WEB_VERSION").unwrap_or_else(|_| "1".to_string());
    format!("pid {}\nversion {version}\n", std::process::id())
}

/// `ms=N`; nothing is 0.
fn milliseconds(query: Option<&str>) -> Duration {
    let number = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("ms=")));
    Duration::from_millis(number.and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).boxed()
}

/// A line every 100 ms.
fn lines(total: Duration) -> Body {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let until = Instant::now() + total;
    tokio::spawn(async move {
        let mut number = 0;
        while Instant::now() < until {
            let line = Bytes::from(format!("line {number} from pid {}\n", std::process::id()));
            // A client that went away needs no more lines.
            if sender.send(line).await.is_err() {
                return;
            }
            number += 1;
            sleep(Duration::from_millis(100)).await;
        }
    });
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let line = receiver.recv().await?;
        Some((Ok(Frame::data(line)), receiver))
    });
    StreamBody::new(frames).boxed()
}
