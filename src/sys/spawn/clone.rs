//! A new process by clone(2) or clone3(2), and the calling thread sleeps until it executes a program or ends.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
#[cfg(feature = "cli")]
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::sys::pidfd::Pidfd;

/// What a process does from its beginning to its end, unless it executes a program; and its exit status.
pub(super) type Life = extern "C" fn(*mut c_void) -> c_int;

/// The child's stack, in bytes, of which it needs a few thousand.
const STACK: usize = 64 * 1024;

/// Makes a process that leads its `life` in our memory, on a stack of its own: a child of ours, or with
/// `CLONE_PARENT` as `whose` of our parent. Nothing is copied, however large we are.
///
/// Errors: those of clone(2).
///
/// # Safety
/// `life` makes system calls alone, on what `child` points to; nobody else uses that until this returns.
pub(super) unsafe fn in_our_memory(life: Life, child: *mut c_void, whose: c_int) -> Result<Pidfd, Errno> {
    let mut stack = Vec::<MaybeUninit<u8>>::with_capacity(STACK);
    let flags = whose | libc::CLONE_PIDFD | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    with_no_signals(|pidfd| {
        // SAFETY: the stack ends inside its allocation and grows downwards; it lives until the child has left
        // our memory, which is when CLONE_VFORK lets us return. The rest is our caller's promise.
        unsafe { libc::clone(life, stack.as_mut_ptr().add(STACK).cast(), flags, child, pidfd) }
    })
}

/// Makes a child that leads its `life` in a copy of our memory, and in the cgroup in this folder from its
/// first moment on. Who writes to cgroup.procs instead waits for all that the kernel has under way: ten
/// milliseconds and more.
///
/// Errors: those of clone3(2), among them ENOSYS where a container hides it.
///
/// # Safety
/// `life` makes system calls alone, on what `child` points to.
#[cfg(feature = "cli")]
pub(super) unsafe fn in_cgroup(
    life: Life,
    child: *mut c_void,
    cgroup: BorrowedFd<'_>,
) -> Result<Pidfd, Errno> {
    /// `struct clone_args` of linux/sched.h, as Linux 5.7 has it.
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    /// libc's is too short a number for it.
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    with_no_signals(|pidfd| {
        let arguments = Arguments {
            flags: CLONE_INTO_CGROUP | (libc::CLONE_PIDFD | libc::CLONE_VFORK) as u64,
            pidfd: pidfd.addr() as u64,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: u64::from(cgroup.as_raw_fd().unsigned_abs()),
            ..Arguments::default()
        };
        let size = size_of::<Arguments>();
        // SAFETY: the kernel reads `arguments` and writes to `pidfd`, which live; the child has a copy of our
        // memory and returns from here on a copy of our stack. The rest is our caller's promise.
        unsafe {
            match libc::syscall(libc::SYS_clone3, &raw const arguments, size) {
                0 => libc::_exit(life(child)),
                pid => pid as c_int,
            }
        }
    })
}

/// Calls `clone`, which is to store a pidfd where it is told; in the child no handler of ours may run, for
/// it would do its work in our memory.
fn with_no_signals(clone: impl FnOnce(*mut c_int) -> c_int) -> Result<Pidfd, Errno> {
    let mut pidfd = -1;
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let pid = Errno::result(clone(&raw mut pidfd));
    // It was the mask before, so it is a good one.
    let _ = mask.thread_set_mask();
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
    Ok(Pidfd::new(pid?, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}
