//! What the sample `web` serves, as an axum router that knows nothing of upgrades: see the table there.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, Request};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures_util::stream;
use handover::daemon::Peer;
use handover::http::Connection;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::pattern::pattern;

/// So much of a large answer is made at a time.
const PIECE: usize = 64 * 1024;

/// All of them.
pub(crate) fn routes() -> Router {
    Router::new()
        .route("/", get(hello).post(hello))
        .route("/slow", get(slow).post(slow))
        .route("/stream", get(lines))
        .route("/echo", post(|body: Body| async { body }))
        .route("/reverse", post(|body: String| async move { body.chars().rev().collect::<String>() }))
        .route("/bytes", get(bytes))
        .route("/login", get(login))
        .route("/whoami", get(whoami))
        .route("/whence", get(whence))
        .route("/ws", any(websocket))
        .fallback(nothing)
}

/// When the request is complete.
async fn hello(uri: Uri, _body: String) -> String {
    greeting(&uri)
}

fn greeting(uri: &Uri) -> String {
    let version = std::env::var("WEB_VERSION").unwrap_or_else(|_| "1".to_string());
    let number = query::<u64>(uri, "number").map_or_else(String::new, |number| format!("number {number}\n"));
    format!("pid {}\nversion {version}\n{number}", std::process::id())
}

async fn slow(uri: Uri, _body: String) -> String {
    sleep(milliseconds(&uri)).await;
    greeting(&uri)
}

async fn nothing(ConnectInfo(connection): ConnectInfo<Connection>, mut request: Request) -> Response {
    if request.method() != Method::CONNECT {
        return (StatusCode::NOT_FOUND, format!("nothing at {}\n", request.uri().path())).into_response();
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(tunnel) = upgrade.await {
            // The client is gone, or has had enough.
            let _ = echo(TokioIo::new(tunnel), connection).await;
        }
    });
    Response::default()
}

/// The end of a tunnel: says what it hears, and goodbye when the process is to end; what the client says then
/// is still heard, until it ends its half.
async fn echo(mut tunnel: TokioIo<Upgraded>, connection: Connection) -> std::io::Result<()> {
    let (mut heard, mut parting) = ([0; 4096], false);
    loop {
        tokio::select! {
            read = tunnel.read(&mut heard) => match read? {
                0 => return tunnel.shutdown().await,
                read => tunnel.write_all(&heard[..read]).await?,
            },
            () = connection.leaving(), if !parting => {
                parting = true;
                tunnel.write_all(format!("goodbye from pid {}\n", std::process::id()).as_bytes()).await?;
            }
        }
    }
}

/// A line every 100 ms.
async fn lines(uri: Uri) -> Body {
    let until = Instant::now() + milliseconds(&uri);
    let line = move |number: u64| async move {
        if number > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        let line = format!("line {number} from pid {}\n", std::process::id());
        (Instant::now() < until).then_some((Ok::<_, Infallible>(line), number + 1))
    };
    Body::from_stream(stream::unfold(0, line))
}

/// So many bytes of the pattern that belongs to the request; in chunks if it wants them so.
async fn bytes(uri: Uri) -> Response {
    let (length, number) = (query(&uri, "length").unwrap_or(0), query(&uri, "number").unwrap_or(0));
    let piece = move |offset: usize| async move {
        let piece = pattern(number, offset, PIECE.min(length - offset));
        (offset < length).then(|| (Ok::<_, Infallible>(piece.clone()), offset + piece.len()))
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(0, piece)));
    if !uri.query().unwrap_or_default().contains("chunked") {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    response.headers_mut().insert(HeaderName::from_static("number"), HeaderValue::from(number));
    response
}

async fn login(uri: Uri, ConnectInfo(connection): ConnectInfo<Connection>) -> Result<String, StatusCode> {
    let name: String = query(&uri, "name").unwrap_or_default();
    match connection.attach(name.as_bytes()) {
        Ok(()) => Ok(format!("hello {name}\n")),
        Err(_) => Err(StatusCode::URI_TOO_LONG),
    }
}

async fn whoami(uri: Uri, ConnectInfo(connection): ConnectInfo<Connection>) -> String {
    let name = match connection.attached() {
        name if name.is_empty() => "nobody".into(),
        name => String::from_utf8_lossy(&name).into_owned(),
    };
    format!("{name}\n{}", greeting(&uri))
}

async fn whence(uri: Uri, ConnectInfo(connection): ConnectInfo<Connection>) -> String {
    let who = match (connection.peer(), connection.credentials()) {
        (Peer::Tcp(address), _) => format!("from {address}"),
        (_, Some(credentials)) => format!("user {}", credentials.uid()),
        _ => "nobody".to_string(),
    };
    format!("{}{who}\n", greeting(&uri))
}

async fn websocket(upgrade: WebSocketUpgrade, ConnectInfo(connection): ConnectInfo<Connection>) -> Response {
    upgrade.on_upgrade(|socket| talk(socket, connection))
}

/// Says what it hears, and goodbye when the process is to end; what the client says then is still heard.
async fn talk(mut socket: WebSocket, connection: Connection) {
    let mut parting = false;
    loop {
        let said = tokio::select! {
            heard = socket.recv() => match heard {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) if !parting => socket.send(message).await,
                Some(Ok(_)) => Ok(()),
                // The client has said goodbye, too, or left without it.
                Some(Err(_)) | None => return,
            },
            () = connection.leaving(), if !parting => {
                parting = true;
                let goodbye = format!("goodbye from pid {}", std::process::id());
                match socket.send(Message::Text(goodbye.into())).await {
                    Ok(()) => socket.send(Message::Close(None)).await,
                    failed => failed,
                }
            }
        };
        if said.is_err() {
            return;
        }
    }
}

/// `ms=N`; nothing is 0.
fn milliseconds(uri: &Uri) -> Duration {
    Duration::from_millis(query(uri, "ms").unwrap_or(0))
}

/// `name=value` of a query.
fn query<T: FromStr>(uri: &Uri, name: &str) -> Option<T> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name)?.1.parse().ok()
}
