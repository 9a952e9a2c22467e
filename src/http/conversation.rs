//! One connection, request after request, in this process.
//!
//! ```text
//!            +-----------------------------------------------------------+
//!            v                                                           | part of a head came: it is
//!         Waiting ---- bytes ----> HTTP/1 (hyper) ---- between two ------+ taken back from hyper, and saved
//!   nothing is read,  \              |     ^   `-- requests --> Resting
//!   or part of a head  \             v     |                      |  |
//!            |          \          a request <---- bytes ---------'  |
//!            |           \                                           |
//!            |            `-> HTTP/2: drains by GOAWAY               |
//!            `----------------------------------------------------> gone: served by another process
//! ```
//!
//! Waiting and Resting it may go to another process at any moment, without a word to this task before it
//! has gone. It never goes in the middle of a request.

use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Incoming};
use hyper::rt::{Executor, Read, Write};
use hyper::server::conn::http1::{self, Parts, UpgradeableConnection};
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use super::io::Io;
use super::places::Place;
use super::service::Watched;
use super::wire::{Heads, Stance, Wire};
use crate::drain::Drain;

/// A connection that is about to be served.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) wire: Arc<Wire>,
    /// What another process has read of its next request.
    pub(super) read: Bytes,
    pub(super) place: Place,
    /// Whether it may turn out to be HTTP/2.
    pub(super) http2: bool,
    /// Part of a request did not fit into its luggage.
    pub(super) crammed: bool,
}

type Http1<S> = UpgradeableConnection<TokioIo<Io>, Watched<S>>;

/// How hyper comes to have no part in it any more.
enum Step {
    /// The connection has ended, or is its service's.
    Ended,
    /// It lives on in another process.
    Gone,
    /// It is between two requests, and part of the next one has been read, or it is HTTP/2.
    Ahead,
    /// It rests, and PID 1 is to hold it.
    Keep,
}

impl Conversation {
    /// Talks with the client until the end, or until the connection lives on elsewhere.
    pub(super) async fn hold<S, B>(mut self, service: S, drain: &Drain)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        if self.place.is_for_new() {
            self.keep().await;
        }
        let mut service = Watched { service, wire: Arc::clone(&self.wire) };
        let mut io = Io::new(Arc::clone(&self.wire), self.http2);
        loop {
            if !self.read.is_empty() && !self.wait_for_more().await {
                return;
            }
            io.put_back(std::mem::take(&mut self.read));
            match self.speak_http1(io, service).await {
                None => return self.upgraded().await,
                Some(parts) => (io, service) = (parts.io.into_inner(), parts.service),
            }
            if self.wire.is_http2() {
                self.wire.leave_to_http2();
                io.decided();
                // As large, and most connections are none.
                Box::pin(speak_http2(TokioIo::new(io), service.service, drain)).await;
                return self.upgraded().await;
            }
            if self.read.is_empty() {
                self.read = io.take_back();
            }
        }
    }

    /// Speaks HTTP/1 until part of a request has been read that may still go elsewhere.
    async fn speak_http1<S, B>(
        &mut self,
        io: Io,
        service: Watched<S>,
    ) -> Option<Parts<TokioIo<Io>, Watched<S>>>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut builder = http1::Builder::new();
        builder.timer(Heads::new(Arc::clone(&self.wire))).header_read_timeout(Heads::PATIENCE);
        // On the heap, for it is most of what a task would be, and a new task is moved often.
        let mut http: Box<Http1<S>> =
            Box::new(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
        loop {
            match poll_fn(|context| self.poll_step(&mut http, context)).await {
                Step::Ended | Step::Gone => return None,
                Step::Keep => self.keep().await,
                Step::Ahead => {
                    let parts = http.into_parts()?;
                    self.read = parts.read_buf.clone();
                    return Some(parts);
                }
            }
        }
    }

    #[inline]
    fn poll_step<S, B>(&self, http: &mut Http1<S>, context: &mut Context<'_>) -> Poll<Step>
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let wire = &*self.wire;
        wire.look_again();
        // A client that went away, or talks nonsense, is no news.
        if Pin::new(http).poll(context).is_ready() {
            return Poll::Ready(Step::Ended);
        }
        if wire.is_http2() {
            return Poll::Ready(Step::Ahead);
        }
        match wire.stance() {
            Stance::Busy => Poll::Pending,
            Stance::Ahead if !self.crammed => Poll::Ready(Step::Ahead),
            Stance::Ahead => Poll::Pending,
            Stance::Idle => {
                // If it does not fit, it goes with what was saved before.
                let _ = wire.save_idle(b"");
                if self.place.is_wanted() && wire.has_spoken() {
                    return Poll::Ready(Step::Keep);
                }
                wire.live.poll_rest(context).map(|()| Step::Gone)
            }
        }
    }
}

impl Conversation {
    /// Waits for more than the part of a request that has been read. `false` when the connection lives on
    /// elsewhere, and that part with it.
    async fn wait_for_more(&mut self) -> bool {
        if let Err(error) = self.wire.save_idle(&self.read) {
            tracing::debug!(%error, "part of a request cannot move, and is answered here");
            self.crammed = true;
            return true;
        }
        let stream = self.wire.live.stream();
        let readable = poll_fn(|context| stream.poll_readable(context));
        // An error is hyper's to find.
        self.unless_gone(readable).await.is_some() && self.wire.live.engage().is_ok()
    }

    /// Rests until `work` is done; `None` if the connection lives on elsewhere before.
    async fn unless_gone<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.wire.live.poll_rest(context).map(|()| None),
        })
        .await
    }

    /// Has PID 1 hold the connection, too, if there is a place for it.
    async fn keep(&mut self) {
        if !self.place.take() {
            return;
        }
        // On the heap, as it is large and hardly ever there.
        match Box::pin(self.wire.live.stash_shared()).await {
            Ok(()) => self.wire.is_kept(),
            Err(error) => {
                tracing::debug!(%error, "a connection will not survive a crash");
                self.place.refused();
            }
        }
    }

    /// Waits for the end of a connection that is its service's after an upgrade of the protocol: it is work
    /// in flight, and cut with it.
    async fn upgraded(self) {
        // hyper has let go of everything, so this is the service.
        if Arc::strong_count(&self.wire) > 1 {
            let cut = scopeguard::guard(&self.wire, |wire| wire.live.stream().end());
            cut.dropped.notified().await;
            scopeguard::ScopeGuard::into_inner(cut);
        }
    }
}

/// Speaks HTTP/2. A client that is asked to leave (RFC 9113 6.8: first with room for all that is on its way,
/// a round trip later for good) has its requests answered before.
pub(super) async fn speak_http2<T, S, B>(io: T, service: S, drain: &Drain)
where
    T: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut builder = http2::Builder::new(Streams(drain.clone()));
    let mut http = pin!(builder.enable_connect_protocol().serve_connection(io, service));
    tokio::select! {
        // A client that went away, or talks nonsense, is no news.
        _ = http.as_mut() => return,
        () = drain.asked_to_end() => http.as_mut().graceful_shutdown(),
    }
    let _ = http.await;
}

/// Runs each stream of HTTP/2 as a unit of work.
#[derive(Clone, Debug)]
struct Streams(Drain);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
