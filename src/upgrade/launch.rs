//! Starting a successor from what its predecessor granted: LISTEN_* as PID 1 would have set them.
//!
//! The base of its environment is that of whoever starts it. For `handover reload` that is the
//! unit's *current* environment, as are the limits and the sandbox; only what PID 1 tells to a main
//! process alone comes from the predecessor. Nothing in here waits for the successor or judges it.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::channel::Channel;
use super::failure::{Failure, Reason};
use super::message::{Grant, Message, Request};
use crate::activation::env;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::{Announcement, Program, SpawnError, Variable, spawn};

/// Under this name the successor finds its link; no service ever sees it.
pub(crate) const LINK: &str = "handover.link";

/// Under this name it finds the folder of its credentials.
pub(crate) const CREDENTIALS: &str = "handover.credentials";

/// What PID 1 tells to a main process and to no control process (systemd.exec(5), "Environment
/// variables in spawned processes"): a predecessor passes these on.
pub(crate) const PASSED_ON: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "FDSTORE"];

/// A variable that is about one process, see `CREDENTIALS`.
pub(crate) const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// What is about the process that starts the successor, or is written anew for it.
pub(crate) const DROPPED: [&str; 13] = [
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_FDS_FIRST_FD",
    "MAINPID",
    "MAINPIDFDID",
    "WATCHDOG_PID",
    "SYSTEMD_EXEC_PID",
    CREDENTIALS_VARIABLE,
    PASSED_ON[0],
    PASSED_ON[1],
    PASSED_ON[2],
];

/// Starts the successor, which tells the process at the other end of `control` that it exists, and if it
/// could not be executed, why. Blocks until it is.
///
/// `Ok(Err(..))` is one that could not be executed. Fails with `Spawn` when there can be no process, and
/// `Exec` when path or arguments make no sense.
pub(crate) fn start(
    grant: &Grant,
    fds: &[OwnedFd],
    control: Option<&Channel>,
) -> Result<io::Result<Pidfd>, Failure> {
    if grant.names.len() != fds.len() {
        let detail = format!("{} names came for {} descriptors", grant.names.len(), fds.len());
        return Err(Failure::new(Reason::Protocol, detail));
    }
    let program = Program {
        path: c_string(grant.path.clone())?,
        argv: grant.argv.iter().cloned().map(c_string).collect::<Result<_, _>>()?,
        environment: environment(std::env::vars_os(), grant)?,
        fds: fds.iter().map(AsFd::as_fd).collect(),
    };
    let announcement = control.map(|control| Announcement {
        to: control.as_fd(),
        born: Request::Spawned { pid: 0 }.encode(),
        stillborn: Request::NotExecuted { errno: 0 }.encode(),
    });
    match spawn(&program, announcement) {
        Ok(successor) => Ok(Ok(successor)),
        Err(SpawnError::NotExecuted(error)) => Ok(Err(error)),
        Err(SpawnError::NoProcess(error)) => {
            Err(Failure::from_io(Reason::Spawn, "make a process for the successor", &error))
        }
    }
}

fn environment(
    base: impl Iterator<Item = (OsString, OsString)>,
    grant: &Grant,
) -> Result<Vec<Variable>, Failure> {
    let mut variables = Vec::new();
    let mut directly_executed = false;
    for (name, value) in base {
        directly_executed |= name == "SYSTEMD_EXEC_PID";
        if DROPPED.iter().all(|dropped| name != *dropped) {
            let text = [name.as_bytes(), b"=", value.as_bytes()].concat();
            variables.push(Variable::Fixed(c_string(text)?));
        }
    }
    for text in &grant.environment {
        variables.push(Variable::Fixed(c_string(text.clone())?));
    }
    let listen = env::write(grant.names.iter().map(String::as_str));
    for (name, value) in listen.map_err(|error| Failure::new(Reason::Spawn, error.to_string()))? {
        variables.push(Variable::Fixed(c_string(format!("{name}={value}").into_bytes())?));
    }
    if let Some(place) = grant.names.iter().position(|name| name == CREDENTIALS) {
        let text = format!("CREDENTIALS_DIRECTORY=/proc/self/fd/{}", env::FIRST_FD as usize + place);
        variables.push(Variable::Fixed(c_string(text.into_bytes())?));
    }
    variables.push(Variable::OwnPid("LISTEN_PID".into()));
    variables.push(Variable::OwnPidfdId("LISTEN_PIDFDID".into()));
    if grant.environment.iter().any(|text| text.starts_with(b"WATCHDOG_USEC=")) {
        variables.push(Variable::OwnPid("WATCHDOG_PID".into()));
    }
    if directly_executed {
        variables.push(Variable::OwnPid("SYSTEMD_EXEC_PID".into()));
    }
    Ok(variables)
}

fn c_string(bytes: Vec<u8>) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|error| {
        let text = String::from_utf8_lossy(error.into_vec().as_slice()).into_owned();
        Failure::new(Reason::Exec, format!("a NUL byte inside {text:?} cannot be passed to a program"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(variables: &[Variable]) -> Vec<String> {
        let name = |variable: &Variable| match variable {
            Variable::Fixed(text) => text.to_str().unwrap().to_string(),
            Variable::OwnPid(name) => format!("{name}=<pid>"),
            Variable::OwnPidfdId(name) => format!("{name}=<id>"),
        };
        variables.iter().map(name).collect()
    }

    #[test]
    fn the_successor_gets_the_units_environment_and_what_only_a_main_process_has() {
        let base = [
            ("A", "new"),
            ("MAINPID", "7"),
            ("LISTEN_PID", "7"),
            ("SYSTEMD_EXEC_PID", "8"),
            ("FDSTORE", "1"),
        ];
        let base = base.into_iter().map(|(name, value)| (name.into(), value.into()));
        let grant = Grant {
            environment: vec![b"NOTIFY_SOCKET=/run/n".into(), b"WATCHDOG_USEC=5".into()],
            names: vec!["web".into(), CREDENTIALS.into(), LINK.into()],
            ..Grant::default()
        };
        assert_eq!(
            names_of(&environment(base, &grant).unwrap()),
            [
                "A=new",
                "NOTIFY_SOCKET=/run/n",
                "WATCHDOG_USEC=5",
                "LISTEN_FDS=3",
                "LISTEN_FDNAMES=web:handover.credentials:handover.link",
                "CREDENTIALS_DIRECTORY=/proc/self/fd/4",
                "LISTEN_PID=<pid>",
                "LISTEN_PIDFDID=<id>",
                "WATCHDOG_PID=<pid>",
                "SYSTEMD_EXEC_PID=<pid>",
            ]
        );
    }

    #[test]
    fn a_count_that_disagrees_starts_nothing() {
        let grant = Grant { names: vec!["web".into()], ..Grant::default() };
        assert_eq!(start(&grant, &[], None).unwrap_err().reason, Reason::Protocol);
    }
}
