//! Where a stand-in is: the folder with its sockets, of which one stand-in at a time is the owner.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::manager::standin;

/// Why a folder cannot be a stand-in's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// Another one is there.
    #[error(
        "another `handover pid1` uses {}: stop it, or give this one a folder of its own with --runtime",
        folder.display()
    )]
    Taken {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder cannot be made or written to.
    #[error("{}: {source}; give a folder that can be written to with --runtime", folder.display())]
    Unusable {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A stand-in's folder.
#[derive(Debug)]
pub struct Place {
    runtime: PathBuf,
    /// Held as long as this lives; `None` for one who only looks.
    _lock: Option<Flock<File>>,
}

impl Place {
    /// Becomes the owner of a runtime folder, or of the usual one. What a dead owner left is removed.
    ///
    /// # Errors
    /// [`PlaceError`] if another one lives there, or it cannot be written to.
    pub fn take(runtime: Option<PathBuf>) -> Result<Self, PlaceError> {
        let runtime = runtime.unwrap_or_else(standin::runtime_folder);
        let runtime = std::path::absolute(&runtime).unwrap_or(runtime);
        let folder = standin::folder_in(&runtime);
        let unusable = |source| PlaceError::Unusable { folder: folder.clone(), source };
        make_private(&runtime).and_then(|()| fs::create_dir_all(&folder)).map_err(unusable)?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"));
        let lock = Flock::lock(lock.map_err(unusable)?, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|_| PlaceError::Taken { folder: folder.clone() })?;
        let place = Self { runtime, _lock: Some(lock) };
        for path in [place.control(), place.notify()] {
            match fs::remove_file(path) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(unusable(why)),
                _ => {}
            }
        }
        Ok(place)
    }

    /// Below which RuntimeDirectory= is.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    fn folder(&self) -> PathBuf {
        standin::folder_in(&self.runtime)
    }

    /// The control socket.
    pub fn control(&self) -> PathBuf {
        standin::control_in(&self.folder())
    }

    /// NOTIFY_SOCKET.
    pub(crate) fn notify(&self) -> PathBuf {
        self.folder().join("notify")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in [self.control(), self.notify(), self.folder().join("lock")] {
            // Somebody may have tidied up before us.
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir(self.folder());
    }
}

/// Makes the folder if it is not there: nobody else may put anything into it.
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let owner = fs::metadata(folder)?.uid();
    if owner != nix::unistd::geteuid().as_raw() && owner != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to somebody else"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_is_left_behind() {
        let runtime = std::env::temp_dir().join(format!("handover-place-{}", std::process::id()));
        let place = Place::take(Some(runtime.clone())).unwrap();
        assert!(matches!(Place::take(Some(runtime.clone())), Err(PlaceError::Taken { .. })));
        File::create(place.control()).unwrap();
        drop(place);
        assert_eq!(fs::read_dir(&runtime).unwrap().count(), 0);
        fs::remove_dir(runtime).unwrap();
    }
}
