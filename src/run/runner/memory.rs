//! What the runner knows, in memory that PID 1 keeps: FileDescriptorStoreMax=. A runner that was killed at any
//! moment has left there how everything stood, and the next one goes on from that.
//!
//! It is written when something has changed, without a system call and without a word to PID 1, which gets the
//! descriptor once. What cannot be read, or is of a later version, is not believed: the next runner says so, and
//! goes by what it finds.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::Runner;
use crate::activation::Inherited;
use crate::fdstore::{Shape, StateFile, StateVersion};
use crate::notify::Message;
use crate::run::fence::Fence;
use crate::run::journal::Entry;
use crate::run::machine::{Action, Clock, Kept};
use crate::run::state::{One, RUNNER, State};
use crate::sys::pidfd::Pidfd;
use crate::sys::process;

/// No cells, and room for a state with a status text of every generation.
const SHAPE: Shape = Shape { cells: 0, cell_bytes: 0, service_bytes: 1 << 20 };

/// Of the layout of the file; what is in it has a version of its own.
const VERSION: StateVersion = StateVersion { written: 1, readable_by: 1 };

/// See the banner.
#[derive(Debug)]
pub(super) struct Memory {
    file: Option<StateFile>,
    /// What was written there last by this runner.
    last: Option<State>,
    /// PID 1 has it.
    is_kept: bool,
    /// PID 1 has something of that name that is to go.
    is_stale: bool,
    /// It was said that it cannot be written.
    is_told: bool,
    /// One reading of the clock, for all times in it.
    pub(super) clock: Clock,
}

impl Memory {
    /// Takes the file that was passed, and reads it; or makes one. With what the runner before left in it, and
    /// in words why that cannot be read.
    pub(super) fn take(inherited: &mut Inherited) -> (Self, Option<State>, Option<String>) {
        let mut passed = inherited.take_reserved(RUNNER);
        let (mut file, mut state, mut trouble) = (None, None, None);
        let is_stale = match passed.pop().map(|passed| passed.into_parts().1) {
            None => false,
            Some(fd) => match StateFile::open(fd).map_err(|error| error.to_string()).and_then(read) {
                // Of two, nobody could tell which one is right.
                Ok((found, left)) if passed.is_empty() => {
                    (file, state) = (Some(found), Some(left));
                    false
                }
                Ok(_) => true,
                Err(why) => {
                    trouble = Some(why);
                    true
                }
            },
        };
        let is_kept = file.is_some();
        let file = file.or_else(|| StateFile::create(SHAPE, VERSION).ok());
        let clock = Clock { at: Instant::now(), ms: process::monotonic_usec() / 1000 };
        (Self { file, last: None, is_kept, is_stale, is_told: false, clock }, state, trouble)
    }

    /// The file, for another runner.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }
}

/// What is in a file.
///
/// Errors: in words, why it cannot be read.
fn read(file: StateFile) -> Result<(StateFile, State), String> {
    file.check_version(VERSION).map_err(|error| error.to_string())?;
    let bytes = file.service().ok_or("nothing in it is whole")?;
    let state = State::read(&bytes).map_err(|error| error.to_string())?;
    Ok((file, state))
}

impl Runner {
    /// Writes down how everything stands, if that has changed.
    pub(super) async fn write_down(&mut self) {
        let state = self.summary(self.machine.write_down(self.memory.clock));
        if self.memory.last.as_ref() == Some(&state) {
            return;
        }
        if let Some(file) = &self.memory.file
            && let Err(error) = file.save_service(&state.write())
            && !std::mem::replace(&mut self.memory.is_told, true)
        {
            self.warn(format!("a runner after this one would not know how everything stands: {error}"));
        }
        self.memory.last = Some(state);
        if std::mem::take(&mut self.memory.is_stale) {
            let _ = self.notifier.notify(&Message::unstore(RUNNER), super::PATIENCE).await;
        }
        if let Some(file) = self.memory.file()
            && !self.memory.is_kept
        {
            // It never reports anything.
            let message = Message::store(RUNNER, false);
            if let Err(error) = self.notifier.notify_with_fds(&message, &[file], super::PATIENCE).await {
                self.warn(format!("PID 1 was not asked to keep {RUNNER}: {error}"));
            }
            self.memory.is_kept = true;
        }
    }

    /// Has PID 1 forget it: the service ends, and nothing goes on.
    pub(super) async fn forget(&self) {
        let _ = self.notifier.notify(&Message::unstore(RUNNER), super::PATIENCE).await;
    }

    /// How everything stands, but for what new generations run with.
    pub(super) fn summary(&self, machine: Kept) -> State {
        let one = |(number, one): (&u64, &super::Generation)| {
            let main = one.main.as_ref().map(Pidfd::pid);
            One {
                number: *number,
                family: match &one.fence {
                    Fence::Group(family) => Some(family.clone()),
                    Fence::Cgroup(_) => None,
                },
                main,
                born: one.born,
                is_child: one.is_child,
                ended: one.ended.clone(),
                status: one.status.clone(),
            }
        };
        let generations = self.generations.iter().map(one).collect();
        let mut state = State::new(machine, generations).with_failure(self.last_failure.as_ref());
        (state.told_live, state.live_name) = (self.told_live, self.live_name.clone());
        state
    }

    /// Goes on with what a runner that was killed had begun: who was to be ended is, and who had a share of the
    /// clients has it again.
    pub(super) async fn pick_up(&mut self) {
        let doomed: Vec<_> = self.machine.doomed().collect();
        for number in doomed {
            if let Some(generation) = self.generations.get(&number) {
                generation.fence.kill();
            }
        }
        if let (Some((number, slot, share)), Some((_, to))) = (self.machine.canary(), self.machine.live()) {
            self.act(Action::Steer { slot: to, but: Some((slot, share)) }).await;
            if self.options.probe.is_some() {
                self.act(Action::Probe { number, slot }).await;
            }
            self.journal.write(Entry::Warning {
                what: format!(
                    "generation {number} goes on as a canary; whoever asked for it was not told how it ends"
                ),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memfd;

    fn left(version: StateVersion, bytes: &[u8]) -> Result<State, String> {
        let file = StateFile::create(SHAPE, version).unwrap();
        file.save_service(bytes).unwrap();
        let file = StateFile::open(file.as_fd().try_clone_to_owned().unwrap()).unwrap();
        read(file).map(|(_, state)| state)
    }

    #[test]
    fn what_was_written_is_read_and_what_is_broken_or_newer_is_refused_in_words() {
        let state = State::new(Kept { crashes: 3, ..Kept::default() }, vec![]);
        assert_eq!(left(VERSION, &state.write()), Ok(state));
        let why = |version, bytes: &[u8]| left(version, bytes).unwrap_err();
        let newer = StateVersion { written: 2, readable_by: 2 };
        assert!(why(newer, b"{}").contains("version 2"));
        assert!(why(VERSION, br#"{"version":99}"#).contains("version 99"));
        assert!(why(VERSION, b"nonsense").contains("makes no sense"));
        let empty = StateFile::create(SHAPE, VERSION).unwrap();
        assert_eq!(read(empty).unwrap_err(), "nothing in it is whole");
        assert!(StateFile::open(memfd::sealed(b"nonsense").unwrap()).is_err());
    }
}
