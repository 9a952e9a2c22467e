//! The questions by which the kernel tells what a descriptor is.
//!
//! fstat(2) tells files, pipes and devices apart; a socket says the rest itself (SO_DOMAIN, SO_TYPE,
//! SO_PROTOCOL, SO_ACCEPTCONN, getpeername(2)). What has no file of its own, as a pidfd or an eventfd,
//! is told by its file system or by its name in /proc/self/fd. Nothing in here reads from, writes to
//! or changes what it looks at.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::{SockaddrStorage, getsockname};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};

use super::{Kind, Role, Transport};

/// PIDFS_MAGIC of linux/magic.h.
const PIDFS: FsType = FsType(0x5049_4446);
/// MQUEUE_MAGIC of the kernel's ipc/mqueue.c.
const MQUEUE: FsType = FsType(0x1980_0202);

/// Asks the kernel what `fd` is. Errors are those of fstat(2) and getsockopt(2).
pub(crate) fn kind(fd: BorrowedFd<'_>) -> io::Result<Kind> {
    let stat = fstat(fd)?;
    Ok(match stat.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => socket(fd)?,
        libc::S_IFIFO => Kind::Fifo,
        libc::S_IFDIR => Kind::Directory,
        libc::S_IFCHR => Kind::CharDevice,
        libc::S_IFBLK => Kind::BlockDevice,
        // pidfs and mqueue call theirs regular, and so do some kernels everything without a file.
        format => special(fd, stat.st_nlink == 0).unwrap_or(match format {
            libc::S_IFREG => Kind::Regular,
            _ => Kind::Other,
        }),
    })
}

/// Whether `fd` is a pidfd of a kernel that gives each process an inode of its own (6.9).
pub(crate) fn is_on_pidfs(fd: impl AsFd) -> bool {
    fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == PIDFS)
}

/// Whether the kernel may put reports of what was sent into the error queue of this socket
/// (SO_ZEROCOPY, SO_TIMESTAMPING): until somebody reads them there, poll(2) says that it has an error.
pub(crate) fn may_report_on_sent(fd: BorrowedFd<'_>) -> bool {
    [libc::SO_ZEROCOPY, libc::SO_TIMESTAMPING]
        .into_iter()
        .any(|name| option(fd, name).is_ok_and(|on| on != 0))
}

/// The local address of a socket as people write it: `0.0.0.0:80`, `[::]:80`, `/run/x`, `@x`,
/// `vsock:2:80`. `None` for what has none.
pub(crate) fn address(fd: BorrowedFd<'_>) -> Option<String> {
    let name: SockaddrStorage = getsockname(fd.as_raw_fd()).ok()?;
    if let Some(v4) = name.as_sockaddr_in() {
        return Some(std::net::SocketAddrV4::from(*v4).to_string());
    }
    if let Some(v6) = name.as_sockaddr_in6() {
        return Some(std::net::SocketAddrV6::from(*v6).to_string());
    }
    if let Some(vsock) = name.as_vsock_addr() {
        return Some(format!("vsock:{}:{}", vsock.cid(), vsock.port()));
    }
    let unix = name.as_unix_addr()?;
    if let Some(path) = unix.path() {
        return Some(path.display().to_string());
    }
    Some(format!("@{}", String::from_utf8_lossy(unix.as_abstract()?).escape_debug()))
}

/// Tells sockets apart.
fn socket(fd: BorrowedFd<'_>) -> io::Result<Kind> {
    let domain = option(fd, libc::SO_DOMAIN)?;
    let socktype = option(fd, libc::SO_TYPE)?;
    let protocol = option(fd, libc::SO_PROTOCOL)?;
    let transport = match (domain, socktype, protocol) {
        (libc::AF_INET | libc::AF_INET6, _, libc::IPPROTO_SCTP) => Transport::Sctp,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP) => Transport::Tcp,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_MPTCP) => Transport::Mptcp,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP) => Transport::Udp,
        (libc::AF_UNIX, libc::SOCK_STREAM, _) => Transport::UnixStream,
        (libc::AF_UNIX, libc::SOCK_DGRAM, _) => Transport::UnixDatagram,
        (libc::AF_UNIX, libc::SOCK_SEQPACKET, _) => Transport::UnixSeqpacket,
        (libc::AF_VSOCK, libc::SOCK_STREAM, _) => Transport::VsockStream,
        (libc::AF_VSOCK, libc::SOCK_DGRAM, _) => Transport::VsockDatagram,
        (libc::AF_VSOCK, libc::SOCK_SEQPACKET, _) => Transport::VsockSeqpacket,
        (libc::AF_NETLINK, _, protocol) => Transport::Netlink { protocol },
        (domain, socktype, protocol) => Transport::Other { domain, socktype, protocol },
    };
    // Not every family knows SO_ACCEPTCONN; one that does not cannot listen.
    let role = if option(fd, libc::SO_ACCEPTCONN).is_ok_and(|on| on != 0) {
        Role::Listening
    } else if domain != libc::AF_NETLINK && has_peer(fd) {
        Role::Connected
    } else {
        Role::Alone
    };
    Ok(Kind::Socket(transport, role))
}

/// Tells apart what fstat(2) does not; `unlinked` is whether it has no name in any directory.
fn special(fd: BorrowedFd<'_>, unlinked: bool) -> Option<Kind> {
    if let Ok(fs) = fstatfs(fd) {
        match fs.filesystem_type() {
            PIDFS => return Some(Kind::Pidfd),
            MQUEUE => return Some(Kind::MessageQueue),
            _ => {}
        }
    }
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
    let link = link.as_ref().map(|link| link.as_os_str().as_bytes());
    match link {
        Some(b"anon_inode:[pidfd]") => return Some(Kind::Pidfd),
        Some(b"anon_inode:[eventfd]") => return Some(Kind::Eventfd),
        Some(b"anon_inode:[timerfd]") => return Some(Kind::Timerfd),
        Some(b"anon_inode:[signalfd]") => return Some(Kind::Signalfd),
        Some(b"anon_inode:[eventpoll]") => return Some(Kind::Epoll),
        Some(b"anon_inode:inotify") => return Some(Kind::Inotify),
        Some(b"anon_inode:seccomp notify") => return Some(Kind::SeccompListener),
        Some(other) if other.starts_with(b"anon_inode:") => return Some(Kind::Other),
        _ => {}
    }
    // A file of a tmpfs has seals too, and any file may be called "memfd:": only together they tell.
    let called_so = link.is_none_or(|link| link.starts_with(b"/memfd:"));
    (unlinked && called_so && fcntl(fd, FcntlArg::F_GET_SEALS).is_ok()).then_some(Kind::Memfd)
}

/// One of the options of SOL_SOCKET that are an `int`. nix knows the types it knows; here every
/// number the kernel gives is an answer.
fn option(fd: BorrowedFd<'_>, name: i32) -> io::Result<i32> {
    let mut value: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `value`, and both are live locals.
    let done = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut len)
    };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Whether the socket is connected; what its peer is called does not matter.
fn has_peer(fd: BorrowedFd<'_>) -> bool {
    let mut name = [0_u8; size_of::<libc::sockaddr_storage>()];
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `name`, as bytes, and both are live locals.
    unsafe { libc::getpeername(fd.as_raw_fd(), name.as_mut_ptr().cast(), &raw mut len) == 0 }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn words(fd: impl AsFd) -> String {
        kind(fd.as_fd()).unwrap().to_string()
    }

    /// A descriptor that a system call of the caller has just made, if it did.
    fn made(number: libc::c_int) -> Option<OwnedFd> {
        // SAFETY: the kernel has just made it, and it goes nowhere else.
        (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number) })
    }

    fn fresh(domain: i32, socktype: i32, protocol: i32) -> Option<OwnedFd> {
        // SAFETY: socket(2) takes three numbers.
        made(unsafe { libc::socket(domain, socktype | libc::SOCK_CLOEXEC, protocol) })
    }

    #[test]
    fn a_socket_that_reports_on_what_it_sent_is_told_by_its_options() {
        use nix::sys::socket::{TimestampingFlag, setsockopt, sockopt};
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!may_report_on_sent(socket.as_fd()));
        setsockopt(&socket, sockopt::Timestamping, &TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE).unwrap();
        assert!(may_report_on_sent(socket.as_fd()));
        assert!(!may_report_on_sent(File::open("/").unwrap().as_fd()));
    }

    #[test]
    fn tcp_says_whether_it_listens_is_connected_or_neither() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(words(&listener), "listening TCP socket");
        assert_eq!(words(&client), "connected TCP socket");
        assert_eq!(words(listener.accept().unwrap().0), "connected TCP socket");
        let alone = fresh(libc::AF_INET6, libc::SOCK_STREAM, 0);
        assert!(alone.is_none_or(|fd| words(fd) == "unconnected TCP socket"));
    }

    #[test]
    fn udp_says_whether_it_has_a_fixed_peer() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(words(&udp), "UDP socket");
        udp.connect("127.0.0.1:9").unwrap();
        assert_eq!(words(&udp), "connected UDP socket");
    }

    #[test]
    fn unix_sockets_are_told_by_type_and_role() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert_eq!(words(a), "connected unix stream socket");
        assert_eq!(words(UnixDatagram::unbound().unwrap()), "unix datagram socket");
        assert_eq!(words(crate::sys::seqpacket::pair().unwrap().0), "connected unix seqpacket socket");
        let alone = fresh(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0).unwrap();
        assert_eq!(words(alone), "unconnected unix seqpacket socket");
    }

    #[test]
    fn mptcp_sctp_netlink_and_vsock_are_told_where_the_kernel_has_them() {
        let cases = [
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP, "unconnected MPTCP socket"),
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP, "unconnected SCTP socket"),
            (libc::AF_VSOCK, libc::SOCK_STREAM, 0, "unconnected vsock stream socket"),
            (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT, "netlink socket (family 15)"),
        ];
        for (domain, socktype, protocol, expected) in cases {
            let found = fresh(domain, socktype, protocol).map(words);
            assert!(found.as_ref().is_none_or(|words| words == expected), "{found:?} is no {expected}");
        }
    }

    #[test]
    fn a_memfd_is_no_regular_file_also_without_sealing_and_an_unlinked_file_is_no_memfd() {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        assert_eq!(words(memfd_create("state", MFdFlags::MFD_ALLOW_SEALING).unwrap()), "memfd");
        assert_eq!(words(memfd_create("state", MFdFlags::MFD_CLOEXEC).unwrap()), "memfd");
        for folder in ["/dev/shm".into(), std::env::temp_dir()] {
            let path = folder.join(format!("handover-kind-{}", std::process::id()));
            let Ok(file) = File::create_new(&path) else { continue };
            assert_eq!(words(&file), "regular file");
            std::fs::remove_file(&path).unwrap();
            assert_eq!(words(&file), "regular file");
        }
    }

    #[test]
    fn files_pipes_and_devices_are_told_by_their_mode() {
        assert_eq!(words(File::open("/").unwrap()), "directory");
        assert_eq!(words(File::open("/dev/null").unwrap()), "character device");
        assert_eq!(words(std::io::pipe().unwrap().0), "pipe");
        assert_eq!(words(File::open("/proc/self/exe").unwrap()), "regular file");
    }

    #[test]
    fn what_has_no_file_is_told_by_its_name_in_proc() {
        use nix::sys::{epoll, eventfd, signal, signalfd, timerfd};
        assert_eq!(words(eventfd::EventFd::new().unwrap()), "eventfd");
        assert_eq!(words(epoll::Epoll::new(epoll::EpollCreateFlags::empty()).unwrap().0), "epoll descriptor");
        // SAFETY: inotify_init1(2) takes one number.
        let inotify = made(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) });
        assert_eq!(words(inotify.unwrap()), "inotify descriptor");
        assert_eq!(words(signalfd::SignalFd::new(&signal::SigSet::empty()).unwrap()), "signalfd");
        let clock = timerfd::TimerFd::new(timerfd::ClockId::CLOCK_MONOTONIC, timerfd::TimerFlags::empty());
        assert_eq!(words(clock.unwrap()), "timerfd");
    }

    #[test]
    fn a_pidfd_is_told_by_its_file_system() {
        // SAFETY: pidfd_open(2) takes two numbers.
        let number = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
        let fd = made(libc::c_int::try_from(number).unwrap()).unwrap();
        assert_eq!(words(fd), "pidfd");
    }

    #[test]
    fn a_message_queue_is_no_regular_file() {
        let name = std::ffi::CString::new(format!("/handover-{}", std::process::id())).unwrap();
        let attributes = std::ptr::null::<libc::mq_attr>();
        // SAFETY: the name ends with a zero byte; null attributes stand for the defaults.
        let number = unsafe { libc::mq_open(name.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600, attributes) };
        // SAFETY: the name ends with a zero byte.
        unsafe { libc::mq_unlink(name.as_ptr()) };
        assert!(made(number).is_none_or(|fd| words(fd) == "message queue"));
    }

    #[test]
    fn an_address_reads_as_people_write_it() {
        let at = |fd: BorrowedFd<'_>| address(fd).unwrap_or_else(|| "none".to_string());
        let v4 = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(at(v4.as_fd()), v4.local_addr().unwrap().to_string());
        if let Ok(v6) = TcpListener::bind("[::1]:0") {
            assert_eq!(at(v6.as_fd()), v6.local_addr().unwrap().to_string());
        }
        let path = std::env::temp_dir().join(format!("handover-address-{}", std::process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(at(unix.as_fd()), path.display().to_string());
        assert_eq!(at(UnixDatagram::unbound().unwrap().as_fd()), "none");
        assert_eq!(at(File::open("/").unwrap().as_fd()), "none");
        use std::os::linux::net::SocketAddrExt;
        let name = format!("handover-{}", std::process::id());
        let abstractly = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let unix = UnixListener::bind_addr(&abstractly).unwrap();
        assert_eq!(
            (at(unix.as_fd()), words(&unix)),
            (format!("@{name}"), "listening unix stream socket".into())
        );
    }

    #[test]
    fn only_what_a_server_waits_on_is_for_serving() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(!kind(a.as_fd()).unwrap().is_for_serving());
        assert!(kind(TcpListener::bind("127.0.0.1:0").unwrap().as_fd()).unwrap().is_for_serving());
        assert!(kind(UdpSocket::bind("127.0.0.1:0").unwrap().as_fd()).unwrap().is_for_serving());
        assert!(!Kind::Memfd.is_for_serving());
    }
}
