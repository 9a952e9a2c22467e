//! Pages of programs and libraries that were needed once, at the start for instance, and lie about; and those
//! of the heap that nobody uses any more.
//!
//! Of files, only what nobody has written to is ever given back: it can be read again.

use std::fs;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use nix::sys::mman::{MmapAdvise, madvise};

/// Gives back the code and the constants that this process has read from files, and what is free of its heap.
/// What is needed again the kernel maps again, out of its cache as a rule.
///
/// Errors: of reading `/proc/self/maps`, proc_pid_maps(5), and of madvise(2).
pub(crate) fn give_back() -> io::Result<()> {
    for range in fs::read_to_string("/proc/self/maps")?.lines().filter_map(never_written) {
        let Some(begin) = NonNull::new(std::ptr::without_provenance_mut(range.start)) else { continue };
        // SAFETY: the mapping is private, of a file, and was never writable, see `never_written`: what is read
        // again is what was there. Nothing in this process unmaps code.
        unsafe { madvise(begin, range.len(), MmapAdvise::MADV_DONTNEED)? };
    }
    // Other C libraries give free memory back by themselves, or never.
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and touches only what the allocator knows to be free; it locks its arenas.
    unsafe {
        libc::malloc_trim(0)
    };
    Ok(())
}

/// The addresses of a mapping of a file that nobody has written to: code, and what lies at the beginning of
/// a file. Read-only data further on may be what the dynamic linker has written and then protected (RELRO).
fn never_written(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (begin, end) = words.next()?.split_once('-')?;
    let (rights, offset) = (words.next()?, u64::from_str_radix(words.next()?, 16).ok()?);
    let of_a_file = words.nth(2).is_some_and(|path| path.starts_with('/'));
    let untouched = rights == "r-xp" || rights == "r--p" && offset == 0;
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    (of_a_file && untouched).then_some(address(begin)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_has_written_to_is_given_back() {
        let given = |line| never_written(line).is_some();
        assert_eq!(never_written("1000-3000 r-xp 00001000 fe:00 7 /usr/bin/x"), Some(0x1000..0x3000));
        assert!(given("1000-3000 r--p 00000000 fe:00 7 /usr/lib/libc.so.6"));
        for kept in [
            "1000-3000 r--p 00002000 fe:00 7 /usr/bin/x",
            "1000-3000 rw-p 00000000 fe:00 7 /usr/bin/x",
            "1000-3000 rwxp 00000000 fe:00 7 /usr/bin/x",
            "1000-3000 rw-s 00000000 00:01 7 /memfd:state (deleted)",
            "1000-3000 r-xp 00000000 00:00 0 [vdso]",
            "1000-3000 r--p 00000000 00:00 0",
            "1000-3000 rw-p 00000000 00:00 0 [heap]",
            "",
            "x-y r-xp 0 fe:00 7 /usr/bin/x",
        ] {
            assert!(!given(kept), "{kept}");
        }
    }

    #[test]
    fn a_process_goes_on_without_the_pages_that_it_gave_back() {
        give_back().unwrap();
        assert!(
            fs::read_to_string("/proc/self/maps").unwrap().lines().any(|line| never_written(line).is_some())
        );
    }
}
