//! What goes along with a connection, as bytes: whether it is in the middle of a request, what the
//! service attached to it, and what was read of a request whose head is not whole yet.
//!
//! ```text
//! version: 1 | busy: 0 or 1 | bytes of the attachment: 4, little endian | the attachment | what was read
//! ```
//!
//! No bytes at all mean a connection of which there is nothing to say. Pure, and read without trust.

/// The version of the format.
const VERSION: u8 = 1;

/// Bytes before the attachment.
pub(super) const HEAD: usize = 1 + 1 + 4;

/// What goes along with a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Luggage {
    /// It was in the middle of a request: nobody can go on with it.
    pub(crate) busy: bool,
    /// Bytes of the service's choice.
    pub(crate) attachment: Vec<u8>,
    /// The beginning of a request, none of which was answered.
    pub(crate) read: Vec<u8>,
}

/// The bytes of a [`Luggage`] of which these are the parts.
pub(super) fn pack(busy: bool, attachment: &[u8], read: &[u8]) -> Vec<u8> {
    if !busy && attachment.is_empty() && read.is_empty() {
        return Vec::new();
    }
    let mut bytes = Vec::with_capacity(HEAD + attachment.len() + read.len());
    bytes.extend([VERSION, u8::from(busy)]);
    // A state is far below 4 GiB, and a longer one is never saved.
    bytes.extend(u32::try_from(attachment.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(attachment);
    bytes.extend(read);
    bytes
}

impl Luggage {
    /// `None` if these bytes are no luggage, or one of a later version.
    pub(crate) fn unpack(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let [VERSION, busy @ (0 | 1), len @ ..] = *head else { return None };
        let (attachment, read) = rest.split_at_checked(u32::from_le_bytes(len) as usize)?;
        Some(Self { busy: busy == 1, attachment: attachment.to_vec(), read: read.to_vec() })
    }

    /// Its bytes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn pack(&self) -> Vec<u8> {
        pack(self.busy, &self.attachment, &self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn luggage_arrives_as_it_was_packed(
            busy: bool,
            attachment in prop::collection::vec(any::<u8>(), 0..40),
            read in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let luggage = Luggage { busy, attachment, read };
            prop_assert_eq!(Luggage::unpack(&luggage.pack()), Some(luggage));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            if let Some(luggage) = Luggage::unpack(&bytes) {
                prop_assert_eq!(Luggage::unpack(&luggage.pack()), Some(luggage));
            }
        }
    }

    #[test]
    fn a_connection_with_nothing_to_say_has_no_luggage() {
        assert!(Luggage::default().pack().is_empty());
        assert_eq!(Luggage::unpack(b""), Some(Luggage::default()));
    }

    #[test]
    fn what_is_no_luggage_is_not_taken_for_one() {
        for bytes in [&b"\x01"[..], b"\x02\0\0\0\0\0", b"\x01\x02\0\0\0\0", b"\x01\0\x05\0\0\0five"] {
            assert_eq!(Luggage::unpack(bytes), None, "{bytes:?}");
        }
    }
}
