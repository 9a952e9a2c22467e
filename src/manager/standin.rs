//! The stand-in for PID 1 from outside: one question a connection, and the same upgrade as of systemd's.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::{CALL_TIMEOUT, Error};
use super::follower::{SETTLE_TIMEOUT, at_rest, until};
use super::state::{ActiveState, End, FdStore, Helper, Snapshot};
use super::upgrade::{Options, Report, Wait, drained, report};
use super::verdict::{Observation, Refusal, Seen, Verdict, judge, ran_before, refuse, serving, survival};
use super::wire::{self, Job, MOST_REPLY_BYTES, Refused, Reply, Request, Run, Unit};
use crate::sys::pidfd::Pidfd;
use crate::unit::UnitName;
use crate::upgrade::Reason;

/// The name of the folder with a stand-in's sockets, below its runtime folder.
const FOLDER: &str = "handover";

/// How long a process may take to end that has closed what it had.
const DEATH_TIMEOUT: Duration = Duration::from_secs(1);

/// The runtime folder of a stand-in that this user would start: /run for root, the user's
/// XDG_RUNTIME_DIR, else a folder of the user's own below the temporary one.
pub(crate) fn runtime_folder() -> PathBuf {
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return "/run".into();
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    own.unwrap_or_else(|| std::env::temp_dir().join(format!("handover-{uid}")))
}

/// The folder with the sockets of the stand-in whose runtime folder is `runtime`.
pub(crate) fn folder_in(runtime: &Path) -> PathBuf {
    runtime.join(FOLDER)
}

/// The control socket in a stand-in's folder.
pub(crate) fn control_in(folder: &Path) -> PathBuf {
    folder.join("control")
}

/// A stand-in, by its control socket.
#[derive(Clone, Debug)]
pub(crate) struct Standin {
    control: PathBuf,
}

impl Standin {
    /// The one at `address`: its control socket, or its runtime folder.
    pub(crate) fn at(address: &Path) -> Self {
        let control = if address.is_dir() { control_in(&folder_in(address)) } else { address.to_owned() };
        Self { control }
    }

    /// The one that this user, or root, has started without saying where; `None` if there is none.
    pub(crate) fn find() -> Option<Self> {
        let places = [runtime_folder(), "/run".into()].map(|runtime| control_in(&folder_in(&runtime)));
        places.into_iter().find(|control| control.exists()).map(|control| Self { control })
    }

    /// Asks something; the answer takes as long as it takes.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply, Error> {
        let lost = |source| Error::NoStandin { address: self.control.clone(), source };
        let mut socket = UnixStream::connect(&self.control).await.map_err(lost)?;
        // Whoever may not ask is told so, and not listened to.
        let written = socket.write_all(&wire::line(request)).await;
        let mut line = Vec::new();
        let most = MOST_REPLY_BYTES as u64;
        let read = socket.take(most).read_to_end(&mut line).await;
        if line.is_empty() {
            written.and(read).map_err(lost)?;
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        wire::read(&line).map_err(|why| lost(io::Error::new(io::ErrorKind::InvalidData, why)))
    }

    /// The same for what takes no time.
    async fn ask_at_once(&self, request: &Request) -> Result<Reply, Error> {
        let answered = timeout(CALL_TIMEOUT, self.ask(request)).await;
        answered.map_err(|_| Error::NoAnswer { call: "the stand-in" })?
    }

    /// What is known of a unit.
    pub(crate) async fn show(&self, unit: &str) -> Result<Unit, Error> {
        known(self.ask_at_once(&Request::Show { unit: unit.to_owned() }).await?)
    }

    /// What is known of a unit, once that is not what was `seen`.
    pub(crate) async fn change(&self, unit: &str, seen: &Unit) -> Result<Unit, Error> {
        known(self.ask(&Request::Watch { unit: unit.to_owned(), seen: seen.state }).await?)
    }
}

/// The answer of one who was asked about a unit.
fn known(reply: Reply) -> Result<Unit, Error> {
    match reply {
        Reply::Unit(unit) => Ok(*unit),
        Reply::Refused { reason: Refused::AccessDenied, message } => {
            Err(Error::AccessDenied { said: message })
        }
        other => Err(unexpected(&other)),
    }
}

/// An answer to another question.
pub(crate) fn unexpected(reply: &Reply) -> Error {
    let said = match reply {
        Reply::Refused { message, .. } => message.clone(),
        other => format!("an answer to another question: {other:?}"),
    };
    Error::Standin { said }
}

/// What a look at a unit showed.
pub(crate) fn snapshot(unit: &Unit) -> Snapshot {
    let text = |name: &str| unit.properties.get(name).cloned().unwrap_or_default();
    let number = |name: &str| text(name).parse().unwrap_or(0);
    Snapshot {
        load_state: text("LoadState"),
        can_reload: text("CanReload") == "yes",
        outdated: text("NeedDaemonReload") == "yes",
        status: text("StatusText"),
        errno: text("StatusErrno").parse().unwrap_or(0),
        helpers: unit.exec_reload.iter().map(helper).collect(),
        reload_result: text("ReloadResult"),
        result: text("Result"),
        control_pid: number("ControlPID"),
        main_pid: number("MainPID"),
        sub_state: text("SubState"),
        active: ActiveState::from_word(&text("ActiveState")),
        invocation: text("InvocationID").into_bytes(),
    }
}

fn helper(run: &Run) -> Helper {
    Helper {
        command: run.command.clone(),
        pid: run.pid,
        started_usec: run.started_usec,
        end: run.exited.map(End::Exited).or_else(|| run.killed.map(End::Killed)),
        may_fail: run.may_fail,
    }
}

/// Reloads `unit` and follows it to its end, as [`super::upgrade`] does of systemd's.
pub(crate) async fn upgrade(standin: &Standin, unit: &str, options: Options) -> Result<Report, Error> {
    let refused = |why| Ok(report(unit.to_owned(), Verdict::Refused(why)));
    if UnitName::parse(unit).is_none() {
        return refused(Refusal::BadName { said: unit.to_owned() });
    }
    if !unit.ends_with(".service") {
        return refused(Refusal::NotAService);
    }
    let (first, old) = match options.wait {
        Wait::Switched => (standin.show(unit).await?, None),
        Wait::Drained => hold(standin, unit).await.map(|(shown, old)| (shown, Some(old)))?,
    };
    let before = snapshot(&first);
    if let Some(why) = refuse(&before) {
        return refused(why);
    }
    let (pid, outdated) = (serving(&before), before.outdated);
    let old = old.transpose().map_err(|source| Error::Unwatchable { pid, source })?;
    let asked = Instant::now();
    let deadline = options.timeout.and_then(|patience| asked.checked_add(patience));
    let request = Request::Job { unit: unit.to_owned(), job: Job::Reload, or_fail: true, no_block: false };
    let reply = tokio::select! {
        reply = standin.ask(&request) => Some(reply?),
        () = until(deadline) => None,
    };
    let took = asked.elapsed();
    let job = match reply {
        Some(Reply::Job { result, .. }) => Some(result),
        Some(Reply::Refused { reason: Refused::Busy | Refused::Ending, message }) => {
            return refused(Refusal::Busy { said: message });
        }
        Some(Reply::Refused { reason: Refused::NotFound, .. }) => return refused(Refusal::NotFound),
        Some(Reply::Refused { reason: Refused::NotApplicable, .. }) => {
            return refused(Refusal::NotReloadable);
        }
        Some(other) => return Err(unexpected(&other)),
        None => None,
    };
    let last = settled(standin, unit, &before, job.as_deref(), deadline).await?;
    let store = Some(FdStore {
        held: number(&last, "NFileDescriptorStore"),
        most: number(&last, "FileDescriptorStoreMax"),
    });
    // A service that left `active` and came back has a new InvocationID: there is nothing else to see.
    let seen = Seen { left_active: false, status_changed: last.statuses != first.statuses };
    let observed = Observation { before, seen, job, after: snapshot(&last) };
    let mut report = Report { took, outdated, store, ..report(unit.to_owned(), judge(&observed)) };
    if let (Verdict::Switched { .. }, Some(old)) = (&report.verdict, old) {
        report.drain = drained(pid, old, asked + took, deadline).await?;
        let later = Observation { after: snapshot(&standin.show(unit).await?), ..observed };
        report.verdict = survival(&later).unwrap_or(report.verdict);
    }
    Ok(report)
}

/// Looks at the service until it is at rest.
async fn settled(
    standin: &Standin,
    unit: &str,
    before: &Snapshot,
    job: Option<&str>,
    deadline: Option<Instant>,
) -> Result<Unit, Error> {
    let begin = Instant::now();
    let patience = begin + SETTLE_TIMEOUT;
    let patience = deadline.map_or(patience, |deadline| deadline.min(patience));
    let mut now = standin.show(unit).await?;
    loop {
        let seen = snapshot(&now);
        let until = match at_rest(seen.active, job) {
            _ if job.is_none() => return Ok(now),
            true if lost_main(before, &seen) => patience.min(begin + DEATH_TIMEOUT),
            true => return Ok(now),
            false => patience,
        };
        match timeout_at(until, standin.change(unit, &now)).await {
            Ok(changed) => now = changed?,
            Err(_) => return Ok(now),
        }
    }
}

/// Whether the helper has seen the main process go whom the stand-in still takes to be alive: a process
/// closes what it has before anybody is told of its end.
fn lost_main(before: &Snapshot, now: &Snapshot) -> bool {
    let lost = Some(End::Exited(Reason::PredecessorLost.exit_code().into()));
    let ran = now.helpers.iter().any(|helper| helper.end == lost && !ran_before(helper, before));
    ran && now.main_pid == before.main_pid
}

fn number(unit: &Unit, name: &str) -> u32 {
    unit.properties.get(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Looks at the service and takes hold of the process that serves, the same one, or says why not.
async fn hold(standin: &Standin, unit: &str) -> Result<(Unit, io::Result<OwnedFd>), Error> {
    loop {
        let pid = serving(&snapshot(&standin.show(unit).await?));
        let held = Pidfd::open(pid.cast_signed()).map(OwnedFd::from);
        let now = standin.show(unit).await?;
        if serving(&snapshot(&now)) == pid {
            return Ok((now, held));
        }
    }
}
