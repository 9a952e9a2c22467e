//! What both samples serve: HTTP/1.1 with keep-alive, `pid N` and nothing else.

use std::convert::Infallible;
use std::future::ready;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves one connection; the response says that it is the last one when `ending` does.
pub(crate) async fn converse<S>(stream: S, body: Bytes, ending: impl Fn() -> bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|_: Request<Incoming>| {
        let mut response = Response::new(Full::new(body.clone()));
        if ending() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ready(Ok::<_, Infallible>(response))
    });
    // A client that went away is no news.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Who answers.
pub(crate) fn body() -> Bytes {
    Bytes::from(format!("pid {}\n", std::process::id()))
}
