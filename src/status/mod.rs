//! How a service stands: what the service manager knows of it, what the kernel has in its queues, and what it
//! says of itself.
//!
//! ```text
//!  org.freedesktop.systemd1, or the stand-in -- facts ---.
//!  the kernel: sock_diag(7) ------------------ queues ---+--> Status, and what stands in the way of an upgrade
//!  /proc: is the program of today running? ---- program -+
//!  the main process: its control socket ------ standing -+
//!  the unit's files: `check` ----------------- mistakes -'
//! ```
//!
//! Each source but the first may be silent: without handover in the service, as another user, or from another
//! machine there is still what the manager knows.
//!
//! This chapter never changes anything, and never waits for a service longer than a moment.
#![forbid(unsafe_code)]

mod obstacle;
mod queues;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::Serialize;

pub use self::obstacle::Obstacle;
pub use self::queues::Queue;
use crate::check::{self, Severity, Version};
use crate::fdstore::LastUpgrade;
use crate::manager::facts::{Facts, Observed};
use crate::manager::{ActiveState, Error, Manager};
use crate::sys::process;
use crate::upgrade::{Reason, Standing, standing};

/// How a service stands.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The unit's own name.
    pub unit: String,
    /// LoadState=.
    pub load: String,
    /// ActiveState=.
    pub active: String,
    /// SubState=.
    pub sub: String,
    /// Result=: why it ended, `success` while it runs.
    pub result: String,
    /// STATUS=, as it was said last.
    pub said: String,
    /// The main process; `None` without one.
    pub main: Option<Main>,
    /// Where clients come, with who waits there.
    pub sockets: Vec<Queue>,
    /// What the service says of itself; `None` where it does not, and [`Self::silent`] says why.
    pub service: Option<Own>,
    /// Why it says nothing.
    pub silent: Option<String>,
    /// What the service manager keeps for it.
    pub store: Store,
    /// How the last upgrade ended, as far as anybody knows.
    pub last_upgrade: Option<Last>,
    /// What stands in the way of the next one.
    pub obstacles: Vec<Obstacle>,
}

/// The main process.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Main {
    /// Its pid.
    pub pid: u32,
    /// For how long it is the main process, seconds.
    pub seconds: Option<f64>,
    /// The program that it executes; `None` where that cannot be seen.
    pub program: Option<PathBuf>,
    /// The file of that name is another one by now: an upgrade would start that.
    pub replaced: bool,
}

/// What the service says.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Own {
    /// The version of handover in it.
    pub handover: String,
    /// How many have served, this one included.
    pub generation: u64,
    /// Who serves; the main process, but under a runner.
    pub pid: i32,
    /// Whether it is a runner.
    pub is_runner: bool,
    /// What it has in flight.
    pub in_flight: u64,
    /// An upgrade is under way.
    pub under_way: bool,
    /// How many may drain at a time.
    pub most_draining: u64,
    /// Those who drain, the newest first.
    pub draining: Vec<Drains>,
}

/// One who drains.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Drains {
    /// Its pid.
    pub pid: i32,
    /// What it has in flight.
    pub in_flight: u64,
    /// Until what is left is ended, seconds.
    pub seconds_left: f64,
}

/// The FD store.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Store {
    /// How many it holds.
    pub held: u32,
    /// How many it takes; 0 for none.
    pub most: u32,
    /// What it holds: names, with the number at their end left out, kinds, and how many there are. `None`
    /// where the manager does not say.
    pub entries: Option<Vec<(String, String, usize)>>,
}

/// How an upgrade ended.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Last {
    /// A new process serves.
    pub switched: bool,
    /// Why not: the name of a [`Reason`], or systemd's word.
    pub reason: Option<String>,
    /// The same for people, or who took over from whom.
    pub text: String,
    /// How long ago, seconds.
    pub seconds_ago: Option<f64>,
}

/// A service whose status is asked for again and again.
#[derive(Debug)]
pub struct Watcher<'a> {
    observed: Observed<'a>,
    facts: Option<Facts>,
    /// What the unit's files say that is wrong, as the manager has them.
    mistakes: Vec<Obstacle>,
    manager: &'a Manager,
}

/// The names of the services that handover is for: ExecReload= has the word in it.
///
/// # Errors
/// What kept us from asking.
pub async fn ours(manager: &Manager) -> Result<Vec<String>, Error> {
    crate::manager::facts::ours(manager).await
}

impl<'a> Watcher<'a> {
    /// Finds the service `unit`, a whole name; with `news`, [`change`](Self::change) may be called.
    ///
    /// # Errors
    /// What kept us from asking.
    pub async fn find(manager: &'a Manager, unit: &str, news: bool) -> Result<Self, Error> {
        let observed = Observed::find(manager, unit, news).await?;
        Ok(Self { observed, facts: None, mistakes: Vec::new(), manager })
    }

    /// How it stands; with `thoroughly`, the manager is asked for everything, else for what changes without
    /// its telling.
    ///
    /// # Errors
    /// What kept us from asking.
    pub async fn look(&mut self, thoroughly: bool) -> Result<Status, Error> {
        let facts = match self.facts.take() {
            Some(mut facts) if !thoroughly => {
                self.observed.look_at_store(&mut facts).await?;
                facts
            }
            _ => {
                let facts = self.observed.look().await?;
                self.mistakes = mistakes(self.manager, &facts.unit).await?;
                facts
            }
        };
        let mut status = look(&facts, self.manager.is_local()).await;
        status.obstacles.extend(self.mistakes.iter().cloned());
        self.facts = Some(facts);
        Ok(status)
    }

    /// Waits until the manager knows something new of it. Cancel safe.
    ///
    /// # Errors
    /// The manager is gone.
    pub async fn change(&mut self) -> Result<(), Error> {
        self.observed.change().await
    }
}

impl Status {
    /// Whether it serves.
    pub fn is_active(&self) -> bool {
        ActiveState::from_word(&self.active).serves()
    }

    /// Whether there is such a unit.
    pub fn is_there(&self) -> bool {
        self.load != "not-found"
    }
}

/// What `handover check` calls an error in the unit, where its files can be seen.
async fn mistakes(manager: &Manager, unit: &str) -> Result<Vec<Obstacle>, Error> {
    if !manager.is_local() {
        return Ok(Vec::new());
    }
    let units = check::loaded(manager, &[unit.to_owned()]).await?;
    let findings = check::check(&units, Version::of(manager).await?);
    let errors = findings.into_iter().filter(|finding| finding.severity == Severity::Error);
    let told = |finding: check::Finding| Obstacle {
        name: finding.rule,
        why: format!("{} (handover check {unit} has the line that mends it)", finding.why),
        stops: false,
    };
    Ok(errors.map(told).collect())
}

/// Joins what all sources say.
async fn look(facts: &Facts, is_local: bool) -> Status {
    let (look, pid) = (&facts.look, facts.look.main_pid);
    let standing = match i32::try_from(pid) {
        Ok(pid) if is_local && pid > 0 => {
            let asked = tokio::task::spawn_blocking(move || standing::ask(pid)).await;
            asked.map_err(|error| error.to_string()).and_then(|asked| asked.map_err(|why| why.to_string()))
        }
        Ok(0) => Err("it has no main process".to_owned()),
        _ => Err("it runs on another machine".to_owned()),
    };
    let (standing, silent) = match standing {
        Ok(standing) => (Some(standing), None),
        Err(why) => (None, Some(why)),
    };
    Status {
        unit: facts.unit.clone(),
        load: look.load_state.clone(),
        active: look.active.word().to_owned(),
        sub: look.sub_state.clone(),
        result: look.result.clone(),
        said: look.status.clone(),
        main: (pid != 0).then(|| main(pid, standing.as_ref(), facts.main_since_usec, is_local)),
        sockets: queues::of(&facts.sockets, is_local),
        store: Store {
            held: facts.store.held,
            most: facts.store.most,
            entries: facts.stored.as_ref().map(|stored| queues::together(stored)),
        },
        last_upgrade: standing
            .as_ref()
            .and_then(|one| one.last_upgrade.as_ref())
            .map(last)
            .or_else(|| told(facts)),
        obstacles: obstacle::find(facts, standing.as_ref()),
        service: standing.map(own),
        silent,
    }
}

fn own(standing: Standing) -> Own {
    let drains = |one: &crate::upgrade::Draining| Drains {
        pid: one.pid,
        in_flight: one.in_flight,
        seconds_left: one.left_ms as f64 / 1000.0,
    };
    Own {
        handover: standing.version,
        generation: standing.generation,
        pid: standing.pid,
        is_runner: standing.is_runner,
        in_flight: standing.in_flight,
        under_way: standing.under_way,
        most_draining: standing.most_draining,
        draining: standing.draining.iter().map(drains).collect(),
    }
}

/// The main process, and whether it executes what is on disk; of a runner, its program does.
fn main(pid: u32, standing: Option<&Standing>, since_usec: u64, is_local: bool) -> Main {
    let seconds = (since_usec > 0 && is_local).then(|| {
        let now = process::monotonic_usec();
        now.saturating_sub(since_usec) as f64 / 1e6
    });
    let serves = standing.map_or_else(|| i64::from(pid), |one| i64::from(one.pid));
    let exe = format!("/proc/{serves}/exe");
    let program = is_local.then(|| std::fs::read_link(&exe).ok()).flatten();
    let Some(program) = program else { return Main { pid, seconds, program: None, replaced: false } };
    let text = program.to_string_lossy();
    let path = text.strip_suffix(" (deleted)").map_or_else(|| program.clone(), PathBuf::from);
    // As the service sees it: it may have a root of its own.
    let there = PathBuf::from(format!("/proc/{serves}/root{}", path.display()));
    let file = |path: &PathBuf| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let replaced = path != program || file(&PathBuf::from(&exe)) != file(&there);
    Main { pid, seconds, program: Some(path), replaced }
}

/// The service's own record.
fn last(record: &LastUpgrade) -> Last {
    let ago = |at_ms: u64| (at_ms > 0).then(|| process::boottime_ms().saturating_sub(at_ms) as f64 / 1000.0);
    match record {
        LastUpgrade::Switched { from, to, at_ms } => {
            Last { switched: true, reason: None, text: format!("{from} -> {to}"), seconds_ago: ago(*at_ms) }
        }
        LastUpgrade::Failed { reason, detail, at_ms, .. } => {
            let reason = Reason::from_exit_code(*reason).map_or("unknown", Reason::name);
            Last {
                switched: false,
                reason: Some(reason.into()),
                text: detail.clone(),
                seconds_ago: ago(*at_ms),
            }
        }
    }
}

/// What the manager remembers of the last reload; `None` if there was none in this life of the service.
fn told(facts: &Facts) -> Option<Last> {
    let helper = facts.look.helpers.iter().rfind(|helper| helper.pid != 0)?;
    let end = helper.end?;
    let ago = process::monotonic_usec().saturating_sub(helper.started_usec) as f64 / 1e6;
    let switched = facts.look.reload_result == "success";
    let reason = (!switched).then(|| {
        let own = crate::manager::Reason::from_status(&facts.look.status);
        own.map_or_else(|| facts.look.reload_result.clone(), |reason| reason.name)
    });
    let text = format!("`{}` {end}", helper.command.join(" "));
    Some(Last { switched, reason, text, seconds_ago: Some(ago) })
}
