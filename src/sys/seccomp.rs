//! bind(2) and listen(2) of another program, asked about before they happen: seccomp_unotify(2).
//!
//! The filter is put on in the child, just before its program runs, and holds for all its descendants.
//! It says ALLOW to every other call without a look at its arguments: since Linux 5.11 the kernel then
//! remembers that, and does not run the filter at all. This is a way to be asked, not a fence: through an
//! io_uring a program can bind unseen, so that it makes one is told, and no more.
//!
//! What a notification says about another process is true while that process waits for the answer, so
//! [`is_valid`] comes after whatever was looked at by its number.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long, sock_filter, sock_fprog,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// AUDIT_ARCH_* of linux/audit.h: the ABI that this program is built for.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: u32 = 0;

/// The 32-bit ABI of the same machine: its AUDIT_ARCH_*, and the numbers of its bind and socketcall.
#[cfg(target_arch = "aarch64")]
const FOREIGN: (u32, u32, u32) = (0x4000_0028, 282, 102);
#[cfg(not(target_arch = "aarch64"))]
const FOREIGN: (u32, u32, u32) = (0x4000_0003, 361, 102);

/// The first argument of socketcall(2) that means bind: SYS_BIND of linux/net.h.
const PACKED_BIND: u32 = 2;

/// What the numbers of the x32 ABI have beside those of x86-64: __X32_SYSCALL_BIT.
const X32: u32 = 0x4000_0000;

/// What a process wants to do, and waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    /// Names the wait of this thread, for the answer.
    pub(crate) id: u64,
    /// The thread that waits, as this process counts.
    pub(crate) tid: i32,
    /// The number of the socket over there.
    pub(crate) number: RawFd,
    /// Which call.
    pub(crate) call: Call,
}

/// The calls that are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// bind(2), with an address of `len` bytes at `address` over there.
    Bind { address: u64, len: u64 },
    /// listen(2).
    Listen,
    /// io_uring_setup(2): what goes through that ring is never asked about.
    Ring,
    /// bind(2) by the 32-bit ABI of this machine.
    ForeignBind { address: u64, len: u64 },
    /// The same by its socketcall(2): the three arguments, of 32 bits each, are at `arguments` over there.
    PackedBind { arguments: u64 },
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel does it, as without a filter.
    Continue,
    /// Nothing is done, and the call returns 0.
    Done,
    /// Nothing is done, and the call fails so.
    Refused(Errno),
}

/// The next notification, if there is one; `None` at the end, when no process has the filter any more.
///
/// Errors: `WouldBlock` when nobody asks; ENOENT when who asked was killed meanwhile, which is taken for
/// that, too.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Option<Notification>> {
    // The ioctl would wait, whatever the flags of the descriptor.
    let mut fds = [PollFd::new(listener, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO)?;
    let state = fds[0].revents().unwrap_or(PollFlags::empty());
    if !state.contains(PollFlags::POLLIN) {
        return if state.contains(PollFlags::POLLHUP) {
            Ok(None)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        };
    }
    // SAFETY: plain data, for which all zeroes is a valid value, and the one that the kernel wants.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one `seccomp_notif` into a live local of that type.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    match Errno::result(done) {
        Err(Errno::ENOENT | Errno::EINTR) => return Err(io::ErrorKind::WouldBlock.into()),
        done => done?,
    };
    let [number, address, len, ..] = asked.data.args;
    let call = match c_long::from(asked.data.nr & !X32.cast_signed()) {
        _ if asked.data.arch == FOREIGN.0 && asked.data.nr.cast_unsigned() == FOREIGN.2 => {
            Call::PackedBind { arguments: address }
        }
        _ if asked.data.arch == FOREIGN.0 => Call::ForeignBind { address, len },
        libc::SYS_bind => Call::Bind { address, len },
        libc::SYS_io_uring_setup => Call::Ring,
        _ => Call::Listen,
    };
    // The kernel takes the lower half of the register for an int.
    let number = number as RawFd;
    Ok(Some(Notification { id: asked.id, tid: asked.pid.cast_signed(), number, call }))
}

/// Whether the thread that asked still waits.
pub(crate) fn is_valid(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads a number from a live local.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Lets the thread that asked go on. One that is gone is no error.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Done => (0, 0),
        Answer::Refused(errno) => (-(errno as i32), 0),
    };
    let answer = libc::seccomp_notif_resp { id, val: 0, error, flags };
    // SAFETY: the kernel reads one `seccomp_notif_resp` from a live local of that type.
    let done =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
    match Errno::result(done) {
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Has the descriptor `number` of the process that asked be a copy of `with`. It still waits.
///
/// Errors: ENOENT when it is gone.
pub(crate) fn replace(
    listener: BorrowedFd<'_>,
    asked: &Notification,
    with: BorrowedFd<'_>,
    close_on_exec: bool,
) -> io::Result<()> {
    let wanted = libc::seccomp_notif_addfd {
        id: asked.id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: with.as_raw_fd().unsigned_abs(),
        newfd: asked.number.unsigned_abs(),
        newfd_flags: if close_on_exec { libc::O_CLOEXEC.unsigned_abs() } else { 0 },
    };
    // SAFETY: the kernel reads one `seccomp_notif_addfd` from a live local of that type.
    let done =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const wanted) };
    Errno::result(done)?;
    Ok(())
}

/// Puts the filter on the calling thread and all it will start; the number of the listener, which is
/// close-on-exec. To be called in a child that is about to execute its program: allocates nothing.
///
/// Who may not do this otherwise gives up set-user-ID programs for it (PR_SET_NO_NEW_PRIVS).
///
/// Errors: EBUSY when an ancestor has such a filter; ENOSYS or EINVAL where the kernel has none.
pub(crate) fn filter() -> Result<RawFd, Errno> {
    match install(libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        // Before Linux 5.19. Without it a signal may interrupt a call that was answered already.
        Err(Errno::EINVAL) => install(0),
        done => done,
    }
}

fn install(flags: libc::c_ulong) -> Result<RawFd, Errno> {
    match put_on(flags) {
        Err(Errno::EACCES) => {
            // SAFETY: sets a flag of this thread.
            Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
            put_on(flags)
        }
        done => done,
    }
}

fn put_on(flags: libc::c_ulong) -> Result<RawFd, Errno> {
    let mut code = program();
    let program = sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // Before Linux 5.16 a filter turns off what speculates in the processor, for the sake of sandboxes: this is
    // none, and the program would be slower by some per cent.
    let flags = flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: `program` describes `code`, both live locals, which the kernel copies.
    let number =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    Ok(Errno::result(number)? as RawFd)
}

/// Asks about bind, listen and new rings, and allows the rest. `seccomp_data` has the number of the call
/// at 0, the ABI at 4, and the lower half of the first argument at 16, which is looked at in one call only.
fn program() -> [sock_filter; 18] {
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let unless = |value: u32, jf: u8| sock_filter { jf, ..statement(BPF_JMP | BPF_JEQ | BPF_K, value) };
    let given = |value: u32, jt: u8| sock_filter { jt, ..statement(BPF_JMP | BPF_JEQ | BPF_K, value) };
    let below = |value: u32, jf: u8| sock_filter { jf, ..statement(BPF_JMP | BPF_JGE | BPF_K, value) };
    let (foreign, foreign_bind, socketcall) = FOREIGN;
    [
        statement(BPF_LD | BPF_W | BPF_ABS, 4),
        unless(ARCH, 8),
        statement(BPF_LD | BPF_W | BPF_ABS, 0),
        // Most of what a server does has a lower number than what is asked about.
        below(libc::SYS_bind as u32, 5),
        given(libc::SYS_bind as u32, 12),
        given(libc::SYS_listen as u32, 11),
        given(libc::SYS_io_uring_setup as u32, 10),
        given(libc::SYS_bind as u32 | X32, 9),
        given(libc::SYS_listen as u32 | X32, 8),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW),
        // Here is the other ABI.
        unless(foreign, 5),
        statement(BPF_LD | BPF_W | BPF_ABS, 0),
        given(foreign_bind, 4),
        unless(socketcall, 2),
        statement(BPF_LD | BPF_W | BPF_ABS, 16),
        given(PACKED_BIND, 1),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_USER_NOTIF),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::other;
    use crate::sys::pidfd::Pidfd;
    use crate::sys::spawn::{Apart, Program, spawn_apart};
    use crate::sys::{scm, seqpacket};
    use std::ffi::CString;
    use std::io::Read;
    use std::net::TcpListener;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::UnixStream;

    /// A program that knows nothing of us: it binds a port that is none, listens, and says to descriptor
    /// 3 where it is.
    const SCRIPT: &str = "use Socket; open(my $out, '>&=', 3); socket(my $s, PF_INET, SOCK_STREAM, 0);
        bind($s, pack_sockaddr_in(7, inet_aton('127.0.0.9'))) or print $out \"bind: $!\\n\";
        listen($s, 5) or print $out \"listen: $!\\n\";
        my ($port) = unpack_sockaddr_in(getsockname($s)); print $out \"port $port\\n\";";

    fn start() -> (Pidfd, OwnedFd, UnixStream) {
        let (said, theirs) = UnixStream::pair().unwrap();
        let (ours, asked) = seqpacket::pair().unwrap();
        let program = Program {
            path: c"/usr/bin/perl".into(),
            argv: [c"perl", c"-e"]
                .map(CString::from)
                .into_iter()
                .chain([CString::new(SCRIPT).unwrap()])
                .collect(),
            environment: Vec::new(),
            fds: vec![theirs.as_fd()],
        };
        let apart = Apart { cgroup: None, asked: Some(asked.as_fd()), ..Apart::default() };
        let child = spawn_apart(&program, apart).unwrap();
        drop((theirs, asked));
        let mut received = scm::receive(ours.as_fd(), &mut [0]).unwrap();
        (child, received.fds.pop().unwrap(), said)
    }

    /// The next notification, waited for.
    fn next(listener: &OwnedFd) -> Option<Notification> {
        loop {
            poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
            match receive(listener.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received.unwrap(),
            }
        }
    }

    fn heard(mut said: UnixStream, child: &Pidfd) -> String {
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.pid()), None).unwrap();
        text
    }

    #[test]
    fn a_program_that_binds_gets_another_socket_and_does_not_notice() {
        let (child, listener, said) = start();
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = next(&listener).unwrap();
        let Call::Bind { address, len } = bind.call else { panic!("{bind:?}") };
        assert_eq!(bind.tid, child.pid());
        let bytes = other::bytes_at(bind.tid, address, len).unwrap();
        assert_eq!(bytes[2..8], [0, 7, 127, 0, 0, 9]);
        assert!(is_valid(listener.as_fd(), bind.id));
        replace(listener.as_fd(), &bind, ours.as_fd(), true).unwrap();
        answer(listener.as_fd(), bind.id, Answer::Done).unwrap();
        assert!(!is_valid(listener.as_fd(), bind.id));
        let listen = next(&listener).unwrap();
        assert_eq!((listen.call, listen.number), (Call::Listen, bind.number));
        answer(listener.as_fd(), listen.id, Answer::Continue).unwrap();
        assert_eq!(heard(said, &child), format!("port {}\n", ours.local_addr().unwrap().port()));
        assert_eq!(next(&listener), None, "nobody is left who could ask");
    }

    #[test]
    fn a_call_can_be_refused_and_one_that_was_killed_asks_no_more() {
        let (child, listener, said) = start();
        let bind = next(&listener).unwrap();
        answer(listener.as_fd(), bind.id, Answer::Refused(Errno::EADDRNOTAVAIL)).unwrap();
        let listen = next(&listener).unwrap();
        child.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        // What it had said until then may not have left its buffer.
        heard(said, &child);
        assert!(!is_valid(listener.as_fd(), listen.id));
        answer(listener.as_fd(), listen.id, Answer::Continue).unwrap();
        assert_eq!(next(&listener), None);
    }

    /// What the filter says to a call by its ABI and number, and after how many instructions, as the kernel
    /// finds it out when the filter is put on; `None` if that hangs on an argument.
    fn verdict(arch: u32, call: u32) -> Option<(u32, usize)> {
        let (program, mut at, mut value) = (program(), 0, 0);
        for step in 1.. {
            let sock_filter { code, jt, jf, k } = program[at];
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            at += 1;
            match u32::from(code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => match k {
                    0 => value = call,
                    4 => value = arch,
                    _ => return None,
                },
                code if code == BPF_JMP | BPF_JEQ | BPF_K => at += jump(value == k),
                code if code == BPF_JMP | BPF_JGE | BPF_K => at += jump(value >= k),
                _ => return Some((k, step)),
            }
        }
        None
    }

    #[test]
    fn every_call_but_those_asked_about_is_allowed_without_a_look_at_its_arguments() {
        let asked = [libc::SYS_bind, libc::SYS_listen, libc::SYS_io_uring_setup].map(|call| call as u32);
        for call in (0..1024).chain(X32..X32 + 1024) {
            let is_asked = asked.contains(&call) || asked[..2].contains(&(call & !X32));
            let wanted = if is_asked { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
            assert_eq!(verdict(ARCH, call).unwrap().0, wanted, "{call}");
        }
        let (foreign, bind, socketcall) = FOREIGN;
        assert_eq!(verdict(foreign, bind).unwrap().0, libc::SECCOMP_RET_USER_NOTIF);
        assert_eq!(verdict(foreign, socketcall), None, "which call it is, is in its first argument");
        assert_eq!(verdict(foreign, bind + 1).unwrap().0, libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn what_a_server_does_all_day_is_allowed_after_a_few_instructions() {
        let all_day = [libc::SYS_read, libc::SYS_write, libc::SYS_close];
        let costs = |call: &libc::c_long| verdict(ARCH, *call as u32).unwrap().1;
        assert!(all_day.iter().all(|call| costs(call) <= 5));
        assert!([libc::SYS_accept4, libc::SYS_epoll_pwait].iter().all(|call| costs(call) <= 10));
    }
}
