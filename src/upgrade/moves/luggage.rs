//! What travels with a batch of connections, as bytes: for each its family, its number, its state.
//!
//! Pure, and read without trust: a peer can make nobody allocate more than it has sent.

/// Most bytes of state that a connection may take along.
pub(crate) const MAX_STATE: usize = 1 << 20;

/// Bytes before each state: family, number, length.
const HEAD: usize = 1 + 8 + 4;

/// What a connection is, so that the receiver need not ask the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// TCP, over IPv4 or IPv6.
    Tcp,
    /// A unix stream.
    Unix,
}

/// What one connection takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Luggage<'a> {
    pub(crate) family: Family,
    /// The number of its entry in the fd store and the state file; `None` if PID 1 does not hold it.
    pub(crate) id: Option<u64>,
    /// Bytes of the service's choice, at most [`MAX_STATE`].
    pub(crate) state: &'a [u8],
}

impl<'a> Luggage<'a> {
    /// How many bytes [`pack`](Self::pack) appends.
    pub(crate) fn len(&self) -> usize {
        HEAD + self.state.len()
    }

    /// Appends this to the bytes of a batch.
    pub(crate) fn pack(&self, bytes: &mut Vec<u8>) {
        bytes.push(match self.family {
            Family::Tcp => b't',
            Family::Unix => b'u',
        });
        bytes.extend(self.id.unwrap_or(0).to_le_bytes());
        // `MAX_STATE` is far below 4 GiB, and a longer state is never packed.
        bytes.extend(u32::try_from(self.state.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(self.state);
    }

    /// Takes what the next connection has off the front of a batch; `None` if that is something else.
    pub(crate) fn unpack(bytes: &mut &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let family = match head[0] {
            b't' => Family::Tcp,
            b'u' => Family::Unix,
            _ => return None,
        };
        let (id, len) = (&head[1..9], &head[9..]);
        let id = u64::from_le_bytes(id.try_into().ok()?);
        let len = u32::from_le_bytes(len.try_into().ok()?) as usize;
        if len > MAX_STATE {
            return None;
        }
        let (state, rest) = rest.split_at_checked(len)?;
        *bytes = rest;
        Some(Self { family, id: (id != 0).then_some(id), state })
    }

    /// Whether `bytes` are the luggage of exactly `count` connections.
    pub(crate) fn is_of(mut bytes: &[u8], count: usize) -> bool {
        (0..count).all(|_| Luggage::unpack(&mut bytes).is_some()) && bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Owned = (bool, u64, Vec<u8>);

    fn luggage() -> impl Strategy<Value = Owned> {
        (any::<bool>(), 0..9u64, prop::collection::vec(any::<u8>(), 0..40))
    }

    fn lend((tcp, id, state): &Owned) -> Luggage<'_> {
        let family = if *tcp { Family::Tcp } else { Family::Unix };
        Luggage { family, id: (*id != 0).then_some(*id), state }
    }

    proptest! {
        #[test]
        fn luggage_arrives_as_it_was_packed_or_not_at_all(all in prop::collection::vec(luggage(), 0..9)) {
            let mut bytes = Vec::new();
            all.iter().for_each(|one| lend(one).pack(&mut bytes));
            prop_assert_eq!(bytes.len(), all.iter().map(|one| lend(one).len()).sum::<usize>());
            let mut rest = &bytes[..];
            for one in &all {
                prop_assert_eq!(Luggage::unpack(&mut rest), Some(lend(one)));
            }
            prop_assert!(Luggage::is_of(&bytes, all.len()) && !Luggage::is_of(&bytes, all.len() + 1));
            for end in 0..bytes.len() {
                prop_assert!(!Luggage::is_of(&bytes[..end], all.len()));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..99), count in 0..300usize) {
            let _ = Luggage::is_of(&bytes, count);
        }
    }
}
