//! How many connections PID 1 is to hold, and which.
//!
//! It counts, and never speaks to PID 1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::options::Keep;

/// The places that a service has with PID 1 for its connections. Clones are the same places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    keep: Keep,
    taken: Arc<AtomicUsize>,
}

/// The place of one connection, which it may have or not. Dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    taken: bool,
    /// PID 1 did not take the connection.
    refused: bool,
}

impl Places {
    /// All are free.
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, taken: Arc::default() }
    }

    /// For a connection that PID 1 does not hold; or one that it `holds`, which takes a place in any case.
    pub(super) fn place(&self, holds: bool) -> Place {
        if holds {
            self.taken.fetch_add(1, Relaxed);
        }
        Place { places: self.clone(), taken: holds, refused: false }
    }

    fn most(&self) -> usize {
        match self.keep {
            Keep::None => 0,
            Keep::Idle(most) | Keep::All(most) => most,
        }
    }
}

impl Place {
    /// Whether PID 1 is to hold the connection although nothing was said over it.
    pub(super) fn is_for_new(&self) -> bool {
        matches!(self.places.keep, Keep::All(_))
    }

    /// Whether PID 1 is to hold a connection that rests, and does not.
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        !self.taken && !self.refused && self.places.taken.load(Relaxed) < self.places.most()
    }

    /// Takes the place, if it is wanted and there is one.
    pub(super) fn take(&mut self) -> bool {
        let most = self.places.most();
        let more = |taken| (taken < most).then_some(taken + 1);
        self.taken = self.is_wanted() && self.places.taken.fetch_update(Relaxed, Relaxed, more).is_ok();
        self.taken
    }

    /// PID 1 does not take the connection: it is not asked again.
    pub(super) fn refused(&mut self) {
        self.refused = true;
        self.free();
    }

    fn free(&mut self) {
        if std::mem::take(&mut self.taken) {
            self.places.taken.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_the_service_asked_for() {
        let places = Places::new(Keep::Idle(2));
        let [mut one, mut two, mut three] = [(); 3].map(|()| places.place(false));
        assert!(one.take() && two.take() && !three.is_wanted() && !three.take());
        assert!(!one.is_wanted(), "it has one");
        drop(one);
        assert!(three.is_wanted() && three.take());
        three.refused();
        assert!(!three.is_wanted() && places.place(false).is_wanted());
    }

    #[test]
    fn what_pid_1_holds_already_has_a_place() {
        let places = Places::new(Keep::All(1));
        let [_one, _two] = [(); 2].map(|()| places.place(true));
        assert!(!places.place(false).is_wanted());
        assert!(!Places::new(Keep::None).place(false).is_wanted());
    }
}
