//! `handover reload`: the control process of ExecReload= that starts the successor, systemd.service(5).
//!
//! ```text
//!   helper                                  main process                        PID 1
//!     | Upgrade ------------------------------>|                                  |
//!     |<------------------------ Grant, fds ---|                                  |
//!     | clone(CLONE_PARENT)                    |                                  |
//!     |       `-- successor: Spawned, pidfd -->|                                  |
//!     |               | execve <---- link ---->|                                  |
//!     |                                        | MAINPID= READY=1, BARRIER=1 ---->|
//!     |<----------------------------- Switched | ... drains, exits                |
//!     | exit 0                                                                    |
//! ```
//!
//! It is a child of PID 1 in the unit's cgroup, with the unit's current environment, limits and
//! sandbox, and the successor inherits them. It ends with what really happened; it never decides:
//! the main process does, and aborts the upgrade should this process be killed.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::channel::{Channel, Delivery, ReceiveError};
use super::failure::{Failure, Reason};
use super::journal::Phase;
use super::message::{Answer, Grant, Request, VERSION};
use super::{control, launch};

/// How long the main process may take to say yes or no.
const ANSWER: Duration = Duration::from_secs(10);

/// The main process has its own deadline for a successor, and PID 1 has one for us
/// (TimeoutStartSec=): this only ends a conversation with a process that no longer runs.
const OUTCOME: Duration = Duration::from_secs(24 * 60 * 60);

/// Upgrades the service whose main process is `main_pid`; the pid of the new one. If that process has
/// handed over meanwhile, the upgrade has been: PID 1 may send SIGHUP first (Type=notify-reload, up to
/// systemd 258), which is the same request.
///
/// Blocks until the new process serves, or until it is clear that the old one serves on. Call it
/// from a process with one thread whose parent is the service manager.
///
/// Errors: every [`Reason`] there is.
pub fn reload(main_pid: i32) -> Result<i32, Failure> {
    let failure = match converse(main_pid) {
        Ok(Answer::Switched { pid }) => return Ok(pid),
        // Its journal entry is the main process' to write.
        Ok(Answer::Failed(failure)) => return Err(failure),
        Ok(other) => unexpected(&other),
        Err(failure) => failure,
    };
    Phase::Unanswered { failure: failure.clone() }.write();
    Err(failure)
}

/// Has the runner whose process is `main_pid` execute itself anew, from the file that is there now; the
/// programs that it runs do not notice. Its pid.
///
/// Blocks until the new one has taken over, or has been found to be no good: the old one goes on then.
///
/// Errors: why that is so; `NoService` for a service without a runner.
#[cfg(feature = "cli")]
pub(crate) fn renew(main_pid: i32) -> Result<i32, Failure> {
    let (control, answer) = ask(main_pid, &Request::Renew { version: VERSION, main: main_pid })?;
    let answer = match answer.message {
        Answer::Begun => hear(&control, OUTCOME)?.message,
        other => other,
    };
    match answer {
        Answer::Switched { pid } => Ok(pid),
        Answer::Failed(failure) => Err(failure),
        other => Err(unexpected(&other)),
    }
}

/// Does everything; the last answer of the main process, if it came to that.
fn converse(main_pid: i32) -> Result<Answer, Failure> {
    let request = Request::Upgrade { version: VERSION, main: main_pid };
    let (control, answer) = match ask(main_pid, &request) {
        // It handed over before it took us in: whoever has the service now knows.
        Err(failure) if failure.reason == Reason::PredecessorLost => {
            ask(main_pid, &request).map_err(|_| failure)?
        }
        answered => answered?,
    };
    let (grant, fds) = match answer {
        Delivery { message: Answer::Grant(grant), fds, .. } => collect(&control, grant, fds)?,
        // A runner starts its program itself.
        Delivery { message: Answer::Begun, .. } => return Ok(hear(&control, OUTCOME)?.message),
        Delivery { message: other, .. } => return Ok(other),
    };
    // It tells the main process itself who it is, and whether it could be executed.
    if let Err(failure) = launch::start(&grant, &fds, Some(&control)) {
        say(&control, &Request::Failed(failure))?;
    }
    // The link must end when the successor does: nobody else may hold it.
    drop(fds);
    Ok(hear(&control, OUTCOME)?.message)
}

/// Asks for something; the first answer, and the channel it came from.
fn ask(main: i32, request: &Request) -> Result<(Channel, Delivery<Answer>), Failure> {
    let control = control::find(main, ANSWER)?;
    say(&control, request)?;
    let answer = hear(&control, ANSWER)?;
    Ok((control, answer))
}

/// The grant with all its descriptors, which may come in several messages.
fn collect(control: &Channel, grant: Grant, mut fds: Vec<OwnedFd>) -> Result<(Grant, Vec<OwnedFd>), Failure> {
    while fds.len() < grant.names.len() {
        let more = hear(control, ANSWER)?;
        match more.message {
            Answer::Descriptors if !more.fds.is_empty() => fds.extend(more.fds),
            other => return Err(unexpected(&other)),
        }
    }
    Ok((grant, fds))
}

fn say(control: &Channel, request: &Request) -> Result<(), Failure> {
    control
        .send(request, &[])
        .map_err(|error| Failure::from_io(Reason::PredecessorLost, "ask the main process", &error))
}

fn hear(control: &Channel, patience: Duration) -> Result<Delivery<Answer>, Failure> {
    control.receive_within(patience).map_err(|error| {
        let reason = match error {
            ReceiveError::Closed | ReceiveError::Io(_) => Reason::PredecessorLost,
            ReceiveError::Silent(_) => Reason::NoAnswer,
            ReceiveError::Garbled(_) => Reason::Protocol,
            ReceiveError::FdsLost => Reason::Spawn,
        };
        Failure::new(reason, format!("the main process: {error}"))
    })
}

fn unexpected(answer: &Answer) -> Failure {
    let said = match answer {
        Answer::Grant(_) => "a second grant",
        Answer::Descriptors => "descriptors that nobody waits for",
        Answer::Switched { .. } => "that it has switched, to nobody",
        Answer::Failed(_) => "a failure",
        Answer::Begun => "that it has begun, twice",
        Answer::Standing(_) => "how it stands",
    };
    Failure::new(Reason::Protocol, format!("the main process answered with {said}"))
}
