//! What the service says to the service manager, and that it says nothing once it has handed over.

use std::time::Duration;

use super::Error;
use crate::notify::{Address, Message, Notifier, NotifyState};
use crate::upgrade::journal::Phase;
use crate::upgrade::journal::Scribe;
use crate::upgrade::{Failure, Reason};

/// How long one message may take; PID 1 reads nothing while it reloads its units.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Post {
    /// `None` once this process has handed over.
    notifier: Option<Notifier>,
    address: Option<Address>,
}

impl Post {
    pub(super) fn new(notifier: Notifier) -> Self {
        Self { address: notifier.address().cloned(), notifier: Some(notifier) }
    }

    /// For the watchdog.
    pub(super) fn notifier(&self) -> Option<&Notifier> {
        self.notifier.as_ref()
    }

    /// READY=1 of a service that PID 1 started. It must arrive, or the start fails anyway.
    pub(super) async fn say_ready(&self) -> Result<(), Error> {
        if let Some(notifier) = &self.notifier {
            // Without a manager there is nobody to wait for it.
            let _ = notifier.notify(&Message::ready().with_status("serving"), PATIENCE).await?;
        }
        Ok(())
    }

    /// Says something that the service can do without; a failure goes to the journal.
    pub(super) async fn say(&self, states: &[NotifyState<'_>], status: Option<&str>, scribe: &Scribe) {
        let Some(notifier) = &self.notifier else { return };
        let message = match status {
            Some(status) if states.is_empty() => Ok(Message::status(status)),
            Some(status) => Message::new(states).map(|message| message.with_status(status)),
            None => Message::new(states),
        };
        let said = match message {
            Ok(message) => notifier.notify(&message, PATIENCE).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(what) = said {
            scribe.write(Phase::Unheard { what });
        }
    }

    /// Tells the manager about the new main process, in one datagram, and waits until it has seen it.
    /// From then on this process is silent.
    pub(super) async fn hand_over(&mut self, pid: i32, scribe: &Scribe) -> Result<(), Failure> {
        let Some(notifier) = self.notifier.take() else { return Ok(()) };
        match notifier.notify_hand_over(pid.unsigned_abs(), PATIENCE).await {
            Ok(told) => {
                if let Err(error) = told.barrier {
                    scribe.write(Phase::Unheard { what: format!("MAINPID={pid} is sent, but: {error}") });
                }
                Ok(())
            }
            Err((notifier, error)) => {
                self.notifier = Some(notifier);
                Err(Failure::new(Reason::Commit, format!("the service manager cannot be told: {error}")))
            }
        }
    }

    /// Speaks again, for the process that was handed over to is dead.
    pub(super) fn reclaim(&mut self) {
        self.notifier = match &self.address {
            Some(address) => Notifier::to(address).ok(),
            None => Some(Notifier::none()),
        };
    }
}
