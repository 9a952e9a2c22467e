//! Services of axum: what it wants to know of a connection, and its services as hyper wants them.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::extract::connect_info::Connected;
use axum::response::Response;
use axum::routing::MethodRouter;
use hyper::body::{Body as _, Incoming};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Connection, Http};
use crate::daemon::{Connections, Listener, Peer, Serving};
use crate::drain::Outcome;

/// Serves every connection with a service of axum's until this process serves no longer, then drains. It
/// takes what `axum::serve` takes: a router, or what its `into_make_service` and
/// `into_make_service_with_connect_info` return.
///
/// A handler can ask for `ConnectInfo<SocketAddr>`, `ConnectInfo<`[`Peer`]`>` and
/// `ConnectInfo<`[`Connection`]`>`. A client over a unix socket has no [`SocketAddr`] and appears as
/// `0.0.0.0:0`.
pub async fn serve<M, S>(
    serving: Serving,
    listener: Listener,
    connections: Connections,
    make_service: M,
) -> Outcome
where
    M: Service<Connection, Response = S, Error = Infallible> + Clone + Send + 'static,
    M::Future: Send,
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    Http::new().serve(serving, listener, connections, make_service).await
}

impl Http {
    /// As [`serve`], with these options.
    pub async fn serve<M, S>(
        self,
        serving: Serving,
        listener: Listener,
        connections: Connections,
        mut make_service: M,
    ) -> Outcome
    where
        M: Service<Connection, Response = S, Error = Infallible> + Clone + Send + 'static,
        M::Future: Send,
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        prepare(&mut make_service);
        self.run(serving, listener, connections, move |connection| {
            let mut make_service = make_service.clone();
            async move {
                let Ok(()) = poll_fn(|context| make_service.poll_ready(context)).await;
                let Ok(service) = make_service.call(connection).await;
                Tower(service)
            }
        })
        .await
    }
}

/// Makes services of a router's handlers once: else each request does, or, as with `axum::serve`, each
/// connection.
fn prepare(make_service: &mut dyn Any) {
    if let Some(router) = make_service.downcast_mut::<Router>() {
        *router = std::mem::take(router).with_state(());
    } else if let Some(handlers) = make_service.downcast_mut::<MethodRouter>() {
        *handlers = std::mem::take(handlers).with_state(());
    }
}

/// A service of axum's, as one of hyper's.
#[derive(Clone)]
struct Tower<S>(S);

impl<S> hyper::service::Service<hyper::Request<Incoming>> for Tower<S>
where
    S: Service<Request> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Called<S>;

    // Always: what is large is made where it is to be.
    #[inline(always)]
    fn call(&self, request: hyper::Request<Incoming>) -> Called<S> {
        let (mut service, request) = (self.0.clone(), request.map(body));
        // As a rule it is ready: then the request need not be kept.
        match service.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Called::Answering { answer: service.call(request) },
            _ => Called::Waiting { waiting: Some((service, request)) },
        }
    }
}

/// A request's body for axum. To keep one that is empty, memory would have to be found for it.
fn body(incoming: Incoming) -> Body {
    if incoming.is_end_stream() { Body::empty() } else { Body::new(incoming) }
}

pin_project! {
    /// A call of a service of tower's.
    #[project = CalledProjection]
    enum Called<S: Service<Request>> {
        // Until it is ready, or says that it never will be.
        Waiting { waiting: Option<(S, Request)> },
        Answering {
            #[pin]
            answer: S::Future,
        },
    }
}

impl<S: Service<Request>> Future for Called<S> {
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match self.as_mut().project() {
                CalledProjection::Answering { answer } => return answer.poll(context),
                CalledProjection::Waiting { waiting } => {
                    let Some((service, _)) = waiting else { return Poll::Pending };
                    ready!(service.poll_ready(context))?;
                    let Some((mut service, request)) = waiting.take() else { return Poll::Pending };
                    let answer = service.call(request);
                    self.set(Self::Answering { answer });
                }
            }
        }
    }
}

/// As axum has it for its own listeners: a router serves each connection.
impl Service<Connection> for Router<()> {
    type Response = Self;
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Connection) -> Self::Future {
        std::future::ready(Ok(self.clone()))
    }
}

/// As axum has it for its own listeners.
impl Service<Connection> for MethodRouter<()> {
    type Response = Self;
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Connection) -> Self::Future {
        std::future::ready(Ok(self.clone()))
    }
}

impl Connected<Connection> for SocketAddr {
    fn connect_info(connection: Connection) -> Self {
        match connection.peer() {
            Peer::Tcp(address) => *address,
            Peer::Unix(_) => Self::from((Ipv4Addr::UNSPECIFIED, 0)),
        }
    }
}

impl Connected<Connection> for Peer {
    fn connect_info(connection: Connection) -> Self {
        connection.peer().clone()
    }
}

impl Connected<Self> for Connection {
    fn connect_info(connection: Self) -> Self {
        connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{Live, Origin};
    use crate::drain::Drain;
    use crate::http::Keep;
    use crate::http::places::Places;
    use crate::upgrade::moves::{Family, Giver};
    use axum::extract::ConnectInfo;
    use axum::routing::get;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};

    /// What a service says to a request over this connection.
    async fn answer<M, S>(
        ours: OwnedFd,
        family: Family,
        theirs: impl Into<OwnedFd>,
        make_service: M,
    ) -> String
    where
        M: Service<Connection, Response = S, Error = Infallible>,
        S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let (drain, mut make_service) = (Drain::new(), make_service);
        let live = Live::for_giver(ours, family, Origin::Accepted, b"", &Giver::new());
        let conversation = Http::new().welcome(live, &Places::new(Keep::None), &drain).unwrap();
        let service = make_service.call(conversation.wire.connection.clone()).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        let mut client = std::net::TcpStream::from(theirs.into());
        let client = tokio::task::spawn_blocking(move || {
            let mut answer = String::new();
            client.write_all(request).and_then(|()| client.read_to_string(&mut answer)).map(|_| answer)
        });
        conversation.hold(Tower(service), &drain).await;
        client.await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_handler_is_told_who_connected_over_tcp() {
        let who = |ConnectInfo(address): ConnectInfo<SocketAddr>| async move { address.to_string() };
        let service = Router::new().route("/", get(who)).into_make_service_with_connect_info::<SocketAddr>();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, peer) = listener.accept().unwrap();
        let answer = answer(socket.into(), Family::Tcp, client, service).await;
        assert!(answer.ends_with(&peer.to_string()), "{answer}");
    }

    #[tokio::test]
    async fn a_handler_is_told_who_connected_over_a_unix_socket() {
        use std::os::linux::net::SocketAddrExt;
        let who = |ConnectInfo(connection): ConnectInfo<Connection>,
                   ConnectInfo(peer): ConnectInfo<Peer>,
                   ConnectInfo(address): ConnectInfo<SocketAddr>| async move {
            let Peer::Unix(peer) = peer else { return String::new() };
            let pid = connection.credentials().and_then(|credentials| credentials.pid());
            format!("{} {} {address}", peer.is_unnamed(), pid.unwrap_or_default())
        };
        // As many kinds as a service may ask for.
        let all = Router::new().route("/", get(who)).layer(axum::middleware::from_fn(
            |ConnectInfo(connection): ConnectInfo<Connection>,
             mut request: Request,
             next: axum::middleware::Next| {
                let peer = ConnectInfo(Peer::connect_info(connection.clone()));
                request.extensions_mut().insert(ConnectInfo(SocketAddr::connect_info(connection)));
                request.extensions_mut().insert(peer);
                next.run(request)
            },
        ));
        let name = format!("handover axum test {}", std::process::id());
        let server = UnixAddress::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&server).unwrap();
        let client = UnixStream::connect_addr(&server).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let service = all.into_make_service_with_connect_info::<Connection>();
        let answer = answer(socket.into(), Family::Unix, client, service).await;
        assert!(answer.ends_with(&format!("true {} 0.0.0.0:0", std::process::id())), "{answer}");
    }

    #[tokio::test]
    async fn a_router_and_the_handlers_of_a_method_serve_as_they_are() {
        let pair = || UnixStream::pair().map(|(ours, theirs)| (OwnedFd::from(ours), theirs)).unwrap();
        let ((one, client), (two, other)) = (pair(), pair());
        let handlers = get(|| async { "hello" });
        let router = Router::new().route("/", handlers.clone());
        assert!(answer(one, Family::Unix, client, router).await.ends_with("hello"));
        assert!(answer(two, Family::Unix, other, handlers).await.ends_with("hello"));
    }

    #[test]
    fn handlers_are_made_services_before_the_first_connection() {
        let mut handlers: MethodRouter = get(|| async { "hello" });
        let mut router: Router = Router::new().route("/", handlers.clone());
        assert!(format!("{router:?}").contains("BoxedHandler"));
        prepare(&mut router);
        assert!(!format!("{router:?}").contains("BoxedHandler"));
        prepare(&mut handlers);
        assert!(!format!("{handlers:?}").contains("BoxedHandler"));
    }

    /// A service of tower's that is ready when it is asked for the third time.
    #[derive(Clone, Default)]
    struct Late {
        asked: u8,
    }

    impl Service<Request> for Late {
        type Response = Response;
        type Error = Infallible;
        type Future = Ready<Result<Response, Infallible>>;

        fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            self.asked += 1;
            context.waker().wake_by_ref();
            if self.asked < 3 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn call(&mut self, _: Request) -> Self::Future {
            assert_eq!(self.asked, 3);
            std::future::ready(Ok(Response::new("at last".into())))
        }
    }

    impl Service<Connection> for Late {
        type Response = Self;
        type Error = Infallible;
        type Future = Ready<Result<Self, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Connection) -> Self::Future {
            std::future::ready(Ok(self.clone()))
        }
    }

    #[tokio::test]
    async fn a_service_that_is_not_ready_at_once_is_waited_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let answer = answer(ours.into(), Family::Unix, theirs, Late::default()).await;
        assert!(answer.ends_with("at last"), "{answer}");
    }
}
