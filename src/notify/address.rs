//! Where the manager listens: the value of `NOTIFY_SOCKET`, as sd_notify(3) has it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::sys::dgram::VsockKind;

/// Longest path or abstract name, in bytes: what `sun_path` holds beside its NUL, see unix(7).
const MOST_NAME_BYTES: usize = 107;

/// Stands for "any" in a vsock CID or port, so it is nobody's address.
const ANY: u32 = u32::MAX;

/// The names of the vsock schemes and what they say about the socket type.
const VSOCK_SCHEMES: [(&str, Option<VsockKind>); 4] = [
    ("vsock:", None),
    ("vsock-dgram:", Some(VsockKind::Datagram)),
    ("vsock-seqpacket:", Some(VsockKind::SeqPacket)),
    ("vsock-stream:", Some(VsockKind::Stream)),
];

/// An address to which notifications go. It can only hold what sd_notify(3) allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(Place);

/// What an [`Address`] says, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A socket in the file system.
    Path(PathBuf),
    /// A socket in the abstract namespace; the name without its leading NUL.
    Abstract(Vec<u8>),
    /// A socket of a virtual machine or its host; without a kind, the sender finds one that works.
    Vsock {
        /// The socket type that the address asks for.
        kind: Option<VsockKind>,
        /// The machine: its context identifier.
        cid: u32,
        /// The port on that machine.
        port: u32,
    },
}

/// Why a text is no address for notifications.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It begins like no kind of address.
    #[error(
        "NOTIFY_SOCKET: wanted /PATH, @NAME or vsock:CID:PORT, found {found:?}: pass on the manager's value unchanged"
    )]
    Unknown {
        /// The text.
        found: String,
    },
    /// The path or name cannot be in a socket address.
    #[error(
        "NOTIFY_SOCKET: wanted a name of 1 to {MOST_NAME_BYTES} bytes without NUL, found {found:?} of {bytes} bytes: \
         have the manager listen at a shorter one"
    )]
    Name {
        /// The text.
        found: String,
        /// The length of its path or name.
        bytes: usize,
    },
    /// It is a vsock address without a usable machine or port.
    #[error("NOTIFY_SOCKET: wanted vsock:CID:PORT with decimal numbers below {ANY}, found {found:?}")]
    Vsock {
        /// The text.
        found: String,
    },
}

impl Address {
    /// Reads the value of `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// [`AddressError`] for anything that sd_notify(3) does not allow.
    pub fn parse(text: &OsStr) -> Result<Self, AddressError> {
        let found = || text.to_string_lossy().into_owned();
        let name = |name: &[u8]| {
            let fits = (1..=MOST_NAME_BYTES).contains(&name.len()) && !name.contains(&0);
            if fits {
                Ok(name.to_vec())
            } else {
                Err(AddressError::Name { found: found(), bytes: name.len() })
            }
        };
        match text.as_bytes() {
            path @ [b'/', ..] => Ok(Self(Place::Path(OsString::from_vec(name(path)?).into()))),
            [b'@', rest @ ..] => Ok(Self(Place::Abstract(name(rest)?))),
            _ => {
                let known = text.to_str().and_then(|text| {
                    VSOCK_SCHEMES.iter().find_map(|(scheme, kind)| Some((*kind, text.strip_prefix(scheme)?)))
                });
                let Some((kind, rest)) = known else { return Err(AddressError::Unknown { found: found() }) };
                let (cid, port) =
                    machine_and_port(rest).ok_or_else(|| AddressError::Vsock { found: found() })?;
                Ok(Self(Place::Vsock { kind, cid, port }))
            }
        }
    }

    /// The value of `NOTIFY_SOCKET` that leads here, to hand on to another process: every byte of it,
    /// where [`Display`](fmt::Display) must show a path that is no UTF-8 with replacements.
    pub fn to_os_string(&self) -> OsString {
        match &self.0 {
            Place::Path(path) => path.clone().into_os_string(),
            Place::Abstract(name) => OsString::from_vec([b"@", name.as_slice()].concat()),
            Place::Vsock { kind, cid, port } => {
                let scheme =
                    VSOCK_SCHEMES.iter().find(|(_, k)| k == kind).map_or("vsock:", |(scheme, _)| scheme);
                format!("{scheme}{cid}:{port}").into()
            }
        }
    }

    /// The address taken apart.
    pub(super) fn place(&self) -> &Place {
        &self.0
    }

    /// The path, if the address is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Path(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_os_string().display().fmt(f)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(OsStr::new(text))
    }
}

/// Reads `CID:PORT`; the three machines that vsock(7) has names for may be named, as libsystemd allows.
fn machine_and_port(text: &str) -> Option<(u32, u32)> {
    let (cid, port) = text.split_once(':')?;
    let cid = match cid {
        "hypervisor" => libc::VMADDR_CID_HYPERVISOR,
        "local" => libc::VMADDR_CID_LOCAL,
        "host" => libc::VMADDR_CID_HOST,
        _ => number(cid)?,
    };
    Some((cid, number(port)?))
}

/// Reads a decimal number that is not [`ANY`]; a sign is no digit.
fn number(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number != ANY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_the_manual_is_read() {
        let place = |text: &str| text.parse::<Address>().unwrap().0;
        assert_eq!(place("/run/systemd/notify"), Place::Path("/run/systemd/notify".into()));
        assert_eq!(place("@abstract"), Place::Abstract(b"abstract".to_vec()));
        let vsock = |kind| Place::Vsock { kind, cid: 2, port: 1234 };
        assert_eq!(place("vsock:2:1234"), vsock(None));
        assert_eq!(place("vsock:host:1234"), vsock(None));
        assert_eq!(place("vsock-dgram:2:1234"), vsock(Some(VsockKind::Datagram)));
        assert_eq!(place("vsock-seqpacket:2:1234"), vsock(Some(VsockKind::SeqPacket)));
        assert_eq!(place("vsock-stream:2:1234"), vsock(Some(VsockKind::Stream)));
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        let refused = |text: &str| text.parse::<Address>().unwrap_err();
        for text in ["", "run/notify", "unix:/run/notify", "vsock-raw:2:1", " /run/notify"] {
            assert_eq!(refused(text), AddressError::Unknown { found: text.into() });
        }
        for text in
            ["vsock:", "vsock:2", "vsock::1234", "vsock:2:", "vsock:2:1:1", "vsock:+2:1", "vsock:2:-1"]
        {
            assert_eq!(refused(text), AddressError::Vsock { found: text.into() });
        }
        for text in ["vsock:4294967295:1", "vsock:2:4294967295", "vsock:2:4294967296"] {
            assert_eq!(refused(text), AddressError::Vsock { found: text.into() });
        }
        assert_eq!(refused("@"), AddressError::Name { found: "@".into(), bytes: 0 });
        assert!(matches!(refused("/run\0/notify"), AddressError::Name { .. }));
    }

    #[test]
    fn the_longest_name_fits_and_one_more_byte_does_not() {
        let name = |bytes| format!("@{}", "n".repeat(bytes)).parse::<Address>();
        assert!(name(MOST_NAME_BYTES).is_ok());
        assert!(matches!(name(MOST_NAME_BYTES + 1), Err(AddressError::Name { bytes: 108, .. })));
    }

    #[test]
    fn a_path_that_is_no_utf8_is_handed_on_unchanged() {
        let text = OsStr::from_bytes(b"/run/\xff/notify");
        assert_eq!(Address::parse(text).unwrap().to_os_string(), text);
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(text in "(/[a-z/]{0,20}|@[a-z]{1,20}|vsock(-stream|-dgram|-seqpacket)?:[1-9][0-9]{0,8}:[1-9][0-9]{0,8})") {
            prop_assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_is_too_strange_to_refuse(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(address) = Address::parse(OsStr::from_bytes(&bytes)) {
                prop_assert_eq!(Address::parse(&address.to_os_string()), Ok(address));
            }
        }
    }
}
