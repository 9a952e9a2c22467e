//! The words of the machine: what it hears, what it says, what it goes by, and how a generation is.

use std::time::{Duration, Instant};

use crate::upgrade::Failure;

/// What happens to an upgrade when every slot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnBusy {
    /// It waits until the oldest generation has drained.
    Wait,
    /// The oldest generation that drains is killed.
    KillOldest,
    /// It is refused.
    Refuse,
}

/// Bounds and choices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many generations can have a slot of their own at once; with one, they share it.
    pub(crate) slots: usize,
    /// How long a generation may take until it serves.
    pub(crate) ready: Duration,
    /// How long a new one goes on without clients before it gets any.
    pub(crate) settle: Duration,
    /// How long one may drain.
    pub(crate) drain: Duration,
    /// How long one may take after its signal.
    pub(crate) stop: Duration,
    /// How long one drains at least: a handshake may be under way to it.
    pub(crate) linger: Duration,
    /// Whether a new generation is probed before it gets clients.
    pub(crate) probe: bool,
    /// The share of the new connections that a new generation gets at first, and for how long.
    pub(crate) canary: Option<(u8, Duration)>,
    /// See there.
    pub(crate) on_busy: OnBusy,
    /// Whether an old generation gets its signal at once, and drains by itself.
    pub(crate) signal_first: bool,
    /// Whether the old one is stopped before the new one starts.
    pub(crate) serial: bool,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An upgrade is wanted.
    Asked,
    /// The upgrade that is under way is to begin again, for somebody who knows more about it.
    AskedAgain,
    /// Who wanted it has gone.
    CallerGone,
    /// A generation could not be started; nothing of it is there.
    StartFailed { number: u64, failure: Failure },
    /// A generation says that it is ready, or waits on all its sockets.
    Ready { number: u64 },
    /// It passed the probe.
    Probed { number: u64 },
    /// One that had passed it does not pass the probe any more.
    ProbeFailed { number: u64, why: String },
    /// It serves nobody any more, and nobody waits for it.
    Empty { number: u64 },
    /// Nothing of it is left; `how` is how its main process ended.
    Gone { number: u64, how: String },
    /// The service is to stop: SIGTERM.
    Terminate,
    /// Time has passed.
    Tick,
}

/// What is to be done, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a generation in this slot.
    Start { number: u64, slot: usize },
    /// Find out through the real port whether the one in this slot serves; again and again, if it has a share
    /// of the clients.
    Probe { number: u64, slot: usize },
    /// Send every new connection to this slot; but so many of a hundred to the other, if there is one.
    Steer { slot: usize, but: Option<(usize, u8)> },
    /// Send it the signal at which it stops.
    Signal { number: u64 },
    /// Kill all of it.
    Kill { number: u64 },
    /// The one who has just asked waits for its answer.
    Hold,
    /// The one who has just asked gets no upgrade; what is under way goes on.
    Refuse(Failure),
    /// The one who waits hears that this generation serves.
    Switched { number: u64 },
    /// The one who waits, if anybody does, hears that it does not; for the journal, too.
    Failed(Failure),
    /// The service serves for the first time.
    Serving { number: u64 },
    /// The live generation crashed, and is started again after this time.
    Crashed { how: String, pause: Duration },
    /// A generation has left; it was `cut` if it had to be killed.
    Retired { number: u64, cut: bool },
    /// End, well or not.
    Exit(Result<(), Failure>),
}

/// How a generation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It served when this runner was started.
    Survivor,
    Starting {
        until: Instant,
    },
    Probing {
        until: Instant,
    },
    /// It could serve. Nobody has come to it yet: a program that cannot go on for long does not get that far.
    Settling {
        until: Instant,
    },
    Canary {
        until: Instant,
    },
    Live {
        since: Instant,
    },
    Draining {
        since: Instant,
    },
    Stopping {
        until: Instant,
    },
    /// It was killed before it served.
    Failed(Failure),
    /// The same, to make way for another start by the same wish.
    Replaced,
    /// It was killed after it served.
    Killed,
}

/// One start of the program.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) number: u64,
    pub(super) slot: usize,
    pub(super) state: State,
}

impl Generation {
    /// Whether it has served, and leaves.
    pub(super) fn leaves(&self) -> bool {
        use State::{Draining, Killed, Stopping, Survivor};
        matches!(self.state, Draining { .. } | Stopping { .. } | Killed | Survivor)
    }
}
