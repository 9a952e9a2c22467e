//! The service as hyper calls it: it shows when a request has come, and asks a client to leave when that
//! cannot be spared.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use pin_project_lite::pin_project;

use super::wire::Wire;
use crate::drain::Drain;

/// A service of HTTP/1.
#[derive(Debug)]
pub(super) struct Watched<S> {
    pub(super) service: S,
    pub(super) wire: Arc<Wire>,
}

impl<S, B> Service<Request<Incoming>> for Watched<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    // Always: what is large is made where it is to be.
    #[inline(always)]
    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.wire.has_head();
        Answer { last: self.wire.stays(), answer: self.service.call(request) }
    }
}

/// A service of HTTP/1 whose connection cannot move.
#[derive(Debug)]
pub(super) struct Polite<S> {
    pub(super) service: S,
    pub(super) drain: Drain,
}

impl<S, B> Service<Request<Incoming>> for Polite<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Answer<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Answer { last: self.drain.ending(), answer: self.service.call(request) }
    }
}

pin_project! {
    /// The answer of a service.
    pub(super) struct Answer<F> {
        // The client is to come back to another process.
        last: bool,
        #[pin]
        answer: F,
    }
}

impl<F, B, E> Future for Answer<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if !*this.last {
            return this.answer.poll(context);
        }
        let mut answer = ready!(this.answer.poll(context));
        if let Ok(response) = &mut answer
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(answer)
    }
}
