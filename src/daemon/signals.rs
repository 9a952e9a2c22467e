//! The signals that a service lives by, caught by tokio.
//!
//! They are requests and nothing more: what one means at the moment is the steward's to say. This file
//! never sends a signal, and never masks one.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a service lives by.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Signal,
    stop: Option<(Signal, Signal)>,
}

impl Signals {
    /// While the service starts: SIGHUP is kept for later, SIGTERM and SIGINT end it.
    pub(super) fn starting() -> io::Result<Self> {
        Ok(Self { hangup: signal(SignalKind::hangup())?, stop: None })
    }

    /// From now on SIGTERM and SIGINT are requests.
    pub(super) fn serving(&mut self) -> io::Result<()> {
        self.stop = Some((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
        Ok(())
    }

    /// The next one that was caught. Cancel safe.
    pub(super) async fn next(&mut self) -> Caught {
        let Self { hangup, stop } = self;
        tokio::select! {
            () = stopped(stop) => Caught::Stop,
            _ = hangup.recv() => Caught::Hangup,
        }
    }

    /// SIGTERM or SIGINT; SIGHUP is left for later. Cancel safe.
    pub(super) async fn stop(&mut self) {
        stopped(&mut self.stop).await;
    }
}

#[cfg(test)]
impl Signals {
    /// For a process of many tests: SIGURG, which ends nobody, stands for SIGTERM, SIGWINCH for SIGINT.
    pub(super) fn for_test() -> Self {
        let [hangup, terminate, interrupt] = [libc::SIGHUP, libc::SIGURG, libc::SIGWINCH]
            .map(|any| signal(SignalKind::from_raw(any)).unwrap());
        Self { hangup, stop: Some((terminate, interrupt)) }
    }
}

/// What a signal means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caught {
    /// SIGHUP: upgrade.
    Hangup,
    /// SIGTERM or SIGINT: stop.
    Stop,
}

async fn stopped(signals: &mut Option<(Signal, Signal)>) {
    match signals {
        Some((terminate, interrupt)) => {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        }
        None => std::future::pending().await,
    }
}
