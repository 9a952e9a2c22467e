//! Starting a program as a child of ours, with all that a supervisor decides about it: descriptors,
//! session, cgroup, limits, user, folder.
//!
//! The child prepares itself on a stack of its own in our memory, as in [`super::spawn`], and which step
//! failed is known when [`start`] returns. A child that fails ends with a status of the caller's choice,
//! so that who reaps it can tell that from the program's own end.

use std::convert::Infallible;
use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};

use super::super::pidfd::Pidfd;
use super::environment::Environment;
use super::limits::{Resource, closest_limit};
use super::places::Places;
use super::{FIRST, Program, STACK, duplicate, errno_of, pointers, raw};

/// What a program runs with, beyond its words and descriptors.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    /// What becomes 0, 1 and 2.
    pub(crate) streams: [BorrowedFd<'a>; 3],
    /// The cgroup.procs file of the cgroup that it is to be in, open for writing.
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
    let cgroup = terms.cgroup.as_ref().map(out_of_the_way).transpose()?;
    let streams_numbers = raw(&streams);
    let argv = pointers(program.argv.iter().map(CString::as_c_str));
    let mut child = Child {
        path: program.path.as_ptr(),
        argv: argv.as_ptr(),
        environment: Environment::new(&program.environment),
        places: &mut places,
        streams: &streams_numbers,
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        terms,
        step: Step::Cgroup,
        errno: 0,
    };
    let (child, mut pidfd): (*mut Child<'_>, c_int) = (&raw mut child, -1);
    let mut stack = Vec::<MaybeUninit<u8>>::with_capacity(STACK);
    // No handler of ours may run in the child: it would do its work in our memory.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let flags = libc::CLONE_PIDFD | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: as in `super::spawn`: the stack, `child` and all it points to live until the child has left
    // our memory, which is when CLONE_VFORK lets us return, and nobody else uses them meanwhile.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(STACK).cast();
        libc::clone(Child::run, top, flags, child.cast(), &raw mut pidfd)
    };
    let pid = Errno::result(pid);
    // It was the mask before, so it is a good one.
    let _ = mask.thread_set_mask();
    let pid = pid?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
    let process = Pidfd::new(pid, unsafe { OwnedFd::from_raw_fd(pidfd) });
    // SAFETY: the child has left our memory.
    let (step, errno) = unsafe { ((*child).step, (*child).errno) };
    Ok(Started { process, failed: (errno != 0).then(|| (step, io::Error::from_raw_os_error(errno))) })
}

/// What the child needs, and what it leaves behind. It only makes system calls on what is here.
struct Child<'a> {
    path: *const c_char,
    argv: *const *const c_char,
    environment: Environment,
    /// What becomes 3, 4, 5, ...
    places: &'a mut Places,
    /// What becomes 0, 1, 2, out of the way of all others.
    streams: &'a [RawFd],
    cgroup: Option<BorrowedFd<'a>>,
    terms: &'a Terms<'a>,
    /// How far it got.
    step: Step,
    /// What went wrong.
    errno: c_int,
}

impl Child<'_> {
    /// The life of the child, in the memory of its maker.
    extern "C" fn run(this: *mut c_void) -> c_int {
        // SAFETY: `start` passes a `Child` and does not touch it while this runs.
        let this = unsafe { &mut *this.cast::<Self>() };
        let Err(errno) = this.execute();
        this.errno = errno as c_int;
        (this.terms.status_of)(this.step)
    }

    /// All the steps.
    fn execute(&mut self) -> Result<Infallible, Errno> {
        let terms = self.terms;
        // A session of its own: no terminal of ours can interrupt it. It fails for no new process.
        let _ = nix::unistd::setsid();
        if let Some(cgroup) = self.cgroup {
            nix::unistd::write(cgroup, b"0")?;
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
mod tests {
    use super::*;
    use crate::sys::spawn::Variable;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    /// The usual terms.
    fn terms(streams: [BorrowedFd<'_>; 3]) -> Terms<'_> {
        Terms {
            streams,
            cgroup: None,
            directory: None,
            directory_optional: false,
            limits: Vec::new(),
            user: None,
            umask: 0o022,
            nice: None,
            ignore_sigpipe: true,
            no_new_privileges: false,
            status_of: |step| 100 + step as i32,
        }
    }

    /// What a shell that runs on these terms says on its standard output, and how it ended.
    fn ask(script: &str, change: impl FnOnce(&mut Terms<'_>)) -> (String, i32) {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let argv = ["sh", "-c", script].map(|word| CString::new(word).unwrap()).to_vec();
        let environment = vec![Variable::OwnPid("ME".into()), Variable::Fixed(c"PATH=/usr/bin:/bin".into())];
        let program = Program { path: c"/bin/sh".into(), argv, environment, fds: vec![null.as_fd(); 2] };
        let mut terms = terms([null.as_fd(), theirs.as_fd(), theirs.as_fd()]);
        change(&mut terms);
        let started = start(&program, &terms).unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        let pid = nix::unistd::Pid::from_raw(started.process.pid());
        let end = nix::sys::wait::waitpid(pid, None).unwrap();
        let nix::sys::wait::WaitStatus::Exited(_, status) = end else { panic!("{end:?}") };
        assert_eq!(started.failed.is_some(), status >= 100);
        (said, status)
    }

    #[test]
    fn the_child_is_ours_in_a_session_of_its_own_with_the_descriptors_it_was_given() {
        let script = "echo $PPID $(cut -d' ' -f6 /proc/$$/stat) $ME $$; for n in 3 4 5; do [ -e /proc/$$/fd/$n ] && echo $n; done; exit 7";
        let (said, status) = ask(script, |_| {});
        let mut lines = said.lines();
        let words: Vec<_> = lines.next().unwrap().split(' ').collect();
        assert_eq!(words[0], std::process::id().to_string());
        assert!(words[1] == words[3] && words[2] == words[3], "{said}");
        assert_eq!((lines.collect::<Vec<_>>(), status), (vec!["3", "4"], 7));
    }

    #[test]
    fn limits_folder_and_mask_are_as_told() {
        let (said, _) = ask("ulimit -n; pwd; umask", |terms| {
            terms.limits = vec![(libc::RLIMIT_NOFILE, Some(77), Some(99))];
            terms.directory = Some(c"/usr".into());
            terms.umask = 0o077;
        });
        assert_eq!(said, "77\n/usr\n0077\n");
    }

    #[test]
    fn every_descriptor_comes_to_its_place_whatever_its_number_was() {
        let files: Vec<_> = (0..40).map(|_| nix::sys::eventfd::EventFd::new().unwrap()).collect();
        let ids: Vec<_> = files.iter().map(id).collect();
        for turn in [0, 1, 17, 39] {
            let order = || (0..40).map(|at| (at + turn) % 40).rev();
            let fds: Vec<_> = order().map(|at| files[at].as_fd()).collect();
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let script = "for n in $(seq 3 42); do sed -n 's/^eventfd-id: *//p' /proc/self/fdinfo/$n; done";
            let argv = ["sh", "-c", script].map(|word| CString::new(word).unwrap()).to_vec();
            let environment = vec![Variable::Fixed(c"PATH=/usr/bin:/bin".into())];
            let program = Program { path: c"/bin/sh".into(), argv, environment, fds };
            let streams = [theirs.as_fd(); 3];
            let started = start(&program, &terms(streams)).unwrap();
            drop(theirs);
            let mut said = String::new();
            ours.read_to_string(&mut said).unwrap();
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(started.process.pid()), None).unwrap();
            assert_eq!(
                said.lines().map(str::to_owned).collect::<Vec<_>>(),
                order().map(|at| ids[at].clone()).collect::<Vec<_>>()
            );
        }
    }

    /// The number that the kernel has given to an eventfd.
    fn id(file: &nix::sys::eventfd::EventFd) -> String {
        let info =
            std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd())).unwrap();
        info.lines().find_map(|line| line.strip_prefix("eventfd-id:")).unwrap().trim().to_owned()
    }

    #[test]
    fn a_step_that_fails_is_named_and_is_the_status() {
        let (_, status) = ask("true", |terms| terms.directory = Some(c"/nonexistent".into()));
        assert_eq!(status, 100 + Step::Directory as i32);
        let (_, status) = ask("true", |terms| terms.limits = vec![(libc::RLIMIT_NOFILE, Some(3), Some(3))]);
        assert_eq!(status, 100 + Step::Descriptors as i32);
    }

    #[test]
    fn a_limit_just_above_its_own_descriptors_is_enough_whatever_we_have_ourselves() {
        let _more: Vec<_> = (0..9).map(|_| File::open("/dev/null").unwrap()).collect();
        // 0 to 4, and one for the loader of programs.
        let (_, status) = ask("true", |terms| terms.limits = vec![(libc::RLIMIT_NOFILE, Some(6), Some(6))]);
        assert_eq!(status, 0);
    }

    #[test]
    fn a_directory_that_cannot_be_entered_is_the_root_where_it_is_optional() {
        let (said, status) = ask("pwd", |terms| {
            (terms.directory, terms.directory_optional) = (Some(c"/nonexistent".into()), true);
        });
        assert_eq!((&*said, status), ("/\n", 0));
    }

    #[test]
    fn no_signal_is_blocked_and_sigpipe_alone_is_ignored() {
        let script = "sed -nE 's/^Sig(Blk|Ign):.*(........)$/\\2/p' /proc/self/status";
        let masks = |on| ask(script, |terms| terms.ignore_sigpipe = on).0;
        // Bit 31 is a signal of libc's own, which nobody but libc may touch.
        assert_eq!(masks(true).replace("8000", "0000"), "00000000\n00001000\n");
        assert_eq!(masks(false).replace("8000", "0000"), "00000000\n00000000\n");
    }
}
