//! One upgrade from its beginning to its end: look, ask for the reload, watch, look again.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::Instant;
use zbus::fdo;

use super::connect::{Bus, Error, Manager, Way};
use super::follower::{Follower, Reload, until};
use super::service::Service;
use super::standin;
use super::state::{FdStore, Snapshot};
use super::verdict::{Observation, Refusal, Verdict, judge, refuse, serving, survival};
use crate::sys::pidfd::Pidfd;
use crate::sys::watch::Watched;

/// How far to follow an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until the new process serves.
    Switched,
    /// Until the old process has also gone.
    Drained,
}

/// How to follow an upgrade.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How far.
    pub wait: Wait,
    /// How long at most; `None` for as long as it takes. What was begun goes on without us.
    pub timeout: Option<Duration>,
}

/// What became of the old process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drain {
    /// Nobody waited for it.
    NotAwaited,
    /// It was gone this long after the switch.
    Gone(Duration),
    /// It was still there this long after the switch.
    Unfinished(Duration),
}

/// What became of one upgrade.
#[derive(Clone, Debug)]
pub struct Report {
    /// The unit's own name, also when it was asked for by an alias.
    pub unit: String,
    /// How it ended.
    pub verdict: Verdict,
    /// From the call until systemd called the reload ended; zero if it was refused.
    pub took: Duration,
    /// What became of the old process.
    pub drain: Drain,
    /// The unit's files have changed since systemd read them: `systemctl daemon-reload` is due.
    pub outdated: bool,
    /// What systemd keeps for the service, at the end of it; `None` if nothing was tried.
    pub store: Option<FdStore>,
}

/// Reloads `unit` (a whole name, `web.service`) and follows it to its end. Runs on tokio.
///
/// Errors are what kept us from asking or from knowing; what systemd and the service decided is in
/// the report.
pub async fn upgrade(manager: &Manager, unit: &str, options: Options) -> Result<Report, Error> {
    match &manager.way {
        // A pid of another machine is somebody else's here.
        Way::Bus(_) if !manager.is_local && options.wait == Wait::Drained => {
            let source = io::Error::other("it is one of another machine");
            Err(Error::Unwatchable { pid: 0, source })
        }
        Way::Bus(bus) => over_bus(bus, unit, options).await,
        Way::Standin(standin) => standin::upgrade(standin, unit, options).await,
    }
}

/// A report of which only the verdict is known.
pub(crate) fn report(unit: String, verdict: Verdict) -> Report {
    let (took, drain) = (Duration::ZERO, Drain::NotAwaited);
    Report { unit, verdict, took, drain, outdated: false, store: None }
}

/// An upgrade by systemd.
async fn over_bus(manager: &Bus, unit: &str, options: Options) -> Result<Report, Error> {
    let path = match manager.proxy().load_unit(unit).await {
        Ok(path) => path,
        Err(error) => return bad_name(error).map(|why| report(unit.to_owned(), Verdict::Refused(why))),
    };
    let service = manager.service(&path).await?;
    let unit = service.id().await?;
    if !unit.ends_with(".service") {
        return Ok(report(unit, Verdict::Refused(Refusal::NotAService)));
    }
    let mut follower = Follower::attach(manager, &service, &unit).await?;
    let (before, old) = match options.wait {
        Wait::Switched => (follower.during(service.look()).await??, None),
        Wait::Drained => follower.during(hold(&service)).await?.map(|(before, old)| (before, Some(old)))?,
    };
    if let Some(why) = refuse(&before) {
        return Ok(report(unit, Verdict::Refused(why)));
    }
    let (pid, outdated) = (serving(&before), before.outdated);
    let old = old.transpose().map_err(|source| Error::Unwatchable { pid, source })?;
    follower.begin(&before);
    let asked = Instant::now();
    let deadline = options.timeout.and_then(|patience| asked.checked_add(patience));
    let job = match follower.reload(&unit, deadline).await? {
        Reload::Refused(why) => return Ok(report(unit, Verdict::Refused(why))),
        Reload::Ended(result) => Some(result),
        Reload::TimeUp => None,
    };
    let took = asked.elapsed();
    let after = follower.settle(job.as_deref(), deadline).await?;
    // The streams end here: nobody would read them during a drain.
    let seen = Observation { before, seen: follower.into_seen(), job, after };
    let store = Some(service.store().await?);
    let mut report = Report { took, outdated, store, ..report(unit, judge(&seen)) };
    if let (Verdict::Switched { .. }, Some(old)) = (&report.verdict, old) {
        report.drain = drained(pid, old, asked + took, deadline).await?;
        let later = Observation { after: service.look().await?, ..seen };
        report.verdict = survival(&later).unwrap_or(report.verdict);
    }
    Ok(report)
}

/// Whether systemd rejected the name itself, which refuses the upgrade, or could not be asked.
fn bad_name(error: zbus::Error) -> Result<Refusal, Error> {
    match error {
        zbus::Error::FDO(e) => match *e {
            fdo::Error::InvalidArgs(said) => Ok(Refusal::BadName { said }),
            other => Err(Error::from_call("LoadUnit", zbus::Error::FDO(Box::new(other)))),
        },
        other => Err(Error::from_call("LoadUnit", other)),
    }
}

/// Looks at the service and takes hold of the process that serves, the same one, or says why not.
async fn hold(service: &Service) -> Result<(Snapshot, io::Result<OwnedFd>), Error> {
    loop {
        let pid = serving(&service.look().await?);
        let held = Pidfd::open(pid.cast_signed()).map(OwnedFd::from);
        let now = service.look().await?;
        if serving(&now) == pid {
            return Ok((now, held));
        }
    }
}

/// Waits until the old process, which handed over at `since`, has exited.
pub(crate) async fn drained(
    pid: u32,
    old: OwnedFd,
    since: Instant,
    deadline: Option<Instant>,
) -> Result<Drain, Error> {
    let failed = |source| Error::Unwatchable { pid, source };
    let old = Watched::new(old).map_err(failed)?;
    tokio::select! {
        biased;
        exited = old.readable() => exited.map(|()| Drain::Gone(since.elapsed())).map_err(failed),
        () = until(deadline) => Ok(Drain::Unfinished(since.elapsed())),
    }
}
