//! The connections that other processes accepted, on their way into this one.
//!
//! They come out of the fd store when PID 1 starts the service, over the link with an upgrade, and one
//! by one from those who drain. None is read here, and one that nobody serves is not kept.

use std::os::fd::OwnedFd;

use tokio::sync::mpsc;

use super::Serving;
use super::live::{Live, Origin, Ways};
use super::stream::Stream;
use crate::upgrade::moves::{Arrival, Family};

/// What [`Daemon::connections`](super::Daemon::connections) gives: connections that this process did not
/// accept. Hand it to [`Serving::serve_connections`], or take one after the other.
#[derive(Debug)]
pub struct Connections {
    incoming: mpsc::UnboundedReceiver<Incoming>,
}

/// One of them, and how it came.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) arrival: Arrival,
    pub(super) origin: Origin,
}

impl Incoming {
    /// One that came over the link.
    pub(super) fn moved(arrival: Arrival) -> Self {
        Self { arrival, origin: Origin::Moved }
    }

    /// One that PID 1 kept under the number `id`.
    pub(super) fn restored(socket: OwnedFd, family: Family, id: u64, state: Vec<u8>) -> Self {
        Self { arrival: Arrival { socket, family, id: Some(id), state }, origin: Origin::Restored }
    }
}

impl Connections {
    /// The way for connections, into this and out of it.
    pub(super) fn new() -> (mpsc::UnboundedSender<Incoming>, Self) {
        let (sender, incoming) = mpsc::unbounded_channel();
        (sender, Self { incoming })
    }

    /// The next connection that comes to this process; `None` when none can come any more. Cancel safe.
    pub async fn next(&mut self, serving: &Serving) -> Option<Live> {
        self.next_by(serving.ways()).await
    }

    /// As [`next`](Self::next), with the ways out of this process.
    pub(super) async fn next_by(&mut self, ways: &Ways) -> Option<Live> {
        loop {
            let incoming = self.incoming.recv().await?;
            if let Some(live) = welcome(incoming, ways) {
                return Some(live);
            }
        }
    }

    /// Whether [`next_now`](Self::next_now) may have one.
    pub(super) fn has_next(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// The next one that is there already.
    pub(super) fn next_now(&mut self, ways: &Ways) -> Option<Live> {
        loop {
            let incoming = self.incoming.try_recv().ok()?;
            if let Some(live) = welcome(incoming, ways) {
                return Some(live);
            }
        }
    }
}

/// Makes a connection of it; `None` if its peer has reset it on the way.
fn welcome(incoming: Incoming, ways: &Ways) -> Option<Live> {
    let Incoming { arrival: Arrival { socket, family, id, state }, origin } = incoming;
    match Stream::arrived(family, socket) {
        Ok((stream, peer)) => {
            let live = Live::new(stream, peer, origin, state, ways);
            Some(match id {
                Some(id) => live.adopt(id),
                None => live,
            })
        }
        Err(error) => {
            tracing::debug!(%error, ?origin, "a connection ended before it arrived");
            if let Some(id) = id {
                ways.vault.forget(id);
            }
            None
        }
    }
}
