//! Datagrams that carry file descriptors: SCM_RIGHTS and SCM_CREDENTIALS, see unix(7), cmsg(3).
//!
//! A descriptor that arrives is owned and close-on-exec before anybody sees it, also when the
//! message turns out to be cut; none is ever lost to a number. Nothing in here waits: a socket that
//! would block says so, and the caller decides how long to be patient.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Most descriptors that one message may carry: the kernel's SCM_MAX_FD.
pub(crate) const MAX_FDS: usize = 253;

/// Room for SCM_MAX_FD descriptors and one `ucred`, so that the kernel never cuts for our lack of
/// space. `CMSG_SPACE` needs no more than 32 bytes of head and padding for each.
const CONTROL_BYTES: usize = MAX_FDS * size_of::<RawFd>() + size_of::<libc::ucred>() + 64;

/// The buffer for control messages, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; CONTROL_BYTES]);

/// One message as it came: how many bytes of the caller's buffer it fills, and what it carried.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes written to the buffer; 0 is the end of the stream.
    pub(crate) len: usize,
    /// The descriptors, close-on-exec, in the order they were sent.
    pub(crate) fds: Vec<OwnedFd>,
    /// The sender's pid as the kernel vouches for it; only with SO_PASSCRED on the socket.
    pub(crate) pid: Option<i32>,
    /// The message was longer than the buffer: MSG_TRUNC. Its tail is gone.
    pub(crate) truncated: bool,
    /// Descriptors were lost on the way (MSG_CTRUNC): this process may hold no more of them.
    pub(crate) fds_lost: bool,
}

/// Sends `bytes` with `fds` as one message on a connected socket; never blocks, never raises SIGPIPE,
/// never allocates.
///
/// Errors: `WouldBlock` when the peer's queue is full; EINVAL for more than [`MAX_FDS`];
/// ETOOMANYREFS when too many descriptors of this user are in flight; EPIPE when the peer is gone.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX_FDS {
        return Err(Errno::EINVAL.into());
    }
    let mut control = Control([MaybeUninit::zeroed(); CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut header = header(&mut part, &mut control);
    if fds.is_empty() {
        header.msg_controllen = 0;
    } else {
        let size = (fds.len() * size_of::<RawFd>()) as libc::c_uint;
        // SAFETY: `control` has room for a header and MAX_FDS descriptors, which need not be aligned.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size) as _;
            let head = libc::CMSG_FIRSTHDR(&raw const header);
            (*head).cmsg_level = libc::SOL_SOCKET;
            (*head).cmsg_type = libc::SCM_RIGHTS;
            (*head).cmsg_len = libc::CMSG_LEN(size) as _;
            let numbers = libc::CMSG_DATA(head).cast::<RawFd>();
            for (place, fd) in fds.iter().enumerate() {
                numbers.add(place).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    loop {
        // SAFETY: every pointer in `header` is to a live local or to `bytes`, with its true length; what
        // is sent is only read.
        let sent = unsafe {
            libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        match Errno::result(sent) {
            Err(Errno::EINTR) => {}
            sent => return Ok(sent?.unsigned_abs()),
        }
    }
}

/// A message of one part, with the whole buffer for control messages.
fn header(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: `msghdr` is plain data for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES;
    header
}

/// Receives one message into `buffer`; never blocks.
///
/// Errors: `WouldBlock` when nothing is there, else what recvmsg(2) says.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = Control([MaybeUninit::uninit(); CONTROL_BYTES]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut header = header(&mut part, &mut control);
    let len = loop {
        // SAFETY: every pointer in `header` is to a live local or to `buffer`, with its true length.
        let n = unsafe {
            libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT)
        };
        match usize::try_from(n) {
            Ok(n) => break n,
            Err(_) if Errno::last() == Errno::EINTR => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the kernel has just filled `header` and what it points to.
    let (fds, pid) = unsafe { collect(&header) };
    Ok(Received {
        len,
        fds,
        pid,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        fds_lost: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Takes everything out of the control messages of `header`.
///
/// # Safety
/// `header` was filled by a successful recvmsg(2), its control buffer is alive, and this is called
/// once for it: the descriptors in it become owned here.
unsafe fn collect(header: &libc::msghdr) -> (Vec<OwnedFd>, Option<i32>) {
    let (mut fds, mut pid) = (Vec::new(), None);
    // SAFETY: `header` describes a control buffer that the kernel wrote; the CMSG macros stay in it.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a whole header inside the buffer.
        let (head, data) = unsafe { (&*at, libc::CMSG_DATA(at)) };
        // SAFETY: CMSG_LEN only computes.
        let bytes = head.cmsg_len.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            for i in 0..bytes / size_of::<RawFd>() {
                // SAFETY: the kernel wrote that many descriptors, open and ours alone; the data of a
                // control message need not be aligned for them.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(i).read_unaligned()) });
            }
        }
        if head.cmsg_level == libc::SOL_SOCKET
            && head.cmsg_type == libc::SCM_CREDENTIALS
            && bytes >= size_of::<libc::ucred>()
        {
            // SAFETY: the kernel wrote a whole `ucred` there, perhaps unaligned.
            pid = Some(unsafe { data.cast::<libc::ucred>().read_unaligned() }.pid);
        }
        // SAFETY: `at` is a header inside the buffer of `header`.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    (fds, pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::seqpacket::{pair, pass_credentials};
    use std::os::fd::AsFd;

    #[test]
    fn a_message_arrives_whole_with_its_descriptors_and_its_sender() {
        let (a, b) = pair().unwrap();
        pass_credentials(b.as_fd()).unwrap();
        send(a.as_fd(), b"hello", &[a.as_fd(), b.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let got = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..got.len], got.fds.len()), (&b"hello"[..], 2));
        assert_eq!(got.pid, Some(std::process::id().cast_signed()));
        let flags = nix::fcntl::fcntl(&got.fds[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn a_full_load_of_descriptors_fits_and_one_more_is_refused() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"x", &[a.as_fd(); MAX_FDS]).unwrap();
        assert_eq!(receive(b.as_fd(), &mut [0; 1]).unwrap().fds.len(), MAX_FDS);
        let refused = send(a.as_fd(), b"x", &[a.as_fd(); MAX_FDS + 1]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_message_longer_than_the_buffer_says_that_it_was_cut() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"too long", &[]).unwrap();
        assert!(receive(b.as_fd(), &mut [0; 3]).unwrap().truncated);
    }

    #[test]
    fn an_empty_queue_would_block_and_a_gone_peer_is_the_end() {
        let (a, b) = pair().unwrap();
        assert_eq!(receive(b.as_fd(), &mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut [0; 1]).unwrap().len, 0);
        assert_eq!(send(b.as_fd(), b"x", &[]).unwrap_err().raw_os_error(), Some(libc::EPIPE));
    }
}
