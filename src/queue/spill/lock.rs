//! The lock file of one run's spill: held while the run lives, so that no other run takes its
//! segments for left behind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::segment::is_ours;

/// A held lock. It ends with the process, however that dies; on a network file system it is only
/// as good as that system's flock.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of `path`, a file that must not exist; `None` if somebody was faster.
    pub fn create(path: PathBuf) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.create_new(true);
        match Self::open(path, &mut options) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            other => other,
        }
    }

    /// Takes the lock of a run that has left segments behind; `None` if the run lives, or another
    /// one is taking them over, or they are not ours.
    pub fn take(path: PathBuf) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.create(true);
        Self::open(path, &mut options)
    }

    fn open(path: PathBuf, options: &mut OpenOptions) -> io::Result<Option<Self>> {
        let file = options
            .write(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Between opening and locking another run may have removed the file: then the lock is
        // one of a file without a name, and keeps nobody out.
        let held = file.metadata()?;
        let named = std::fs::symlink_metadata(&path);
        let same = is_ours(&held)
            && named.is_ok_and(|named| named.ino() == held.ino() && named.dev() == held.dev());
        Ok(same.then_some(Lock { file, path }))
    }

    /// Removes the lock file and ends the lock. Only for a run without segments.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.path)?;
        self.file.unlock()
    }
}

/// Removes a file; one that is gone already is no failure.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
