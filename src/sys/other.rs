//! Looking into another process: its memory and its descriptors, see process_vm_readv(2), pidfd_getfd(2).
//!
//! The kernel allows it to those who may trace that process, ptrace(2): of the same user, and an
//! ancestor where Yama is at 1. What is done to a copy of a socket is done to the socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use super::pidfd::Pidfd;

/// Most bytes that are read at once: enough for an address, for a set of descriptors, and for what a
/// thread gives to poll(2), if it has not thousands.
const MOST: u64 = 32 * 1024;

/// The `len` bytes at `address` in the memory of the thread `tid`; the first 32 KiB of them.
///
/// Errors: EFAULT when they are not there, EPERM, ESRCH.
pub(crate) fn bytes_at(tid: i32, address: u64, len: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(len.min(MOST)).map_err(|_| Errno::EFAULT)?;
    let mut bytes = vec![0; len];
    let address = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: len };
    // SAFETY: `local` describes `bytes`, which is ours; the other address means nothing in this process.
    let read = unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) };
    match Errno::result(read)?.unsigned_abs() {
        all if all == len => Ok(bytes),
        _ => Err(Errno::EFAULT.into()),
    }
}

/// A copy of the descriptor `number` of another process, close-on-exec.
///
/// Errors: EBADF when it has no such descriptor, EPERM, ESRCH.
pub(crate) fn copy_of(process: &Pidfd, number: RawFd) -> io::Result<OwnedFd> {
    let pidfd = process.as_fd().as_raw_fd();
    // SAFETY: takes three numbers and touches no memory of ours.
    let copy = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd, number, 0) })?;
    let copy = RawFd::try_from(copy).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// For how long a TCP connection has rested after an answer: TCP_INFO of tcp(7). `None` for one on which
/// nothing has come yet, or on which something came last, for an answer may be on its way then; the
/// kernel counts in ticks of 1 to 10 ms, within which it cannot tell what was last, and it counts as the answer.
///
/// Errors: what getsockopt(2) says of something else.
pub(crate) fn resting_for(connection: BorrowedFd<'_>) -> io::Result<Option<Duration>> {
    // SAFETY: plain data, for which all zeroes is a valid value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into a live local of that size.
    let done = unsafe {
        let info = (&raw mut info).cast();
        libc::getsockopt(connection.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info, &raw mut len)
    };
    Errno::result(done)?;
    let (came, went) = (info.tcpi_last_data_recv, info.tcpi_last_data_sent);
    let has_both = info.tcpi_bytes_received > 0 && info.tcpi_data_segs_out > 0;
    let is_answered = has_both && went <= came;
    // What the client has not taken yet is still being answered.
    let is_gone = info.tcpi_unacked == 0 && info.tcpi_notsent_bytes == 0;
    Ok((is_answered && is_gone).then(|| Duration::from_millis(u64::from(went))))
}

/// Has whoever reads from a connection find its end, in every process that has it; what is written still
/// goes out: shutdown(2) of its reading half.
pub(crate) fn end_reading(connection: BorrowedFd<'_>) -> io::Result<()> {
    Ok(shutdown(connection.as_raw_fd(), Shutdown::Read)?)
}

/// Has this process be the parent of those of its descendants whose own parents end: prctl(2),
/// PR_SET_CHILD_SUBREAPER.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn memory_is_read_where_it_is_and_nowhere_else() {
        let me = std::process::id().cast_signed();
        let there = *b"an address";
        let at = there.as_ptr().addr() as u64;
        assert_eq!(bytes_at(me, at, 10).unwrap(), there);
        assert_eq!(bytes_at(me, 8, 10).unwrap_err().raw_os_error(), Some(libc::EFAULT));
        assert!(bytes_at(me, 8, u64::MAX).is_err());
    }

    /// Waits for the kernel to say so, and counts on it to do so soon.
    fn await_rest(connection: &impl AsFd, rests: bool) {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while resting_for(connection.as_fd()).unwrap().is_some() != rests {
            assert!(std::time::Instant::now() < until, "rests: {}", !rests);
        }
    }

    #[test]
    fn a_connection_rests_once_its_request_is_answered_and_until_the_next_one() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(resting_for(server.as_fd()).unwrap(), None, "nobody has asked yet");
        client.write_all(b"w").unwrap();
        server.read_exact(&mut [0]).unwrap();
        assert_eq!(resting_for(server.as_fd()).unwrap(), None, "in the same tick, maybe, as the handshake");
        for _ in 0..2 {
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).unwrap();
            server.write_all(b"y").unwrap();
            client.read_exact(&mut [0]).unwrap();
            await_rest(&server, true);
            let ticks = Duration::from_millis(20);
            while resting_for(server.as_fd()).unwrap().is_some_and(|time| time < ticks) {}
            client.write_all(b"z").unwrap();
            await_rest(&server, false);
            server.read_exact(&mut [0]).unwrap();
            assert_eq!(resting_for(server.as_fd()).unwrap(), None, "it is not answered");
        }
        assert!(resting_for(std::io::stdin().as_fd()).is_err());
    }

    #[test]
    fn a_connection_whose_reading_has_ended_still_writes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        end_reading(server.as_fd()).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        server.write_all(b"y").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn a_copy_is_the_same_socket() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let me = Pidfd::open(std::process::id().cast_signed()).unwrap();
        let mut copy = UnixStream::from(copy_of(&me, theirs.as_raw_fd()).unwrap());
        copy.write_all(b"x").unwrap();
        ours.read_exact(&mut [0]).unwrap();
        assert_eq!(copy_of(&me, 9999).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
