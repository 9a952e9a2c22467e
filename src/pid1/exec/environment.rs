//! What a process finds in its environment, and the words of its command with variables in them.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use super::super::machine::List;
use super::user::Found;
use super::{ExecError, Order};
use crate::activation::env as listen;
use crate::sys::glob;
use crate::sys::spawn::Variable;
use crate::unit::NotifyAccess;

/// Where programs are, for a manager of the system.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names that tell a process about its manager. Ours are about ours.
const OURS: [&str; 16] = [
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "FDSTORE",
    "MAINPID",
    "MANAGERPID",
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
    "RUNTIME_DIRECTORY",
    "JOURNAL_STREAM",
    "EXIT_CODE",
    "EXIT_STATUS",
];

/// What is to be said of the service at this moment.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    /// INVOCATION_ID.
    pub(crate) invocation: &'a str,
    /// NOTIFY_SOCKET.
    pub(crate) notify: &'a Path,
    /// Below which RuntimeDirectory= is.
    pub(crate) runtime: &'a Path,
    /// MAINPID, for control processes.
    pub(crate) main_pid: Option<i32>,
    /// WATCHDOG_USEC, for the main process.
    pub(crate) watchdog_usec: Option<u64>,
    /// Whether WATCHDOG_PID is to be set beside it.
    pub(crate) watched: bool,
    /// SERVICE_RESULT, EXIT_CODE and EXIT_STATUS, for what runs at a stop.
    pub(crate) end: Vec<(&'static str, String)>,
}

/// All variables; a later one of the same name counts.
pub(super) fn variables(order: &Order<'_>, user: Option<&Found>) -> Result<Vec<(String, String)>, ExecError> {
    let (facts, exec) = (&order.facts, &order.service.exec);
    let mut all: Vec<(String, String)> = inherited();
    let mut set = |name: &str, value: String| all.push((name.to_owned(), value));
    if let Some(user) = user.filter(|_| exec.user.is_some()) {
        set("HOME", user.home.display().to_string());
        set("LOGNAME", user.name.clone());
        set("USER", user.name.clone());
        set("SHELL", user.shell.display().to_string());
    }
    set("INVOCATION_ID", facts.invocation.to_owned());
    let main = order.list == List::Start;
    let may_speak = match order.service.notify_access {
        NotifyAccess::None => false,
        NotifyAccess::Main => main,
        _ => true,
    };
    if may_speak {
        set("NOTIFY_SOCKET", facts.notify.display().to_string());
        if order.service.fd_store_max > 0 {
            set("FDSTORE", order.service.fd_store_max.to_string());
        }
    }
    if let Some(usec) = facts.watchdog_usec.filter(|_| main) {
        set("WATCHDOG_USEC", usec.to_string());
    }
    if let Some(pid) = facts.main_pid.filter(|_| !main) {
        set("MAINPID", pid.to_string());
    }
    if !exec.runtime_directory.paths.is_empty() {
        let paths = exec.runtime_directory.paths.iter().map(|path| facts.runtime.join(path));
        let paths: Vec<_> = paths.map(|path| path.display().to_string()).collect();
        set("RUNTIME_DIRECTORY", paths.join(":"));
    }
    if nix::unistd::geteuid().is_root() {
        for name in &exec.pass_environment {
            if let Ok(value) = std::env::var(name) {
                set(name, value);
            }
        }
    } else {
        set("MANAGERPID", std::process::id().to_string());
    }
    for (name, value) in &facts.end {
        set(name, value.clone());
    }
    for (name, value) in listen::write(order.fds.iter().map(|(name, _)| *name))? {
        set(name, value);
    }
    all.extend(exec.environment.iter().cloned());
    for file in &exec.environment_files {
        all.extend(read_files(&file.path, file.optional)?);
    }
    let unset = |name: &str, value: &str| {
        exec.unset_environment.iter().any(|out| match out.split_once('=') {
            Some((n, v)) => n == name && v == value,
            None => out == name,
        })
    };
    all.retain(|(name, value)| !unset(name, value));
    Ok(all)
}

/// What every process starts from: nearly nothing under root, as of PID 1; else what we have ourselves,
/// as of a user's manager.
fn inherited() -> Vec<(String, String)> {
    if nix::unistd::geteuid().is_root() {
        let language = std::env::var("LANG").ok().map(|language| ("LANG".to_owned(), language));
        return [("PATH".to_owned(), PATH.to_owned())].into_iter().chain(language).collect();
    }
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| !OURS.contains(&name.as_str()))
        .collect()
}

/// The same as strings for execve(2), each name once, with what only the process itself knows.
pub(super) fn strings(
    variables: &[(String, String)],
    has_fds: bool,
    watched: bool,
) -> Result<Vec<Variable>, ExecError> {
    let mut all = Vec::with_capacity(variables.len() + 4);
    for (at, (name, value)) in variables.iter().enumerate() {
        if variables.iter().skip(at + 1).any(|(later, _)| later == name) {
            continue;
        }
        let text = CString::new(format!("{name}={value}")).map_err(|_| ExecError::Nul)?;
        all.push(Variable::Fixed(text));
    }
    all.push(Variable::OwnPid("SYSTEMD_EXEC_PID".into()));
    if has_fds {
        all.push(Variable::OwnPid("LISTEN_PID".into()));
        all.push(Variable::OwnPidfdId("LISTEN_PIDFDID".into()));
    }
    if watched {
        all.push(Variable::OwnPid("WATCHDOG_PID".into()));
    }
    Ok(all)
}

/// The files of EnvironmentFile=, which may be a pattern of glob(7); a later one wins.
fn read_files(pattern: &Path, optional: bool) -> Result<Vec<(String, String)>, ExecError> {
    let read = |path: &PathBuf| {
        // What is wrong with a line of it is no reason not to start.
        Ok(crate::unit::read_environment_file(path, &std::fs::read(path)?, &mut Vec::new()))
    };
    let all = glob::files(pattern).and_then(|files| files.iter().map(read).collect::<io::Result<Vec<_>>>());
    match all {
        Ok(all) => Ok(all.concat()),
        Err(_) if optional => Ok(Vec::new()),
        Err(why) => Err(ExecError::EnvironmentFile { path: pattern.to_owned(), why: why.to_string() }),
    }
}
