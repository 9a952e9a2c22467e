//! One structured journal entry for each thing that happens to a generation, systemd.journal-fields(7).
//!
//! Written by a thread of its own, so that nothing waits for journald; without a journal, nothing is
//! written. No other kind of logging happens here.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use libsystemd::logging::{Priority, journal_send};

use crate::upgrade::Failure;

/// What is worth an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A generation was started.
    Started { number: u64, pid: i32, slot: usize },
    /// It was live when this runner was started, and is.
    Resumed { number: u64, slot: usize },
    /// The runner has executed itself anew.
    Renewed { path: String },
    /// It gets all new connections.
    Live { number: u64, slot: usize },
    /// It gets a share of them.
    Canary { percent: u8 },
    /// An upgrade, or the first start, came to nothing.
    Failed { failure: Failure },
    /// An upgrade was asked for, and refused.
    Refused { failure: Failure },
    /// The live generation ended by itself.
    Crashed { how: String, pause: Duration },
    /// An old generation has left.
    Retired { number: u64, cut: bool },
    /// Connections that nobody would have accepted were passed on.
    Relayed { slot: usize },
    /// Datagrams that nobody would have read were dropped.
    Dropped { slot: usize, count: u64 },
    /// Something works less well than it could, or not at all.
    Warning { what: String },
}

impl Entry {
    /// The MESSAGE_ID=, random and fixed for ever; and HANDOVER_PHASE=.
    const fn identity(&self) -> (&'static str, &'static str) {
        match self {
            Self::Started { .. } => ("6d1f0c8b3a5e4f7c9b2d8e4a1c7f5b30", "generation-started"),
            Self::Resumed { .. } => ("7c52d9e0a4b34f1d8e6f03b7c91a5d28", "generation-resumed"),
            Self::Renewed { .. } => ("f4d06e3a9b784c15a2e81d7c50b3964e", "runner-renewed"),
            Self::Live { .. } => ("b07e2f4d9c614a58a3f1d6e8c2b94705", "generation-live"),
            Self::Canary { .. } => ("1e9a7c35d84b42f6b5c08f3e6d2a9741", "generation-canary"),
            Self::Failed { .. } => ("c45b18e7f20a4d93865e7b1f9d3c0a62", "generation-failed"),
            Self::Refused { .. } => ("97d3e60b5c1f48a2b4e9f7a80d6c2135", "generation-refused"),
            Self::Crashed { .. } => ("2fa86d91e7b34c05921d4f6b8a3e7cd0", "generation-crashed"),
            Self::Retired { .. } => ("e81c4b27a95f4e60b3d70c9f5a6e1d84", "generation-retired"),
            Self::Relayed { .. } => ("50b9f3d6c82e4a17947f0e1b6d5c8a23", "relayed"),
            Self::Dropped { .. } => ("d81f7b3e40a946c2b5f06e9c1a7d2853", "dropped"),
            Self::Warning { .. } => ("a36e0d7c49b84f1285c6e9d20b7f4a51", "warning"),
        }
    }

    fn priority(&self) -> Priority {
        match self {
            Self::Failed { .. } | Self::Crashed { .. } => Priority::Error,
            Self::Refused { .. }
            | Self::Warning { .. }
            | Self::Dropped { .. }
            | Self::Retired { cut: true, .. } => Priority::Warning,
            _ => Priority::Info,
        }
    }

    /// The entry for people.
    fn text(&self) -> String {
        match self {
            Self::Started { number, pid, slot } => {
                format!("run: generation {number} is process {pid}, on slot {slot}")
            }
            Self::Live { number, slot } => {
                format!("run: generation {number} on slot {slot} gets every new connection")
            }
            Self::Resumed { number, slot } => {
                format!("run: generation {number} on slot {slot} has outlived the runner, and serves on")
            }
            Self::Renewed { path } => {
                format!("run: the runner is {path} as it is now; the programs have not noticed")
            }
            Self::Canary { percent } => format!("run: the new generation gets {percent} % of what is new"),
            Self::Failed { failure } => format!("run: failed: {failure}"),
            Self::Refused { failure } => format!("run: refused: {failure}"),
            Self::Crashed { how, pause } => {
                format!("run: the program {how}; it is started again in {} s", pause.as_secs_f64())
            }
            Self::Retired { number, cut: false } => format!("run: generation {number} has left"),
            Self::Retired { number, cut: true } => {
                format!("run: generation {number} did not leave in time, and was killed")
            }
            Self::Relayed { slot } => format!(
                "run: connections that wait at slot {slot}, where no generation is, are passed on; their \
                 clients' addresses are this host's"
            ),
            Self::Dropped { slot, count } => format!(
                "run: {count} datagrams that waited at slot {slot}, where no generation is any more, are dropped"
            ),
            Self::Warning { what } => format!("run: {what}"),
        }
    }

    fn write(&self) {
        let (id, phase) = self.identity();
        let mut fields = vec![
            ("MESSAGE_ID", id.to_owned()),
            ("HANDOVER_PHASE", phase.to_owned()),
            ("SYSLOG_IDENTIFIER", "handover".to_owned()),
        ];
        match self {
            Self::Started { number, .. }
            | Self::Resumed { number, .. }
            | Self::Live { number, .. }
            | Self::Retired { number, .. } => {
                fields.push(("HANDOVER_GENERATION", number.to_string()));
            }
            Self::Failed { failure } | Self::Refused { failure } => {
                fields.push(("HANDOVER_REASON", failure.reason.name().to_owned()));
                fields.push(("ERRNO", failure.errno.to_string()));
            }
            _ => {}
        }
        tracing::debug!(phase, "{}", self.text());
        if let Err(error) = journal_send(self.priority(), &self.text(), fields.into_iter()) {
            tracing::debug!(%error, "no journal");
        }
    }
}

/// Most entries that wait for journald.
const MOST_WAITING: usize = 64;

/// How long the last entries may take, at the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Writes entries in the background, one after the other.
#[derive(Debug)]
pub(crate) struct Journal {
    desk: Option<SyncSender<Entry>>,
    /// Ends when everything is written.
    written: Receiver<()>,
}

impl Journal {
    /// Starts the writer.
    pub(crate) fn open() -> std::io::Result<Self> {
        let (desk, entries) = sync_channel::<Entry>(MOST_WAITING);
        let (end, written) = sync_channel(0);
        let writer = std::thread::Builder::new().name("journal".into()).stack_size(64 * 1024);
        writer.spawn(move || {
            entries.iter().for_each(|entry| entry.write());
            drop(end);
        })?;
        Ok(Self { desk: Some(desk), written })
    }

    /// One that nobody writes.
    pub(crate) fn closed() -> Self {
        Self { desk: None, written: sync_channel(0).1 }
    }

    /// Writes an entry soon. One too many is lost: journald has been stuck for long then.
    pub(crate) fn write(&self, entry: Entry) {
        if let Some(desk) = &self.desk {
            let _ = desk.try_send(entry);
        }
    }
}

impl Drop for Journal {
    /// What was written before the end is written, unless journald is stuck.
    fn drop(&mut self) {
        drop(self.desk.take());
        let _ = self.written.recv_timeout(PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::Reason;
    use std::collections::HashSet;

    #[test]
    fn every_entry_has_its_own_message_id_and_phase() {
        let failure = Failure::new(Reason::Exited, "x");
        let entries = [
            Entry::Started { number: 1, pid: 2, slot: 0 },
            Entry::Resumed { number: 1, slot: 0 },
            Entry::Renewed { path: "x".into() },
            Entry::Live { number: 1, slot: 0 },
            Entry::Canary { percent: 10 },
            Entry::Failed { failure: failure.clone() },
            Entry::Refused { failure },
            Entry::Crashed { how: "x".into(), pause: Duration::ZERO },
            Entry::Retired { number: 1, cut: false },
            Entry::Relayed { slot: 1 },
            Entry::Dropped { slot: 1, count: 2 },
            Entry::Warning { what: "x".into() },
        ];
        let ids: HashSet<_> = entries.iter().map(|entry| entry.identity().0).collect();
        let phases: HashSet<_> = entries.iter().map(|entry| entry.identity().1).collect();
        assert_eq!((ids.len(), phases.len()), (entries.len(), entries.len()));
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
