//! Every connection of a service, accepted here or by another process.

use std::error::Error;
use std::future::{Future, ready};
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};

use super::conversation::Conversation;
use super::luggage::Luggage;
use super::places::Places;
use super::wire::Wire;
use super::{Connection, Http};
use crate::daemon::{Connections, Listener, Live, Serving};
use crate::drain::{Drain, Outcome};

/// Serves every connection with a service of hyper's, one for each, until this process serves no longer,
/// then drains.
pub async fn serve_hyper<F, S, B>(
    serving: Serving,
    listener: Listener,
    connections: Connections,
    make_service: F,
) -> Outcome
where
    F: FnMut(Connection) -> S + Send,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    Http::new().serve_hyper(serving, listener, connections, make_service).await
}

impl Http {
    /// As [`serve_hyper`](fn@serve_hyper), with these options.
    pub async fn serve_hyper<F, S, B>(
        self,
        serving: Serving,
        listener: Listener,
        connections: Connections,
        mut make_service: F,
    ) -> Outcome
    where
        F: FnMut(Connection) -> S + Send,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.run(serving, listener, connections, move |connection| ready(make_service(connection))).await
    }

    /// Serves every connection with the service that is made for it.
    pub(super) async fn run<F, M, S, B>(
        self,
        serving: Serving,
        listener: Listener,
        connections: Connections,
        mut make: F,
    ) -> Outcome
    where
        F: FnMut(Connection) -> M + Send,
        M: Future<Output = S> + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (drain, places) = (serving.drain().clone(), Places::new(self.keep));
        let handler = move |live| {
            let conversation = self.welcome(live, &places, &drain);
            let conversation = conversation.map(|it| (make(it.wire.connection.clone()), it));
            let drain = drain.clone();
            async move {
                if let Some((service, conversation)) = conversation {
                    conversation.hold(service.await, &drain).await;
                }
            }
        };
        serving.serve_connections(listener, connections, handler).await
    }

    /// A connection that can be served, and what came along; one that cannot has ended.
    pub(super) fn welcome(self, live: Live, places: &Places, drain: &Drain) -> Option<Conversation> {
        let Some(Luggage { busy: false, attachment, read }) = Luggage::unpack(&live.state()) else {
            // Half a request, or what no version of ours has packed: nobody can go on with it.
            tracing::debug!(peer = ?live.peer(), "a connection cannot be served any more");
            live.end();
            return None;
        };
        let place = places.place(live.is_stashed());
        let had_luggage = !read.is_empty();
        let connection = Connection::new(&live, attachment, drain.clone());
        let wire = Arc::new(Wire::new(live, connection, had_luggage));
        Some(Conversation { wire, read: read.into(), place, http2: self.http2, crammed: false })
    }
}
