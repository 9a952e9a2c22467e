//! A sample service whose TLS ends in the process: HTTP/1.1 and HTTP/2 on the socket named `web`, with a
//! certificate for the name `web`. Its connections cannot move, and drain politely.
//!
//! | request | answer |
//! |---|---|
//! | `/` | `pid N` |
//! | `/slow?ms=N` | the same after N ms, the first half of it at once |
//!
//! WEB_DRAIN_MS sets its drain deadline.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Uri;
use axum::routing::get;
use futures_util::stream;
use handover::daemon::{Daemon, Options};
use handover::http;
use hyper_util::service::TowerToHyperService;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const IDENTITY: &[u8] = include_bytes!("tls.pem");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut daemon = Daemon::start_with(options())?;
    let (acceptor, pages) = (acceptor()?, TowerToHyperService::new(routes()));
    let listener = daemon.listener_or_bind("web", "127.0.0.1:8080")?;
    let serving = daemon.ready().await?;
    let drain = serving.drain().clone();
    let serve = move |stream, _peer| {
        let (acceptor, pages, drain) = (acceptor.clone(), pages.clone(), drain.clone());
        async move {
            // Who does not speak TLS, or does not trust us, is no client.
            let Ok(tls) = acceptor.accept(stream).await else { return };
            let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            http::serve_here(tls, http2, pages, &drain).await;
        }
    };
    let _ = serving.serve(listener, serve).await;
    Ok(())
}

fn options() -> Options {
    let deadline = std::env::var("WEB_DRAIN_MS").ok().and_then(|deadline| deadline.parse().ok());
    deadline.map_or_else(Options::default, |deadline| {
        Options::default().drain_deadline(Duration::from_millis(deadline))
    })
}

/// For clients of HTTP/2, and those who know nothing of it.
fn acceptor() -> Result<TlsAcceptor, Box<dyn Error>> {
    let (certificate, key) =
        (CertificateDer::from_pem_slice(IDENTITY)?, PrivateKeyDer::from_pem_slice(IDENTITY)?);
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

fn routes() -> Router {
    Router::new().route("/", get(|| async { greeting() })).route("/slow", get(slow))
}

fn greeting() -> String {
    format!("pid {}\n", std::process::id())
}

/// Half of the greeting, and the other after a while.
async fn slow(uri: Uri) -> Body {
    let query = uri.query().and_then(|query| query.strip_prefix("ms=")?.parse().ok());
    let pause = Duration::from_millis(query.unwrap_or(0));
    let half = move |half: usize| async move {
        if half == 1 {
            sleep(pause).await;
        }
        let greeting = Bytes::from(greeting());
        let (begin, end) = (half * greeting.len() / 2, (half + 1) * greeting.len() / 2);
        (half < 2).then(|| (Ok::<_, Infallible>(greeting.slice(begin..end)), half + 1))
    };
    Body::from_stream(stream::unfold(0, half))
}
