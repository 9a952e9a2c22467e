//! Conversations over socket pairs, each in a "process" of its own: a giver, a drain, and a service that
//! tells its name. It never needs a manager.

mod ends;
mod goaway;
mod moves;
mod stories;

use std::convert::Infallible;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc};

use super::conversation::Conversation;
use super::luggage::Luggage;
use super::places::Places;
use super::{Connection, Http};
use crate::daemon::{Live, Origin};
use crate::drain::Drain;
use crate::upgrade::moves::{Family, Giver};

/// No test waits longer for what is to come.
const DEADLINE: Duration = Duration::from_secs(20);

/// What comes within the deadline.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// A process that serves.
struct Process {
    name: &'static str,
    giver: Giver,
    drain: Drain,
    /// Lets a request to `/wait` go on.
    go: Arc<Notify>,
    /// The bodies that are read elsewhere, at `/later`.
    bodies: mpsc::UnboundedSender<Incoming>,
    later: mpsc::UnboundedReceiver<Incoming>,
    http: Http,
}

impl Process {
    fn new(name: &'static str) -> Self {
        let (bodies, later) = mpsc::unbounded_channel();
        let http = Http::new();
        Self { name, giver: Giver::new(), drain: Drain::new(), go: Arc::default(), bodies, later, http }
    }

    /// A new client.
    fn connect(&self) -> Client {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.serve(ours.into(), Origin::Accepted, b"");
        Client(UnixStream::from_std(theirs).unwrap())
    }

    /// Serves a connection with this luggage.
    fn serve(&self, socket: OwnedFd, origin: Origin, luggage: &[u8]) {
        let live = Live::for_giver(socket, Family::Unix, origin, luggage, &self.giver);
        if let Some(conversation) = self.http.welcome(live, &Places::new(self.http.keep), &self.drain) {
            self.hold(conversation);
        }
    }

    fn hold(&self, conversation: Conversation) {
        let (name, go, bodies, drain) =
            (self.name, Arc::clone(&self.go), self.bodies.clone(), self.drain.clone());
        let connection = conversation.wire.connection.clone();
        let service = service_fn(move |request| {
            answer(name, request, connection.clone(), Arc::clone(&go), bodies.clone())
        });
        self.drain.spawn(async move { conversation.hold(service, &drain).await });
    }

    /// Serves no longer.
    fn retire(&mut self) {
        self.giver.call_for_good();
        self.drain.begin();
    }

    /// Gives the next connection that rests to `other`.
    async fn give(&mut self, other: &Self) {
        let (socket, luggage) = self.take().await;
        other.serve(socket, Origin::Moved, &luggage);
    }

    /// Gives the connection that rests by now to `other`, and serves on.
    async fn give_now(&mut self, other: &Self) {
        soon(async { while !self.has_resting().await {} }).await;
        self.giver.call();
        self.give(other).await;
    }

    /// The next connection that rests, and what goes along.
    async fn take(&mut self) -> (OwnedFd, Vec<u8>) {
        let (batch, slots) = soon(self.giver.next_offers()).await.into_parts();
        let [slot] = &*slots else { panic!("{} connections rest", slots.len()) };
        let (socket, (_, luggage)) = (slot.as_fd().try_clone_to_owned().unwrap(), slot.luggage());
        assert!(slot.give(batch), "it was on offer");
        (socket, luggage)
    }

    /// Whether a connection rests now, when nobody has anything to do.
    async fn has_resting(&mut self) -> bool {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.giver.call();
        let offers = self.giver.next_offers();
        let Ok(batch) = tokio::time::timeout(Duration::ZERO, offers).await else { return false };
        let (batch, slots) = batch.into_parts();
        slots.iter().for_each(|slot| slot.back(batch));
        !slots.is_empty()
    }

    /// Waits until no connection is served any more.
    async fn is_left(&self) {
        assert_eq!(soon(self.drain.wait(DEADLINE)).await, crate::drain::Outcome::Drained);
    }
}

/// A response's body, in one piece or endless.
enum Answer {
    Whole(Option<Bytes>),
    Zeros(usize),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Self::Whole(whole) => whole.take(),
            Self::Zeros(0) => None,
            Self::Zeros(left) => {
                let piece = (*left).min(1 << 16);
                *left -= piece;
                Some(vec![b'0'; piece].into())
            }
        };
        std::task::Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |whole| whole.len() as u64)),
            // In chunks.
            Self::Zeros(_) => SizeHint::default(),
        }
    }
}

/// What every process does, but for its name.
async fn answer(
    name: &'static str,
    mut request: Request<Incoming>,
    connection: Connection,
    go: Arc<Notify>,
    bodies: mpsc::UnboundedSender<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let text = match request.uri().path() {
        "/wait" => {
            go.notified().await;
            format!("{name} waited")
        }
        "/read" => {
            let mut bytes = 0;
            while let Some(frame) = next_frame(request.body_mut()).await {
                bytes += frame.len();
            }
            format!("{name} read {bytes}")
        }
        "/later" => {
            bodies.send(request.into_body()).unwrap();
            format!("{name} reads later")
        }
        "/zeros" => return Ok(Response::new(Answer::Zeros(4 << 20))),
        "/later-zeros" => {
            bodies.send(request.into_body()).unwrap();
            return Ok(Response::new(Answer::Zeros(400_000)));
        }
        "/socket" => {
            tokio::spawn(echo(request, connection));
            let mut response = Response::new(Answer::Whole(None));
            *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            return Ok(response);
        }
        "/attached" => format!("{name} has {}", String::from_utf8(connection.attached()).unwrap()),
        path if path.starts_with("/attach/") => {
            let bytes = path.trim_start_matches("/attach/").as_bytes();
            match connection.attach(bytes) {
                Ok(()) => format!("{name} attached"),
                Err(error) => error.to_string(),
            }
        }
        path => format!("{name} {path}"),
    };
    Ok(Response::new(Answer::Whole(Some(text.into()))))
}

async fn next_frame(body: &mut Incoming) -> Option<Bytes> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    frame.unwrap().into_data().ok()
}

/// Speaks back, and says goodbye when the process leaves.
async fn echo(request: Request<Incoming>, connection: Connection) {
    let upgraded = hyper::upgrade::on(request).await.unwrap();
    let mut upgraded = hyper_util::rt::TokioIo::new(upgraded);
    let mut bytes = [0; 64];
    loop {
        tokio::select! {
            read = upgraded.read(&mut bytes) => match read {
                Ok(read) if read > 0 => upgraded.write_all(&bytes[..read]).await.unwrap(),
                _ => return,
            },
            () = connection.leaving() => {
                let _ = upgraded.write_all(b"goodbye").await;
                // A client that wants to stay is cut.
                let _ = upgraded.read(&mut bytes).await;
                return;
            }
        }
    }
}

/// A client, who sees every byte.
struct Client(UnixStream);

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    /// The head of the next response, and as much of its body as it says.
    async fn response(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(self.0.read_u8()).await.expect("more of a head"));
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        if head.contains("chunked") {
            return (head, self.chunks().await);
        }
        let length = head
            .split("content-length: ")
            .nth(1)
            .map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        soon(self.0.read_exact(&mut body)).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    async fn chunks(&mut self) -> String {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(soon(self.0.read_u8()).await.unwrap());
            }
            let length = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            soon(self.0.read_exact(&mut chunk)).await.unwrap();
            if length == 0 {
                return String::from_utf8(body).unwrap();
            }
            body.extend(&chunk[..length]);
        }
    }

    async fn get(&mut self, path: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        self.response().await.1
    }

    /// What comes until the end.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        soon(self.0.read_to_string(&mut rest)).await.unwrap();
        rest
    }
}

fn luggage(bytes: &[u8]) -> Luggage {
    Luggage::unpack(bytes).unwrap()
}
