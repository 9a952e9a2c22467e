//! Starting a command of a service, as systemd.exec(5) has it: what the process gets and finds.
//!
//! Only ExecStart= gets descriptors: first the sockets, then the FD store with the newest first. Each
//! process has a session of its own, and its cgroup where there are any. What fails before the program
//! runs is an exit status above 200, the same as systemd's.
//!
//! It never waits for a process to end, and never runs one on other terms than the unit's.

mod environment;
mod user;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(super) use self::environment::Facts;
use self::environment::variables;
use super::machine::List;
use crate::sys::pidfd::Pidfd;
use crate::sys::spawn::{self, Program, Step, Terms, User};
use crate::unit::{Command, Exec, Output, Privilege, Resource, Service};

/// Why a command was not even forked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ExecError {
    /// An EnvironmentFile= cannot be read.
    #[error("EnvironmentFile={}: {why}", path.display())]
    EnvironmentFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The names of the descriptors make a string that the kernel does not take.
    #[error("{0}")]
    Names(#[from] crate::activation::NameError),
    /// A folder of RuntimeDirectory= cannot be made.
    #[error("RuntimeDirectory={}: {source}", path.display())]
    Directory {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A word has a NUL in it.
    #[error("a word or variable has a NUL in it")]
    Nul,
    /// The cgroup cannot be joined, or the kernel makes no process.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// The exit status of a process that fails before its program runs: systemd.exec(5).
fn status_of(step: Step) -> i32 {
    match step {
        Step::Directory => 200,
        Step::Descriptors => 202,
        Step::Execute => 203,
        Step::Limits => 205,
        Step::Group => GROUP,
        Step::User => USER,
        Step::Cgroup => 219,
    }
}

/// The same where it is known before there is a process.
const STDOUT: i32 = 209;
const GROUP: i32 = 216;
const USER: i32 = 217;
const STDERR: i32 = 222;

/// Why a process is not to run its program: its exit status, and a sentence.
type Doom = (i32, String);

/// The last word of systemd's name for such a status: `203/EXEC`.
pub(crate) fn status_word(status: i32) -> Option<&'static str> {
    Some(match status {
        200 => "CHDIR",
        202 => "FDS",
        203 => "EXEC",
        205 => "LIMITS",
        STDOUT => "STDOUT",
        GROUP => "GROUP",
        USER => "USER",
        219 => "CGROUP",
        STDERR => "STDERR",
        _ => return None,
    })
}

/// A command that is to be run.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) service: &'a Service,
    pub(crate) list: List,
    pub(crate) command: &'a Command,
    /// What its environment says of the service.
    pub(crate) facts: Facts<'a>,
    /// Names and descriptors, for ExecStart= alone.
    pub(crate) fds: Vec<(&'a str, BorrowedFd<'a>)>,
    /// What it prints to.
    pub(crate) output: BorrowedFd<'a>,
    /// The folder of its cgroup.
    pub(crate) cgroup: Option<File>,
}

/// A process that there is now.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Pidfd,
    /// Why its program does not run; it ends by itself then.
    pub(crate) failed: Option<String>,
}

/// Runs a command. Blocks until it is executed, or has failed to be.
pub(crate) fn run(order: &Order<'_>) -> Result<Started, ExecError> {
    let (exec, command) = (&order.service.exec, order.command);
    let mut doom: Option<Doom> = None;
    // Also a command that keeps our privileges is refused where the user is not there, as PID 1 does.
    let user = user::find(exec).unwrap_or_else(|why| {
        doom = Some(why);
        None
    });
    let becomes = user.as_ref().filter(|_| command.privilege == Privilege::Unit);
    make_folders(&exec.runtime_directory, order.facts.runtime, user.as_ref())?;
    let variables = variables(order, user.as_ref())?;
    let lookup =
        |name: &str| variables.iter().rev().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let words = command.arguments(&variables).words;
    let path = program(&command.path, lookup("PATH").unwrap_or(environment::PATH));
    let text = |word: &str| CString::new(word).map_err(|_| ExecError::Nul);
    let program = Program {
        path: CString::new(path.as_os_str().as_bytes()).map_err(|_| ExecError::Nul)?,
        argv: words.iter().map(|word| text(word)).collect::<Result<_, _>>()?,
        environment: environment::strings(&variables, !order.fds.is_empty(), order.facts.watched)?,
        fds: order.fds.iter().map(|(_, fd)| *fd).collect(),
    };
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let mut opened = |wanted: Option<&Output>, status: i32| {
        stream(wanted).unwrap_or_else(|why| {
            doom.get_or_insert((status, why));
            None
        })
    };
    let out = opened(exec.standard_output.as_ref(), STDOUT);
    let err = match &exec.standard_error {
        None | Some(Output::Inherit) => None,
        other => Some(opened(other.as_ref(), STDERR)),
    };
    let out = out.as_ref().map_or(order.output, AsFd::as_fd);
    let err = err.as_ref().map_or(out, |err| err.as_ref().map_or(order.output, AsFd::as_fd));
    let (directory, directory_optional) = directory(exec, user.as_ref())?;
    let terms = Terms {
        streams: [null.as_fd(), out, err],
        cgroup: order.cgroup.as_ref().map(AsFd::as_fd),
        directory,
        directory_optional,
        limits: limits(exec),
        user: becomes.map(|user| user.kernel.clone()),
        umask: exec.umask,
        nice: exec.nice,
        ignore_sigpipe: exec.ignore_sigpipe,
        no_new_privileges: exec.no_new_privileges,
        status_of,
        doom: doom.as_ref().map(|(status, _)| *status),
    };
    let spawn::Started { process, failed } = spawn::start(&program, &terms)?;
    let failed = failed.map(|(step, why)| format!("{step:?}: {why}"));
    Ok(Started { process, failed: doom.map(|(_, why)| why).or(failed) })
}

/// Removes the folders of RuntimeDirectory=.
pub(crate) fn remove_folders(exec: &Exec, runtime: &Path) {
    for path in &exec.runtime_directory.paths {
        // It may never have been made.
        let _ = std::fs::remove_dir_all(runtime.join(path));
    }
}

/// Makes the folders of RuntimeDirectory=, for the user of the service.
fn make_folders(
    directories: &crate::unit::Directories,
    runtime: &Path,
    user: Option<&user::Found>,
) -> Result<(), ExecError> {
    use std::os::unix::fs::{PermissionsExt, chown};
    for path in &directories.paths {
        let path = runtime.join(path);
        let failed = |source| ExecError::Directory { path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(failed)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(directories.mode)).map_err(failed)?;
        if let Some(User { uid, gid, .. }) = user.map(|user| &user.kernel) {
            chown(&path, *uid, Some(*gid)).map_err(failed)?;
        }
    }
    Ok(())
}

/// What a standard stream is, if it is not the output of the service. Errors are sentences.
fn stream(wanted: Option<&Output>) -> Result<Option<OwnedFd>, String> {
    let mut options = File::options();
    let (path, options) = match wanted {
        Some(Output::Null) => (Path::new("/dev/null"), options.write(true)),
        Some(Output::File(path)) => (path.as_path(), options.write(true).create(true)),
        Some(Output::Append(path)) => (path.as_path(), options.append(true).create(true)),
        Some(Output::Truncate(path)) => (path.as_path(), options.write(true).create(true).truncate(true)),
        // Standard input is /dev/null, and that is what is inherited.
        Some(Output::Inherit) => (Path::new("/dev/null"), options.write(true)),
        _ => return Ok(None),
    };
    let opened = options.open(path).map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(Some(opened.into()))
}

/// WorkingDirectory=, and whether it may be missing; the root of all, or a user's home under their own
/// manager, where it need not be there nor be theirs.
fn directory(exec: &Exec, user: Option<&user::Found>) -> Result<(Option<CString>, bool), ExecError> {
    let home = || user.map(|user| user.home.clone()).or_else(std::env::home_dir);
    let root = || PathBuf::from("/");
    let (path, optional) = match &exec.working_directory {
        Some(wanted) => (wanted.path.clone().or_else(home).unwrap_or_else(root), wanted.optional),
        None if nix::unistd::geteuid().is_root() => (root(), false),
        None => (home().unwrap_or_else(root), true),
    };
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| ExecError::Nul)?;
    Ok((Some(path), optional))
}

/// LimitNOFILE= and its relatives.
fn limits(exec: &Exec) -> Vec<(spawn::Resource, Option<u64>, Option<u64>)> {
    let wanted = exec.limits.iter().map(|(resource, limit)| (number(*resource), limit.soft, limit.hard));
    // Our own soft bound for descriptors was raised, and is no business of theirs.
    let default = (libc::RLIMIT_NOFILE, Some(1024), Some(524_288));
    let explicit = exec.limits.iter().any(|(resource, _)| *resource == Resource::NoFile);
    wanted.chain((!explicit).then_some(default)).collect()
}

/// As getrlimit(2) numbers it.
fn number(resource: Resource) -> spawn::Resource {
    match resource {
        Resource::Cpu => libc::RLIMIT_CPU,
        Resource::FileSize => libc::RLIMIT_FSIZE,
        Resource::Data => libc::RLIMIT_DATA,
        Resource::Stack => libc::RLIMIT_STACK,
        Resource::Core => libc::RLIMIT_CORE,
        Resource::Rss => libc::RLIMIT_RSS,
        Resource::NoFile => libc::RLIMIT_NOFILE,
        Resource::AddressSpace => libc::RLIMIT_AS,
        Resource::Processes => libc::RLIMIT_NPROC,
        Resource::MemoryLock => libc::RLIMIT_MEMLOCK,
        Resource::Locks => libc::RLIMIT_LOCKS,
        Resource::SignalsPending => libc::RLIMIT_SIGPENDING,
        Resource::MessageQueue => libc::RLIMIT_MSGQUEUE,
        Resource::Nice => libc::RLIMIT_NICE,
        Resource::RealTimePriority => libc::RLIMIT_RTPRIO,
        Resource::RealTimeTime => libc::RLIMIT_RTTIME,
    }
}

/// The file of a program: as written, or the first of that name in the path. One that is not there stays
/// as it is, and cannot be executed.
fn program(name: &str, path: &str) -> PathBuf {
    if name.contains('/') {
        return name.into();
    }
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| name.into())
}
