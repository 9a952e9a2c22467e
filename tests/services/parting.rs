//! How long a process is still there when all that was under way in it is done.
//!
//! It says so at its end, in the journal, as only the process itself knows it: a tester hears of each answer,
//! and of the end, as soon as it is given a CPU.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request};
use axum::middleware::Next;
use axum::response::Response;
use handover::daemon::Serving;
use handover::http::Connection;

/// When the last answer was given since the process is to leave, or when it was told to.
static LAST: Mutex<Option<Moment>> = Mutex::new(None);

/// A moment of this thread.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    /// How long it has waited for a CPU until then.
    waited: Duration,
}

impl Moment {
    fn now() -> Self {
        // Its second number: proc_pid_schedstat(5), in nanoseconds.
        let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let waited = times.split(' ').nth(1).and_then(|waited| waited.parse().ok());
        Self { at: Instant::now(), waited: Duration::from_nanos(waited.unwrap_or(0)) }
    }
}

/// The process is about to serve: from the moment it is told to leave, it may be late.
pub(crate) fn begin(serving: &Serving) {
    let drain = serving.drain().clone();
    tokio::spawn(async move {
        drain.asked_to_end().await;
        stamp();
    });
}

/// Answers, and is not done before that.
pub(crate) async fn answer(
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if connection.is_leaving() {
        stamp();
    }
    response
}

fn stamp() {
    if let Ok(mut last) = LAST.lock() {
        *last = Some(Moment::now());
    }
}

/// The process leaves: says how late it is.
pub(crate) fn end() {
    let Some(last) = LAST.lock().ok().and_then(|last| *last) else { return };
    let now = Moment::now();
    let waited = now.waited.saturating_sub(last.waited);
    let late = now.at.duration_since(last.at).saturating_sub(waited);
    eprintln!("parting: {} us late, and waited {} us for a CPU", late.as_micros(), waited.as_micros());
}
