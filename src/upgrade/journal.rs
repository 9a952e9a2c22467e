//! One structured journal entry for each phase of an upgrade, see systemd.journal-fields(7).
//!
//! Every entry has a MESSAGE_ID of its own, so `journalctl MESSAGE_ID=...` finds all of a kind, and
//! `HANDOVER_*` fields for programs. Where there is no journal, nothing is written and nobody is
//! held up; no other kind of logging happens here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libsystemd::logging::{Priority, journal_send};
use tokio_util::task::TaskTracker;

use super::failure::Failure;

/// How long an entry that can wait does: an upgrade of a service with little to initialise is over by then.
const LATER: Duration = Duration::from_millis(50);

/// What is worth an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A successor runs and initialises.
    Started { successor: i32 },
    /// The successor has the service.
    Switched { successor: i32, generation: u64 },
    /// The old process serves on.
    Failed { failure: Failure },
    /// Somebody asked and was told no; what is under way goes on.
    Refused { failure: Failure },
    /// `handover reload` got no answer: there is nobody who could serve on, or could say so.
    Unanswered { failure: Failure },
    /// The last request of a retired process is answered; `cut` were ended at the deadline.
    Drained { cut: usize },
    /// Descriptors that the service did not take.
    Leftover { names: String },
    /// The service manager could not be told something.
    Unheard { what: String },
    /// The fd store does not keep something, or what it kept is of no use.
    NotKept { what: String },
}

impl Phase {
    /// The MESSAGE_ID=, random and fixed for ever.
    pub(crate) const fn message_id(&self) -> &'static str {
        match self {
            Self::Started { .. } => "9c4c86c784354dee9e970794bc8c9bc2",
            Self::Switched { .. } => "449bf121800c46d49c4fca193be2c5bd",
            Self::Failed { .. } => "82c65ce953544f1383fc94934132cce0",
            Self::Refused { .. } => "da4bb776a8214be1b10bdcbabca8de25",
            Self::Unanswered { .. } => "424bb797f1df4ed3b10207885257c0db",
            Self::Drained { .. } => "1233a857c4634dc98fe2a111ffd5677e",
            Self::Leftover { .. } => "e5e4f3a06e9149f2b2db38dadd1b3d30",
            Self::Unheard { .. } => "46a87611a48a47999e9b537ff995fd21",
            Self::NotKept { .. } => "7b0c7f1a4c5e4a0f9d5d2f6f6c0b3e19",
        }
    }

    fn priority(&self) -> Priority {
        match self {
            Self::Started { .. } | Self::Switched { .. } | Self::Drained { cut: 0 } => Priority::Info,
            Self::Drained { .. }
            | Self::Leftover { .. }
            | Self::Refused { .. }
            | Self::Unheard { .. }
            | Self::NotKept { .. } => Priority::Warning,
            Self::Failed { .. } | Self::Unanswered { .. } => Priority::Error,
        }
    }

    /// The entry for people.
    fn text(&self) -> String {
        let me = std::process::id();
        match self {
            Self::Started { successor } => {
                format!("upgrade: the successor {successor} initialises; {me} serves on")
            }
            Self::Switched { successor, .. } => format!("upgrade: {successor} serves now; {me} drains"),
            Self::Failed { failure } => format!("upgrade failed: {failure}; {me} serves on"),
            Self::Refused { failure } => format!("upgrade refused: {failure}"),
            Self::Unanswered { failure } => format!("no upgrade: {failure}"),
            Self::Drained { cut: 0 } => format!("upgrade: {me} has nothing left to do and leaves"),
            Self::Drained { cut } => {
                format!("upgrade: {me} leaves at its drain deadline; {cut} connections were ended")
            }
            Self::Leftover { names } => {
                format!("passed, but taken by nobody: {names}; the .socket units and the program disagree")
            }
            Self::Unheard { what } => format!("the service manager was not told: {what}"),
            Self::NotKept { what } => format!("not kept by the service manager: {what}"),
        }
    }

    /// The fields for programs.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![
            ("MESSAGE_ID", self.message_id().to_string()),
            ("HANDOVER_PHASE", self.name().to_string()),
            ("SYSLOG_IDENTIFIER", "handover".to_string()),
        ];
        match self {
            Self::Started { successor } => fields.push(("HANDOVER_SUCCESSOR", successor.to_string())),
            Self::Switched { successor, generation } => {
                fields.push(("HANDOVER_SUCCESSOR", successor.to_string()));
                fields.push(("HANDOVER_GENERATION", generation.to_string()));
            }
            Self::Failed { failure } | Self::Refused { failure } | Self::Unanswered { failure } => {
                fields.push(("HANDOVER_REASON", failure.reason.name().to_string()));
                fields.push(("ERRNO", failure.errno.to_string()));
            }
            Self::Drained { cut } => fields.push(("HANDOVER_CUT", cut.to_string())),
            Self::Leftover { names } => fields.push(("HANDOVER_FDNAMES", names.clone())),
            Self::Unheard { .. } | Self::NotKept { .. } => {}
        }
        fields
    }

    /// HANDOVER_PHASE=.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Switched { .. } => "switched",
            Self::Failed { .. } => "failed",
            Self::Refused { .. } => "refused",
            Self::Unanswered { .. } => "unanswered",
            Self::Drained { .. } => "drained",
            Self::Leftover { .. } => "leftover",
            Self::Unheard { .. } => "unheard",
            Self::NotKept { .. } => "not-kept",
        }
    }

    /// Writes the entry; blocks while journald is busy.
    pub(crate) fn write(&self) {
        tracing::debug!(phase = self.name(), "{}", self.text());
        if let Err(error) = journal_send(self.priority(), &self.text(), self.fields().into_iter()) {
            tracing::debug!(%error, "no journal");
        }
    }
}

/// Most entries that wait for journald; more than an upgrade has.
const MOST_WAITING: usize = 64;

/// Writes entries in the background, one after the other, so that an upgrade never waits for journald.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scribe {
    desk: Arc<Mutex<Desk>>,
    at_work: TaskTracker,
}

#[derive(Debug, Default)]
struct Desk {
    waiting: VecDeque<Phase>,
    busy: bool,
}

impl Scribe {
    /// Writes an entry soon. One too many is lost: journald has been stuck for long then.
    pub(crate) fn write(&self, phase: Phase) {
        self.put(phase);
        self.begin();
    }

    /// Writes an entry together with the next one, or in a moment: to start a thread takes as long as to
    /// start a process, and where there is one processor, one of them waits.
    pub(crate) fn write_later(&self, phase: Phase) {
        self.put(phase);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LATER).await;
            this.begin();
        });
    }

    fn put(&self, phase: Phase) {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if desk.waiting.len() == MOST_WAITING {
            tracing::warn!(phase = phase.name(), "the journal takes no more entries");
            return;
        }
        desk.waiting.push_back(phase);
    }

    /// Has a thread write what waits, unless one does.
    fn begin(&self) {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if !desk.waiting.is_empty() && !std::mem::replace(&mut desk.busy, true) {
            let desk = Arc::clone(&self.desk);
            self.at_work.spawn_blocking(move || Desk::clear(&desk));
        }
    }

    /// Waits until everything is written, for at most `patience`: journald may be stuck.
    pub(crate) async fn finish(self, patience: Duration) {
        self.begin();
        self.at_work.close();
        if tokio::time::timeout(patience, self.at_work.wait()).await.is_err() {
            tracing::warn!("the journal took longer than {patience:?}");
        }
    }
}

impl Desk {
    /// Writes until nothing waits.
    fn clear(desk: &Mutex<Self>) {
        loop {
            let mut this = desk.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(phase) = this.waiting.pop_front() else {
                this.busy = false;
                return;
            };
            drop(this);
            phase.write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::Reason;

    #[test]
    fn every_phase_has_its_own_message_id_and_name() {
        let failure = Failure::new(Reason::Exec, "x");
        let phases = [
            Phase::Started { successor: 1 },
            Phase::Switched { successor: 1, generation: 2 },
            Phase::Failed { failure: failure.clone() },
            Phase::Refused { failure: failure.clone() },
            Phase::Unanswered { failure },
            Phase::Drained { cut: 0 },
            Phase::Leftover { names: "web".into() },
            Phase::Unheard { what: "x".into() },
            Phase::NotKept { what: "x".into() },
        ];
        let ids: std::collections::HashSet<_> = phases.iter().map(Phase::message_id).collect();
        let names: std::collections::HashSet<_> = phases.iter().map(Phase::name).collect();
        assert_eq!((ids.len(), names.len()), (phases.len(), phases.len()));
        for id in ids {
            assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        }
    }
}
