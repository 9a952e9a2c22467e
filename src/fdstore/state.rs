//! The state file: what the service knows of itself and of each connection, in memory that PID 1 keeps.
//!
//! Every process of the service maps the same file. A cell belongs to one process at a time, which
//! alone saves in it and frees it; only the main process claims. An id is used once, so that a name in
//! the store and a cell in the file belong together or not at all. This file never waits for another
//! process, and makes no system call to save what is not larger than what was saved before.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::layout::{self, Layout, NEXT_ID, Shape, StateVersion, VERSION};
use crate::sys::memfd::SharedMemory;

mod error;

pub use self::error::StateError;

/// What the slots are that belong to no cell; ids of cells are below.
const SERVICE_KEY: u64 = u64::MAX;
const VERSION_KEY: u64 = u64::MAX - 1;

/// Ids beyond this one were given by nobody.
const LAST_ID: u64 = 1 << 62;

/// Locks for saving: threads that save in different cells seldom wait for each other.
const LOCKS: usize = 16;

/// The place of one connection's state: which cell, and the id that it was claimed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    index: u32,
    id: u64,
}

impl Cell {
    /// The id, which no other connection has had or will have in this file.
    pub(crate) fn id(self) -> u64 {
        self.id
    }
}

/// A state file, mapped.
#[derive(Debug)]
pub(crate) struct StateFile {
    memory: SharedMemory,
    layout: Layout,
    version: AtomicU64,
    index: Mutex<Index>,
    service: Mutex<()>,
    cells: [Mutex<()>; LOCKS],
}

/// What this process knows of who uses which cell. Another process may have claimed or freed some
/// since, so each word of it is checked against the file.
#[derive(Debug, Default)]
struct Index {
    used: HashMap<u64, u32>,
    free: Vec<u32>,
    /// Ids from here on had not been given when this was read.
    until: u64,
}

impl StateFile {
    /// Makes an empty file. Its cells take no memory before they are used.
    ///
    /// Errors: `InvalidInput` for a shape beyond [`Shape::MOST`]; what the kernel says.
    pub(crate) fn create(shape: Shape, version: StateVersion) -> io::Result<Self> {
        let layout = Layout::of(shape).ok_or_else(|| {
            let most = Shape::MOST;
            io::Error::new(io::ErrorKind::InvalidInput, format!("{shape:?} is more than {most:?}"))
        })?;
        let memory = SharedMemory::create(c"handover.state", layout.bytes)?;
        memory.reserve(0, layout.directory_bytes())?;
        for (number, word) in layout::header(shape).into_iter().enumerate() {
            memory.store(number * 8, word)?;
        }
        memory.store(NEXT_ID, 1)?;
        VERSION.save(&memory, VERSION_KEY, &version.to_word().to_le_bytes())?;
        let index = Index { used: HashMap::new(), free: (0..shape.cells).rev().collect(), until: 1 };
        Ok(Self::new(memory, layout, version, index))
    }

    /// Maps a file that another process made. What was saved in it is checked when it is read; whether
    /// this program can make sense of it, by [`check_version`](Self::check_version).
    ///
    /// Errors: see [`StateError`]; the descriptor is closed then.
    pub(crate) fn open(fd: OwnedFd) -> Result<Self, StateError> {
        let most = Layout::of(Shape::MOST).map_or(usize::MAX, |layout| layout.bytes);
        let memory = SharedMemory::open(fd, most)?;
        let mut header = [0; 4];
        for (number, word) in header.iter_mut().enumerate() {
            *word = memory.load(number * 8).map_err(|_| StateError::NotOurs)?;
        }
        let shape = layout::read_header(header)?;
        let damaged = |what| StateError::Damaged { what };
        let layout = Layout::of(shape).ok_or_else(|| damaged("its shape is beyond all bounds"))?;
        if memory.bytes() != layout.bytes {
            return Err(damaged("its size is not that of its shape"));
        }
        memory.reserve(0, layout.directory_bytes())?;
        let version = VERSION.read(&memory, VERSION_KEY).and_then(|bytes| bytes.try_into().ok());
        let version =
            StateVersion::from_word(version.map(u64::from_le_bytes).ok_or_else(|| damaged("no version"))?);
        let file = Self::new(memory, layout, version, Index::default());
        let index = file.look_around();
        if index.until > LAST_ID || index.used.keys().any(|id| *id >= index.until) {
            return Err(damaged("a connection has an id that was not given yet"));
        }
        if index.used.len() + index.free.len() != shape.cells as usize {
            return Err(damaged("two connections have one id"));
        }
        *lock(&file.index) = index;
        Ok(file)
    }

    fn new(memory: SharedMemory, layout: Layout, version: StateVersion, index: Index) -> Self {
        let version = AtomicU64::new(version.to_word());
        Self {
            memory,
            layout,
            version,
            index: Mutex::new(index),
            service: Mutex::default(),
            cells: <_>::default(),
        }
    }

    /// Whether a program of version `ours` can read what is saved in it.
    ///
    /// Errors: `TooNew`.
    pub(crate) fn check_version(&self, ours: StateVersion) -> Result<(), StateError> {
        let StateVersion { written, readable_by } = self.version();
        if readable_by > ours.written {
            return Err(StateError::TooNew { written, readable_by, ours: ours.written });
        }
        Ok(())
    }

    /// The id that the next connection will have.
    pub(crate) fn next_id(&self) -> u64 {
        self.word(NEXT_ID)
    }

    /// Gives no id below `id`, where others may be known by them still; one that nobody can have had is
    /// passed over. For a file that was just created.
    ///
    /// Errors: none in a file that is mapped.
    pub(crate) fn begin_at(&self, id: u64) -> Result<(), StateError> {
        if id < LAST_ID {
            self.memory.store(NEXT_ID, id.max(self.next_id()))?;
        }
        Ok(())
    }

    /// What it has room for.
    pub(crate) fn shape(&self) -> Shape {
        self.layout.shape
    }

    /// The version of what is saved in it, as found when it was opened or as set since.
    pub(crate) fn version(&self) -> StateVersion {
        StateVersion::from_word(self.version.load(Ordering::Relaxed))
    }

    /// Says which version is saved from now on. For the main process alone.
    ///
    /// Errors: none in a file that is mapped.
    pub(crate) fn set_version(&self, version: StateVersion) -> Result<(), StateError> {
        let _only = lock(&self.service);
        VERSION.save(&self.memory, VERSION_KEY, &version.to_word().to_le_bytes())?;
        self.version.store(version.to_word(), Ordering::Relaxed);
        Ok(())
    }

    /// Saves the service's own state. For the main process alone.
    ///
    /// Errors: `TooLarge`, `NoMemory`; the state before stays then.
    pub(crate) fn save_service(&self, bytes: &[u8]) -> Result<(), StateError> {
        fits(bytes, self.layout.shape.service_bytes, "service_state_bytes")?;
        let _only = lock(&self.service);
        Ok(self.layout.service.save(&self.memory, SERVICE_KEY, bytes)?)
    }

    /// The service's own state as saved last; `None` when it never was, or is damaged.
    pub(crate) fn service(&self) -> Option<Vec<u8>> {
        self.layout.service.read(&self.memory, SERVICE_KEY)
    }

    /// A free cell, now this process's, with a new id and no state. For the main process alone.
    ///
    /// Errors: `Full`.
    pub(crate) fn claim(&self) -> Result<Cell, StateError> {
        let mut index = lock(&self.index);
        let place = match self.next_free(&mut index) {
            Some(place) => Some(place),
            // Others may have freed cells since.
            None => {
                *index = self.look_around();
                self.next_free(&mut index)
            }
        };
        let place = place.ok_or(StateError::Full { cells: self.layout.shape.cells })?;
        let id = self.word(NEXT_ID);
        if id >= LAST_ID {
            return Err(StateError::Damaged { what: "its next id is beyond all bounds" });
        }
        // In this order: who stops in between has wasted an id and taken nothing.
        self.memory.store(NEXT_ID, id + 1)?;
        let owner = std::process::id().cast_signed();
        self.put(&mut index, place, id, owner)
    }

    /// A cell that is known as free and still is.
    fn next_free(&self, index: &mut Index) -> Option<u32> {
        while let Some(place) = index.free.pop() {
            if self.word(self.layout.id(place)) == 0 {
                return Some(place);
            }
        }
        None
    }

    /// Makes the free cell `place` that of `id`; the id comes last.
    fn put(&self, index: &mut Index, place: u32, id: u64, owner: i32) -> Result<Cell, StateError> {
        self.layout.cell(place).clear(&self.memory)?;
        self.memory.store(self.layout.owner(place), u64::from(owner.cast_unsigned()))?;
        self.memory.store(self.layout.id(place), id)?;
        index.used.insert(id, place);
        Ok(Cell { index: place, id })
    }

    /// The cell of a connection; `None` when there is none with this id.
    pub(crate) fn cell_of(&self, id: u64) -> Option<Cell> {
        let mut index = lock(&self.index);
        // An id that was given before the index was made and is not in it has ended.
        if id >= index.until && id < self.word(NEXT_ID) && !index.used.contains_key(&id) {
            *index = self.look_around();
        }
        let cell = Cell { index: *index.used.get(&id)?, id };
        self.is_used(cell).then_some(cell)
    }

    /// Gives a cell back. Does nothing when it was given back before.
    pub(crate) fn free(&self, cell: Cell) {
        let mut index = lock(&self.index);
        let _only = self.lock_cell(cell);
        index.used.remove(&cell.id);
        // The directory was reserved when the file was mapped, so that storing into it cannot fail.
        if self.is_used(cell) && self.memory.store(self.layout.id(cell.index), 0).is_ok() {
            index.free.push(cell.index);
        }
    }

    /// Saves the state of a connection. For the owner alone.
    ///
    /// Errors: `TooLarge`, `NoMemory`: the state before stays; `Gone` after it was freed.
    pub(crate) fn save(&self, cell: Cell, bytes: &[u8]) -> Result<(), StateError> {
        fits(bytes, self.layout.shape.cell_bytes, "state_bytes")?;
        let _only = self.lock_cell(cell);
        if !self.is_used(cell) {
            return Err(StateError::Gone { id: cell.id });
        }
        Ok(self.layout.cell(cell.index).save(&self.memory, cell.id, bytes)?)
    }

    /// The state of a connection as saved last; `None` when it never was, is damaged, or was freed.
    pub(crate) fn read(&self, cell: Cell) -> Option<Vec<u8>> {
        self.is_used(cell).then(|| self.layout.cell(cell.index).read(&self.memory, cell.id))?
    }

    /// The ids of all connections that have a cell now, in the order of the cells.
    pub(crate) fn ids(&self) -> Vec<u64> {
        let ids = (0..self.layout.shape.cells).map(|place| self.word(self.layout.id(place)));
        ids.filter(|id| *id != 0).collect()
    }

    /// The pid of the process that a cell belongs to; 0 when it was freed.
    pub(crate) fn owner(&self, cell: Cell) -> i32 {
        let (_, owner) = layout::halves(self.word(self.layout.owner(cell.index)));
        if self.is_used(cell) { owner.cast_signed() } else { 0 }
    }

    /// Says that a cell belongs to `pid` from now on. For the new owner alone.
    ///
    /// Errors: `Gone` after it was freed.
    pub(crate) fn set_owner(&self, cell: Cell, pid: i32) -> Result<(), StateError> {
        let _only = self.lock_cell(cell);
        if !self.is_used(cell) {
            return Err(StateError::Gone { id: cell.id });
        }
        Ok(self.memory.store(self.layout.owner(cell.index), u64::from(pid.cast_unsigned()))?)
    }

    /// Takes over everything that is in an older file of another shape: version, states, ids, owners.
    /// For a file that was just created.
    ///
    /// Errors: `Full`, `TooLarge`, `NoMemory`; throw this file away then.
    pub(crate) fn copy_from(&self, older: &Self) -> Result<(), StateError> {
        self.set_version(older.version())?;
        self.memory.store(NEXT_ID, older.word(NEXT_ID))?;
        if let Some(bytes) = older.service() {
            self.save_service(&bytes)?;
        }
        for id in older.ids() {
            let Some(from) = older.cell_of(id) else { continue };
            let mut index = lock(&self.index);
            let place = self.next_free(&mut index);
            let place = place.ok_or(StateError::Full { cells: self.layout.shape.cells })?;
            let to = self.put(&mut index, place, id, older.owner(from))?;
            drop(index);
            if let Some(bytes) = older.read(from) {
                self.save(to, &bytes)?;
            }
        }
        Ok(())
    }

    fn is_used(&self, cell: Cell) -> bool {
        self.word(self.layout.id(cell.index)) == cell.id
    }

    /// Reads who uses which cell.
    fn look_around(&self) -> Index {
        // Before the ids: one that is given meanwhile is then looked for again.
        let mut index = Index { until: self.word(NEXT_ID), ..Index::default() };
        for place in (0..self.layout.shape.cells).rev() {
            match self.word(self.layout.id(place)) {
                0 => index.free.push(place),
                id => drop(index.used.insert(id, place)),
            }
        }
        index
    }

    /// A word of the directory, which was reserved when the file was mapped: reading it cannot fail.
    fn word(&self, at: usize) -> u64 {
        self.memory.load(at).unwrap_or(0)
    }

    fn lock_cell(&self, cell: Cell) -> MutexGuard<'_, ()> {
        lock(&self.cells[cell.index as usize % LOCKS])
    }
}

impl AsFd for StateFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// A thread that panicked has left nothing half done that the checksums would not show.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fits(bytes: &[u8], most: u32, option: &'static str) -> Result<(), StateError> {
    let (bytes, most) = (bytes.len(), most as usize);
    if bytes > most { Err(StateError::TooLarge { bytes, most, option }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
