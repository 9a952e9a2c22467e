//! The book of what the clients saw: each answer, each loss, and what can be counted from them.
//!
//! Pure: all times are since the show began, and come from outside.

use std::fmt;
use std::time::Duration;

/// The time that one column of the report stands for.
pub(super) const BIN: Duration = Duration::from_millis(50);

/// Columns kept: 60 s. What comes later is counted, and in no column.
const MOST_BINS: usize = 1200;

/// Losses kept with their words; all are counted.
const MOST_LOSSES: usize = 20;

/// What rates on the screen are taken from, in columns.
const RECENT: usize = 10;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// One that keeps its connection for the whole show.
    Session(usize),
    /// One that makes a new connection for each request.
    Visitor(usize),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(number) => write!(f, "session {number}"),
            Self::Visitor(number) => write!(f, "visitor {number}"),
        }
    }
}

/// A request that was answered as it should be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served {
    pub(super) client: Client,
    /// By whom.
    pub(super) pid: u32,
    /// When it was asked; for a visitor, when it began to connect.
    pub(super) asked: Duration,
    /// When the whole answer was there.
    pub(super) answered: Duration,
    /// The work that it asked for takes time: how long it took tells nothing.
    pub(super) works: bool,
}

/// A request that was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) at: Duration,
    pub(super) client: Client,
    /// What the client saw.
    pub(super) words: String,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {:.2} s: {}", self.client, self.at.as_secs_f64(), self.words)
    }
}

/// The time of one column.
#[derive(Clone, Debug, Default)]
pub(super) struct Bin {
    /// Answers by process, in the order of [`Book::pids`]; those without any may be missing at the end.
    pub(super) answers: Vec<u32>,
    /// The longest wait that ended in it.
    pub(super) longest: Duration,
}

/// A time in which nobody served, for the process was killed.
#[derive(Clone, Copy, Debug)]
struct Outage {
    killed: u32,
    from: Duration,
    until: Option<Duration>,
}

/// Who serves a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nobody has yet.
    Nowhere,
    /// Who answered it last, as a place in [`Book::pids`].
    By(usize),
    /// Nobody will any more: it is lost.
    Lost,
}

/// How one process stands now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    pub(super) pid: u32,
    /// Sessions that were answered by it last.
    pub(super) sessions: usize,
    /// Its answers a second, of late.
    pub(super) rate: f64,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Book {
    /// Who answered, in the order in which they began to.
    pids: Vec<u32>,
    bins: Vec<Bin>,
    /// By session.
    serving: Vec<Place>,
    requests: u64,
    connections: u64,
    repeated: u64,
    lost: u64,
    losses: Vec<Loss>,
    outage: Option<Outage>,
    longest: Duration,
    longest_in_outage: Duration,
    longest_lately: Duration,
}

impl Book {
    /// An empty one, for so many sessions.
    pub(super) fn new(sessions: usize) -> Self {
        Self {
            pids: Vec::new(),
            bins: Vec::new(),
            serving: vec![Place::Nowhere; sessions],
            requests: 0,
            connections: 0,
            repeated: 0,
            lost: 0,
            losses: Vec::new(),
            outage: None,
            longest: Duration::ZERO,
            longest_in_outage: Duration::ZERO,
            longest_lately: Duration::ZERO,
        }
    }

    /// Writes down an answer. One that was asked before the show is counted, and tells nothing of times.
    pub(super) fn served(&mut self, served: Served) {
        let place = self.pids.iter().position(|pid| *pid == served.pid).unwrap_or_else(|| {
            self.pids.push(served.pid);
            self.pids.len() - 1
        });
        self.requests += 1;
        self.place(served.client, Place::By(place));
        if served.asked.is_zero() {
            return;
        }
        let wait = self.wait(&served);
        if let Some(bin) = self.bin(served.answered) {
            if bin.answers.len() <= place {
                bin.answers.resize(place + 1, 0);
            }
            bin.answers[place] += 1;
            bin.longest = bin.longest.max(wait);
        }
    }

    fn place(&mut self, client: Client, place: Place) {
        if let Client::Session(number) = client
            && let Some(serving) = self.serving.get_mut(number)
        {
            *serving = place;
        }
    }

    /// How long the client waited, written down where it belongs.
    fn wait(&mut self, served: &Served) -> Duration {
        if served.works {
            return Duration::ZERO;
        }
        let wait = served.answered.saturating_sub(served.asked);
        if let Some(outage) = &mut self.outage {
            if served.pid != outage.killed && outage.until.is_none() && served.answered >= outage.from {
                outage.until = Some(served.answered);
            }
            let over = outage.until.is_some_and(|until| served.asked > until);
            if served.answered >= outage.from && !over {
                self.longest_in_outage = self.longest_in_outage.max(wait);
                return wait;
            }
        }
        self.longest = self.longest.max(wait);
        self.longest_lately = self.longest_lately.max(wait);
        wait
    }

    fn bin(&mut self, at: Duration) -> Option<&mut Bin> {
        let place = usize::try_from(at.as_micros() / BIN.as_micros()).ok().filter(|&bin| bin < MOST_BINS)?;
        if self.bins.len() <= place {
            self.bins.resize(place + 1, Bin::default());
        }
        self.bins.get_mut(place)
    }

    /// Writes down a connection that was made.
    pub(super) fn connected(&mut self) {
        self.connections += 1;
    }

    /// Writes down an answer that came again, as it may when a process was killed.
    pub(super) fn repeated(&mut self) {
        self.repeated += 1;
    }

    /// Writes down a loss; a session ends with it.
    pub(super) fn lost(&mut self, loss: Loss) {
        self.lost += 1;
        self.place(loss.client, Place::Lost);
        if self.losses.len() < MOST_LOSSES {
            self.losses.push(loss);
        }
    }

    /// From now on nobody serves, until somebody else than `killed` answers.
    pub(super) fn killed(&mut self, killed: u32, at: Duration) {
        self.outage = Some(Outage { killed, from: at, until: None });
    }

    /// How long nobody answered after the kill, once somebody has.
    pub(super) fn outage(&self) -> Option<Duration> {
        let outage = self.outage?;
        Some(outage.until?.saturating_sub(outage.from))
    }

    /// The longest wait since this was asked last, but for those that a kill explains.
    pub(super) fn take_longest_lately(&mut self) -> Duration {
        std::mem::take(&mut self.longest_lately)
    }

    /// The longest wait of all, but for those that a kill explains.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// The longest wait of those that a kill explains.
    pub(super) fn longest_in_outage(&self) -> Duration {
        self.longest_in_outage
    }

    /// Who answered, in the order in which they began to.
    pub(super) fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// The columns.
    pub(super) fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// Requests that were answered.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Connections that were made.
    pub(super) fn connections(&self) -> u64 {
        self.connections
    }

    /// Answers that came again; they count as one.
    pub(super) fn answers_repeated(&self) -> u64 {
        self.repeated
    }

    /// How many requests were lost.
    pub(super) fn losses(&self) -> u64 {
        self.lost
    }

    /// What the first of them were.
    pub(super) fn first_losses(&self) -> &[Loss] {
        &self.losses
    }

    /// The process that serves every session which is left, if it is one.
    pub(super) fn alone(&self) -> Option<u32> {
        let mut left = self.serving.iter().filter(|serving| **serving != Place::Lost);
        let first = left.next()?;
        match *first {
            Place::By(place) if left.all(|serving| serving == first) => self.pids.get(place).copied(),
            _ => None,
        }
    }

    /// Whether no session is left.
    pub(super) fn all_is_lost(&self) -> bool {
        self.serving.iter().all(|serving| *serving == Place::Lost)
    }

    /// Those who serve now: the newest first.
    pub(super) fn standings(&self, now: Duration) -> Vec<Standing> {
        let full = usize::try_from(now.as_micros() / BIN.as_micros()).unwrap_or(usize::MAX);
        let recent =
            self.bins.get(full.saturating_sub(RECENT)..full.min(self.bins.len())).unwrap_or_default();
        let seconds = BIN.as_secs_f64() * RECENT.min(full).max(1) as f64;
        let standing = |(place, &pid): (usize, &u32)| {
            let answers: u32 = recent.iter().map(|bin| bin.answers.get(place).copied().unwrap_or(0)).sum();
            let sessions = self.serving.iter().filter(|serving| **serving == Place::By(place)).count();
            Standing { pid, sessions, rate: f64::from(answers) / seconds }
        };
        let all = self.pids.iter().enumerate().map(standing);
        all.filter(|standing| standing.sessions > 0).rev().collect()
    }
}

/// The middle and the largest of some times.
pub(super) fn median_and_longest(times: impl IntoIterator<Item = Duration>) -> Option<(Duration, Duration)> {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable();
    let (low, high) = (times.get(times.len().checked_sub(1)? / 2)?, times.get(times.len() / 2)?);
    Some(((*low + *high) / 2, *times.last()?))
}

#[cfg(test)]
mod tests;
