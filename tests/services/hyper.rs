//! A sample service on hyper alone, without axum: on the sockets named `web` it says who answers, and whom.
//!
//! | request | answer |
//! |---|---|
//! | POST | the body, while it comes |
//! | anything else | `pid N`; `number N` where the query is `number=N`; `from ADDRESS` of a client over TCP, `user N` of one over a unix socket |

use std::convert::Infallible;
use std::future::ready;

use handover::daemon::{Daemon, Error, Peer};
use handover::http::{self, Connection};
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut daemon = Daemon::start()?;
    let listener = daemon.listener_or_bind("web", "127.0.0.1:8080")?;
    let connections = daemon.connections();
    let serving = daemon.ready().await?;
    let service = |connection| {
        service_fn(move |request: Request<Incoming>| {
            let answer = match request.method() {
                &Method::POST => Either::Left(request.into_body()),
                _ => Either::Right(greeting(&request, &connection).map_err(|never| match never {})),
            };
            ready(Ok::<_, Infallible>(Response::new(answer)))
        })
    };
    let _ = http::serve_hyper(serving, listener, connections, service).await;
    Ok(())
}

fn greeting(request: &Request<Incoming>, connection: &Connection) -> String {
    let number = request.uri().query().and_then(|query| query.strip_prefix("number="));
    let number = number.map_or_else(String::new, |number| format!("number {number}\n"));
    let who = match (connection.peer(), connection.credentials()) {
        (Peer::Tcp(address), _) => format!("from {address}"),
        (_, Some(credentials)) => format!("user {}", credentials.uid()),
        _ => "nobody".to_string(),
    };
    format!("pid {}\n{number}{who}\n", std::process::id())
}
