//! Opening what a server waits on: sockets bound to an address, and named pipes, see socket(7), fifo(7).
//!
//! Everything is close-on-exec and non-blocking. A path on which somebody still listens is never taken
//! away from them; one that a dead process left behind is.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::{SockFlag, SockaddrLike, SockaddrStorage, UnixAddr, VsockAddr, bind, connect};
use nix::sys::stat::{Mode, SFlag, fstat, umask};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An IP address and a port.
    Inet(SocketAddr),
    /// A path.
    Path(PathBuf),
    /// A name in the abstract namespace, without its leading NUL.
    Abstract(Vec<u8>),
    /// vsock(7).
    Vsock {
        /// VMADDR_CID_ANY or one of ours.
        cid: u32,
        /// The port.
        port: u32,
    },
}

/// How it talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Datagram,
    /// SOCK_SEQPACKET.
    SeqPacket,
}

/// What else is wanted of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The queue of connections; the kernel cuts it to net.core.somaxconn.
    pub(crate) backlog: i32,
    /// The permissions of a path.
    pub(crate) mode: u32,
    /// The permissions of the folders made on the way to it.
    pub(crate) directory_mode: u32,
    /// The protocol, if it is not the usual one of its kind.
    pub(crate) protocol: Option<i32>,
    /// Options of setsockopt(2), in the order in which they are set.
    pub(crate) settings: Vec<Setting>,
    /// The room of a named pipe, bytes, and what the caller calls it: fcntl(2), F_SETPIPE_SZ.
    pub(crate) pipe_size: Option<(&'static str, i32)>,
}

/// One option of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// What the caller calls it.
    pub(crate) called: &'static str,
    /// As setsockopt(2) has it.
    pub(crate) level: i32,
    /// As setsockopt(2) has it.
    pub(crate) name: i32,
    /// What it is to be.
    pub(crate) value: Value,
    /// Whether there is to be no socket without it.
    pub(crate) needed: bool,
}

/// The value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// An `int`.
    Number(i32),
    /// An `int`, by the option of this name where we may: one without the kernel's bound.
    Forced(i32, i32),
    /// A string.
    Word(String),
}

/// What was opened, and which of its options the kernel refused: as the caller calls them, and why.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The socket or pipe.
    pub(crate) fd: OwnedFd,
    /// What it goes without.
    pub(crate) refused: Vec<(&'static str, io::Error)>,
}

/// Opens a socket, bound, and listening if it is of a kind that listens.
///
/// Errors: EADDRINUSE when the address is taken, EACCES, EADDRNOTAVAIL, EAFNOSUPPORT and what else
/// socket(2), setsockopt(2) for what is needed, and bind(2) say.
pub(crate) fn open_socket(place: &Place, kind: Kind, options: &Options) -> io::Result<Opened> {
    let (family, address): (_, Box<dyn SockaddrLike>) = match place {
        Place::Inet(address @ SocketAddr::V4(_)) => {
            (libc::AF_INET, Box::new(SockaddrStorage::from(*address)))
        }
        Place::Inet(address) => (libc::AF_INET6, Box::new(SockaddrStorage::from(*address))),
        Place::Path(path) => (libc::AF_UNIX, Box::new(UnixAddr::new(path)?)),
        Place::Abstract(name) => (libc::AF_UNIX, Box::new(UnixAddr::new_abstract(name)?)),
        Place::Vsock { cid, port } => (libc::AF_VSOCK, Box::new(VsockAddr::new(*cid, *port))),
    };
    let made = new_socket(family, kind, options.protocol.unwrap_or(0))?;
    let mut refused = Vec::new();
    for setting in &options.settings {
        match setting.apply(made.as_fd()) {
            Err(why) if setting.needed => return Err(why),
            Err(why) => refused.push((setting.called, why)),
            Ok(()) => {}
        }
    }
    if let Place::Path(path) = place {
        make_folder(path, options.directory_mode)?;
        free(path, kind)?;
    }
    let before = umask(Mode::from_bits_truncate(!options.mode & 0o777));
    let bound = bind(made.as_raw_fd(), &*address);
    umask(before);
    bound?;
    if kind != Kind::Datagram {
        // SAFETY: listen(2) takes two numbers.
        Errno::result(unsafe { libc::listen(made.as_raw_fd(), options.backlog) })?;
    }
    Ok(Opened { fd: made, refused })
}

impl Setting {
    /// Sets it.
    fn apply(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        match &self.value {
            Value::Number(value) => set(fd, self.level, self.name, &value.to_ne_bytes()),
            Value::Word(value) => set(fd, self.level, self.name, value.as_bytes()),
            Value::Forced(value, by) => {
                let value = value.to_ne_bytes();
                set(fd, self.level, *by, &value).or_else(|_| set(fd, self.level, self.name, &value))
            }
        }
    }
}

/// Makes a named pipe if there is none, and opens it for reading; it has a writer in us, so that it
/// does not end with its last client.
///
/// Errors: EEXIST when something else is at the path, and what mkfifo(3) and open(2) say.
pub(crate) fn open_fifo(path: &Path, options: &Options) -> io::Result<Opened> {
    make_folder(path, options.directory_mode)?;
    let before = umask(Mode::from_bits_truncate(!options.mode & 0o777));
    let made = nix::unistd::mkfifo(path, Mode::from_bits_truncate(options.mode));
    umask(before);
    match made {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(failed) => return Err(failed.into()),
    }
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    let opened = open(path, flags, Mode::empty())?;
    if SFlag::from_bits_truncate(fstat(&opened)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFIFO {
        return Err(Errno::EEXIST.into());
    }
    let mut refused = Vec::new();
    if let Some((called, size)) = options.pipe_size
        && let Err(why) = fcntl(&opened, FcntlArg::F_SETPIPE_SZ(size))
    {
        refused.push((called, why.into()));
    }
    Ok(Opened { fd: opened, refused })
}

/// Sets or clears O_NONBLOCK, for everybody who shares the open file: fcntl(2).
pub(crate) fn set_non_blocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let mut wanted = flags;
    wanted.set(OFlag::O_NONBLOCK, on);
    if wanted != flags {
        fcntl(fd, FcntlArg::F_SETFL(wanted))?;
    }
    Ok(())
}

/// A socket with the flags that every socket in here has.
fn new_socket(family: i32, kind: Kind, protocol: i32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kind = match kind {
        Kind::Stream => libc::SOCK_STREAM,
        Kind::Datagram => libc::SOCK_DGRAM,
        Kind::SeqPacket => libc::SOCK_SEQPACKET,
    };
    // SAFETY: socket(2) takes three numbers, and what it makes is ours alone.
    let made = Errno::result(unsafe { libc::socket(family, kind | flags.bits(), protocol) })?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(made) })
}

/// One option of setsockopt(2).
fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of a live slice.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    Errno::result(done)?;
    Ok(())
}

/// Makes the folders on the way to `path`.
fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(folder)
}

/// Removes a socket that nobody listens on any more. One in use stays, and bind(2) will say so.
fn free(path: &Path, kind: Kind) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    if !std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        return Ok(());
    }
    let probe = new_socket(libc::AF_UNIX, kind, 0)?;
    if connect(probe.as_raw_fd(), &UnixAddr::new(path)?) == Err(Errno::ECONNREFUSED) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
