//! Starting a program as a *sibling*: its parent is our parent, see clone(2), CLONE_PARENT.
//!
//! The child is made in two steps. [`spawn`] clones it and leaves it waiting at a pipe, so that its
//! pid and pidfd are known (and can be told to somebody who will watch it) before a single
//! instruction of the new program runs; [`Waiting::release`] lets it exec. Whoever dies in between
//! takes the child along: it leaves when the pipe ends.
//!
//! Between clone and exec the child only makes system calls on memory prepared beforehand: the
//! caller may have other threads, whose locks nobody will ever release in the child.
//! This file never waits for a child: that is its parent's to do, and its parent is not us.

use std::ffi::{CStr, CString, c_char, c_int};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::pidfd::Pidfd;

/// One string of the new program's environment.
#[derive(Clone, Debug)]
pub(crate) enum Variable {
    /// `NAME=value` as it stands.
    Fixed(CString),
    /// The name of a variable whose value will be the child's own pid.
    OwnPid(String),
    /// The name of a variable whose value will be the id of the child's pidfd; left out where the
    /// kernel has none (before Linux 6.9).
    OwnPidfdId(String),
}

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

/// A child that waits at the gate. Dropping this lets it leave, unless its program runs.
#[derive(Debug)]
pub(crate) struct Waiting {
    child: Pidfd,
    gate: File,
    verdict: File,
}

/// The first descriptor that a program is given beyond standard input, output and error.
const FIRST: RawFd = 3;
/// Digits of the largest u64.
const DIGITS: usize = 20;

/// Clones a child whose parent is our parent, and leaves it waiting.
///
/// One child at a time: a second one, cloned while the first waits, would hold the first one's gate.
///
/// Errors: EINVAL when we are the first process of a pid namespace (there is no parent to share),
/// EAGAIN or ENOMEM from clone(2), EMFILE for want of descriptors.
pub(crate) fn spawn(program: &Program<'_>) -> io::Result<Waiting> {
    let above = FIRST + c_int::try_from(program.fds.len()).map_err(|_| Errno::EMFILE)?;
    let sources: Vec<OwnedFd> =
        program.fds.iter().map(|fd| duplicate(*fd, above)).collect::<io::Result<_>>()?;
    let numbers: Vec<RawFd> = sources.iter().map(AsRawFd::as_raw_fd).collect();
    let (gate_out, gate_in) = pipe(above)?;
    let (verdict_out, verdict_in) = pipe(above)?;
    let argv = pointers(program.argv.iter().map(CString::as_c_str));
    let mut environment = Environment::new(&program.environment);
    let plan = Plan {
        path: program.path.as_ptr(),
        argv: argv.as_ptr(),
        sources: &numbers,
        gate: gate_out.as_raw_fd(),
        gate_peer: gate_in.as_raw_fd(),
        verdict: verdict_in.as_raw_fd(),
    };
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM this is fork(2): the child has its own copy of all memory and, in
    // `Plan::carry_out`, never returns, allocates, unlocks or drops. `pidfd` is where CLONE_PIDFD
    // stores the descriptor, in the parent only.
    let pid = unsafe { libc::syscall(libc::SYS_clone, c_long(flags), 0, &raw mut pidfd, 0, 0) };
    match i32::try_from(Errno::result(pid)?).map_err(|_| Errno::EOVERFLOW)? {
        // SAFETY: this is the child, alone in its copy of the memory; see above.
        0 => unsafe { plan.carry_out(&mut environment) },
        pid => Ok(Waiting {
            // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
            child: Pidfd::new(pid, unsafe { OwnedFd::from_raw_fd(pidfd) }),
            gate: gate_in.into(),
            verdict: verdict_out.into(),
        }),
    }
}

impl Waiting {
    /// The child, to be watched and named to others before it runs.
    pub(crate) fn child(&self) -> &Pidfd {
        &self.child
    }

    /// Lets the child execute its program, and waits until it has or could not.
    ///
    /// A child that could not stays until `self` is dropped: whoever watches it can be told why
    /// before they see it end.
    ///
    /// Errors: what execve(2) said.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        let mut ticket = [0; 16];
        ticket[..8].copy_from_slice(&u64::from(self.child.pid().unsigned_abs()).to_ne_bytes());
        ticket[8..].copy_from_slice(&self.child.id().unwrap_or(0).to_ne_bytes());
        self.gate.write_all(&ticket)?;
        let mut errno = [0; 4];
        match self.verdict.read_exact(&mut errno) {
            Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The child, for whoever watches it from here on.
    pub(crate) fn into_child(self) -> Pidfd {
        self.child
    }
}

/// The environment as execve(2) wants it, with room in it for numbers that are not known yet.
struct Environment {
    strings: Vec<(Vec<u8>, Option<Blank>)>,
    pointers: Vec<*const c_char>,
}

/// Which number belongs into a string, and where.
#[derive(Clone, Copy)]
struct Blank {
    at: usize,
    pidfd_id: bool,
}

impl Environment {
    fn new(variables: &[Variable]) -> Self {
        let blank = |name: &str, pidfd_id| {
            let mut text = format!("{name}=").into_bytes();
            let at = text.len();
            text.resize(at + DIGITS + 1, 0);
            (text, Some(Blank { at, pidfd_id }))
        };
        let strings: Vec<_> = variables
            .iter()
            .map(|variable| match variable {
                Variable::Fixed(text) => (text.as_bytes_with_nul().to_vec(), None),
                Variable::OwnPid(name) => blank(name, false),
                Variable::OwnPidfdId(name) => blank(name, true),
            })
            .collect();
        let pointers = Vec::with_capacity(strings.len() + 1);
        Self { strings, pointers }
    }

    /// Writes the numbers in; allocates nothing.
    fn fill(&mut self, pid: u64, pidfd_id: u64) -> *const *const c_char {
        for (text, blank) in &mut self.strings {
            let number = match blank {
                Some(blank) if blank.pidfd_id => pidfd_id,
                Some(_) => pid,
                None => 0,
            };
            if let Some(blank) = blank {
                if number == 0 {
                    continue;
                }
                write_decimal(number, &mut text[blank.at..]);
            }
            self.pointers.push(text.as_ptr().cast());
        }
        self.pointers.push(std::ptr::null());
        self.pointers.as_ptr()
    }
}

/// Writes `number` without leading zeroes and ends it with NUL; `text` holds `DIGITS + 1` bytes.
fn write_decimal(mut number: u64, text: &mut [u8]) {
    let mut digits = [0; DIGITS];
    let mut start = DIGITS;
    while number > 0 || start == DIGITS {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let len = DIGITS - start;
    text[..len].copy_from_slice(&digits[start..]);
    text[len] = 0;
}

/// Everything that the child needs, as numbers and pointers.
struct Plan<'a> {
    path: *const c_char,
    argv: *const *const c_char,
    sources: &'a [RawFd],
    gate: RawFd,
    gate_peer: RawFd,
    verdict: RawFd,
}

impl Plan<'_> {
    /// Waits at the gate, arranges the descriptors, executes the program; leaves if it cannot.
    ///
    /// # Safety
    /// Only in a child just cloned without CLONE_VM: it makes system calls on descriptors that are
    /// the child's own copies, and ends the process.
    unsafe fn carry_out(&self, environment: &mut Environment) -> ! {
        // SAFETY: plain system calls on numbers and on memory that belongs to this process alone;
        // `path`, `argv` and the environment are NUL-terminated and end with a null pointer.
        unsafe {
            libc::close(self.gate_peer);
            let mut ticket = [0u64; 2];
            loop {
                let n = libc::read(self.gate, ticket.as_mut_ptr().cast(), size_of_val(&ticket));
                if n == 16 {
                    break;
                }
                if n >= 0 || *libc::__errno_location() != libc::EINTR {
                    libc::_exit(127);
                }
            }
            let environment = environment.fill(ticket[0], ticket[1]);
            let mut next = FIRST;
            for source in self.sources {
                if libc::dup2(*source, next) == -1 {
                    self.give_up();
                }
                next += 1;
            }
            // Whatever a foreign library left inheritable must not leak into the new program.
            libc::syscall(libc::SYS_close_range, next, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            libc::execve(self.path, self.argv, environment);
            self.give_up()
        }
    }

    /// Tells the errno of the last call through the pipe, waits until it has been heard (the gate
    /// closes), and ends the child.
    ///
    /// # Safety
    /// As for [`Plan::carry_out`].
    unsafe fn give_up(&self) -> ! {
        // SAFETY: `errno` is a live local; the descriptor is the child's own.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(self.verdict, (&raw const errno).cast(), size_of_val(&errno));
            let mut end = 0u8;
            while libc::read(self.gate, (&raw mut end).cast(), 1) == -1
                && *libc::__errno_location() == libc::EINTR
            {}
            libc::_exit(127)
        }
    }
}

/// A null-terminated array of pointers into `strings`.
fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    strings.map(CStr::as_ptr).chain([std::ptr::null()]).collect()
}

/// A close-on-exec duplicate numbered `lowest` or higher, out of the way of what goes to 3, 4, 5...
fn duplicate(fd: BorrowedFd<'_>, lowest: RawFd) -> io::Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: fcntl has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A pipe, both ends close-on-exec and numbered `lowest` or higher.
fn pipe(lowest: RawFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((duplicate(out.as_fd(), lowest)?, duplicate(into.as_fd(), lowest)?))
}

/// `clone` takes its flags as a long.
fn c_long(flags: c_int) -> libc::c_long {
    libc::c_long::from(flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// Two children waiting at once would hold each other's gates open.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());

    /// What a shell says when it is started with these variables and descriptors.
    fn ask_a_shell(script: &str, environment: Vec<Variable>, extra: &[BorrowedFd<'_>]) -> (Pidfd, String) {
        let _turn = ONE_AT_A_TIME.lock().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let fds: Vec<_> = [theirs.as_fd()].into_iter().chain(extra.iter().copied()).collect();
        let argv = ["sh", "-c", script].map(|word| CString::new(word).unwrap()).to_vec();
        let program = Program { path: c"/bin/sh".into(), argv, environment, fds };
        let mut waiting = spawn(&program).unwrap();
        waiting.release().unwrap();
        drop(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).unwrap();
        (waiting.into_child(), said)
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
    fn a_program_that_cannot_be_executed_says_why() {
        let _turn = ONE_AT_A_TIME.lock().unwrap();
        let program = |path: &CStr| Program {
            path: path.into(),
            argv: vec![path.into()],
            environment: Vec::new(),
            fds: Vec::new(),
        };
        for (path, errno) in [(c"/nonexistent", libc::ENOENT), (c"/etc/passwd", libc::EACCES)] {
            let mut waiting = spawn(&program(path)).unwrap();
            let error = waiting.release().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno));
            assert!(!waiting.child().is_gone().unwrap(), "it waits until its failure has been told");
            let Waiting { child, gate, .. } = waiting;
            drop(gate);
            child.wait_until_gone().unwrap();
        }
    }

    #[test]
    fn a_child_that_is_never_released_leaves() {
        let _turn = ONE_AT_A_TIME.lock().unwrap();
        let path = c"/bin/true";
        let program =
            Program { path: path.into(), argv: vec![path.into()], environment: Vec::new(), fds: Vec::new() };
        let Waiting { child, gate, verdict } = spawn(&program).unwrap();
        assert!(!child.is_gone().unwrap());
        drop((gate, verdict));
        child.wait_until_gone().unwrap();
    }

    #[test]
    fn numbers_are_written_as_pid_1_writes_them() {
        for number in [1, 10, 65_535, u64::MAX] {
            let mut text = [7; DIGITS + 1];
            write_decimal(number, &mut text);
            assert_eq!(CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap(), number.to_string());
        }
    }
}
