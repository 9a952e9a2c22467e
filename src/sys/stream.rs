//! Bytes out of a connected stream socket, into memory that nobody has written yet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use tokio::io::ReadBuf;

/// Reads what fits into the rest of `buffer`: recv(2). Returns how many bytes those are; 0 is the end.
///
/// Errors: EAGAIN if nothing is there and the socket does not block; else what recv(2) says.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: it is given to recv(2) alone, which makes nothing uninitialised.
    let rest = unsafe { buffer.unfilled_mut() };
    // SAFETY: the kernel writes at most as many bytes as `rest` has, which is ours for the call.
    let received = unsafe { libc::recv(socket.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), 0) };
    let received = Errno::result(received)?.unsigned_abs();
    // SAFETY: the kernel has written that many bytes, from the beginning of what was unfilled.
    unsafe { buffer.assume_init(received) };
    buffer.advance(received);
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::mem::MaybeUninit;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_there_is_read_behind_what_was_read_before() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut memory = [MaybeUninit::uninit(); 8];
        let mut buffer = ReadBuf::uninit(&mut memory);
        let nothing = receive(ours.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        theirs.write_all(b"hello").unwrap();
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap(), 5);
        theirs.write_all(b", world").unwrap();
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap(), 3);
        assert_eq!(buffer.filled(), b"hello, w");
        drop(theirs);
        buffer.clear();
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap(), 4);
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap(), 0);
    }
}
