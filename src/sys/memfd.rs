//! Memory that outlives its processes: a memfd of a fixed size, mapped. See memfd_create(2).
//!
//! Whoever holds the descriptor may read and write the same bytes at the same time, so nothing here
//! hands out a slice: every access is an atomic word of 8 bytes. Two writers at one place, be they
//! threads or processes, make nonsense of each other's bytes, which a checksum tells; never more.
//!
//! SIGBUS never comes from it: the seals keep the size from falling below what is mapped, and a page
//! is asked of the kernel, which can say no, before it is touched for the first time.

use std::ffi::CStr;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{Whence, lseek};

/// Bytes of a word; offsets are whole words.
pub(crate) const WORD: usize = size_of::<u64>();

/// The grain in which memory is asked of the kernel; where its pages are larger it gives more.
const PAGE: usize = 4096;

/// Most stretches of given pages that are looked for in a file that somebody else made.
const MOST_STRETCHES: usize = 64;

/// What keeps the size as it is, for everybody and for good.
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

/// Why a descriptor is not memory that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// It is something else: a socket, a file on a disk, a memfd of huge pages.
    #[error("the descriptor is no memfd of ordinary pages")]
    NotMemory,
    /// Its size could still change under those who use it.
    #[error("the memfd is not sealed against shrinking, growing and new seals: any holder could resize it")]
    Unsealed,
    /// It is too small to be used, or larger than what may be used.
    #[error("the memfd has {found} bytes, and may have {least} to {most}")]
    Size {
        /// Its size.
        found: u64,
        /// The fewest bytes that make sense.
        least: usize,
        /// The most bytes that are allowed.
        most: usize,
    },
    /// The kernel refused.
    #[error("cannot {what} the memfd")]
    Kernel {
        /// What was tried.
        what: &'static str,
        /// What the system call said.
        source: io::Error,
    },
}

/// A memfd and its mapping, of the same size for as long as both exist.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    /// Where it is mapped: `mapped` bytes, readable and writable until this value is dropped.
    start: NonNull<AtomicU64>,
    mapped: NonZeroUsize,
    /// One bit a page: set once the kernel has given it.
    given: Box<[AtomicU64]>,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is unmapped only by `drop`.
unsafe impl Send for SharedMemory {}
// SAFETY: whatever `&self` can do to the mapping is an atomic access to a word of it, always of the
// same size at the same places; so threads (and other processes) never race in the sense of the
// language. Nothing else in here changes without `&mut self`, but for the atomics in `given`.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes memory of `bytes` zeroes, rounded up to a page, close-on-exec, its size sealed. It takes
    /// no room until it is touched. `name` is for people who read /proc.
    ///
    /// Errors: what memfd_create(2), ftruncate(2), fcntl(2) or mmap(2) say.
    pub(crate) fn create(name: &CStr, bytes: usize) -> io::Result<Self> {
        let bytes = bytes.checked_next_multiple_of(PAGE).ok_or(Errno::EOVERFLOW)?;
        let fd = make(name, bytes)?;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS))?;
        Self::map(fd, bytes)
    }

    /// Maps memory that somebody else made, perhaps a process that is gone, perhaps a stranger.
    ///
    /// Errors: see [`MemoryError`]; the descriptor is closed then.
    pub(crate) fn open(fd: OwnedFd, most: usize) -> Result<Self, MemoryError> {
        let Ok(seals) = fcntl(&fd, FcntlArg::F_GET_SEALS) else { return Err(MemoryError::NotMemory) };
        let kernel = |what| move |errno: Errno| MemoryError::Kernel { what, source: errno.into() };
        // Files on a tmpfs and memfds of huge pages answer F_GET_SEALS too. The former cannot be
        // sealed; the latter raise SIGBUS when the pool of huge pages is empty.
        if fstatfs(&fd).map_err(kernel("examine"))?.filesystem_type() != TMPFS_MAGIC {
            return Err(MemoryError::NotMemory);
        }
        if !SealFlag::from_bits_retain(seals).contains(SEALS) {
            return Err(MemoryError::Unsealed);
        }
        let found = nix::sys::stat::fstat(&fd).map_err(kernel("examine"))?.st_size.cast_unsigned();
        match usize::try_from(found) {
            Ok(bytes) if (WORD..=most).contains(&bytes) => {
                let memory =
                    Self::map(fd, bytes).map_err(|source| MemoryError::Kernel { what: "map", source })?;
                memory.recognise();
                Ok(memory)
            }
            _ => Err(MemoryError::Size { found, least: WORD, most }),
        }
    }

    /// Maps the whole of `fd`, which has `bytes` and is sealed.
    fn map(fd: OwnedFd, bytes: usize) -> io::Result<Self> {
        let mapped = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice: no memory that exists is touched.
        let start = unsafe { mmap(None, mapped, access, MapFlags::MAP_SHARED, &fd, 0) }?.cast();
        let marks = bytes.div_ceil(PAGE).div_ceil(64);
        let given = std::iter::repeat_with(AtomicU64::default).take(marks).collect();
        Ok(Self { start, mapped, given, fd })
    }

    /// Notes which pages the kernel has given already, to whoever made this: lseek(2), SEEK_DATA. What
    /// is not found here is asked for when it is needed.
    fn recognise(&self) {
        let mut at = 0;
        for _ in 0..MOST_STRETCHES {
            let Ok(data) = lseek(&self.fd, at, Whence::SeekData) else { return };
            let Ok(hole) = lseek(&self.fd, data, Whence::SeekHole) else { return };
            let (Ok(data), Ok(end)) = (usize::try_from(data), usize::try_from(hole)) else { return };
            self.note_given(data.div_ceil(PAGE)..end.min(self.mapped.get()) / PAGE);
            at = hole;
        }
    }

    fn note_given(&self, pages: Range<usize>) {
        for page in pages {
            self.given[page / 64].fetch_or(1 << (page % 64), Ordering::Relaxed);
        }
    }

    /// Its size; a tail that is no whole word does not count.
    pub(crate) fn bytes(&self) -> usize {
        self.mapped.get() / WORD * WORD
    }

    /// Makes sure that the kernel has given the memory of `len` bytes from `at` on, so that touching
    /// it cannot fail any more. No system call when it has.
    ///
    /// Errors: `InvalidInput` outside of the memory; ENOSPC and ENOMEM where there is none left.
    pub(crate) fn reserve(&self, at: usize, len: usize) -> io::Result<()> {
        let end = at.checked_add(len).filter(|end| *end <= self.bytes()).ok_or_else(outside)?;
        let pages = at / PAGE..end.div_ceil(PAGE);
        let Some(first) = pages.clone().find(|page| !self.is_given(*page)) else { return Ok(()) };
        let from = first * PAGE;
        let (offset, length) = (file_offset(from)?, file_offset(end - from)?);
        loop {
            match fallocate(&self.fd, FallocateFlags::empty(), offset, length) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(()) => break,
            }
        }
        self.note_given(first..pages.end);
        Ok(())
    }

    fn is_given(&self, page: usize) -> bool {
        self.given[page / 64].load(Ordering::Relaxed) & (1 << (page % 64)) != 0
    }

    /// The words that hold `len` bytes from `at` on, which must be a whole number of words.
    fn words(&self, at: usize, len: usize) -> io::Result<&[AtomicU64]> {
        if !at.is_multiple_of(WORD) {
            return Err(outside());
        }
        let count = len.div_ceil(WORD);
        self.reserve(at, count.checked_mul(WORD).ok_or_else(outside)?)?;
        // SAFETY: `reserve` has found all of it inside the mapping, which lives as long as `self`, is
        // aligned to pages, and is only ever accessed as atomic words.
        Ok(unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at / WORD), count) })
    }

    /// Reads the word at `at`; everything that was written before the store that put it there is seen
    /// afterwards.
    ///
    /// Errors: as [`reserve`](Self::reserve), and `InvalidInput` where no word begins.
    pub(crate) fn load(&self, at: usize) -> io::Result<u64> {
        let words = self.words(at, WORD)?;
        words.first().map(|word| word.load(Ordering::Acquire)).ok_or_else(outside)
    }

    /// Writes the word at `at`; what was written before is not seen after it. Else as
    /// [`load`](Self::load).
    pub(crate) fn store(&self, at: usize, value: u64) -> io::Result<()> {
        let words = self.words(at, WORD)?;
        words.first().map(|word| word.store(value, Ordering::Release)).ok_or_else(outside)
    }

    /// Copies `bytes` to `at`. The last word is filled up with zeroes. In no order at all: whoever
    /// reads meanwhile sees a mixture.
    ///
    /// Errors: as [`load`](Self::load); nothing is written then.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let words = self.words(at, bytes.len())?;
        let (whole, rest) = bytes.as_chunks::<WORD>();
        for (word, value) in words.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*value), Ordering::Relaxed);
        }
        if let Some(word) = words.get(whole.len()) {
            let mut value = [0; WORD];
            value[..rest.len()].copy_from_slice(rest);
            word.store(u64::from_ne_bytes(value), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Fills `buffer` with what is at `at`. In no order at all, as [`write`](Self::write).
    ///
    /// Errors: as [`load`](Self::load).
    pub(crate) fn read(&self, at: usize, buffer: &mut [u8]) -> io::Result<()> {
        let words = self.words(at, buffer.len())?;
        for (word, value) in words.iter().zip(buffer.chunks_mut(WORD)) {
            value.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..value.len()]);
        }
        Ok(())
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length by `map`, and nothing borrows from it any more.
        // It fails only for a range that is no mapping.
        let _ = unsafe { munmap(self.start.cast(), self.mapped.get()) };
    }
}

/// A memfd of `bytes` that can still be sealed.
fn make(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Never executable; Linux before 6.3 does not know the word.
    let fd = match memfd_create(name, flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL)) {
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        made => made?,
    };
    nix::unistd::ftruncate(&fd, file_offset(bytes)?)?;
    Ok(fd)
}

/// A memfd with these bytes, its size sealed; for tests as a stranger could make one.
#[cfg(any(test, fuzzing, feature = "cli"))]
pub(crate) fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = make(c"handover", bytes.len())?;
    let file = std::fs::File::from(fd);
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
    Ok(file.into())
}

/// The error for what is not inside the memory.
fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "this is outside of the shared memory")
}

/// A size as system calls take it.
fn file_offset(bytes: usize) -> io::Result<libc::off_t> {
    Ok(libc::off_t::try_from(bytes).map_err(|_| Errno::EOVERFLOW)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn copy(fd: impl AsFd) -> OwnedFd {
        fd.as_fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let one = SharedMemory::create(c"test", 100).unwrap();
        let two = SharedMemory::open(copy(&one), 4096).unwrap();
        assert_eq!((one.bytes(), two.bytes()), (4096, 4096));
        one.write(16, b"thirteen byte").unwrap();
        one.store(40, 7).unwrap();
        let mut buffer = [1; 13];
        two.read(16, &mut buffer).unwrap();
        assert_eq!((&buffer, two.load(40).unwrap()), (b"thirteen byte", 7));
    }

    #[test]
    fn the_last_word_of_the_memory_can_be_used_and_nothing_behind_it() {
        let memory = SharedMemory::create(c"test", 4096).unwrap();
        memory.store(4088, 1).unwrap();
        memory.write(4080, &[9; 16]).unwrap();
        let refused = [
            memory.store(4096, 1).unwrap_err(),
            memory.load(4).unwrap_err(),
            memory.load(usize::MAX - 7).unwrap_err(),
            memory.write(4088, &[9; 9]).unwrap_err(),
            memory.read(8, &mut [0; 4096]).unwrap_err(),
            memory.reserve(1, usize::MAX).unwrap_err(),
        ];
        assert!(refused.iter().all(|error| error.kind() == io::ErrorKind::InvalidInput), "{refused:?}");
    }

    #[test]
    fn the_size_is_sealed_and_the_descriptor_is_close_on_exec() {
        let memory = SharedMemory::create(c"test", 8192).unwrap();
        assert_eq!(nix::unistd::ftruncate(&memory, 4096), Err(Errno::EPERM));
        assert_eq!(nix::unistd::ftruncate(&memory, 16384), Err(Errno::EPERM));
        assert_eq!(fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)), Err(Errno::EPERM));
        assert_eq!(fcntl(&memory, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn memory_takes_room_only_where_it_was_touched() {
        let memory = SharedMemory::create(c"test", 1 << 30).unwrap();
        let pages = |memory: &SharedMemory| File::from(copy(memory)).metadata().unwrap().blocks() / 8;
        assert_eq!(pages(&memory), 0);
        memory.store(1 << 29, 1).unwrap();
        memory.write((1 << 20) - 8, &[1; 16]).unwrap();
        assert_eq!(pages(&memory), 3);
    }

    #[test]
    fn what_is_no_memfd_is_refused() {
        let (pipe, _) = nix::unistd::pipe().unwrap();
        let strangers = [File::open("/dev/null").unwrap().into(), pipe, File::open("/").unwrap().into()];
        for stranger in strangers {
            assert!(matches!(SharedMemory::open(stranger, 4096), Err(MemoryError::NotMemory)));
        }
    }

    #[test]
    fn an_unsealed_memfd_is_refused_also_when_one_seal_is_missing() {
        for seals in [SealFlag::empty(), SEALS - SealFlag::F_SEAL_SHRINK, SEALS - SealFlag::F_SEAL_SEAL] {
            let fd = make(c"test", 4096).unwrap();
            fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
            assert!(matches!(SharedMemory::open(fd, 4096), Err(MemoryError::Unsealed)), "{seals:?}");
        }
    }

    #[test]
    fn a_memfd_of_a_wrong_size_is_refused_before_it_is_mapped() {
        for bytes in [0, 7, 8193, 1 << 50] {
            let fd = make(c"test", bytes).unwrap();
            fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS)).unwrap();
            let refused = SharedMemory::open(fd, 8192).unwrap_err();
            assert!(matches!(refused, MemoryError::Size { found, .. } if found == bytes as u64), "{refused}");
        }
    }

    #[test]
    fn a_memfd_that_cannot_be_written_is_refused() {
        let fd = make(c"test", 4096).unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS | SealFlag::F_SEAL_WRITE)).unwrap();
        assert!(matches!(SharedMemory::open(fd, 4096), Err(MemoryError::Kernel { what: "map", .. })));
    }

    #[test]
    fn a_size_that_is_no_whole_page_is_used_up_to_its_last_whole_word() {
        let fd = make(c"test", 4099).unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS)).unwrap();
        File::from(copy(&fd)).write_all_at(&[1, 1, 1], 4096).unwrap();
        let memory = SharedMemory::open(fd, 8192).unwrap();
        assert_eq!(memory.bytes(), 4096);
        memory.load(4088).unwrap();
        memory.load(4096).unwrap_err();
    }

    #[test]
    fn what_the_kernel_gave_to_one_another_need_not_ask_for() {
        let memory = SharedMemory::create(c"test", 8 * PAGE).unwrap();
        memory.store(3 * PAGE, 1).unwrap();
        let other = SharedMemory::open(memory.fd.try_clone().unwrap(), 8 * PAGE).unwrap();
        assert_eq!([2, 3, 4].map(|page| other.is_given(page)), [false, true, false]);
    }
}
