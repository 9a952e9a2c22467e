//! Does it serve? Asked through the real port, before any client gets there: the kernel steers the
//! probe alone to the new slot, by where it comes from.
//!
//! A connection that the kernel made proves nothing, for PID 1 listens: what counts is that somebody
//! accepted it, or answered. This file never decides how often to try.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::address::{Kind, Place};
use super::options::Probe;
use super::slots::reachable;
use super::sockets;
use crate::sys::door;
use crate::sys::steer::{Steering, Who};

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How soon to look again whether a connection was accepted, of which nobody is told. Each try ends in time.
const PAUSE: Duration = Duration::from_millis(10);

/// Most bytes of an answer's first line.
const MOST_OF_A_LINE: u64 = 256;

/// The address from which the command of an `exec` probe connects, to be steered to the new slot.
pub(crate) const EXEC_SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 254));

/// Where a probe goes, and how it gets there.
#[derive(Debug)]
pub(crate) struct Target {
    /// Where the slots are.
    pub(crate) address: SocketAddr,
    /// One of the group's sockets.
    pub(crate) group: OwnedFd,
    /// Where everybody else's connections go.
    pub(crate) others: Steering,
    /// The slot to be probed, and the inode of its socket.
    pub(crate) slot: u32,
    pub(crate) inode: u64,
    /// That socket, if it lets nobody in but the probe.
    pub(crate) shut: Option<OwnedFd>,
}

impl Target {
    /// Tries once.
    ///
    /// Errors: in words, why it did not pass.
    pub(crate) async fn try_once(&self, probe: &Probe) -> Result<(), String> {
        let words = |error: io::Error| format!("the probe of {}: {error}", self.address);
        let tried = timeout(PATIENCE, async {
            match probe {
                Probe::Tcp => self.accepts().await,
                Probe::Http(path) => self.answers(path).await,
                Probe::Exec(_) => self.steer(Who::Address(EXEC_SOURCE)),
            }
        });
        let late = || format!("the probe of {} had no answer within {} s", self.address, PATIENCE.as_secs());
        tried.await.map_err(|_| late())?.map_err(words)
    }

    fn steer(&self, who: Who) -> io::Result<()> {
        use std::os::fd::AsFd;
        let guest = match who {
            Who::Source(source) => Some((source.ip(), Some(source.port()))),
            Who::Address(address) => Some((address, None)),
            Who::Percent(_) => None,
        };
        if let Some(listener) = &self.shut {
            door::shut(listener.as_fd(), guest)?;
        }
        self.others.but(who, self.slot).attach(self.group.as_fd())
    }

    /// A connection that was steered to the new slot.
    async fn connect(&self) -> io::Result<TcpStream> {
        let to = reachable(self.address);
        let (socket, any) = if to.is_ipv4() {
            (TcpSocket::new_v4()?, SocketAddr::new(to.ip(), 0))
        } else {
            (TcpSocket::new_v6()?, SocketAddr::new(to.ip(), 0))
        };
        socket.bind(any)?;
        self.steer(Who::Source(socket.local_addr()?))?;
        socket.connect(to).await
    }

    /// Somebody accepts a connection.
    async fn accepts(&self) -> io::Result<()> {
        let _connection = self.connect().await?;
        let there = Place { address: self.address, kind: Kind::Stream };
        let queue = || sockets::at([there].into_iter());
        let waits = || queue().iter().any(|one| one.inode == self.inode && one.waiting > 0);
        while waits() {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Somebody answers a GET well.
    async fn answers(&self, path: &str) -> io::Result<()> {
        let mut connection = self.connect().await?;
        let host = self.address;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await?;
        let mut start = Vec::new();
        let mut reader = connection.take(MOST_OF_A_LINE);
        while !start.contains(&b'\n') && reader.read_buf(&mut start).await? > 0 {}
        let line = String::from_utf8_lossy(&start);
        let line = line.lines().next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        match status {
            Some(200..=399_u16) => Ok(()),
            _ => Err(io::Error::other(format!("GET {path} was answered with {line:?}"))),
        }
    }
}
