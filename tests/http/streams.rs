//! HTTP/2: what is under way on a connection is finished by the process that has it, which says GOAWAY; what
//! comes then goes to the next one, on a connection of its own.

use std::convert::Infallible;

use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::load::PATIENCE;
use crate::pattern::pattern;
use crate::web::{ADDRESS, Web};

const STREAMS: usize = 100;

/// More than a stream's window at first.
const LENGTH: usize = 100_000;

type Body = BoxBody<Bytes, Infallible>;

on_every_systemd! {
    fn a_hundred_streams_are_answered_and_the_connection_ends_politely(systemd) {
        let web = Web::boot(systemd);
        let never = web.machine.enter_network(|| in_runtime(hundred_streams(&web, 0)));
        for upgrades in [1, 3] {
            let old = web.main();
            let answers = web.machine.enter_network(|| in_runtime(hundred_streams(&web, upgrades)));
            assert!(answers == never, "with {upgrades} upgrades the answers are others");
            old.leaves();
        }
    }
}

fn in_runtime<T>(work: impl Future<Output = T>) -> T {
    // The connection lives on the worker while this thread waits for an upgrade.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(work)
}

/// Streams of each kind at once, all of them under way when the service is upgraded. The answers.
async fn hundred_streams(web: &Web, upgrades: usize) -> Vec<Vec<u8>> {
    let (mut sender, connection) = connect().await;
    let mut talks = Vec::new();
    for number in 0..STREAMS as u64 {
        talks.push(match number % 4 {
            0 => Talk::ask(&mut sender, &format!("/slow?ms=500&number={number}")).await,
            1 => Talk::ask(&mut sender, &format!("/bytes?length={LENGTH}&number={number}")).await,
            _ => Talk::begin_upload(&mut sender, number).await,
        });
    }
    // Frames come in their order: when an answer to the last has begun, the service knows all.
    let mut heard = vec![talks.pop().unwrap().begun().await];
    let old = web.main_pid();
    (0..upgrades).for_each(|_| _ = web.upgrade());
    let mut answers = Vec::new();
    for talk in talks.into_iter().chain(heard.drain(..)) {
        answers.push(talk.finish(old).await);
    }
    if upgrades == 0 {
        return answers;
    }
    // Not by us, who could go on.
    let end = timeout(PATIENCE, connection).await.expect("it ends");
    end.unwrap().expect("politely");
    assert!(sender.ready().await.is_err());
    let (mut sender, _connection) = connect().await;
    let answer = Talk::ask(&mut sender, "/").await.finish(web.main_pid()).await;
    assert!(answer.starts_with(b"pid N"), "the new process answers on a new connection");
    answers
}

type Connection = JoinHandle<hyper::Result<()>>;

async fn connect() -> (SendRequest<Body>, Connection) {
    let stream = TcpStream::connect(ADDRESS).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// One stream.
struct Talk {
    answer: JoinHandle<hyper::Result<Response<Incoming>>>,
    begun: Option<Response<Incoming>>,
    /// The second half of an upload.
    rest: Option<(mpsc::Sender<String>, String)>,
}

impl Talk {
    async fn ask(sender: &mut SendRequest<Body>, path: &str) -> Self {
        let request = Request::get(format!("http://web{path}")).body(Empty::new().boxed()).unwrap();
        Self::send(sender, request, None).await
    }

    /// Sends the first half of what is to come back.
    async fn begin_upload(sender: &mut SendRequest<Body>, number: u64) -> Self {
        let (one, other) = (pattern(number, 0, LENGTH / 2), pattern(number, LENGTH / 2, LENGTH / 2));
        let (pieces, body) = mpsc::channel(1);
        pieces.send(one).await.unwrap();
        let frames = stream::unfold(body, |mut body| async {
            let piece: String = body.recv().await?;
            Some((Ok(Frame::data(Bytes::from(piece))), body))
        });
        let request = Request::builder().method(Method::POST).uri("http://web/echo");
        let request = request.body(BodyExt::boxed(StreamBody::new(frames))).unwrap();
        Self::send(sender, request, Some((pieces, other))).await
    }

    async fn send(
        sender: &mut SendRequest<Body>,
        request: Request<Body>,
        rest: Option<(mpsc::Sender<String>, String)>,
    ) -> Self {
        sender.ready().await.unwrap();
        Self { answer: tokio::spawn(sender.send_request(request)), begun: None, rest }
    }

    /// Waits until the answer has begun.
    async fn begun(mut self) -> Self {
        self.begun = Some((&mut self.answer).await.unwrap().unwrap());
        self
    }

    /// Sends what is left, and reads the whole answer; where it tells a pid, it must be this one.
    async fn finish(mut self, pid: u32) -> Vec<u8> {
        if let Some((pieces, rest)) = self.rest.take() {
            pieces.send(rest).await.unwrap();
        }
        let answer = match self.begun.take() {
            Some(answer) => answer,
            None => self.answer.await.unwrap().unwrap(),
        };
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        match body.strip_prefix(format!("pid {pid}\n").as_bytes()) {
            Some(rest) => [b"pid N\n", rest].concat(),
            None => body.to_vec(),
        }
    }
}
