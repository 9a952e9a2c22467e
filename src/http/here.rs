//! Connections that cannot move, because what belongs to them lives in this process: they drain here.
//!
//! It never ends one between two requests: a request may be on its way.

use std::error::Error;
use std::future::Future;
use std::task::{Context, Waker};

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::conversation::speak_http2;
use super::service::Polite;
use crate::drain::Drain;

/// Serves a connection that cannot move, as one with TLS that ends in this process; HTTP/2 if the client
/// has agreed to speak it (`h2` in ALPN).
///
/// When `drain` begins, the client of HTTP/2 is asked to leave, and that of HTTP/1 with its next response;
/// until then, or until the drain deadline, it is served. A client of HTTP/1 that has asked for nothing more
/// by then is not just cut: `io` is shut down, with TLS' own word for the end (RFC 8446 6.1, close_notify).
/// What a connection is used for after an upgrade of its protocol is the service's: [`spawn`](Drain::spawn)
/// it, so that it is waited for.
///
/// ```
/// # use handover::daemon::{Listener, Serving};
/// # use tokio::io::{AsyncRead, AsyncWrite};
/// # async fn accept_tls<S: AsyncRead>(stream: S) -> std::io::Result<(S, bool)> { Ok((stream, false)) }
/// # async fn answer(_: hyper::Request<hyper::body::Incoming>) -> Result<hyper::Response<String>, std::fmt::Error> {
/// #     Ok(hyper::Response::new(String::new()))
/// # }
/// # async fn example(serving: Serving, listener: Listener) {
/// use handover::http;
/// use hyper::service::service_fn;
///
/// let drain = serving.drain().clone();
/// serving
///     .serve(listener, move |stream, _peer| {
///         let drain = drain.clone();
///         async move {
///             // With tokio-rustls: acceptor.accept(stream), and its alpn_protocol().
///             let Ok((tls, http2)) = accept_tls(stream).await else { return };
///             http::serve_here(tls, http2, service_fn(answer), &drain).await;
///         }
///     })
///     .await;
/// # }
/// ```
pub async fn serve_here<T, S, B>(io: T, http2: bool, service: S, drain: &Drain)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if http2 {
        return speak_http2(TokioIo::new(io), service, drain).await;
    }
    let service = Polite { service, drain: drain.clone() };
    let http = http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut http = scopeguard::guard(Box::pin(http), |mut http| {
        // Dropped at the deadline. Between two requests the end needs no more than to be said.
        if drain.is_cut() {
            http.as_mut().graceful_shutdown();
            let _ = http.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    });
    // A client that went away, or talks nonsense, is no news.
    let _ = (&mut *http).await;
    drop(scopeguard::ScopeGuard::into_inner(http));
}
