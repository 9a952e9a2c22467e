//! A message to another machine, over AF_VSOCK: a connection of its own, as sd_notify(3) wants it.
//!
//! ```text
//! connections   connect -> send -> end our half -> wait for the end of theirs, the receipt
//! datagrams     connect -> send
//! ```

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::notify::address::Address;
use crate::notify::error::{Awaiting, Error};
use crate::notify::steps::{Step, Steps};
use crate::sys::dgram::{self, Readiness, VsockKind};
use crate::sys::scm;

/// One message to another machine, on a socket of its own.
pub(super) struct Call<'a> {
    /// Whom it is for.
    address: &'a Address,
    /// The same, for the kernel: machine and port.
    to: (u32, u32),
    /// The socket.
    socket: OwnedFd,
    /// Its type.
    kind: VsockKind,
    /// How far it has got.
    stage: Stage,
    /// What is left to send.
    rest: &'a [u8],
}

/// How far a message to another machine has got.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The connection is being made.
    Connecting,
    /// The message can be sent.
    Sending,
    /// The message is out and our half is ended; the other side has not closed yet.
    Sent,
}

impl<'a> Call<'a> {
    /// Begins to connect. sd_notify(3): a type that is not named is a datagram, and where the
    /// hypervisor has none, a connection.
    pub(super) fn dial(
        address: &'a Address,
        kind: Option<VsockKind>,
        to: (u32, u32),
        rest: &'a [u8],
    ) -> Result<Self, Error> {
        let every = [VsockKind::Datagram, VsockKind::SeqPacket, VsockKind::Stream];
        let kinds = kind.as_ref().map_or(&every[..], std::slice::from_ref);
        let mut refusal = io::Error::from_raw_os_error(libc::EAFNOSUPPORT);
        for &kind in kinds {
            let dialled = dgram::vsock(kind).and_then(|socket| {
                let connected = dgram::connect_vsock(socket.as_fd(), to.0, to.1)?;
                Ok((socket, if connected { Stage::Sending } else { Stage::Connecting }))
            });
            match dialled {
                Ok((socket, stage)) => return Ok(Self { address, to, socket, kind, stage, rest }),
                Err(source) if is_unsupported(&source) => refusal = source,
                Err(source) => return Err(Error::Unreachable { address: address.clone(), source }),
            }
        }
        Err(Error::no_socket(address, refusal))
    }
}

impl Steps for Call<'_> {
    fn step(&mut self) -> Result<Step<'_>, Error> {
        let socket = self.socket.as_fd();
        let address = || self.address.clone();
        loop {
            match self.stage {
                Stage::Connecting => {
                    let connected = dgram::pending_error(socket)
                        .and_then(|()| dgram::connect_vsock(socket, self.to.0, self.to.1))
                        .map_err(|source| Error::Unreachable { address: address(), source })?;
                    if !connected {
                        return Ok(Step::Wait(socket, Readiness::Writable, Awaiting::Connection));
                    }
                    self.stage = Stage::Sending;
                }
                Stage::Sending => match scm::send(socket, self.rest, &[]) {
                    Ok(sent) => self.rest = self.rest.get(sent..).unwrap_or_default(),
                    Err(busy) if busy.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Step::Wait(socket, Readiness::Writable, Awaiting::Room));
                    }
                    Err(source) => return Err(Error::Send { address: address(), source }),
                },
                Stage::Sent => {
                    return match dgram::at_end(socket) {
                        Ok(true) => Ok(Step::Done),
                        Ok(false) => Ok(Step::Wait(socket, Readiness::Readable, Awaiting::Receipt)),
                        Err(source) => Err(Error::Unconfirmed { address: address(), source }),
                    };
                }
            }
            if matches!(self.stage, Stage::Sending) && self.rest.is_empty() {
                if self.kind == VsockKind::Datagram {
                    return Ok(Step::Done);
                }
                // sd_notify(3): on a connection the end of our half is the end of the message, and
                // the end of theirs is the receipt.
                dgram::end_sending(socket)
                    .map_err(|source| Error::Unconfirmed { address: address(), source })?;
                self.stage = Stage::Sent;
            }
        }
    }
}

/// Whether the kernel means "not this type of socket", so that another type may do.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAFNOSUPPORT
                | libc::ESOCKTNOSUPPORT
                | libc::EPROTONOSUPPORT
                | libc::EOPNOTSUPP
                | libc::EPFNOSUPPORT
                | libc::ENODEV
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::steps::{Limit, blocking};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// A call whose other side is in this process: only the connecting is left out.
    fn call<'a>(address: &'a Address, kind: VsockKind, rest: &'a [u8]) -> (Call<'a>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Call { address, to: (1, 1), socket: ours.into(), kind, stage: Stage::Sending, rest }, theirs)
    }

    fn address() -> Address {
        "vsock:1:9999".parse().unwrap()
    }

    #[test]
    fn a_message_ends_with_our_half_and_is_received_when_theirs_ends() {
        let address = address();
        let (mut call, mut theirs) = call(&address, VsockKind::Stream, b"READY=1");
        assert!(matches!(call.step(), Ok(Step::Wait(_, Readiness::Readable, Awaiting::Receipt))));
        let mut got = String::new();
        theirs.read_to_string(&mut got).unwrap();
        assert_eq!(got, "READY=1");
        theirs.write_all(b"what is this").unwrap();
        assert!(matches!(call.step(), Ok(Step::Wait(..))));
        drop(theirs);
        assert!(matches!(call.step(), Ok(Step::Done)));
    }

    #[test]
    fn a_receipt_that_does_not_come_is_told_apart_from_a_message_that_did_not_go() {
        let address = address();
        let (mut silent, _theirs) = call(&address, VsockKind::SeqPacket, b"READY=1");
        let error = blocking(&mut silent, Limit::from_now(Duration::ZERO)).unwrap_err();
        assert!(matches!(error, Error::Deadline { awaiting: Awaiting::Receipt, .. }) && error.left_us());
        let (mut gone, theirs) = call(&address, VsockKind::SeqPacket, b"READY=1");
        drop(theirs);
        let error = blocking(&mut gone, Limit::from_now(Duration::ZERO)).unwrap_err();
        assert!(matches!(error, Error::Send { .. }) && !error.left_us());
    }

    #[test]
    fn a_datagram_has_no_receipt() {
        let address = address();
        let (mut call, _theirs) = call(&address, VsockKind::Datagram, b"READY=1");
        assert!(matches!(call.step(), Ok(Step::Done)));
    }

    #[test]
    fn a_machine_that_cannot_be_called_is_an_error_with_its_address() {
        // This machine itself, at a port where nobody listens: whether its kernel has no vsock, no
        // loopback or nobody there, the error is the caller's to read.
        let address = address();
        let failed = match Call::dial(&address, None, (libc::VMADDR_CID_LOCAL, 9999), b"READY=1") {
            Ok(mut call) => blocking(&mut call, Limit::from_now(Duration::from_secs(10))),
            Err(error) => Err(error),
        };
        let (Error::Unsupported { address: at, .. } | Error::Unreachable { address: at, .. }) =
            failed.unwrap_err()
        else {
            panic!("another error")
        };
        assert_eq!(at, address);
    }
}
