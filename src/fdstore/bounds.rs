//! How much the next start of the service can bear, so that nothing is stored that would prevent it.
//!
//! PID 1 passes all that it holds at once: as that many open descriptors, and with their names in one
//! string. Over RLIMIT_NOFILE the start fails with 202/FDS, over the kernel's longest string with E2BIG;
//! again at every try, until somebody empties the store by hand.

use std::io;

use nix::sys::resource::{Resource, getrlimit};

use super::StashError;
use crate::activation::Inherited;
use crate::activation::env::{FIRST_FD, MAX_NAMES};

/// Tells the service how much it may store: `FileDescriptorStoreMax=`, since systemd 254.
const FDSTORE: &str = "FDSTORE";

/// How many numbers below RLIMIT_NOFILE one passed descriptor may need. Before 255 systemd moves them to
/// 3, 4, 5 ... in the new process, with that limit set already, from wherever they are in PID 1; each
/// wants a free number above its place, and the others may take as many as they are. (systemd 252 fails
/// to pass 850 under a limit of 1024.)
const NUMBERS: usize = 2;

/// What a new process opens by itself before it has looked at what it was given.
const MARGIN: usize = 64;

/// The bounds of one unit, as this process found them when it started.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// How many descriptors the store takes; `None` where the manager does not say: before systemd
    /// 254, and where the store is disabled.
    pub(super) limit: Option<usize>,
    /// RLIMIT_NOFILE, soft: what PID 1 gives to the next start too.
    pub(super) open_files: usize,
    /// How many descriptors come from elsewhere: sockets, OpenFile=.
    pub(super) others: usize,
    /// The bytes of their names, with a colon behind each.
    pub(super) other_bytes: usize,
}

impl Bounds {
    /// The bounds that the environment and the kernel tell. `sockets` are the names of what every
    /// start brings besides the store. To be called before the program raises its own RLIMIT_NOFILE.
    ///
    /// Errors are those of getrlimit(2).
    pub(crate) fn found<'a>(sockets: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let (soft, _hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let limit = std::env::var(FDSTORE).ok().and_then(|value| value.parse().ok());
        let open_files = usize::try_from(soft).unwrap_or(usize::MAX);
        let none = Self { limit, open_files, others: 0, other_bytes: 0 };
        Ok(sockets.into_iter().fold(none, |bounds, name| Self {
            others: bounds.others + 1,
            other_bytes: bounds.other_bytes + name.len() + 1,
            ..bounds
        }))
    }

    /// The bounds of a process that was given `inherited`, and the names in it that come out of the
    /// store: all but sockets to serve on.
    ///
    /// Errors are those of getrlimit(2).
    pub(crate) fn of(inherited: &Inherited) -> io::Result<(Self, Vec<&str>)> {
        let (sockets, stored): (Vec<_>, Vec<_>) =
            inherited.all().partition(|passed| passed.kind().is_for_serving());
        let bounds = Self::found(sockets.iter().map(|passed| passed.name()))?;
        Ok((bounds, stored.iter().map(|passed| passed.name()).collect()))
    }

    /// Whether the next start could bear `fds` descriptors out of the store, with names of `bytes`
    /// bytes, a colon behind each.
    pub(super) fn check(&self, fds: usize, bytes: usize) -> Result<(), StashError> {
        let wanted = FIRST_FD.unsigned_abs() as usize + NUMBERS * (self.others + fds) + MARGIN;
        if wanted > self.open_files {
            return Err(StashError::OpenFiles { wanted, found: self.open_files });
        }
        let wanted = (self.other_bytes + bytes).saturating_sub(1);
        if wanted > MAX_NAMES {
            return Err(StashError::Names { wanted, most: MAX_NAMES });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { limit: None, open_files: 1024, others: 2, other_bytes: 10 };

    #[test]
    fn the_next_start_has_room_for_its_sockets_the_store_and_what_it_opens_itself() {
        assert!(BOUNDS.check(476, 0).is_ok());
        let refused = BOUNDS.check(477, 0).unwrap_err();
        assert!(matches!(refused, StashError::OpenFiles { wanted: 1025, found: 1024 }));
        assert!(refused.to_string().contains("LimitNOFILE=1025"), "{refused}");
    }

    #[test]
    fn all_names_are_one_string_that_the_kernel_passes_on() {
        // The last has no colon behind it.
        assert!(BOUNDS.check(1, MAX_NAMES - 10 + 1).is_ok());
        let refused = BOUNDS.check(1, MAX_NAMES - 10 + 2).unwrap_err();
        assert!(matches!(refused, StashError::Names { wanted, most } if wanted == most + 1), "{refused}");
    }

    #[test]
    fn what_every_start_brings_besides_is_counted() {
        let bounds = Bounds::found(["web", "admin"]).unwrap();
        assert_eq!((bounds.others, bounds.other_bytes), (2, "web:admin:".len()));
        assert!(bounds.open_files > 0);
    }
}
