//! One listener for all sockets of a name: the lines of a `.socket` unit, TCP and unix alike.
//!
//! Accepting never fails: a connection that went away is passed over, and when there are no
//! descriptors left it waits for some. It never binds, and never closes a listening socket for
//! others: PID 1 holds it, too.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};

use super::stream::{Peer, Stream};

/// How long to wait for descriptors, or for a socket to recover.
const PAUSE: Duration = Duration::from_millis(50);

/// Listening stream sockets that share a name.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<Socket>,
    /// Where to look first, so that none is starved.
    turn: AtomicUsize,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Puts sockets together; they must be non-blocking.
    pub(super) fn new(
        tcp: Vec<std::net::TcpListener>,
        unix: Vec<std::os::unix::net::UnixListener>,
    ) -> io::Result<Self> {
        let tcp = tcp.into_iter().map(|socket| TcpListener::from_std(socket).map(Socket::Tcp));
        let unix = unix.into_iter().map(|socket| UnixListener::from_std(socket).map(Socket::Unix));
        Ok(Self { sockets: tcp.chain(unix).collect::<io::Result<_>>()?, turn: AtomicUsize::new(0) })
    }

    /// The next connection. Cancel safe.
    pub async fn accept(&self) -> (Stream, Peer) {
        loop {
            match std::future::poll_fn(|context| self.poll_accept(context)).await {
                Ok(connection) => return connection,
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// The addresses of its TCP sockets.
    pub fn tcp_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().filter_map(|socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        })
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        let count = self.sockets.len();
        let first = if count > 1 { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
        for place in 0..count {
            let accepted = match &self.sockets[(first + place) % count] {
                Socket::Tcp(listener) => listener
                    .poll_accept(context)
                    .map_ok(|(stream, peer)| (Stream::Tcp(stream), Peer::Tcp(peer))),
                Socket::Unix(listener) => listener
                    .poll_accept(context)
                    .map_ok(|(stream, peer)| (Stream::Unix(stream), Peer::Unix(Box::new(peer)))),
            };
            if accepted.is_ready() {
                return accepted;
            }
        }
        Poll::Pending
    }
}

/// accept(2): errors of the network that are already pending on the new connection.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable, PermissionDenied,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable | PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    #[tokio::test]
    async fn every_socket_of_a_name_is_served_in_turn() {
        let tcp: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let path = std::env::temp_dir().join(format!("handover-listener-{}", std::process::id()));
        let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let addresses: Vec<_> = tcp.iter().map(|socket| socket.local_addr().unwrap()).collect();
        tcp.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        unix.set_nonblocking(true).unwrap();
        let listener = Listener::new(tcp, vec![unix]).unwrap();
        assert_eq!(listener.tcp_addresses().collect::<Vec<_>>(), addresses);
        let mut clients = Vec::new();
        for address in addresses {
            clients.push(Stream::Tcp(TcpStream::connect(address).await.unwrap()));
        }
        clients.push(Stream::Unix(UnixStream::connect(&path).await.unwrap()));
        std::fs::remove_file(&path).unwrap();
        for _ in 0..clients.len() {
            let (mut stream, _) = listener.accept().await;
            stream.write_all(b"hello").await.unwrap();
        }
        for mut client in clients {
            let mut said = String::new();
            client.read_to_string(&mut said).await.unwrap();
            assert_eq!(said, "hello");
        }
    }
}
