//! Where what is in a state file: computed from its shape, in numbers that cannot overflow.
//!
//! ```text
//!      0  magic, format, cells and cell_bytes, service_bytes and a checksum of these, next id
//!     64  state version: a pair of slots
//!    128  the service's own state: the head of a pair
//!    192  cells, 64 bytes each: id (0: free), owner, the head of a pair
//!         service's bytes [A] [B]        from the next page on
//!         cells' bytes    [A] [B] each   from the next page on
//! ```
//!
//! What says whether a cell is used lies close together, apart from the bytes of the cells, so that
//! looking for one touches few pages. This file never touches memory.

use super::slots::{HEAD_BYTES, Pair};

/// The first word of a state file: "ho.state".
const MAGIC: u64 = u64::from_le_bytes(*b"ho.state");
/// The layout that this file describes.
const FORMAT: u64 = 1;

const PAGE: usize = 4096;
/// Offset of the next id.
pub(super) const NEXT_ID: usize = 32;
/// The service's state version: 8 bytes.
pub(super) const VERSION: Pair = Pair { head: 64, data: 64 + HEAD_BYTES, room: 8 };
const SERVICE_HEAD: usize = 128;
const ENTRIES: usize = 192;
const ENTRY_BYTES: usize = 64;

/// How much a state file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Connections with state at a time.
    pub(crate) cells: u32,
    /// Most bytes of state of one connection.
    pub(crate) cell_bytes: u32,
    /// Most bytes of state of the service as a whole.
    pub(crate) service_bytes: u32,
}

impl Shape {
    /// The largest file there may be.
    pub(crate) const MOST: Self = Self { cells: 65_536, cell_bytes: 1 << 20, service_bytes: 64 << 20 };

    fn is_allowed(self) -> bool {
        self.cells <= Self::MOST.cells
            && self.cell_bytes <= Self::MOST.cell_bytes
            && self.service_bytes <= Self::MOST.service_bytes
    }
}

/// The version of a service's state, as the service counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateVersion {
    /// The version that is written.
    pub written: u32,
    /// The oldest version whose programs can read it.
    pub readable_by: u32,
}

impl StateVersion {
    /// As one word.
    pub(super) fn to_word(self) -> u64 {
        u64::from(self.written) << 32 | u64::from(self.readable_by)
    }

    /// The reverse of [`to_word`](Self::to_word).
    pub(super) fn from_word(word: u64) -> Self {
        let (written, readable_by) = halves(word);
        Self { written, readable_by }
    }
}

/// Why the first words of a file are not those of a state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The magic is missing.
    NotOurs,
    /// Another format than [`FORMAT`].
    Format(u64),
    /// The checksum is wrong, or the shape beyond all bounds.
    Damaged,
}

/// The offsets in a file of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) shape: Shape,
    /// The service's own state.
    pub(super) service: Pair,
    /// Where the bytes of the cells begin.
    cells: usize,
    /// The size of the file.
    pub(super) bytes: usize,
}

impl Layout {
    /// The layout of a file of this shape; `None` for more than [`Shape::MOST`], or than fits into
    /// this machine's addresses.
    pub(super) fn of(shape: Shape) -> Option<Self> {
        if !shape.is_allowed() {
            return None;
        }
        let room = |bytes: u32| usize::try_from(bytes).ok()?.checked_next_multiple_of(8);
        let count = usize::try_from(shape.cells).ok()?;
        let (service_room, cell_room) = (room(shape.service_bytes)?, room(shape.cell_bytes)?);
        let data = count.checked_mul(ENTRY_BYTES)?.checked_add(ENTRIES)?.checked_next_multiple_of(PAGE)?;
        let cells = service_room.checked_mul(2)?.checked_add(data)?.checked_next_multiple_of(PAGE)?;
        let bytes = cell_room.checked_mul(2)?.checked_mul(count)?.checked_add(cells)?;
        Some(Self {
            shape,
            service: Pair { head: SERVICE_HEAD, data, room: service_room },
            cells,
            bytes: bytes.checked_next_multiple_of(PAGE)?,
        })
    }

    /// Bytes from the start of the file that say what is in it; what follows is the states.
    pub(super) fn directory_bytes(&self) -> usize {
        self.service.data
    }

    /// Offset of the id of cell `index`. Only for cells of the shape.
    pub(super) fn id(&self, index: u32) -> usize {
        ENTRIES + index as usize * ENTRY_BYTES
    }

    /// Offset of the owner of cell `index`: a pid in the low half, the high half reserved.
    pub(super) fn owner(&self, index: u32) -> usize {
        self.id(index) + 8
    }

    /// The slots of cell `index`.
    pub(super) fn cell(&self, index: u32) -> Pair {
        let room = (self.shape.cell_bytes as usize).next_multiple_of(8);
        Pair { head: self.id(index) + 16, data: self.cells + index as usize * 2 * room, room }
    }
}

/// The first words of a file of this shape.
pub(super) fn header(shape: Shape) -> [u64; 4] {
    let sizes = u64::from(shape.cells) << 32 | u64::from(shape.cell_bytes);
    let service = u64::from(shape.service_bytes) << 32;
    [MAGIC, FORMAT, sizes, service | u64::from(checksum(sizes, service))]
}

/// The shape that the first words of a file tell.
pub(super) fn read_header(words: [u64; 4]) -> Result<Shape, Misfit> {
    let [magic, format, sizes, service] = words;
    if magic != MAGIC {
        return Err(Misfit::NotOurs);
    }
    if format != FORMAT {
        return Err(Misfit::Format(format));
    }
    let ((cells, cell_bytes), (service_bytes, sum)) = (halves(sizes), halves(service));
    let shape = Shape { cells, cell_bytes, service_bytes };
    if sum != checksum(sizes, u64::from(service_bytes) << 32) || !shape.is_allowed() {
        return Err(Misfit::Damaged);
    }
    Ok(shape)
}

fn checksum(sizes: u64, service: u64) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&sizes.to_le_bytes());
    sum.update(&service.to_le_bytes());
    sum.finalize()
}

/// The upper and the lower half of a word.
pub(super) fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, (word & u64::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_overlaps_and_everything_is_inside(
            cells in 0..=65_536_u32, cell_bytes in 0..=1_u32 << 20, service_bytes in 0..=64_u32 << 20, pick: u32,
        ) {
            let shape = Shape { cells, cell_bytes, service_bytes };
            let layout = Layout::of(shape).unwrap();
            prop_assert_eq!(read_header(header(shape)), Ok(shape));
            let end = |pair: Pair| pair.data + 2 * pair.room;
            prop_assert!(end(VERSION) <= SERVICE_HEAD && SERVICE_HEAD + HEAD_BYTES <= ENTRIES);
            prop_assert!(end(layout.service) <= layout.cells && layout.cells <= layout.bytes);
            prop_assert!(layout.service.room >= service_bytes as usize);
            if cells > 0 {
                let (index, last) = (pick % cells, layout.cell(cells - 1));
                prop_assert!(last.head + HEAD_BYTES <= layout.directory_bytes() && end(last) <= layout.bytes);
                prop_assert!(layout.owner(index) + 8 == layout.cell(index).head);
                prop_assert!(layout.cell(index).room >= cell_bytes as usize);
                if index > 0 {
                    prop_assert_eq!(end(layout.cell(index - 1)), layout.cell(index).data);
                    prop_assert!(layout.cell(index - 1).head + HEAD_BYTES <= layout.id(index));
                }
            }
        }

        #[test]
        fn no_words_make_the_header_panic(words: [u64; 4], shape: [u32; 3]) {
            let _ = read_header(words);
            let [cells, cell_bytes, service_bytes] = shape;
            let shape = Shape { cells, cell_bytes, service_bytes };
            prop_assert_eq!(Layout::of(shape).is_some(), shape.is_allowed());
            prop_assert_eq!(read_header(header(shape)).is_ok(), shape.is_allowed());
        }

        #[test]
        fn a_flipped_bit_of_the_header_is_noticed(word in 0..4_usize, bit in 0..64) {
            let mut words = header(Shape { cells: 512, cell_bytes: 4096, service_bytes: 0 });
            words[word] ^= 1_u64 << bit;
            prop_assert!(read_header(words).is_err());
        }
    }
}
