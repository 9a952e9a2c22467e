//! How many machines live at once.

use std::sync::{Condvar, Mutex, PoisonError};

use super::systemd::Systemd;

/// One of the few machines that may live at once in this process.
#[derive(Debug)]
pub(crate) struct Permit(&'static Permits);

/// How many more of a kind may live.
#[derive(Debug)]
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A systemd at its boot keeps a processor busy.
static OF_SYSTEMD: Permits = Permits { free: Mutex::new(3), freed: Condvar::new() };
/// Most of a scenario's time on the stand-in is spent in waiting, and several wait at once.
static OF_STANDIN: Permits = Permits { free: Mutex::new(8), freed: Condvar::new() };

impl Permit {
    /// Waits until there may be one more.
    pub(crate) fn take(systemd: Systemd) -> Self {
        let all = if systemd == Systemd::Standin { &OF_STANDIN } else { &OF_SYSTEMD };
        let free = all.free.lock().unwrap_or_else(PoisonError::into_inner);
        *all.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner) -= 1;
        Self(all)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}
