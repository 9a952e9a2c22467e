//! Starting a program as a child of ours, with all that a supervisor decides about it: descriptors,
//! session, cgroup, limits, user, folder.
//!
//! The child prepares itself in our memory, as in [`super::spawn`], or in a copy of it, and which step failed
//! is known when [`start`] returns. A child that fails ends with a status of the caller's choice, so that who
//! reaps it can tell that from the program's own end.

use std::convert::Infallible;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::super::pidfd::Pidfd;
use super::environment::Environment;
use super::limits::{Resource, closest_limit};
use super::places::Places;
use super::{FIRST, Program, clone, duplicate, errno_of, pointers, raw};

/// What a program runs with, beyond its words and descriptors.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    /// What becomes 0, 1 and 2.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// The folder of the cgroup that it is to be in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// The working directory.
    pub(crate) directory: Option<CString>,
    /// Whether it may be one that this user cannot enter; then it is the root of all.
    pub(crate) directory_optional: bool,
    /// Resources of getrlimit(2), with soft and hard bound; `None` is infinity.
    pub(crate) limits: Vec<(Resource, Option<u64>, Option<u64>)>,
    /// Whose process it is; `None`: ours.
    pub(crate) user: Option<User>,
    /// The mode bits that it takes away from files it makes.
    pub(crate) umask: u32,
    /// Its priority for the scheduler: nice(2).
    pub(crate) nice: Option<i32>,
    /// Whether SIGPIPE is ignored. All other signals have their defaults.
    pub(crate) ignore_sigpipe: bool,
    /// Whether it can never gain privileges: PR_SET_NO_NEW_PRIVS.
    pub(crate) no_new_privileges: bool,
    /// The exit status of a child that fails at a step.
    pub(crate) status_of: fn(Step) -> i32,
    /// The exit status with which it ends at once, if it is not to run at all.
    pub(crate) doom: Option<i32>,
}

/// A user and their groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The user; `None`: only the groups change.
    pub(crate) uid: Option<u32>,
    /// Their group.
    pub(crate) gid: u32,
    /// All their groups.
    pub(crate) groups: Vec<u32>,
}

/// What the child does before the program runs, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Joining its cgroup.
    Cgroup,
    /// Arranging descriptors.
    Descriptors,
    /// Setting its limits.
    Limits,
    /// Taking the groups.
    Group,
    /// Becoming the user.
    User,
    /// Entering the working directory.
    Directory,
    /// Executing the program.
    Execute,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Cgroup,
        Self::Descriptors,
        Self::Limits,
        Self::Group,
        Self::User,
        Self::Directory,
        Self::Execute,
    ];
}

/// A child that exists.
#[derive(Debug)]
pub(crate) struct Started {
    /// The child.
    pub(crate) process: Pidfd,
    /// Where it failed, and of what; it ends by itself then.
    pub(crate) failed: Option<(Step, io::Error)>,
}

/// Starts a program as our child, in a session of its own. Blocks until it is executed.
///
/// Errors: there is no child. EAGAIN or ENOMEM from clone(2), EMFILE for want of descriptors.
pub(crate) fn start(program: &Program<'_>, terms: &Terms<'_>) -> io::Result<Started> {
    let above = FIRST + c_int::try_from(program.fds.len()).map_err(|_| Errno::EMFILE)?;
    let out_of_the_way = |fd: &BorrowedFd<'_>| duplicate(*fd, above);
    // Thousands of descriptors are not duplicated: the child moves them to their places one by one.
    let mut places = Places::new(&program.fds, above)?;
    let streams: Vec<OwnedFd> = terms.streams.iter().map(out_of_the_way).collect::<Result<_, _>>()?;
    let (mut failure, report) = io::pipe()?;
    let report = duplicate(OwnedFd::from(report).as_fd(), above)?;
    let streams_numbers = raw(&streams);
    let argv = pointers(program.argv.iter().map(CString::as_c_str));
    let mut child = Child {
        path: program.path.as_ptr(),
        argv: argv.as_ptr(),
        environment: Environment::new(&program.environment),
        places: &mut places,
        streams: &streams_numbers,
        joins: None,
        terms,
        step: Step::Cgroup,
        report: report.as_fd(),
    };
    // SAFETY: `Child::run` takes a `Child` and makes system calls alone; it, with all that it points to, lives
    // on, and nobody else uses it meanwhile.
    let in_cgroup = |child: &mut Child<'_>, cgroup| unsafe {
        clone::in_cgroup(Child::run, (&raw mut *child).cast(), cgroup).ok()
    };
    let process = match terms.cgroup.and_then(|cgroup| in_cgroup(&mut child, cgroup)) {
        Some(process) => process,
        // Where the kernel does not put it there, it goes itself.
        None => {
            child.joins = terms.cgroup;
            // SAFETY: as above.
            unsafe { clone::in_our_memory(Child::run, (&raw mut child).cast(), 0) }?
        }
    };
    drop(report);
    let mut said = [0; REPORT];
    let failed = failure.read_exact(&mut said).is_ok().then(|| Child::read(said));
    Ok(Started { process, failed })
}

/// Bytes of a report: the step, and what the kernel said.
const REPORT: usize = 1 + size_of::<c_int>();

/// What the child needs. It only makes system calls on what is here.
struct Child<'a> {
    path: *const c_char,
    argv: *const *const c_char,
    environment: Environment,
    /// What becomes 3, 4, 5, ...
    places: &'a mut Places,
    /// What becomes 0, 1, 2, out of the way of all others.
    streams: &'a [RawFd],
    /// The cgroup that it is not in yet.
    joins: Option<BorrowedFd<'a>>,
    terms: &'a Terms<'a>,
    /// How far it got.
    step: Step,
    /// Where it says what went wrong.
    report: BorrowedFd<'a>,
}

impl Child<'_> {
    /// The life of the child.
    extern "C" fn run(this: *mut c_void) -> c_int {
        // SAFETY: `start` passes a `Child` and does not touch it while this runs.
        let this = unsafe { &mut *this.cast::<Self>() };
        if let Some(status) = this.terms.doom {
            return status;
        }
        let Err(errno) = this.execute();
        let mut report = [this.step as u8; REPORT];
        report[1..].copy_from_slice(&(errno as c_int).to_ne_bytes());
        // Who does not hear it sees the status.
        let _ = nix::unistd::write(this.report, &report);
        (this.terms.status_of)(this.step)
    }

    /// What it said.
    fn read([step, errno @ ..]: [u8; REPORT]) -> (Step, io::Error) {
        let step = Step::ALL.into_iter().find(|one| *one as u8 == step).unwrap_or(Step::Execute);
        (step, io::Error::from_raw_os_error(c_int::from_ne_bytes(errno)))
    }

    /// All the steps.
    fn execute(&mut self) -> Result<Infallible, Errno> {
        let terms = self.terms;
        // A session of its own: no terminal of ours can interrupt it. It fails for no new process.
        let _ = nix::unistd::setsid();
        if let Some(cgroup) = self.joins {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let door = openat(cgroup, c"cgroup.procs", flags, Mode::empty())?;
            nix::unistd::write(door, b"0")?;
        }
        self.step = Step::Descriptors;
        // Now: later our maker's descriptors and those of the program may take all numbers below the limit.
        let pid = nix::unistd::getpid().as_raw();
        let id = Pidfd::open(pid).map_err(errno_of)?.id().unwrap_or(0);
        self.arrange()?;
        self.step = Step::Limits;
        for (resource, soft, hard) in &terms.limits {
            closest_limit(*resource, *soft, *hard)?;
        }
        if let Some(nice) = terms.nice {
            // SAFETY: plain numbers; 0 is this process.
            Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
        }
        self.become_user()?;
        self.step = Step::Directory;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(terms.umask));
        if let Some(directory) = &terms.directory {
            match nix::unistd::chdir(directory.as_c_str()) {
                Err(_) if terms.directory_optional => nix::unistd::chdir(c"/")?,
                entered => entered?,
            }
        }
        self.step = Step::Execute;
        let environment = self.environment.fill(u64::from(pid.unsigned_abs()), id);
        let first_unused = FIRST + self.places.numbers.len() as c_int;
        // SAFETY: plain system calls on numbers and locals; `path`, `argv` and the environment are
        // NUL-terminated and end with a null pointer.
        unsafe {
            if terms.no_new_privileges {
                Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            }
            libc::syscall(libc::SYS_close_range, first_unused, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            default_signals(terms.ignore_sigpipe);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::execve(self.path, self.argv, environment);
        }
        Err(Errno::last())
    }

    /// Puts every descriptor where it belongs.
    fn arrange(&mut self) -> Result<(), Errno> {
        let most = self.terms.limits.iter().find(|(resource, ..)| *resource == libc::RLIMIT_NOFILE);
        let last = self.places.numbers.len() as u64 + FIRST.unsigned_abs() as u64;
        if most.is_some_and(|(_, soft, _)| soft.is_some_and(|soft| last > soft)) {
            return Err(Errno::EMFILE);
        }
        self.places.fill()?;
        for (place, source) in (0..).zip(self.streams) {
            // SAFETY: dup2 touches no memory, and the table of descriptors is the child's own.
            Errno::result(unsafe { libc::dup2(*source, place) })?;
        }
        Ok(())
    }

    /// Takes the groups and the user. By system calls alone: libc would change every thread that it
    /// knows, and those are our maker's.
    fn become_user(&mut self) -> Result<(), Errno> {
        let Some(user) = &self.terms.user else { return Ok(()) };
        self.step = Step::Group;
        let groups = &user.groups;
        // SAFETY: the kernel reads as many numbers as `groups` has; the rest are plain numbers.
        unsafe {
            Errno::result(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
            Errno::result(libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid))?;
            self.step = Step::User;
            if let Some(uid) = user.uid {
                Errno::result(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
            }
        }
        Ok(())
    }
}

/// Gives every signal its default, but for SIGPIPE if that is to be ignored.
///
/// # Safety
/// Only in a process of its own: whoever relies on a handler would miss it.
unsafe fn default_signals(ignore_sigpipe: bool) {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: `action` is a live local, for which all zeroes is a valid value: SIG_DFL.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if signal == libc::SIGPIPE && ignore_sigpipe {
                action.sa_sigaction = libc::SIG_IGN;
            }
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests;
