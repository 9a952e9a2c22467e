//! What a runner knows and nobody else could tell the next one: it goes along when the runner executes
//! itself anew, in a memfd, beside the descriptors that it is about; and PID 1 keeps it for the one that it starts
//! when this one is killed.
//!
//! | name of a descriptor | what |
//! |---|---|
//! | `handover.state` | this, as JSON |
//! | `handover.runner` | the same without what only somebody who asks could need, in the file that PID 1 keeps |
//! | `handover.main.NUMBER` | the pidfd of a generation's main process |
//! | `handover.ask.NUMBER` | its seccomp listener |
//! | `handover.herald.NUMBER` | its notify socket |
//! | `handover.control` | the control socket |
//! | `handover.caller` | whoever asked, and waits for an answer |
//!
//! All other names are as PID 1 gives them. Both directions are here. A state of a later version than this
//! one is refused, which the self-test of an older runner finds out before anything is lost; a runner that PID 1
//! has started goes on without. This file is pure.

use serde::{Deserialize, Serialize};

use super::fence::Family;
use super::machine::{Kept, Phase};
use super::settings::Settings;
use crate::upgrade::{Failure, Reason};

/// The name of the state among the descriptors.
pub(crate) const STATE: &str = "handover.state";
/// The name of the file that PID 1 keeps.
pub(crate) const RUNNER: &str = "handover.runner";
/// How the names of pidfds begin.
pub(crate) const MAIN: &str = "handover.main.";
/// How the names of seccomp listeners begin.
pub(crate) const ASK: &str = "handover.ask.";
/// How the names of notify sockets begin.
pub(crate) const HERALD: &str = "handover.herald.";
/// The name of the control socket.
pub(crate) const CONTROL: &str = "handover.control";
/// The name of who waits for an answer.
pub(crate) const CALLER: &str = "handover.caller";

/// What is written here; to be raised when a field is taken away, or means something else.
const VERSION: u32 = 1;

/// Most bytes that are read.
pub(crate) const MOST: usize = 4 << 20;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    /// Who lives, and who leaves.
    pub(crate) machine: Kept,
    /// What else is known of each of them.
    pub(crate) generations: Vec<One>,
    /// Of which generation the journal has that it lives.
    pub(crate) told_live: Option<u64>,
    /// The name under which PID 1 keeps the live generation.
    pub(crate) live_name: Option<String>,
    /// What the last upgrade failed with: the exit code of the reason, the errno, the words.
    last_failure: Option<(u8, i32, String)>,
    /// What new generations run with.
    pub(crate) settings: Option<Settings>,
    /// What is to be done next.
    pub(crate) next: Next,
}

/// What somebody waits for, and gets from the next runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Next {
    /// That the next runner is there.
    #[default]
    Nothing,
    /// An upgrade of the program, by the one who calls; by PID 1, if nobody does.
    Upgrade,
}

/// A generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct One {
    /// Its number.
    pub(crate) number: u64,
    /// What it is instead, if it has no cgroup.
    pub(crate) family: Option<Family>,
    /// The pid of its main process.
    pub(crate) main: Option<i32>,
    /// When that was started, in milliseconds since boot: two processes with one pid differ in it.
    pub(crate) born: Option<u64>,
    /// Whether that is a child of the runner's.
    pub(crate) is_child: bool,
    /// How that ended, if it has.
    pub(crate) ended: Option<String>,
    /// What the program says of itself.
    pub(crate) status: Option<String>,
}

/// Why a state cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// It is of a later version.
    #[error(
        "the state of the running `handover run` is of version {found}, and this one reads {VERSION} at most"
    )]
    Newer { found: u32 },
    /// It makes no sense.
    #[error("the state of the running `handover run` makes no sense here: {0}")]
    Garbled(#[from] serde_json::Error),
}

impl State {
    /// What is to be told, with nothing of what is optional.
    pub(crate) fn new(machine: Kept, generations: Vec<One>) -> Self {
        let (told_live, live_name, last_failure, settings) = (None, None, None, None);
        let next = Next::Nothing;
        Self { version: VERSION, machine, generations, told_live, live_name, last_failure, settings, next }
    }

    /// With what the last upgrade failed with.
    pub(crate) fn with_failure(mut self, failure: Option<&Failure>) -> Self {
        self.last_failure = failure.map(|one| (one.reason.exit_code(), one.errno, one.detail.clone()));
        self
    }

    /// What the last upgrade failed with; a reason that is not known here is forgotten.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let (code, errno, detail) = self.last_failure.clone()?;
        Some(Failure { reason: Reason::from_exit_code(code)?, errno, detail })
    }

    /// The slot of a generation that serves or has served.
    pub(crate) fn slot_of_old(&self, number: u64) -> Option<usize> {
        let one = self.machine.generations.iter().find(|one| one.number == number)?;
        (one.phase != Phase::Coming).then_some(one.slot)
    }

    /// The bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        // There is no key in it that is no text, and no writer that could fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What is in these bytes.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, StateError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version: found } = serde_json::from_slice(bytes)?;
        if found > VERSION {
            return Err(StateError::Newer { found });
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::machine::KeptGeneration;
    use proptest::prelude::*;

    fn state() -> State {
        let generation = KeptGeneration { number: 7, slot: 2, phase: Phase::Draining { since_ms: 40 } };
        let machine = Kept { generations: vec![generation], last: 7, home: 2, ..Kept::default() };
        let one = One {
            number: 7,
            family: None,
            main: Some(4),
            born: Some(9),
            is_child: true,
            ended: None,
            status: None,
        };
        let failure = Failure::new(Reason::Exec, "x");
        let settings = Settings { environment: vec![(b"A".to_vec(), vec![0xff])], ..Settings::default() };
        State { settings: Some(settings), ..State::new(machine, vec![one]).with_failure(Some(&failure)) }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(State::read(&state().write()).unwrap(), state());
        assert_eq!(state().failure(), Some(Failure::new(Reason::Exec, "x")));
    }

    #[test]
    fn a_state_of_a_later_version_is_refused_whatever_else_is_in_it() {
        let error = State::read(br#"{"version":2,"machine":"of tomorrow"}"#).unwrap_err();
        assert!(matches!(error, StateError::Newer { found: 2 }), "{error}");
        let more = String::from_utf8(state().write()).unwrap().replacen('{', r#"{"more":[],"#, 1);
        assert_eq!(State::read(more.as_bytes()).unwrap(), state(), "a field too many is no other version");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(at in 0usize..400, byte: u8, bytes: Vec<u8>) {
            let mut wrong = state().write();
            let at = at % wrong.len();
            wrong[at] = byte;
            let _ = (State::read(&wrong), State::read(&bytes), State::read(&wrong[..at]));
        }
    }
}
