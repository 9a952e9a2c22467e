//! A connection's place: with PID 1, and in the state file.
//!
//! Whoever drops it ends the connection and frees the place; but while this process leaves, both stay
//! for the next one. It never frees the place of a connection that goes on.

use std::sync::Arc;

use super::vault::Vault;
use crate::fdstore::{Cell, StashError, Stashed, StateError, StateFile, Store, names};
use crate::upgrade::moves::Slot;

/// A connection's place.
#[derive(Debug)]
pub(super) struct Kept {
    held: Held,
    cell: Cell,
    file: Arc<StateFile>,
    vault: Vault,
}

/// Who has the connection that the place is for.
#[derive(Debug)]
enum Held {
    /// This process alone; PID 1 may be on its way to have it.
    Here,
    Stashed(Stashed<Arc<Slot>>),
    /// PID 1 and whoever serves it now.
    Elsewhere,
}

impl Kept {
    /// The place of a connection that PID 1 does not have yet.
    pub(super) fn new(cell: Cell, file: Arc<StateFile>, vault: Vault) -> Self {
        Self { held: Held::Here, cell, file, vault }
    }

    /// The place of a connection that PID 1 has already.
    pub(super) fn adopt(self, store: &Store, slot: &Arc<Slot>) -> Self {
        let stashed = store.adopt(&names::connection(self.id()), Arc::clone(slot));
        self.with(Held::Stashed(stashed))
    }

    /// Has PID 1 hold the connection, too. It is not known to until [`Store::confirm`].
    pub(super) async fn stash(self, store: &Store, slot: &Arc<Slot>) -> Result<Self, StashError> {
        let name = names::connection(self.id());
        match store.stash_own(&name, Arc::clone(slot)).await {
            Ok(stashed) => Ok(self.with(Held::Stashed(stashed))),
            Err(refused) => Err(refused.error),
        }
    }

    fn with(mut self, held: Held) -> Self {
        self.held = held;
        self
    }

    fn take(&mut self) -> Held {
        std::mem::replace(&mut self.held, Held::Elsewhere)
    }

    /// Its number, here and in every process of the service.
    pub(super) fn id(&self) -> u64 {
        self.cell.id()
    }

    /// What was saved for it last, by whichever process; `None` if nothing was.
    pub(super) fn state(&self) -> Option<Vec<u8>> {
        self.file.read(self.cell)
    }

    /// See [`Live::save`](super::Live::save).
    pub(super) fn save(&self, state: &[u8]) -> Result<(), StateError> {
        self.file.save(self.cell, state)
    }

    /// Leaves it with PID 1.
    pub(super) fn leave(mut self) {
        if let Held::Stashed(stashed) = self.take() {
            stashed.leave();
        }
    }

    /// Takes it away from PID 1 without a word to the peer: the connection goes on here.
    pub(super) fn withdraw(mut self, store: &Store) {
        if let Held::Stashed(stashed) = self.take() {
            stashed.leave();
            store.release(&names::connection(self.id()));
        }
        self.file.free(self.cell);
    }

    /// Ends it for the peer, whatever this process is about to do.
    pub(super) fn end(mut self) {
        if let Held::Stashed(stashed) = self.take() {
            stashed.end();
        }
        self.file.free(self.cell);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        match self.take() {
            Held::Here => self.file.free(self.cell),
            Held::Stashed(stashed) => {
                let stays = self.vault.is_leaving();
                drop(stashed);
                if !stays {
                    self.file.free(self.cell);
                }
            }
            Held::Elsewhere => {}
        }
    }
}
