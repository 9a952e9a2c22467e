//! PID 1's store for tests: a thread that keeps descriptors as PID 1 does, up to a limit.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::Notify;

use super::bounds::Bounds;
use super::store::Store;
use crate::notify::fake_manager::{FakeManager, LONG};
use crate::notify::{Address, Message, Notifier, NotifyState, parse};
use crate::sys::dgram::{Readiness, wait};

/// Ends the thread.
const END: &str = "X_END=1";

/// A store, and all that it was told.
pub(crate) struct FakeStore {
    held: Arc<Mutex<Vec<(String, OwnedFd)>>>,
    told: Arc<Mutex<Vec<String>>>,
    pub(crate) limit: Arc<AtomicUsize>,
    silence: Arc<Silence>,
    address: Address,
    thread: Option<JoinHandle<()>>,
}

/// The barriers that are not answered, while there are to be none that are.
#[derive(Default)]
struct Silence {
    kept: Mutex<Option<Vec<OwnedFd>>>,
    grows: Notify,
}

impl FakeStore {
    /// A store for `limit` descriptors.
    pub(crate) fn of(limit: usize) -> Self {
        let manager = FakeManager::at_abstract_name();
        let (held, told, silence) = (Arc::default(), Arc::default(), Arc::<Silence>::default());
        let limit = Arc::new(AtomicUsize::new(limit));
        let address = manager.address.clone();
        let (kept, heard, most) = (Arc::clone(&held), Arc::clone(&told), Arc::clone(&limit));
        let unanswered = Arc::clone(&silence);
        let thread = std::thread::spawn(move || serve(&manager, &kept, &heard, &most, &unanswered));
        Self { held, told, limit, silence, address, thread: Some(thread) }
    }

    /// Answers no barrier from now on.
    pub(crate) fn fall_silent(&self) {
        *self.silence.kept.lock().unwrap() = Some(Vec::new());
    }

    /// Waits for a barrier that is not answered.
    pub(crate) async fn asked(&self) {
        tokio::time::timeout(LONG, self.silence.grows.notified()).await.expect("nobody asks");
    }

    /// Answers all of them, and those to come.
    pub(crate) fn answer(&self) {
        *self.silence.kept.lock().unwrap() = None;
    }

    /// A client that was told the limit, or was not.
    pub(crate) fn client(&self, limit: Option<usize>) -> Store {
        let bounds = Bounds { limit, open_files: 10_000, others: 0, other_bytes: 0 };
        Store::new(Notifier::to(&self.address).unwrap(), bounds)
    }

    /// What is held after everything that was sent until now, in the order of arrival.
    pub(crate) fn names(&self) -> Vec<String> {
        let _ = Notifier::to(&self.address).unwrap().barrier(LONG).unwrap();
        self.held.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    /// How many of the messages began so.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.told.lock().unwrap().iter().filter(|text| text.starts_with(start)).count()
    }

    /// All messages so far.
    pub(crate) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

/// Does as PID 1 does.
fn serve(
    manager: &FakeManager,
    held: &Mutex<Vec<(String, OwnedFd)>>,
    told: &Mutex<Vec<String>>,
    limit: &AtomicUsize,
    silence: &Silence,
) {
    loop {
        let (text, fds) = manager.receive();
        if text == END {
            return;
        }
        told.lock().unwrap().push(text.clone());
        let says = parse(text.as_bytes()).unwrap();
        let name = says.iter().find(|(key, _)| *key == "FDNAME").map(|(_, name)| (*name).to_owned());
        if says.contains(&("BARRIER", "1"))
            && let Some(kept) = &mut *silence.kept.lock().unwrap()
        {
            kept.extend(fds);
            silence.grows.notify_one();
            continue;
        }
        let mut held = held.lock().unwrap();
        if says.contains(&("FDSTOREREMOVE", "1")) {
            held.retain(|(held, _)| Some(held) != name.as_ref());
        } else if says.contains(&("FDSTORE", "1")) {
            let room = limit.load(Ordering::SeqCst).saturating_sub(held.len());
            let mut fds = fds.into_iter();
            held.extend(fds.by_ref().take(room).map(|fd| (name.clone().unwrap(), fd)));
            fds.for_each(close);
        }
    }
}

/// Closes what is not kept. Of a pipe that is done when nobody has this end any more: a child of another test has
/// copies of all that is open here, until its execve(2).
fn close(fd: OwnedFd) {
    let other_end = File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    drop(fd);
    if let Ok(other_end) = other_end {
        let _ = wait(other_end.as_fd(), Readiness::Readable, LONG);
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        let end = Message::new(&[NotifyState::Custom(END)]).unwrap();
        // A thread that has heard nothing for long has failed already.
        if let Ok(notifier) = Notifier::to(&self.address) {
            let _ = notifier.send(&end, LONG);
        }
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}
