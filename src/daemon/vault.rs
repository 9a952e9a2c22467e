//! Everything of the service that PID 1 keeps: the connections with their state, the service's own
//! state, the record. It joins the fd store with the memory that is in it.
//!
//! ```text
//!   Serving --pause--> Paused --hand_over--> HandedOver      speaks to PID 1, claims and frees places:
//!      |  ^--resume------'                       |           Serving, and Leaving from there
//!      `--leave--> Leaving                       `--leave--> Leaving, mute
//! ```
//!
//! A connection goes into the store after its place in the state file is made, and out of it before
//! that place is freed: a crash in between leaves a place without a connection, which the next start
//! frees, or a connection without a place, which it ends.
//!
//! Nothing in here waits without a deadline, and no trouble with what an earlier process left keeps a
//! service from starting: it starts without it, and says so.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::connections::Incoming;
use super::kept::Kept;
use super::memory::Memory;
use super::{Error, Options};
use crate::activation::{Inherited, Passed};
use crate::fdstore::names;
use crate::fdstore::{Bounds, Cell, Pause, Record, Refused, StashError, StateError, StateFile, Store};
use crate::notify::Notifier;
use crate::upgrade::moves::{Batch, Slot};

/// What PID 1 keeps. Clones are the same vault.
#[derive(Clone, Debug)]
pub(super) struct Vault(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    options: Options,
    memory: Mutex<Memory>,
    mode: watch::Sender<Mode>,
    pause: Mutex<Option<Pause>>,
}

/// See the picture above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Serving,
    Paused,
    HandedOver,
    Leaving { mute: bool },
}

impl Vault {
    /// The vault of the service that this process is, or is to be if `successor`, with everything that
    /// is handover's own among what was passed.
    ///
    /// Errors: a NOTIFY_SOCKET that leads nowhere; what getrlimit(2) says.
    pub(super) fn find(
        notifier: Notifier,
        inherited: &mut Inherited,
        options: Options,
        successor: bool,
    ) -> Result<Self, Error> {
        let (bounds, stored) = Bounds::of(inherited).map_err(Error::system("look at RLIMIT_NOFILE"))?;
        let stored: Vec<String> = stored.into_iter().map(str::to_owned).collect();
        let store = Store::new(notifier, bounds);
        let memory = Memory::find(inherited, options);
        // A successor was passed other things, too, which PID 1 does not hold.
        stored.iter().filter(|name| !successor || memory.has(name)).for_each(|name| store.holds(name));
        Ok(Self::new(store, memory, options))
    }

    /// A vault of this store, with this memory in it.
    pub(super) fn new(store: Store, memory: Memory, options: Options) -> Self {
        let (memory, mode, pause) = (Mutex::new(memory), watch::Sender::new(Mode::Serving), Mutex::default());
        Self(Arc::new(Inner { store, options, memory, mode, pause }))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_file(&self) -> Option<Arc<StateFile>> {
        self.memory().state().cloned()
    }

    /// The service is ours. Makes what is missing, gives it to PID 1, and returns the connections that
    /// PID 1 kept, if the service `takes` any. `alone`: PID 1 started this process, so no other one uses
    /// what is there. Beside them, in words, what is not kept or was of no use.
    pub(super) async fn open(&self, takes: bool, alone: bool) -> (Vec<Incoming>, Vec<String>) {
        let Options { service_state_bytes, connections, state_version, .. } = self.0.options;
        let limit = self.0.store.limit();
        let has_state = takes || service_state_bytes > 0;
        let (restored, orphans) = {
            let mut memory = self.memory();
            let shape = self.0.options.shape(limit.unwrap_or(connections));
            memory.complete(has_state.then_some(shape), state_version, alone);
            if alone { memory.restore(takes) } else { <_>::default() }
        };
        self.end_orphans(orphans);
        if !alone {
            let others = self.memory().ids_of_others();
            others.into_iter().for_each(|id| self.0.store.holds(&names::connection(id)));
        }
        // To a service that keeps nothing of its own the record is not worth a warning of PID 1, in each
        // start's journal, that the unit has no store.
        if has_state || limit.is_some() {
            self.stash_memory().await;
        }
        (restored, self.memory().take_troubles())
    }

    fn end_orphans(&self, orphans: Vec<Passed>) {
        if !orphans.is_empty() {
            let names: Vec<_> = orphans.iter().map(ToString::to_string).collect();
            self.trouble(format!("nobody can serve {}: ended", names.join(", ")));
        }
        for orphan in orphans {
            let name = orphan.name().to_owned();
            self.0.store.adopt(&name, orphan).end();
        }
    }

    /// Gives PID 1 the files that it does not have, and then has it forget those that they replace.
    async fn stash_memory(&self) {
        let copies = self.memory().copies(true);
        for (name, copy) in copies.unwrap_or_default() {
            match self.0.store.stash_own(&name, copy).await {
                Ok(stashed) => {
                    drop(stashed.leave());
                    self.memory().is_stashed(&name);
                }
                // As in development: that is no news.
                Err(Refused { error: StashError::NoManager, .. }) => return,
                Err(Refused { error, .. }) => return self.trouble(format!("{name}: {error}")),
            }
        }
        let useless = self.memory().take_useless();
        useless.iter().for_each(|name| self.0.store.release(name));
    }

    /// Finds out whether PID 1 has kept what it was given; if not, why, in words.
    pub(super) async fn confirm(self) -> Option<String> {
        self.0.store.confirm().await.err().map(|error| error.to_string())
    }

    fn trouble(&self, what: String) {
        self.memory().troubles.push(what);
    }

    /// What a successor gets beside the sockets.
    pub(super) fn bequest(&self) -> Vec<(String, OwnedFd)> {
        self.memory().copies(false).unwrap_or_default()
    }

    /// The state of the service itself.
    pub(super) fn state(&self) -> Option<Vec<u8>> {
        self.state_file()?.service()
    }

    /// See [`Serving::save_state`](super::Serving::save_state).
    pub(super) fn save_state(&self, state: &[u8]) -> Result<(), StateError> {
        let mode = self.0.mode.borrow();
        if matches!(*mode, Mode::HandedOver | Mode::Leaving { mute: true }) {
            return Err(StateError::Retired);
        }
        let too_large = StateError::TooLarge { bytes: state.len(), most: 0, option: "service_state_bytes" };
        self.state_file().ok_or(too_large)?.save_service(state)
    }

    /// Most bytes of state of a connection.
    pub(super) fn most_state(&self) -> usize {
        let of_file = self.state_file().map(|file| file.shape().cell_bytes as usize);
        of_file.unwrap_or(self.0.options.state_bytes)
    }

    /// Whether the state of a connection fits.
    pub(super) fn check(&self, state: &[u8]) -> Result<(), StateError> {
        let most = self.most_state();
        match state.len() {
            bytes if bytes <= most => Ok(()),
            bytes => Err(StateError::TooLarge { bytes, most, option: "state_bytes" }),
        }
    }

    /// Gives PID 1 a copy of the connection, with a place in the state file, and waits until PID 1 is
    /// known to have it.
    pub(super) async fn stash(&self, slot: &Arc<Slot>, state: &[u8]) -> Result<Kept, StashError> {
        let kept = self.send(slot, state).await?;
        match self.0.store.confirm().await {
            Ok(()) => Ok(kept),
            // PID 1 may have it or not: the connection stays the service's.
            Err(error) => {
                kept.withdraw(&self.0.store);
                Err(error)
            }
        }
    }

    /// The same, and PID 1 may still be on its way to have it.
    async fn send(&self, slot: &Arc<Slot>, state: &[u8]) -> Result<Kept, StashError> {
        let (file, cell) = self.claim().await?;
        let kept = Kept::new(cell, file, self.clone());
        kept.save(state)?;
        kept.stash(&self.0.store, slot).await
    }

    /// A place in the state file, once nobody else may be making places.
    async fn claim(&self) -> Result<(Arc<StateFile>, Cell), StashError> {
        let file = self.state_file().ok_or(StashError::Undeclared)?;
        let mut mode = self.0.mode.subscribe();
        // The mode cannot change while it is looked at.
        match mode.wait_for(|mode| *mode != Mode::Paused).await.as_deref() {
            Ok(Mode::Serving | Mode::Leaving { mute: false }) => {
                let cell = file.claim()?;
                Ok((file, cell))
            }
            _ => Err(StashError::Silent),
        }
    }

    /// Whether PID 1 is to keep what this process drops.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(*self.0.mode.borrow(), Mode::Leaving { .. })
    }

    /// Takes over the connection that PID 1 holds under the number `id`; `None` if it has no place.
    pub(super) fn adopt(&self, id: u64, slot: &Arc<Slot>) -> Option<Kept> {
        let file = self.state_file()?;
        let cell = file.cell_of(id)?;
        // Whoever had it is gone, or has given it away.
        file.set_owner(cell, std::process::id().cast_signed()).ok()?;
        Some(Kept::new(cell, file, self.clone()).adopt(&self.0.store, slot))
    }

    /// The connection `id` has ended, and nobody here has it.
    pub(super) fn forget(&self, id: u64) {
        self.0.store.release(&names::connection(id));
        if let Some(file) = self.state_file()
            && let Some(cell) = file.cell_of(id)
        {
            file.free(cell);
        }
    }

    /// As [`forget`](Self::forget), of what one who drains calls `name`.
    pub(super) fn forget_name(&self, name: &str) {
        match names::connection_id(name) {
            Some(id) => self.forget(id),
            None => self.0.store.release(name),
        }
    }

    /// Leaves idle connections with PID 1, for the next process. One that PID 1 does not have and does not
    /// take stays; and so does one on which something happens meanwhile: PID 1 forgets it.
    pub(super) async fn keep(&self, offers: Batch) {
        let (batch, slots) = offers.into_parts();
        let mut sent = Vec::new();
        for slot in slots {
            let (id, state) = slot.luggage();
            if id.is_some() {
                slot.give(batch);
                continue;
            }
            match self.send(&slot, &state).await {
                Ok(kept) => sent.push((slot, kept)),
                Err(error) => {
                    tracing::debug!(%error, "an idle connection stays");
                    slot.back(batch);
                }
            }
        }
        let confirmed = self.0.store.confirm().await.is_ok();
        for (slot, kept) in sent {
            if confirmed && slot.give(batch) {
                kept.leave();
            } else {
                kept.withdraw(&self.0.store);
                slot.back(batch);
            }
        }
    }

    /// The generation of the process that served last; 0 if nothing is known of one.
    pub(super) fn last_generation(&self) -> u64 {
        self.memory().record.generation
    }

    /// A copy of the record.
    pub(super) fn record(&self) -> Record {
        self.memory().record.clone()
    }

    /// Changes the record, for the main process.
    pub(super) fn write_record(&self, change: impl FnOnce(&mut Record)) {
        let mut memory = self.memory();
        change(&mut memory.record);
        memory.save_record();
    }

    /// An upgrade is being committed: PID 1 hears nothing until it is known who the service is.
    pub(super) fn pause(&self) {
        self.0.mode.send_modify(|mode| {
            if *mode == Mode::Serving {
                *mode = Mode::Paused;
                *self.paused() = Some(self.0.store.pause());
            }
        });
    }

    /// The upgrade has failed.
    pub(super) fn resume(&self) {
        self.0.mode.send_modify(|mode| {
            if *mode == Mode::Paused {
                *mode = Mode::Serving;
                *self.paused() = None;
            }
        });
    }

    /// Another process is the service.
    pub(super) fn hand_over(&self) {
        self.0.mode.send_modify(|mode| {
            *mode = Mode::HandedOver;
            match self.paused().take() {
                Some(pause) => pause.handed_over(),
                None => self.0.store.pause().handed_over(),
            }
        });
    }

    /// This process ends, and PID 1 keeps what it has: from here on dropping a connection ends nothing.
    pub(super) fn leave(&self) {
        self.0.mode.send_modify(|mode| {
            *mode = Mode::Leaving { mute: matches!(mode, Mode::HandedOver | Mode::Leaving { mute: true }) }
        });
        self.0.store.leave();
    }

    fn paused(&self) -> MutexGuard<'_, Option<Pause>> {
        self.0.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for names of what ended here after the hand-over. Cancel safe.
    pub(super) async fn ended(&self) -> Vec<String> {
        self.0.store.ended().await
    }

    /// Those that have ended by now.
    pub(super) async fn ended_now(&self) -> Option<Vec<String>> {
        tokio::select! { biased; names = self.0.store.ended() => Some(names), () = std::future::ready(()) => None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::live::Ways;

    #[tokio::test]
    async fn a_process_that_has_handed_over_saves_no_state_of_the_service_also_when_it_leaves() {
        let vault = Ways::of_nobody().vault;
        assert!(matches!(vault.save_state(b"x"), Err(StateError::TooLarge { .. })), "it is the service's");
        vault.hand_over();
        assert!(matches!(vault.save_state(b"x"), Err(StateError::Retired)));
        vault.leave();
        assert!(matches!(vault.save_state(b"x"), Err(StateError::Retired)));

        let vault = Ways::of_nobody().vault;
        vault.leave();
        assert!(
            matches!(vault.save_state(b"x"), Err(StateError::TooLarge { .. })),
            "it stops as the service"
        );
    }
}
