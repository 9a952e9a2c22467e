//! What both samples with axum serve: `pid N` and nothing else.

use axum::Router;
use axum::routing::get;

/// The page.
pub(crate) fn routes() -> Router {
    let pid = format!("pid {}\n", std::process::id());
    Router::new().route("/", get(move || std::future::ready(pid.clone())))
}
