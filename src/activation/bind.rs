//! For development: the address that a service binds when nobody passed it a socket.

use std::fmt::Debug;
use std::io;
use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;

use super::{Inherited, Origin, TakeError};

/// Why there is no socket, neither passed nor bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// It must come from whoever passed the others, and it did not; nothing was bound.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// Nothing was passed, and the address could not be bound.
    #[error("nothing named {name:?} was passed ({origin}), and {address} cannot be bound")]
    Bind {
        /// What was asked for.
        name: String,
        /// Why nothing was passed.
        origin: Origin,
        /// The address.
        address: String,
        /// What bind(2) or the resolver said.
        source: io::Error,
    },
}

impl Inherited {
    /// Takes the listening TCP socket of this name; or binds `address` if this process was not
    /// socket-activated.
    ///
    /// If PID 1 passed other sockets but not this one, nothing is bound: the unit and the program
    /// disagree, and that must be seen. Resolving a host name may block.
    pub fn tcp_listener_or_bind(
        &mut self,
        name: &str,
        address: impl ToSocketAddrs + Debug,
    ) -> Result<TcpListener, BindError> {
        let passed = self.tcp_listener(name);
        self.or_bind(passed, &address, || {
            // std sets SO_REUSEADDR here: a restart does not wait for old connections.
            let listener = TcpListener::bind(&address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    /// Takes the UDP socket of this name, or binds `address`; else as [`Self::tcp_listener_or_bind`].
    pub fn udp_socket_or_bind(
        &mut self,
        name: &str,
        address: impl ToSocketAddrs + Debug,
    ) -> Result<UdpSocket, BindError> {
        let passed = self.udp_socket(name);
        self.or_bind(passed, &address, || {
            let socket = UdpSocket::bind(&address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
    }

    /// Takes the listening unix stream socket of this name, or binds `path`; else as
    /// [`Self::tcp_listener_or_bind`]. A socket file of which nobody is the owner any more is replaced.
    pub fn unix_listener_or_bind(
        &mut self,
        name: &str,
        path: impl AsRef<Path>,
    ) -> Result<UnixListener, BindError> {
        let (passed, path) = (self.unix_listener(name), path.as_ref());
        self.or_bind(passed, &path, || {
            if is_stale(path) {
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    /// What was passed; else what `bind` makes, where the program may bind.
    fn or_bind<T>(
        &self,
        passed: Result<T, TakeError>,
        address: &impl Debug,
        bind: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, BindError> {
        match passed {
            Err(TakeError::NotPassed { name, origin, .. }) if self.may_bind() => bind()
                .map_err(|source| BindError::Bind { name, origin, address: format!("{address:?}"), source }),
            passed => Ok(passed?),
        }
    }
}

/// Whether `path` is a socket that nobody is bound to.
fn is_stale(path: &Path) -> bool {
    if !std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return false;
    }
    // A datagram socket never waits in connect(2) and never reaches a stream listener: a live one of
    // another type is EPROTOTYPE, and only a file without a socket is refused.
    let probe = UnixDatagram::unbound().and_then(|probe| probe.connect(path));
    probe.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    fn inherited(origin: Origin, fds: Vec<(&str, OwnedFd)>) -> Inherited {
        let (names, fds) = fds.into_iter().map(|(name, fd)| (name.to_string(), fd)).unzip();
        Inherited::new(origin, fds, Some(names)).unwrap()
    }

    fn tcp() -> OwnedFd {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    fn is_nonblocking(fd: impl std::os::fd::AsFd) -> bool {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
    }

    #[test]
    fn what_was_passed_wins_over_the_address() {
        let web = tcp();
        let address = crate::sys::kind::address(std::os::fd::AsFd::as_fd(&web)).unwrap();
        let mut inherited = inherited(Origin::Manager, vec![("web", web)]);
        let taken = inherited.tcp_listener_or_bind("web", "192.0.2.1:1").unwrap();
        assert_eq!(taken.local_addr().unwrap().to_string(), address);
        assert!(matches!(
            inherited.tcp_listener_or_bind("web", "127.0.0.1:0"),
            Err(BindError::Take(TakeError::AlreadyTaken { .. }))
        ));
    }

    #[test]
    fn nothing_is_bound_when_pid_1_passed_other_sockets_also_after_they_were_taken() {
        let mut inherited = inherited(Origin::Manager, vec![("admin", tcp())]);
        inherited.tcp_listener("admin").unwrap();
        let refused = inherited.tcp_listener_or_bind("web", "127.0.0.1:0").unwrap_err();
        assert!(matches!(refused, BindError::Take(TakeError::NotPassed { .. })), "{refused}");
    }

    #[test]
    fn connections_and_files_from_the_store_do_not_keep_a_service_from_binding() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let file = std::fs::File::open("/").unwrap();
        let fds = vec![("stored", OwnedFd::from(client)), ("state", file.into())];
        inherited(Origin::Manager, fds).tcp_listener_or_bind("web", "127.0.0.1:0").unwrap();
    }

    #[test]
    fn in_development_a_missing_one_is_bound_and_does_not_block() {
        let mut inherited = inherited(Origin::Development, vec![("admin", tcp())]);
        let web = inherited.tcp_listener_or_bind("web", ("127.0.0.1", 0)).unwrap();
        assert!(is_nonblocking(&web));
        let dns = inherited.udp_socket_or_bind("dns", "127.0.0.1:0").unwrap();
        assert!(is_nonblocking(&dns));
    }

    #[test]
    fn an_address_in_use_is_an_error_that_also_says_why_nothing_was_passed() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let used = holder.local_addr().unwrap();
        let error = inherited(Origin::Nobody, vec![]).tcp_listener_or_bind("web", used).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("nothing named \"web\" was passed (LISTEN_FDS is not set), and {used} cannot be bound")
        );
    }

    #[test]
    fn a_socket_file_is_replaced_only_when_nobody_is_bound_to_it() {
        let path = std::env::temp_dir().join(format!("handover-bind-{}", std::process::id()));
        let mut inherited = inherited(Origin::Nobody, vec![]);
        let first = inherited.unix_listener_or_bind("web", &path).unwrap();
        assert!(inherited.unix_listener_or_bind("web", &path).is_err());
        drop(first);
        drop(inherited.unix_listener_or_bind("web", &path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "somebody's file").unwrap();
        assert!(inherited.unix_listener_or_bind("web", &path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's file");
        std::fs::remove_file(&path).unwrap();
    }
}
