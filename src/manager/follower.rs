//! The signals about one service while it is reloaded.
//!
//! All are asked for before the reload is, so that none is missed. They are read also while a call
//! is under way: zbus stops reading the bus, answers included, when a stream of signals is full, and
//! a service that says STATUS= a thousand times a second fills one.

use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep_until, timeout_at};
use zbus::{OwnedObjectPath, fdo};

use super::connect::{Bus, Error};
use super::proxy::{JobRemoved, JobRemovedStream};
use super::service::Service;
use super::state::{ActiveState, Snapshot};
use super::verdict::{Refusal, Seen};

/// How long a service that went down may take to come up again before the verdict is that it has not.
pub(crate) const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How the call for a reload went.
pub(crate) enum Reload {
    /// The job has ended with this result.
    Ended(String),
    /// systemd would not queue the job.
    Refused(Refusal),
    /// The job is queued or runs.
    TimeUp,
}

/// The signals about one service, and what they told.
pub(crate) struct Follower<'a> {
    manager: &'a Bus,
    service: &'a Service,
    jobs: JobRemovedStream,
    changes: fdo::PropertiesChangedStream,
    /// The jobs of the unit that have ended: object and result.
    ended: Vec<(OwnedObjectPath, String)>,
    seen: Seen,
    /// The last STATUS= text.
    status: String,
}

impl<'a> Follower<'a> {
    /// Asks for the signals about `service`, whose Id is `unit`, and for no others.
    pub(crate) async fn attach(manager: &'a Bus, service: &'a Service, unit: &str) -> Result<Self, Error> {
        let failed = |e| Error::from_call("the subscription to systemd's signals", e);
        let jobs = manager.proxy().receive_job_removed_with_args(&[(2, unit)]).await.map_err(failed)?;
        let changes = service.changes().await.map_err(failed)?;
        let (ended, seen, status) = (Vec::new(), Seen::default(), String::new());
        let mut follower = Self { manager, service, jobs, changes, ended, seen, status };
        match follower.during(manager.proxy().subscribe()).await? {
            // One subscription a client is enough, and it may be of an earlier unit.
            Err(zbus::Error::MethodError(name, ..))
                if name == "org.freedesktop.systemd1.AlreadySubscribed" => {}
            other => other.map_err(failed)?,
        }
        Ok(follower)
    }

    /// Forgets what was seen: the service is as in `before`, and signals of before are no news.
    pub(crate) fn begin(&mut self, before: &Snapshot) {
        while self.changes.next().now_or_never().flatten().is_some() {}
        self.seen = Seen::default();
        self.status.clone_from(&before.status);
    }

    /// Asks for the reload of `unit` and waits for the end of its job.
    ///
    /// The job's mode is `fail`: an upgrade never cancels a stop that somebody has asked for. If
    /// a reload is under way, systemd runs this one after it, under the same job.
    pub(crate) async fn reload(&mut self, unit: &str, deadline: Option<Instant>) -> Result<Reload, Error> {
        let ours = match self.during(self.manager.proxy().reload_unit(unit, "fail")).await? {
            Ok(job) => job,
            Err(error) => return refused(error).map(Reload::Refused),
        };
        loop {
            // The signal may overtake the answer in here, though not on the bus.
            if let Some(at) = self.ended.iter().position(|(job, _)| *job == ours) {
                return Ok(Reload::Ended(self.ended.swap_remove(at).1));
            }
            tokio::select! {
                change = self.changes.next() => self.note_change(change)?,
                removed = self.jobs.next() => self.note_end(removed)?,
                () = until(deadline) => return Ok(Reload::TimeUp),
            }
        }
    }

    /// Looks at the service until it is at rest. `job` is how the job ended, if it has.
    pub(crate) async fn settle(
        &mut self,
        job: Option<&str>,
        deadline: Option<Instant>,
    ) -> Result<Snapshot, Error> {
        let patience = Instant::now() + SETTLE_TIMEOUT;
        let patience = deadline.map_or(patience, |deadline| deadline.min(patience));
        loop {
            let now = self.during(self.service.look()).await??;
            if job.is_none() || at_rest(now.active, job) || Instant::now() >= patience {
                return Ok(now);
            }
            if let Ok(change) = timeout_at(patience, self.changes.next()).await {
                self.note_change(change)?;
            }
        }
    }

    /// What was seen since [`Self::begin`].
    pub(crate) fn into_seen(self) -> Seen {
        self.seen
    }

    /// Waits for `call` and meanwhile reads the signals.
    pub(crate) async fn during<T>(&mut self, call: impl Future<Output = T>) -> Result<T, Error> {
        let mut call = pin!(call);
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return Ok(answer),
                change = self.changes.next() => self.note_change(change)?,
                removed = self.jobs.next() => self.note_end(removed)?,
            }
        }
    }

    /// Takes in the end of a job.
    fn note_end(&mut self, removed: Option<JobRemoved>) -> Result<(), Error> {
        let removed = removed.ok_or(Error::BusLost { call: "JobRemoved" })?;
        let job = removed.args().map_err(|e| Error::from_call("JobRemoved", e))?;
        self.ended.push((job.job.clone(), job.result.to_owned()));
        Ok(())
    }

    /// Takes in one change of the service. systemd sends every property along, changed or not.
    fn note_change(&mut self, change: Option<fdo::PropertiesChanged>) -> Result<(), Error> {
        let change = change.ok_or(Error::BusLost { call: "PropertiesChanged" })?;
        let args = change.args().map_err(|e| Error::from_call("PropertiesChanged", e))?;
        for (name, value) in &args.changed_properties {
            let Ok(word) = value.downcast_ref::<&str>() else { continue };
            match *name {
                "ActiveState" => self.seen.left_active |= !ActiveState::from_word(word).serves(),
                "StatusText" if word != self.status => {
                    self.seen.status_changed = true;
                    word.clone_into(&mut self.status);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Sorts what became of the call for a reload: systemd had a better reason, or nothing was decided.
fn refused(error: zbus::Error) -> Result<Refusal, Error> {
    match &error {
        zbus::Error::FDO(e) => match &**e {
            fdo::Error::AccessDenied(said) | fdo::Error::InteractiveAuthorizationRequired(said) => {
                Err(Error::AccessDenied { said: said.clone() })
            }
            _ => Err(Error::from_call("ReloadUnit", error)),
        },
        zbus::Error::MethodError(name, said, _) => match (name.as_str(), said.clone().unwrap_or_default()) {
            ("org.freedesktop.systemd1.TransactionIsDestructive", said) => Ok(Refusal::Busy { said }),
            // Ours is loaded: it is polkit that is masked, and without polkit nobody but root may.
            ("org.freedesktop.systemd1.UnitMasked", said) => Err(Error::AccessDenied { said }),
            _ => Err(Error::from_call("ReloadUnit", error)),
        },
        _ => Err(Error::from_call("ReloadUnit", error)),
    }
}

/// Whether a service in this state will stay in it, after a job with this result. A canceled
/// reload leaves its helper at work.
pub(crate) fn at_rest(state: ActiveState, job: Option<&str>) -> bool {
    match state {
        ActiveState::Activating | ActiveState::Deactivating => false,
        ActiveState::Reloading | ActiveState::Refreshing => job != Some("canceled"),
        _ => true,
    }
}

/// Ends at `deadline`, never without one.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
