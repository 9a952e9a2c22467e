//! What PID 1 may watch. It drops from the store what reports an error or that the other side has hung
//! up, and tells nobody; a healthy descriptor can report both. FDPOLL=0 has it look away.

use crate::activation::{Kind, Role, Transport};

/// Whether PID 1 may drop this by itself when epoll(7) reports EPOLLHUP or EPOLLERR.
///
/// It may drop a TCP connection that was reset, for nothing can be done with it any more; not one that
/// gets reports on what it sent (`reports`), which look like an error. Of a unix stream, a pipe or a
/// socket for datagrams there may be something left to read. What never reports either is watched at
/// no cost.
pub(super) fn may_watch(kind: Kind, reports: bool) -> bool {
    match kind {
        Kind::Socket(Transport::Tcp, Role::Connected) => !reports,
        Kind::Memfd | Kind::Regular | Kind::Directory | Kind::BlockDevice => true,
        Kind::Eventfd | Kind::Timerfd | Kind::Signalfd | Kind::Epoll | Kind::Inotify => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_beyond_help_when_it_hangs_up_is_watched() {
        let socket = Kind::Socket;
        #[rustfmt::skip]
        let table = [
            (socket(Transport::Tcp, Role::Connected), false, true),
            (socket(Transport::Tcp, Role::Connected), true, false),
            // Not connected yet: EPOLLHUP at once.
            (socket(Transport::Tcp, Role::Alone), false, false),
            (socket(Transport::Mptcp, Role::Connected), false, false),
            // A pending ICMP error is EPOLLERR.
            (socket(Transport::Udp, Role::Alone), false, false),
            (socket(Transport::Udp, Role::Connected), false, false),
            // The peer has written and closed: EPOLLHUP, with bytes to read.
            (socket(Transport::UnixStream, Role::Connected), false, false),
            (socket(Transport::UnixSeqpacket, Role::Connected), false, false),
            (socket(Transport::UnixDatagram, Role::Alone), false, false),
            (socket(Transport::VsockStream, Role::Connected), false, false),
            // An overrun is EPOLLERR.
            (socket(Transport::Netlink { protocol: 0 }, Role::Alone), false, false),
            (Kind::Fifo, false, false),
            // A terminal whose other side is closed.
            (Kind::CharDevice, false, false),
            (Kind::Pidfd, false, false),
            (Kind::Memfd, false, true),
            (Kind::Eventfd, false, true),
            (Kind::Other, false, false),
        ];
        for (kind, reports, watched) in table {
            assert_eq!(may_watch(kind, reports), watched, "{kind}, reports: {reports}");
        }
    }
}
