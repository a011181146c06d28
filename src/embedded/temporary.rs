//! Makes temporary directories, removes them, and removes those that killed runs left behind.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::geteuid;

use super::account::Account;
use super::error::{EmbeddedError, Tried};
use super::programs::Programs;

/// Only the server's user, and root.
pub(super) const PRIVATE: u32 = 0o700;

/// The start of our temporary directories' names, by which left-over ones are recognised.
const PREFIX: &str = "pgrung-pg-";

/// Where every user has room for a short path.
pub(super) const SHORT_PLACE: &str = "/tmp";

/// A directory younger than this may have been made just now and not locked yet.
const LEFT_OVER_AFTER: Duration = Duration::from_secs(60);

/// A directory of ours, locked so that it is not taken for one left over by a killed run.
#[derive(Debug)]
pub(super) struct TemporaryDir {
    path: PathBuf,
    present: bool,
    /// Held until dropped, and the directory itself.
    lock: File,
}

impl TemporaryDir {
    /// Makes a directory in `place` for the server's user.
    pub(super) fn make(place: &Path, programs: &Programs) -> Result<Self, EmbeddedError> {
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(PRIVATE))
            .tempdir_in(place)
            .tried("make a temporary directory in", place)?;
        let lock = File::open(dir.path()).tried("open", dir.path())?;
        // A file system without locks: a sweep cannot lock there either, and removes nothing.
        let _ = lock.try_lock();
        let made = Self {
            path: dir.keep(),
            present: true,
            lock,
        };
        programs
            .account()
            .give(&made.lock)
            .tried("change the owner of", &made.path)?;
        programs.must_enter(&made.path)?;
        Ok(made)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory and all in it; dropping does the same and ignores errors.
    pub(super) fn remove(&mut self) -> Result<(), EmbeddedError> {
        if self.present {
            remove_tree(&self.path).tried("remove", &self.path)?;
            self.present = false;
        }
        Ok(())
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

/// Removes a directory, also while the last processes of a killed server still write to it.
pub(super) fn remove_tree(dir: &Path) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir_all(dir) {
            Err(error)
                if error.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(()),
        }
    }
}

/// Removes what killed runs of ours have left in `place`. Whatever fails is left for another time.
pub(super) fn sweep(place: &Path, account: &Account) {
    let ours = [geteuid().as_raw(), account.uid()];
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        if !entry.file_name().as_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        // Of the entry itself: a link is not followed.
        let is_left_over = entry.metadata().is_ok_and(|metadata| {
            metadata.is_dir()
                && ours.contains(&metadata.uid())
                && metadata.modified().is_ok_and(is_old)
        });
        let is_free = || File::open(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok());
        if is_left_over && is_free() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_old(modified: SystemTime) -> bool {
    modified
        .elapsed()
        .is_ok_and(|elapsed| elapsed > LEFT_OVER_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_unlocked_directories_of_ours_are_swept() {
        let place = tempfile::tempdir().unwrap();
        let make = |name: &str, old: bool| {
            let dir = place.path().join(name);
            fs::create_dir(&dir).unwrap();
            let file = File::open(&dir).unwrap();
            if old {
                let then = SystemTime::now() - 2 * LEFT_OVER_AFTER;
                file.set_modified(then).unwrap();
            }
            file
        };
        make("pgrung-pg-left", true);
        make("pgrung-pg-new", false);
        make("pgrung-spill", true);
        let used = make("pgrung-pg-used", true);
        used.try_lock().unwrap();
        sweep(place.path(), &Account::choose(None).unwrap());
        let mut left: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["pgrung-pg-new", "pgrung-pg-used", "pgrung-spill"]);
    }
}
