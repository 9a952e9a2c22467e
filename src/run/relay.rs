//! What waits where no generation is: connections are passed on to the live one, byte by byte.
//!
//! They come there before the first steering, when the kernel spreads them over all slots, or when a
//! handshake took longer than a drain. A relay keeps its clients from waiting for ever; the price is that
//! the program sees this host's address in place of theirs. Datagrams cannot be passed on so: those that a
//! generation has left behind are counted and dropped, or the next one in the slot would answer them days later.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::address::Kind;
use super::slots::{Slots, reachable};
use crate::sys::watch::Watched;
use crate::sys::{adopt, scm, seqpacket};

/// Something that was found where no generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stray {
    /// A connection, which is passed on.
    Connection { slot: usize },
    /// So many datagrams, which are dropped.
    Datagrams { slot: usize, count: u64 },
}

/// How long to wait when accept(2) has failed: as a rule, too many files are open.
const PAUSE: Duration = Duration::from_secs(1);

/// The slots that are looked after, by group and slot.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    at_work: HashMap<(usize, usize), AbortHandle>,
    /// How many connections are being passed on.
    passing: Arc<AtomicUsize>,
}

impl Relays {
    /// How many connections are being passed on.
    pub(crate) fn passing(&self) -> usize {
        self.passing.load(Ordering::Relaxed)
    }

    /// Looks after all slots but the `taken` ones from now on; `told` hears of what
    /// was found. Connections that are being passed on go on in any case.
    pub(crate) fn tend(&mut self, slots: &Slots, taken: &[usize], told: &UnboundedSender<Stray>) {
        self.at_work.retain(|(_, slot), task| {
            let keep = !taken.contains(slot);
            if !keep {
                task.abort();
            }
            keep && !task.is_finished()
        });
        for (at, group) in slots.groups().iter().enumerate().filter(|(_, group)| !group.is_shared()) {
            let Some(place) = group.place else { continue };
            for slot in (0..group.len()).filter(|slot| !taken.contains(slot)) {
                let Ok(socket) = group.socket(slot).try_clone_to_owned() else { continue };
                let (told, passing) = (told.clone(), Arc::clone(&self.passing));
                self.at_work.entry((at, slot)).or_insert_with(|| {
                    let to = reachable(place.address);
                    match place.kind {
                        Kind::Stream => tokio::spawn(async move {
                            let tell = || told.send(Stray::Connection { slot }).is_ok();
                            drop(accept(socket, to, &passing, tell).await);
                        }),
                        Kind::Datagram => tokio::spawn(async move {
                            let tell = |count| told.send(Stray::Datagrams { slot, count }).is_ok();
                            drop(drop_all(socket, tell).await);
                        }),
                    }
                    .abort_handle()
                });
            }
        }
    }
}

/// Accepts what comes, until this is aborted.
async fn accept(
    listener: OwnedFd,
    to: SocketAddr,
    passing: &Arc<AtomicUsize>,
    tell: impl Fn() -> bool,
) -> io::Result<()> {
    // Nobody else accepts here, so it may be what it needs to be.
    adopt::set_nonblocking(listener.as_fd())?;
    let listener = Watched::new(listener)?;
    loop {
        let accepted = listener.try_when_readable(seqpacket::accept).await;
        let Ok(client) = accepted.and_then(|client| TcpStream::from_std(client.into())) else {
            // Nobody else would have it go on when there is a descriptor to be had again.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if !tell() {
            return Ok(());
        }
        passing.fetch_add(1, Ordering::Relaxed);
        let passed = scopeguard::guard(Arc::clone(passing), |passing| {
            passing.fetch_sub(1, Ordering::Relaxed);
        });
        tokio::spawn(async move {
            let _ = pass_on(client, to).await;
            drop(passed);
        });
    }
}

/// Drops all datagrams that come, until something is wrong or this is aborted.
async fn drop_all(socket: OwnedFd, tell: impl Fn(u64) -> bool) -> io::Result<()> {
    adopt::set_nonblocking(socket.as_fd())?;
    let socket = Watched::new(socket)?;
    loop {
        let mut count = 0;
        let read = |socket: BorrowedFd<'_>| {
            while scm::receive(socket, &mut [0]).map(|_| count += 1).is_ok() {}
            if count > 0 { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        };
        socket.try_when_readable(read).await?;
        if !tell(count) {
            return Ok(());
        }
    }
}

async fn pass_on(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}
