//! What a state file must hold, whatever happens to its writers and to its bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::*;
use crate::fdstore::slots::Pair;
use crate::sys::process::fork;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use proptest::prelude::*;

const V1: StateVersion = StateVersion { written: 1, readable_by: 1 };
const SMALL: Shape = Shape { cells: 3, cell_bytes: 100, service_bytes: 50 };

fn file(shape: Shape) -> StateFile {
    StateFile::create(shape, V1).unwrap()
}

fn copy(file: &impl AsFd) -> OwnedFd {
    file.as_fd().try_clone_to_owned().unwrap()
}

fn again(file: &StateFile) -> StateFile {
    StateFile::open(copy(file)).unwrap()
}

#[test]
fn what_was_saved_is_read_by_whoever_opens_the_file() {
    let one = file(SMALL);
    let cell = one.claim().unwrap();
    assert_eq!(one.read(cell), None);
    for n in 0..5_u8 {
        one.save(cell, &[n; 33]).unwrap();
        one.save_service(&[n; 50]).unwrap();
        let two = again(&one);
        assert_eq!((two.shape(), two.version(), two.ids()), (SMALL, V1, vec![cell.id()]));
        assert_eq!(two.read(two.cell_of(cell.id()).unwrap()).unwrap(), [n; 33]);
        assert_eq!(two.service().unwrap(), [n; 50]);
        assert_eq!(two.owner(cell), std::process::id().cast_signed());
    }
}

#[test]
fn what_is_too_large_is_refused_by_the_name_of_its_option_and_changes_nothing() {
    let file = file(SMALL);
    let cell = file.claim().unwrap();
    file.save(cell, &[1; 100]).unwrap();
    let refused = [file.save(cell, &[2; 101]), file.save_service(&[2; 51])].map(Result::unwrap_err);
    assert!(refused[0].to_string().contains("Options::state_bytes"), "{}", refused[0]);
    assert!(refused[1].to_string().contains("Options::service_state_bytes"), "{}", refused[1]);
    assert_eq!((file.read(cell).unwrap(), file.service()), (vec![1; 100], None));
}

#[test]
fn an_id_is_never_used_again_and_a_freed_cell_is_nobodys() {
    let file = file(SMALL);
    let mut seen = Vec::new();
    for _ in 0..10 {
        let cell = file.claim().unwrap();
        file.save(cell, b"old").unwrap();
        seen.push(cell.id());
        file.free(cell);
        file.free(cell);
        assert_eq!((file.read(cell), file.cell_of(cell.id()), file.owner(cell)), (None, None, 0));
        assert!(matches!(file.save(cell, b"late"), Err(StateError::Gone { .. })));
    }
    let last = again(&file).claim().unwrap();
    assert_eq!(again(&file).read(last), None, "the state of the one before");
    assert_eq!(file.layout.cell(last.index).generations(&file.memory).unwrap(), [0, 0]);
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    assert_eq!(last.id(), 11);
}

#[test]
fn a_full_file_says_so_until_any_process_frees_a_cell() {
    let old = file(SMALL);
    let cells = [0; 3].map(|_| old.claim().unwrap());
    assert!(matches!(old.claim(), Err(StateError::Full { cells: 3 })));
    let new = again(&old);
    assert!(matches!(new.claim(), Err(StateError::Full { cells: 3 })));
    old.free(cells[1]);
    let cell = new.claim().unwrap();
    assert_eq!(cell.id(), 4);
    assert_eq!(old.cell_of(4), Some(cell), "the other process finds it");
    assert!(matches!(old.claim(), Err(StateError::Full { .. })), "and does not claim it again");
}

#[test]
fn a_cell_that_was_claimed_behind_our_back_is_not_claimed_again() {
    let old = file(SMALL);
    let new = again(&old);
    let theirs = [0; 2].map(|_| old.claim().unwrap());
    let ours = new.claim().unwrap();
    assert_eq!((ours.id(), old.ids().len()), (3, 3));
    assert!(theirs.iter().all(|cell| cell.index != ours.index));
}

#[test]
fn a_larger_file_takes_everything_over_and_a_smaller_one_says_what_is_missing() {
    let old = StateFile::create(SMALL, StateVersion { written: 3, readable_by: 1 }).unwrap();
    let cells = [0; 3].map(|_| old.claim().unwrap());
    old.free(cells[0]);
    old.save(cells[1], b"kept").unwrap();
    old.set_owner(cells[1], 4711).unwrap();
    old.save_service(&[7; 50]).unwrap();
    let new = file(Shape { cells: 4, cell_bytes: 4, service_bytes: 5000 });
    new.copy_from(&old).unwrap();
    let new = again(&new);
    assert_eq!((new.version(), new.ids()), (old.version(), vec![2, 3]));
    let kept = new.cell_of(2).unwrap();
    assert_eq!((new.read(kept).unwrap(), new.owner(kept)), (b"kept".to_vec(), 4711));
    assert_eq!((new.read(new.cell_of(3).unwrap()), new.service().unwrap()), (None, vec![7; 50]));
    assert_eq!(new.claim().unwrap().id(), 4);

    let refuse = |shape| file(shape).copy_from(&old).unwrap_err();
    assert!(matches!(refuse(Shape { cells: 1, ..SMALL }), StateError::Full { cells: 1 }));
    assert!(matches!(refuse(Shape { cell_bytes: 3, ..SMALL }), StateError::TooLarge { most: 3, .. }));
    assert!(matches!(refuse(Shape { service_bytes: 9, ..SMALL }), StateError::TooLarge { most: 9, .. }));
}

#[test]
fn a_program_reads_what_is_meant_for_it_and_refuses_what_is_too_new() {
    let file = file(SMALL);
    file.set_version(StateVersion { written: 5, readable_by: 3 }).unwrap();
    let file = StateFile::open(copy(&file)).unwrap();
    assert_eq!(file.version().written, 5);
    for ours in [3, 4, 5, 6] {
        assert!(file.check_version(StateVersion { written: ours, readable_by: 1 }).is_ok());
    }
    let refused = file.check_version(StateVersion { written: 2, readable_by: 1 }).unwrap_err();
    assert!(matches!(refused, StateError::TooNew { written: 5, readable_by: 3, ours: 2 }), "{refused}");
}

#[test]
fn ids_begin_where_they_are_told_to_and_never_run_back() {
    let file = file(SMALL);
    for (told, next) in [(40, 40), (7, 40), (u64::MAX, 40)] {
        file.begin_at(told).unwrap();
        assert_eq!(file.next_id(), next);
    }
    assert_eq!(file.claim().unwrap().id(), 40);
    assert_eq!(StateFile::open(copy(&file)).unwrap().next_id(), 41);
}

#[test]
fn the_largest_file_takes_no_memory_for_cells_that_nobody_uses() {
    use std::os::unix::fs::MetadataExt;
    let blocks = |file: &StateFile| File::from(copy(file)).metadata().unwrap().blocks() * 512;
    let file = file(Shape::MOST);
    assert!(blocks(&file) <= 65_536 * 64 + 4096, "{}", blocks(&file));
    let file = again(&file);
    file.save(file.claim().unwrap(), &[1; 10]).unwrap();
    assert!(blocks(&file) <= 65_536 * 64 + 2 * 4096, "{}", blocks(&file));
    assert!(StateFile::create(Shape { cells: 65_537, ..Shape::MOST }, V1).is_err());
}

#[test]
fn another_process_saves_and_frees_through_the_same_memory() {
    let mine = file(SMALL);
    let cells = [0; 2].map(|_| mine.claim().unwrap());
    mine.save(cells[0], b"before").unwrap();
    let fd = copy(&mine);
    let child = fork(move || {
        let theirs = StateFile::open(fd).unwrap();
        theirs.set_owner(cells[0], std::process::id().cast_signed()).unwrap();
        assert_eq!(theirs.read(cells[0]).unwrap(), b"before");
        theirs.save(cells[0], b"by the other").unwrap();
        theirs.free(cells[1]);
    });
    assert_eq!(waitpid(Pid::from_raw(child), None), Ok(WaitStatus::Exited(Pid::from_raw(child), 0)));
    assert_eq!((mine.read(cells[0]).unwrap(), mine.owner(cells[0])), (b"by the other".to_vec(), child));
    assert_eq!(mine.ids(), [cells[0].id()]);
}

/// A child that saves for as long as it lives, which is never longer than this.
struct Saver(Pid);

impl Drop for Saver {
    fn drop(&mut self) {
        let _ = (kill(self.0, Signal::SIGKILL), waitpid(self.0, None));
    }
}

/// State number `n`: its length and every byte of it follow from the number.
fn state(n: u64, buffer: &mut [u8]) -> &[u8] {
    let len = 8 + usize::try_from(n * 7919).unwrap() % (buffer.len() - 7);
    buffer[..len].fill(n.to_le_bytes()[0]);
    buffer[..8].copy_from_slice(&n.to_le_bytes());
    &buffer[..len]
}

/// The number of a state, if every byte of it is right.
fn number(bytes: &[u8], most: usize) -> Option<u64> {
    let n = u64::from_le_bytes(*bytes.first_chunk()?);
    (state(n, &mut vec![0; most]) == bytes).then_some(n)
}

#[test]
fn a_writer_killed_at_any_moment_leaves_a_whole_state_not_older_than_the_last_one_seen() {
    const BYTES: u32 = 8 << 10;
    let file = file(Shape { cells: 1, cell_bytes: BYTES, service_bytes: 0 });
    let cell = file.claim().unwrap();
    let pair = file.layout.cell(cell.index);
    let (mut last, mut torn) = (0, 0);
    for round in 0..300_u64 {
        let saver = Saver(Pid::from_raw(fork(|| {
            let mut buffer = vec![0; BYTES as usize];
            for n in last + 1.. {
                file.save(cell, state(n, &mut buffer)).unwrap();
            }
        })));
        // It has got somewhere; where exactly is up to the scheduler.
        let saved = || pair.generations(&file.memory).unwrap().into_iter().max().unwrap();
        let goal = saved() + 1 + round * 31 % 97;
        while saved() < goal {
            let alive = waitpid(saver.0, Some(WaitPidFlag::WNOHANG));
            assert_eq!(alive, Ok(WaitStatus::StillAlive));
        }
        let seen = number(&file.read(cell).unwrap(), BYTES as usize).unwrap();
        drop(saver);
        let heir = again(&file);
        let bytes = heir.read(heir.cell_of(cell.id()).unwrap()).unwrap();
        let found = number(&bytes, BYTES as usize).unwrap();
        assert!(found >= seen && found > last, "{found} after {seen} was seen, {last} before");
        torn += usize::from(is_torn(&file, pair, cell.id()));
        last = found;
    }
    assert!(torn > 0, "no kill came in the middle of a save: this tested nothing");
}

/// Whether the older slot is not whole.
fn is_torn(file: &StateFile, pair: Pair, id: u64) -> bool {
    let [a, b] = pair.generations(&file.memory).unwrap();
    let newest = pair.head + if a < b { 16 } else { 0 };
    let generation = file.memory.load(newest).unwrap();
    file.memory.store(newest, 0).unwrap();
    let older = pair.read(&file.memory, id);
    file.memory.store(newest, generation).unwrap();
    older.is_none()
}

/// What was saved under which id.
type Said = Vec<(u64, Vec<u8>)>;

/// A file with something everywhere, and all that was ever saved in it.
fn full() -> (StateFile, Said, Vec<Vec<u8>>) {
    let file = file(SMALL);
    let (mut saved, mut service) = (Vec::new(), Vec::new());
    for n in 0..3_u8 {
        let cell = file.claim().unwrap();
        for version in 0..=n {
            let bytes = vec![n * 16 + version + 1; 30 + usize::from(n) * 35];
            file.save(cell, &bytes).unwrap();
            saved.push((cell.id(), bytes));
        }
        service.push(vec![n; 50]);
        file.save_service(&[n; 50]).unwrap();
    }
    (file, saved, service)
}

/// Something that may happen to the bytes of a file.
#[derive(Clone, Debug)]
enum Harm {
    Cut(usize),
    Enlarged(usize),
    Flipped(Vec<(usize, u8)>),
    Overwritten(usize, Vec<u8>),
    Word(usize, u64),
}

fn harm() -> impl Strategy<Value = Harm> {
    // Three pages: the directory, the service's slots, the cells' slots. Most harm is done where
    // something is.
    let place = || prop_oneof![0..384_usize, 4096..4208_usize, 8192..8816_usize, 0..12_288_usize];
    let value =
        prop_oneof![Just(0), Just(u64::MAX), Just(1 << 62), Just((1 << 62) - 1), 0..9_u64, any::<u64>()];
    prop_oneof![
        (0..12_288_usize).prop_map(Harm::Cut),
        (1..20_000_usize).prop_map(Harm::Enlarged),
        prop::collection::vec((place(), 1..=255_u8), 1..9).prop_map(Harm::Flipped),
        (place(), prop::collection::vec(any::<u8>(), 1..300))
            .prop_map(|(at, bytes)| Harm::Overwritten(at, bytes)),
        (0..48_usize, value).prop_map(|(word, value)| Harm::Word(word * 8, value)),
    ]
}

impl Harm {
    fn apply(self, bytes: &mut Vec<u8>) {
        let end = bytes.len();
        match self {
            Self::Cut(len) => bytes.truncate(len),
            Self::Enlarged(by) => bytes.resize(end + by, 0),
            Self::Flipped(flips) => {
                flips.into_iter().filter(|(at, _)| *at < end).for_each(|(at, x)| bytes[at] ^= x)
            }
            Self::Overwritten(at, with) => {
                bytes.iter_mut().skip(at).zip(with).for_each(|(byte, x)| *byte = x)
            }
            Self::Word(at, value) => {
                bytes.iter_mut().skip(at).zip(value.to_le_bytes()).for_each(|(byte, x)| *byte = x);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_harmed_file_is_refused_or_holds_only_what_was_saved(harms in prop::collection::vec(harm(), 1..4)) {
        let (file, saved, service) = full();
        let mut bytes = vec![0; file.memory.bytes()];
        File::from(copy(&file)).read_exact_at(&mut bytes, 0).unwrap();
        harms.into_iter().for_each(|harm| harm.apply(&mut bytes));
        let fd = crate::sys::memfd::sealed(&bytes).unwrap();
        let Ok(harmed) = StateFile::open(fd) else { return Ok(()) };
        prop_assert_eq!(harmed.shape(), SMALL);
        prop_assert!(harmed.service().is_none_or(|bytes| service.contains(&bytes)));
        for id in harmed.ids() {
            let cell = harmed.cell_of(id).unwrap();
            if let Some(bytes) = harmed.read(cell) {
                prop_assert!(saved.contains(&(id, bytes)), "connection {} never said that", id);
            }
            harmed.save(cell, b"on it goes").unwrap();
            prop_assert_eq!(harmed.read(cell).unwrap(), b"on it goes");
        }
        let copied = self::file(SMALL);
        copied.copy_from(&harmed).unwrap();
        prop_assert_eq!(copied.ids().len(), harmed.ids().len());
        let _ = harmed.claim();
    }
}

#[test]
fn what_is_no_state_file_says_what_is_wrong() {
    let (file, ..) = full();
    let mut bytes = vec![0; file.memory.bytes()];
    File::from(copy(&file)).read_exact_at(&mut bytes, 0).unwrap();
    let open = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        StateFile::open(crate::sys::memfd::sealed(&bytes).unwrap()).unwrap_err()
    };
    assert!(matches!(open(&|bytes| bytes[0] = 0), StateError::NotOurs));
    assert!(matches!(open(&|bytes| bytes.truncate(8)), StateError::NotOurs));
    assert!(matches!(open(&|bytes| bytes[8] = 2), StateError::Format { found: 2 }));
    assert!(matches!(open(&|bytes| bytes[17] = 1), StateError::Damaged { .. }));
    type Damage<'a> = (&'a dyn Fn(&mut Vec<u8>), &'a str);
    let damage: [Damage<'_>; 5] = [
        (&|bytes| bytes.truncate(8192), "size"),
        (&|bytes| bytes.extend([0; 8]), "size"),
        (&|bytes| bytes[96..104].fill(9), "version"),
        (&|bytes| bytes[32] = 3, "not given"),
        (&|bytes| bytes[192] = 2, "two connections"),
    ];
    for (change, word) in damage {
        let refused = open(change).to_string();
        assert!(refused.contains(word), "{refused}");
    }
    let null = File::open("/dev/null").unwrap().into();
    let refused = StateFile::open(null).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the state file cannot be used: the descriptor is no memfd of ordinary pages"
    );
}
