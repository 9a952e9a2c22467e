//! What ends, and how politely.

use super::*;
use crate::http::wire::Wire;
use std::io;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[tokio::test]
async fn a_connection_that_nobody_takes_ends_with_the_response_that_says_so() {
    let mut old = Process::new("old");
    let mut client = old.connect();
    assert_eq!(client.get("/1").await, "old /1");
    old.retire();
    let (batch, slots) = soon(old.giver.next_offers()).await.into_parts();
    slots[0].back(batch);
    drop(slots);
    client.send("GET /2 HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let (head, body) = client.response().await;
    assert_eq!(body, "old /2");
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(client.rest().await, "");
    old.is_left().await;
}

#[tokio::test]
async fn what_nobody_took_is_not_offered_again_and_again() {
    let mut old = Process::new("old");
    let mut client = old.connect();
    assert_eq!(client.get("/").await, "old /");
    old.retire();
    assert!(old.has_resting().await, "it was on offer, and is not taken");
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let offers = tokio::time::timeout(Duration::ZERO, old.giver.next_offers()).await;
    assert!(offers.is_err(), "it is on offer again");
}

#[tokio::test]
async fn a_client_that_wants_the_connection_closed_has_it_closed() {
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"] {
        let process = Process::new("it");
        let mut client = process.connect();
        client.send(request).await;
        assert!(client.rest().await.ends_with("it /"));
        process.is_left().await;
    }
}

#[tokio::test]
async fn nonsense_is_answered_as_hyper_does() {
    let process = Process::new("it");
    let mut client = process.connect();
    client.send("nonsense\r\n\r\n").await;
    assert!(client.rest().await.starts_with("HTTP/1.1 400"));
    process.is_left().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_conversation() {
    let process = Process::new("it");
    for request in ["", "GET", "GET / HTTP/1.1\r\n\r\n"] {
        let mut client = process.connect();
        client.send(request).await;
        assert!(process.drain.in_flight() > 0);
    }
    process.is_left().await;
}

#[tokio::test]
async fn who_was_in_the_middle_of_a_request_when_the_process_crashed_is_let_go() {
    let process = Process::new("it");
    for state in [&super::super::luggage::pack(true, b"", b"")[..], b"of another kind"] {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        process.serve(ours.into(), Origin::Restored, state);
        assert_eq!(Client(UnixStream::from_std(theirs).unwrap()).rest().await, "");
    }
}

/// A connection that PID 1 holds, and its client.
fn kept(process: &Process) -> (Arc<Wire>, Client) {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let live = Live::for_giver(ours.into(), Family::Unix, Origin::Restored, b"", &process.giver);
    let conversation = process.http.welcome(live, &Places::new(process.http.keep), &process.drain).unwrap();
    let wire = Arc::clone(&conversation.wire);
    wire.is_kept();
    process.hold(conversation);
    (wire, Client(UnixStream::from_std(theirs).unwrap()))
}

/// Waits until what was saved for the connection is so.
async fn saved(wire: &Wire, is: impl Fn(Luggage) -> bool) {
    let wait = async {
        while !is(luggage(&wire.live.state())) {
            tokio::task::yield_now().await;
        }
    };
    soon(wait).await;
}

#[tokio::test]
async fn what_pid_1_holds_is_saved_as_busy_while_a_request_is_served() {
    let process = Process::new("it");
    let (wire, mut client) = kept(&process);
    client.send("GET /wa").await;
    saved(&wire, |luggage| luggage.read == b"GET /wa" && !luggage.busy).await;
    client.send("it HTTP/1.1\r\nHost: test\r\n\r\n").await;
    saved(&wire, |luggage| luggage.read.is_empty() && luggage.busy).await;
    process.go.notify_one();
    assert_eq!(client.response().await.1, "it waited");
    saved(&wire, |luggage| luggage == Luggage::default()).await;
}

#[tokio::test]
async fn what_pid_1_holds_is_saved_as_busy_when_part_of_a_head_is_nowhere_else() {
    let process = Process::new("it");
    let (wire, mut client) = kept(&process);
    client.send(format!("GET / HTTP/1.1\r\nX-Long: {}", "x".repeat(5000))).await;
    saved(&wire, |luggage| luggage.busy).await;
    client.send("\r\n\r\n").await;
    assert_eq!(client.response().await.1, "it /");
    saved(&wire, |luggage| luggage == Luggage::default()).await;
}

async fn upgraded(process: &Process) -> Client {
    let mut client = process.connect();
    client.send("GET /socket HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert!(client.response().await.0.starts_with("http/1.1 101"));
    client.send("hello").await;
    let mut bytes = [0; 5];
    soon(client.0.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"hello");
    client
}

#[tokio::test]
async fn an_upgraded_connection_is_work_in_flight_and_is_told_when_the_process_leaves() {
    let mut old = Process::new("old");
    let mut client = upgraded(&old).await;
    assert!(!old.has_resting().await);
    assert_eq!(old.drain.in_flight(), 1);
    old.retire();
    let mut goodbye = [0; 7];
    soon(client.0.read_exact(&mut goodbye)).await.unwrap();
    assert_eq!((&goodbye, old.drain.in_flight()), (b"goodbye", 1));
    drop(client);
    old.is_left().await;
}

#[tokio::test]
async fn an_upgraded_connection_is_cut_at_the_deadline() {
    let mut old = Process::new("old");
    let mut client = upgraded(&old).await;
    old.retire();
    old.drain.cut();
    assert_eq!(client.rest().await, "goodbye");
    soon(async {
        while old.drain.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_hundred_streams_of_http2_are_answered_before_the_client_is_let_go() {
    let mut old = Process::new("old");
    let Client(stream) = old.connect();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (send, connection) = soon(hyper::client::conn::http2::handshake(executor, io)).await.unwrap();
    let client = tokio::spawn(connection);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (mut send, request) =
            (send.clone(), Request::get("http://test/wait").body(Answer::Whole(None)).unwrap());
        streams.spawn(async move { send.send_request(request).await });
    }
    soon(async {
        // The conversation, and each stream.
        while old.drain.in_flight() < 101 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    old.retire();
    assert!(!old.has_resting().await);
    for _ in 0..100 {
        old.go.notify_one();
        let response = soon(streams.join_next()).await.unwrap().unwrap().unwrap();
        let mut body = response.into_body();
        assert_eq!(soon(next_frame(&mut body)).await.unwrap(), "old waited");
    }
    // It has not let go of the connection: it was told to.
    soon(client).await.unwrap().unwrap();
    assert!(send.is_closed());
    old.is_left().await;
}

#[tokio::test]
async fn what_cannot_move_is_served_until_a_response_says_that_it_was_the_last() {
    let (drain, (ours, theirs)) = (Drain::new(), UnixStream::pair().unwrap());
    let service =
        service_fn(async |_| Ok::<_, Infallible>(Response::new(Answer::Whole(Some("here".into())))));
    let serving = drain.clone();
    drain.spawn(async move { crate::http::serve_here(ours, false, service, &serving).await });
    let mut client = Client(theirs);
    assert_eq!(client.get("/").await, "here");
    drain.begin();
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let (head, body) = client.response().await;
    assert_eq!((head.contains("connection: close"), &*body), (true, "here"), "{head}");
    assert_eq!(client.rest().await, "");
    assert_eq!(soon(drain.wait(DEADLINE)).await, crate::drain::Outcome::Drained);
}

/// A connection with a word of its own for the end, as TLS has one.
struct Polite(UnixStream);

impl AsyncRead for Polite {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Polite {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.try_write(b"the end").map(drop))
    }
}

#[tokio::test]
async fn what_cannot_move_and_asks_nothing_more_is_told_the_end_at_the_deadline() {
    for (asked, heard) in [("", "the end"), ("/", "the end"), ("/wait", ""), ("GET /part HT", "")] {
        let (drain, (ours, theirs)) = (Drain::new(), UnixStream::pair().unwrap());
        let service = service_fn(async |request: Request<Incoming>| {
            if request.uri().path() == "/wait" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Answer::Whole(Some("here".into()))))
        });
        let serving = drain.clone();
        drain.spawn(async move { crate::http::serve_here(Polite(ours), false, service, &serving).await });
        let mut client = Client(theirs);
        match asked {
            "/" => assert_eq!(client.get("/").await, "here"),
            "/wait" => client.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n").await,
            part => client.send(part).await,
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        drain.cut();
        assert_eq!(client.rest().await, heard, "after {asked:?}");
    }
}

#[tokio::test]
async fn http2_is_not_spoken_by_who_does_not_want_to() {
    let mut process = Process::new("it");
    process.http = process.http.http2(false);
    let mut client = process.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let _ = client.rest().await;
    process.is_left().await;
}
