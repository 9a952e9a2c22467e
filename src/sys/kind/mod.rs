//! What a descriptor is: asked of the kernel, never guessed from a name or a number.
//!
//! The words are here, the questions in `ask`.

mod ask;

use std::fmt;

pub(crate) use ask::{address, is_on_pidfs, kind, may_report_on_sent};

/// What a descriptor is, as the kernel says it; see [`Display`](fmt::Display) for the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A socket: how it talks, and what it is doing.
    Socket(Transport, Role),
    /// A pipe, with or without a name: fifo(7).
    Fifo,
    /// Memory with a descriptor: memfd_create(2).
    Memfd,
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A character device, a terminal too.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A POSIX message queue: mq_overview(7).
    MessageQueue,
    /// A process: pidfd_open(2).
    Pidfd,
    /// eventfd(2).
    Eventfd,
    /// timerfd_create(2).
    Timerfd,
    /// signalfd(2).
    Signalfd,
    /// epoll(7).
    Epoll,
    /// inotify(7).
    Inotify,
    /// The listener of a seccomp filter: seccomp_unotify(2).
    SeccompListener,
    /// Something that has no word here yet.
    Other,
}

/// How a socket talks: its family, type and protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// Multipath TCP; works wherever TCP does.
    Mptcp,
    /// SCTP, one-to-one or one-to-many.
    Sctp,
    /// UDP over IPv4 or IPv6.
    Udp,
    /// AF_UNIX, a stream of bytes.
    UnixStream,
    /// AF_UNIX, datagrams.
    UnixDatagram,
    /// AF_UNIX, a connection of whole messages.
    UnixSeqpacket,
    /// vsock(7), a stream of bytes.
    VsockStream,
    /// vsock(7), datagrams.
    VsockDatagram,
    /// vsock(7), a connection of whole messages.
    VsockSeqpacket,
    /// netlink(7).
    Netlink {
        /// The netlink family: SO_PROTOCOL.
        protocol: i32,
    },
    /// Another socket, by the numbers of socket(2).
    Other {
        /// SO_DOMAIN.
        domain: i32,
        /// SO_TYPE.
        socktype: i32,
        /// SO_PROTOCOL.
        protocol: i32,
    },
}

/// What a socket is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// It waits for connections: SO_ACCEPTCONN.
    Listening,
    /// It has a peer: getpeername(2).
    Connected,
    /// Neither. For datagrams and netlink the usual state of a server; a stream that is so is of no use yet.
    Alone,
}

impl Kind {
    /// Whether this is what a server waits on: a socket that listens, or one for datagrams without a
    /// fixed peer.
    pub fn is_for_serving(self) -> bool {
        match self {
            Self::Socket(_, Role::Listening) => true,
            Self::Socket(transport, Role::Alone) => transport.is_connectionless(),
            _ => false,
        }
    }
}

impl Transport {
    /// Whether a socket of this kind is used without ever being connected.
    fn is_connectionless(self) -> bool {
        match self {
            Self::Udp | Self::UnixDatagram | Self::VsockDatagram | Self::Netlink { .. } => true,
            Self::Other { socktype, .. } => socktype == libc::SOCK_DGRAM || socktype == libc::SOCK_RAW,
            _ => false,
        }
    }
}

/// The short form: "listening TCP socket", "memfd".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Socket(transport, role) => {
                match role {
                    Role::Listening => f.write_str("listening ")?,
                    Role::Connected => f.write_str("connected ")?,
                    Role::Alone if transport.is_connectionless() => {}
                    Role::Alone => f.write_str("unconnected ")?,
                }
                return write!(f, "{transport}");
            }
            Self::Fifo => "pipe",
            Self::Memfd => "memfd",
            Self::Regular => "regular file",
            Self::Directory => "directory",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
            Self::MessageQueue => "message queue",
            Self::Pidfd => "pidfd",
            Self::Eventfd => "eventfd",
            Self::Timerfd => "timerfd",
            Self::Signalfd => "signalfd",
            Self::Epoll => "epoll descriptor",
            Self::Inotify => "inotify descriptor",
            Self::SeccompListener => "seccomp listener",
            Self::Other => "descriptor of an unknown kind",
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP socket",
            Self::Mptcp => "MPTCP socket",
            Self::Sctp => "SCTP socket",
            Self::Udp => "UDP socket",
            Self::UnixStream => "unix stream socket",
            Self::UnixDatagram => "unix datagram socket",
            Self::UnixSeqpacket => "unix seqpacket socket",
            Self::VsockStream => "vsock stream socket",
            Self::VsockDatagram => "vsock datagram socket",
            Self::VsockSeqpacket => "vsock seqpacket socket",
            Self::Netlink { protocol } => return write!(f, "netlink socket (family {protocol})"),
            Self::Other { domain, socktype, protocol } => {
                return write!(f, "socket (domain {domain}, type {socktype}, protocol {protocol})");
            }
        })
    }
}
