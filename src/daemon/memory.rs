//! The memory that is in the fd store beside the connections, found, made and replaced.
//!
//! What an earlier process left is opened without trust. What is of no use is replaced: the new file is
//! in the store before the old one is forgotten, so their names carry a number, and the highest one
//! that can be used counts.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::Options;
use super::connections::Incoming;
use crate::activation::{Inherited, Kind, Passed, Role, Transport};
use crate::fdstore::names::{self, RECORD, STATE};
use crate::fdstore::{Record, RecordFile, Shape, StateError, StateFile, StateVersion};
use crate::upgrade::launch::LINK;
use crate::upgrade::moves::Family;

/// The state file and the record of this process.
#[derive(Debug)]
pub(super) struct Memory {
    state: Option<Named<Arc<StateFile>>>,
    record_file: Option<Named<RecordFile>>,
    /// The state file of a process whose state this one cannot read.
    illegible: Option<StateFile>,
    /// What the record says, whether or not it is kept.
    pub(super) record: Record,
    /// Names in the store that nothing of use has.
    useless: Vec<String>,
    /// The connections that PID 1 kept.
    connections: Vec<Passed>,
    /// What was wrong with what an earlier process left.
    pub(super) troubles: Vec<String>,
}

/// A file, the name that it has with PID 1, and whether it is there.
#[derive(Debug)]
struct Named<T> {
    file: T,
    name: String,
    stashed: bool,
}

impl Memory {
    /// Nothing was left by anybody.
    pub(super) fn new(connections: Vec<Passed>) -> Self {
        Self {
            state: None,
            record_file: None,
            illegible: None,
            record: Record::default(),
            useless: Vec::new(),
            connections,
            troubles: Vec::new(),
        }
    }

    /// Takes what is handover's own out of what was passed.
    pub(super) fn find(inherited: &mut Inherited, options: Options) -> Self {
        let mut this = Self::new(inherited.take_reserved_prefix(names::CONNECTION));
        // What is no link is nothing that anybody can serve.
        this.connections.extend(inherited.take_reserved(LINK));
        let mut illegible = None;
        this.state = this.newest(inherited, STATE, |fd| {
            let file = StateFile::open(fd).map_err(|error| error.to_string())?;
            match file.check_version(options.state_version) {
                Ok(()) => Ok(Arc::new(file)),
                Err(error) => {
                    illegible = Some(file);
                    Err(error.to_string())
                }
            }
        });
        this.illegible = illegible;
        let found =
            this.newest(inherited, RECORD, |fd| RecordFile::open(fd).map_err(|error| error.to_string()));
        this.record_file = found.map(|Named { file: (file, record), name, stashed }| {
            this.record = record;
            Named { file, name, stashed }
        });
        this
    }

    /// The newest of the files called `name` or `name.N` that can be opened.
    fn newest<T>(
        &mut self,
        inherited: &mut Inherited,
        name: &str,
        mut open: impl FnMut(OwnedFd) -> Result<T, String>,
    ) -> Option<Named<T>> {
        let mut all = inherited.take_reserved_prefix(name);
        all.sort_by_key(|passed| std::cmp::Reverse(number(passed.name(), name)));
        let mut newest = None;
        for passed in all {
            let (passed_name, fd, _) = passed.into_parts();
            if newest.is_some() {
                self.useless.push(passed_name);
                continue;
            }
            match open(fd) {
                Ok(file) => newest = Some(Named { file, name: passed_name, stashed: true }),
                Err(error) => {
                    self.troubles.push(format!("{passed_name}: {error}; it is left behind"));
                    self.useless.push(passed_name);
                }
            }
        }
        newest
    }

    /// What was wrong with what an earlier process left.
    pub(super) fn take_troubles(&mut self) -> Vec<String> {
        std::mem::take(&mut self.troubles)
    }

    /// The state file.
    pub(super) fn state(&self) -> Option<&Arc<StateFile>> {
        self.state.as_ref().map(|state| &state.file)
    }

    /// Whether something in here is called so, and thus with PID 1.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files().any(|(file, _, _)| file == name) || self.useless.iter().any(|useless| useless == name)
    }

    /// The connections that PID 1 kept, ready to be served if the service `takes` any; and those that
    /// cannot be: what is no connection, or has no place in the state file, or damaged bytes in it: better
    /// no session than one that has forgotten what it acknowledged. Places without a connection are freed.
    pub(super) fn restore(&mut self, takes: bool) -> (Vec<Incoming>, Vec<Passed>) {
        let (mut restored, mut orphans) = (Vec::new(), Vec::new());
        let state = self.state().cloned();
        // KillMode=process leaves them alone; what is theirs is not ours.
        let drainers = self.record.draining.iter().filter(|drainer| drainer.is_alive());
        let drainers: HashSet<i32> = drainers.map(|drainer| drainer.pid).collect();
        let mut seen = HashSet::new();
        for passed in std::mem::take(&mut self.connections) {
            let family = match passed.kind() {
                // Alone: its peer has reset it while nobody served. Whoever welcomes it will notice.
                Kind::Socket(Transport::Tcp, Role::Connected | Role::Alone) => Some(Family::Tcp),
                Kind::Socket(Transport::UnixStream, Role::Connected) => Some(Family::Unix),
                _ => None,
            };
            let id = names::connection_id(passed.name());
            let cell = state.as_ref().zip(id).and_then(|(state, id)| state.cell_of(id));
            match (family, cell, &state) {
                (_, Some(cell), Some(state)) if drainers.contains(&state.owner(cell)) => {
                    seen.insert(cell.id());
                }
                (Some(family), Some(cell), Some(state)) if takes && !seen.contains(&cell.id()) => {
                    let Some(saved) = state.read(cell) else {
                        self.troubles.push(format!("the state of {:?} is damaged", passed.name()));
                        orphans.push(passed);
                        continue;
                    };
                    seen.insert(cell.id());
                    let (_, socket, _) = passed.into_parts();
                    restored.push(Incoming::restored(socket, family, cell.id(), saved));
                }
                _ => orphans.push(passed),
            }
        }
        if let Some(state) = &state {
            let unused = state.ids().into_iter().filter(|id| !seen.contains(id));
            unused.filter_map(|id| state.cell_of(id)).for_each(|cell| state.free(cell));
        }
        (restored, orphans)
    }

    /// Makes what is missing: the record, and a state file if it is to have a `shape`. One of another
    /// shape is replaced if this process is `alone`: no other one uses it.
    pub(super) fn complete(&mut self, shape: Option<Shape>, version: StateVersion, alone: bool) {
        if let Some(shape) = shape
            && self.state.as_ref().is_none_or(|state| alone && state.file.shape() != shape)
        {
            match replace(self.state().map(|state| &**state), shape, version, self.next_id()) {
                Ok(file) => {
                    self.useless.extend(self.state.take().map(|old| old.name));
                    let (file, name) = (Arc::new(file), self.next_name(STATE));
                    self.state = Some(Named { file, name, stashed: false });
                }
                Err(error) => self.troubles.push(format!("no new state file: {error}")),
            }
        }
        if let Some(state) = self.state()
            && let Err(error) = state.set_version(version)
        {
            self.troubles.push(error.to_string());
        }
        if self.record_file.is_none() {
            match RecordFile::create() {
                Ok(file) => {
                    let name = self.next_name(RECORD);
                    self.record_file = Some(Named { file, name, stashed: false });
                }
                Err(error) => self.troubles.push(format!("no record: {error}")),
            }
        }
    }

    /// The numbers of the connections with PID 1 that other processes may still serve.
    pub(super) fn ids_of_others(&self) -> Vec<u64> {
        let files = self.state().map(|file| &**file).into_iter().chain(&self.illegible);
        files.flat_map(StateFile::ids).collect()
    }

    /// The lowest number that no connection with PID 1 has, nor will be given by the process before,
    /// which may drain for a while with those it has.
    fn next_id(&self) -> u64 {
        let stored = self.connections.iter().filter_map(|passed| names::connection_id(passed.name())).max();
        let stored = stored.map_or(1, |id| id.saturating_add(1));
        self.illegible.as_ref().map_or(stored, |file| stored.max(file.next_id()))
    }

    /// A name that nothing in the store has.
    fn next_name(&self, base: &str) -> String {
        match self.useless.iter().map(|used| number(used, base)).max() {
            Some(highest) if highest > 0 => format!("{base}.{}", highest.saturating_add(1)),
            _ => base.to_owned(),
        }
    }

    /// The files, with their names, and whether they are in the store.
    fn files(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>, bool)> {
        let state = self.state.iter().map(|one| (&*one.name, one.file.as_fd(), one.stashed));
        let record = self.record_file.iter().map(|one| (&*one.name, one.file.as_fd(), one.stashed));
        state.chain(record)
    }

    /// Copies of the files, with their names, for a successor or for PID 1.
    ///
    /// Errors: EMFILE for want of descriptors.
    pub(super) fn copies(&self, unstashed_only: bool) -> io::Result<Vec<(String, OwnedFd)>> {
        let wanted = self.files().filter(|(_, _, stashed)| !(unstashed_only && *stashed));
        wanted.map(|(name, fd, _)| Ok((name.to_owned(), fd.try_clone_to_owned()?))).collect()
    }

    /// Notes that PID 1 has what is called `name`.
    pub(super) fn is_stashed(&mut self, name: &str) {
        self.state.iter_mut().filter(|one| one.name == name).for_each(|one| one.stashed = true);
        self.record_file.iter_mut().filter(|one| one.name == name).for_each(|one| one.stashed = true);
    }

    /// The names of what is of no use any more; once.
    pub(super) fn take_useless(&mut self) -> Vec<String> {
        std::mem::take(&mut self.useless)
    }

    /// Saves what the record says.
    pub(super) fn save_record(&self) {
        let saved = self.record_file.as_ref().map(|one| one.file.save(&self.record));
        if let Some(Err(error)) = saved {
            tracing::warn!(%error, "the record is not saved");
        }
    }
}

/// A file of this shape with everything that is in the old one; without an old one its ids begin at
/// `next_id`.
fn replace(
    old: Option<&StateFile>,
    shape: Shape,
    version: StateVersion,
    next_id: u64,
) -> Result<StateFile, StateError> {
    let file = StateFile::create(shape, version)?;
    match old {
        Some(old) => file.copy_from(old)?,
        None => file.begin_at(next_id)?,
    }
    Ok(file)
}

/// The number of a file's name: 1 for `base`, N for `base.N`, 0 for what we never write.
fn number(name: &str, base: &str) -> u64 {
    match name.strip_prefix(base) {
        Some("") => 1,
        Some(rest) => rest.strip_prefix('.').and_then(|number| number.parse().ok()).unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_file_has_the_highest_number_and_strange_names_none() {
        let names = ["handover.state", "handover.state.2", "handover.state.10"];
        assert_eq!(names.map(|name| number(name, STATE)), [1, 2, 10]);
        let strange = ["handover.states", "handover.state.", "handover.state.x", "ho.1"];
        assert_eq!(strange.map(|name| number(name, STATE)), [0; 4]);
    }

    #[test]
    fn a_connection_whose_state_cannot_be_read_is_not_served_as_if_it_were_new() {
        let shape = Shape { cells: 4, cell_bytes: 8, service_bytes: 0 };
        let file = StateFile::create(shape, StateVersion { written: 1, readable_by: 1 }).unwrap();
        let [whole, damaged] = [(); 2].map(|()| file.claim().unwrap());
        file.save(whole, b"state").unwrap();
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let connections = [(whole, one), (damaged, other)]
            .map(|(cell, socket)| Passed::new(names::connection(cell.id()), socket.into()).unwrap());
        let mut memory = Memory::new(connections.into());
        memory.state = Some(Named { file: Arc::new(file), name: STATE.to_owned(), stashed: true });
        let (restored, orphans) = memory.restore(true);
        assert_eq!((restored.len(), orphans[0].name()), (1, &*names::connection(damaged.id())));
        assert_eq!(memory.take_troubles().len(), 1);
        assert!(memory.state().unwrap().cell_of(damaged.id()).is_none(), "its place is free");
    }
}
