//! Starting a program, as a rule as a *sibling*: its parent is our parent, see clone(2), CLONE_PARENT.
//! A child of our own is set [`Apart`].
//!
//! As with posix_spawn(3), the child lives in our memory, on a stack of its own, until it executes the
//! program or ends, and the calling thread sleeps so long (CLONE_VM, CLONE_VFORK): nothing is copied,
//! however large we are, and an execution that failed is known at once.
//!
//! Who is to watch the child hears of it from the child itself ([`Announcement`]), before a single
//! instruction of the new program runs. So nobody need be alive to say who it is; and as the child
//! holds our end of that conversation until it executes the program, the end of it is never seen first.
//!
//! Until then the child only makes system calls on memory prepared beforehand: our other threads run
//! on, and the thread-local variables that it sees belong to the thread that sleeps.
//! This file never waits for a child's end: that is its parent's to do.

#[cfg(feature = "cli")]
mod apart;
mod clone;
#[cfg(feature = "cli")]
mod conditions;
mod environment;
#[cfg(feature = "cli")]
mod limits;
#[cfg(feature = "cli")]
mod ours;
#[cfg(feature = "cli")]
mod places;

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

#[cfg(feature = "cli")]
use self::apart::Prepared;
#[cfg(feature = "cli")]
pub(crate) use self::apart::{Apart, spawn_apart};
#[cfg(feature = "cli")]
pub(crate) use self::conditions::{Conditions, conditions_of};
use self::environment::Environment;
pub(crate) use self::environment::Variable;
#[cfg(feature = "cli")]
pub(crate) use self::limits::{Resource, raise_limit};
#[cfg(feature = "cli")]
pub(crate) use self::ours::{Started, Step, Terms, User, start};
use super::pidfd::Pidfd;
use super::scm;

/// What to start. Descriptors become 3, 4, 5, ... in the order given, without close-on-exec; 0, 1
/// and 2 are inherited; nothing else is.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// The file to execute; no search in `$PATH`.
    pub(crate) path: CString,
    /// All arguments, the name of the program first.
    pub(crate) argv: Vec<CString>,
    /// The whole environment.
    pub(crate) environment: Vec<Variable>,
    /// What the program gets from 3 upwards.
    pub(crate) fds: Vec<BorrowedFd<'a>>,
}

/// Who is to know of the child before its program runs, and in which words: messages whose last eight
/// bytes the child overwrites with a number, little endian.
#[derive(Debug)]
pub(crate) struct Announcement<'a> {
    /// A connected socket.
    pub(crate) to: BorrowedFd<'a>,
    /// "I exist", with the child's pid; its pidfd is attached.
    pub(crate) born: Vec<u8>,
    /// "The program cannot be executed", with the errno; the child ends then.
    pub(crate) stillborn: Vec<u8>,
}

/// Why no program runs.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// There is no process, and nobody has heard of one.
    NoProcess(io::Error),
    /// There was one, and it could not execute the program; whoever was to know has been told.
    NotExecuted(io::Error),
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> Self {
        Self::NoProcess(errno.into())
    }
}

/// The first descriptor that a program is given beyond standard input, output and error.
const FIRST: RawFd = 3;

/// Starts a program as a child of our parent. Blocks until it is executed.
///
/// Errors: `NoProcess` with EINVAL when we are the first process of a pid namespace (there is no
/// parent to share), EAGAIN or ENOMEM from clone(2), EMFILE for want of descriptors, ECHILD for a child
/// killed at once, or what sendmsg(2) says of the announcement; `NotExecuted` with what execve(2) said.
pub(crate) fn spawn(
    program: &Program<'_>,
    announcement: Option<Announcement<'_>>,
) -> Result<Pidfd, SpawnError> {
    clone_into(program, announcement, |_| Ok(None))
}

/// Starts a program as a child of our parent, or as one of ours that is set `apart`: of which numbers on
/// from the one given nothing is closed in the child.
fn clone_into(
    program: &Program<'_>,
    announcement: Option<Announcement<'_>>,
    apart: impl FnOnce(RawFd) -> Result<Option<Prepared>, Errno>,
) -> Result<Pidfd, SpawnError> {
    let above = FIRST + c_int::try_from(program.fds.len()).map_err(|_| Errno::EMFILE)?;
    let duplicate = |fd: &BorrowedFd<'_>| duplicate(*fd, above);
    let sources: Vec<OwnedFd> = program.fds.iter().map(duplicate).collect::<Result<_, _>>()?;
    let socket = announcement.as_ref().map(|words| duplicate(&words.to)).transpose()?;
    let (numbers, argv) = (raw(&sources), pointers(program.argv.iter().map(CString::as_c_str)));
    let mut child = Child {
        path: program.path.as_ptr(),
        argv: argv.as_ptr(),
        environment: Environment::new(&program.environment),
        sources: &numbers,
        announcement: announcement
            .zip(socket.as_ref())
            .map(|(words, socket)| Announcement { to: socket.as_fd(), ..words }),
        apart: apart(above)?,
        known: false,
        errno: 0,
    };
    let whose = if child.apart.is_some() { 0 } else { libc::CLONE_PARENT };
    let child = &raw mut child;
    // SAFETY: `Child::run` takes a `Child` and makes system calls alone; it, with all that it points to, lives
    // on, and nobody else uses it meanwhile.
    let pidfd = unsafe { clone::in_our_memory(Child::run, child.cast(), whose) }?;
    // SAFETY: the child has left our memory.
    match unsafe { ((*child).known, (*child).errno) } {
        (true, 0) => Ok(pidfd),
        (true, errno) => Err(SpawnError::NotExecuted(io::Error::from_raw_os_error(errno))),
        (false, 0) => Err(Errno::ECHILD.into()),
        (false, errno) => Err(Errno::from_raw(errno).into()),
    }
}

/// Nobody is set apart without `handover run`.
#[cfg(not(feature = "cli"))]
enum Prepared {}

#[cfg(not(feature = "cli"))]
impl Prepared {
    fn enter(&self) -> Result<(), Errno> {
        match *self {}
    }
}

/// What the child needs, and what it leaves behind.
struct Child<'a> {
    path: *const c_char,
    argv: *const *const c_char,
    environment: Environment,
    /// Descriptors that are out of the way of 3, 4, 5, ...
    sources: &'a [RawFd],
    announcement: Option<Announcement<'a>>,
    apart: Option<Prepared>,
    /// Whether it has been announced, if that was wanted.
    known: bool,
    /// What went wrong.
    errno: c_int,
}

impl Child<'_> {
    /// The life of the child, in the memory of its maker.
    extern "C" fn run(this: *mut c_void) -> c_int {
        // SAFETY: `spawn` passes a `Child` and does not touch it while this runs.
        let this = unsafe { &mut *this.cast::<Self>() };
        let Err(errno) = this.announce().and_then(|id| this.execute(id));
        this.errno = errno as c_int;
        if let (true, Some(announcement)) = (this.known, &mut this.announcement) {
            let number = u64::from(this.errno.unsigned_abs());
            // Who does not hear it sees the child end.
            let _ = scm::send(announcement.to, with_number(&mut announcement.stillborn, number), &[]);
        }
        127
    }

    /// Tells who is to know; the id of the child's pidfd, or 0.
    fn announce(&mut self) -> Result<u64, Errno> {
        let pid = nix::unistd::getpid().as_raw();
        let own = Pidfd::open(pid).map_err(errno_of)?;
        if let Some(announcement) = &mut self.announcement {
            let born = with_number(&mut announcement.born, u64::from(pid.unsigned_abs()));
            scm::send(announcement.to, born, &[own.as_fd()]).map_err(errno_of)?;
        }
        self.known = true;
        Ok(own.id().unwrap_or(0))
    }

    /// Arranges descriptors and signals, and executes the program.
    fn execute(&mut self, pidfd_id: u64) -> Result<Infallible, Errno> {
        let pid = u64::from(nix::unistd::getpid().as_raw().unsigned_abs());
        let environment = self.environment.fill(pid, pidfd_id);
        self.apart.as_ref().map_or(Ok(()), Prepared::enter)?;
        let mut next = FIRST;
        for source in self.sources {
            // SAFETY: dup2 touches no memory, and the table of descriptors is the child's own.
            Errno::result(unsafe { libc::dup2(*source, next) })?;
            next += 1;
        }
        // SAFETY: plain system calls on numbers and locals; `path`, `argv` and the environment are
        // NUL-terminated and end with a null pointer.
        unsafe {
            // Whatever a foreign library left inheritable must not leak into the new program.
            libc::syscall(libc::SYS_close_range, next, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            forget_handlers();
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::execve(self.path, self.argv, environment);
        }
        Err(Errno::last())
    }
}

/// Signals that have a handler get their default back, as in execve(2), and those that are ignored
/// stay so.
///
/// # Safety
/// Only in a process of its own: whoever relies on a handler would miss it.
unsafe fn forget_handlers() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: `action` is a live local, for which all zeroes is a valid value.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let asked = libc::sigaction(signal, std::ptr::null(), &raw mut action);
            if asked == 0 && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction) {
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

/// The message with `number` in its last eight bytes.
fn with_number(message: &mut [u8], number: u64) -> &[u8] {
    if let Some(last) = message.last_chunk_mut() {
        *last = number.to_le_bytes();
    }
    message
}

/// What the kernel said; allocates nothing.
fn errno_of(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A null-terminated array of pointers into `strings`.
pub(super) fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    strings.map(CStr::as_ptr).chain([std::ptr::null()]).collect()
}

/// A close-on-exec duplicate numbered `lowest` or higher, out of the way of what goes to 3, 4, 5...
fn duplicate(fd: BorrowedFd<'_>, lowest: RawFd) -> Result<OwnedFd, Errno> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: fcntl has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The numbers of descriptors that stay owned.
fn raw(fds: &[OwnedFd]) -> Vec<RawFd> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seqpacket;
    use nix::sys::signal::SigSet;
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    /// What a shell says when it is started with these variables and descriptors.
    fn ask_a_shell(script: &str, environment: Vec<Variable>, extra: &[BorrowedFd<'_>]) -> (Pidfd, String) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let fds: Vec<_> = [theirs.as_fd()].into_iter().chain(extra.iter().copied()).collect();
        let argv = ["sh", "-c", script].map(|word| CString::new(word).unwrap()).to_vec();
        let program = Program { path: c"/bin/sh".into(), argv, environment, fds };
        let child = spawn(&program, None).unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        (child, said)
    }

    #[test]
    fn the_child_is_our_sibling_and_knows_its_own_pid_and_pidfd() {
        let variables = vec![
            Variable::Fixed(c"PLAIN=1".into()),
            Variable::OwnPid("ME".into()),
            Variable::OwnPidfdId("MY_FD".into()),
        ];
        let (child, said) = ask_a_shell("echo $PLAIN $ME $$ $PPID $MY_FD >&3", variables, &[]);
        let pidfd = child.id().map_or_else(String::new, |id| format!(" {id}"));
        let parent = nix::unistd::getppid();
        assert_eq!(said, format!("1 {pid} {pid} {parent}{pidfd}\n", pid = child.pid()));
    }

    #[test]
    fn the_child_has_the_descriptors_it_was_given_and_no_others() {
        let extra = File::open("/dev/null").unwrap();
        let inheritable = fcntl(&extra, FcntlArg::F_DUPFD(40)).unwrap();
        // SAFETY: fcntl has just made this descriptor for us.
        let _inheritable = unsafe { OwnedFd::from_raw_fd(inheritable) };
        let script = "n=0; while [ $n -lt 99 ]; do [ -e /proc/$$/fd/$n ] && echo $n >&3; n=$((n+1)); done";
        let (_, said) = ask_a_shell(script, Vec::new(), &[extra.as_fd()]);
        assert_eq!(said, "0\n1\n2\n3\n4\n");
    }

    #[test]
    fn the_child_has_no_signal_blocked_and_our_mask_is_what_it_was() {
        let ours = SigSet::thread_get_mask().unwrap();
        let (_, said) = ask_a_shell("grep ^SigBlk /proc/self/status >&3", Vec::new(), &[]);
        assert_eq!(said, "SigBlk:\t0000000000000000\n");
        assert_eq!(SigSet::thread_get_mask().unwrap(), ours);
    }

    #[test]
    fn whoever_is_to_know_hears_of_the_child_before_its_program_and_why_there_is_none() {
        let cases: [(&CStr, c_int); 3] =
            [(c"/bin/true", 0), (c"/nonexistent", libc::ENOENT), (c"/etc/passwd", libc::EACCES)];
        for (path, errno) in cases {
            let (ours, theirs) = seqpacket::pair().unwrap();
            let program = Program {
                path: path.into(),
                argv: vec![path.into()],
                environment: Vec::new(),
                // As many as it takes to be in the way of the socket.
                fds: vec![theirs.as_fd(); 40],
            };
            let words = |kind: u8| [&[kind][..], &[0; 8]].concat();
            let announcement = Announcement { to: theirs.as_fd(), born: words(1), stillborn: words(2) };
            let outcome = spawn(&program, Some(announcement));
            let hear = || {
                let mut bytes = [0; 9];
                let received = scm::receive(ours.as_fd(), &mut bytes).unwrap();
                (bytes[0], u64::from_le_bytes(bytes[1..].try_into().unwrap()), received.fds)
            };
            let (kind, pid, mut fds) = hear();
            let child = Pidfd::new(pid.try_into().unwrap(), fds.pop().unwrap());
            child.wait_until_gone().unwrap();
            match outcome {
                Ok(spawned) => assert_eq!((kind, spawned.pid(), spawned.id()), (1, child.pid(), child.id())),
                Err(SpawnError::NotExecuted(error)) => {
                    assert_eq!(error.raw_os_error(), Some(errno));
                    assert!(matches!(hear(), (2, number, _) if number == u64::from(errno.unsigned_abs())));
                }
                Err(SpawnError::NoProcess(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_child_that_nobody_would_know_of_executes_nothing() {
        let (ours, theirs) = seqpacket::pair().unwrap();
        drop(ours);
        let (mut listening, said) = UnixStream::pair().unwrap();
        let argv = [c"sh", c"-c", c"echo no >&3"].map(CString::from).to_vec();
        let fds = vec![said.as_fd()];
        let program = Program { path: c"/bin/sh".into(), argv, environment: Vec::new(), fds };
        let announcement = Announcement { to: theirs.as_fd(), born: vec![1; 9], stillborn: vec![2; 9] };
        let error = spawn(&program, Some(announcement)).unwrap_err();
        assert!(matches!(error, SpawnError::NoProcess(error) if error.raw_os_error() == Some(libc::EPIPE)));
        drop(said);
        assert_eq!(listening.read(&mut [0; 9]).unwrap(), 0);
    }
}
