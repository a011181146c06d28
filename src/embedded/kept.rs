//! Opens the data directory of a kept cluster: makes it or checks it, locks it, undoes a failed start.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::error::{EmbeddedError, Tried};
use super::programs::Programs;
use super::temporary::{PRIVATE, remove_tree};

/// How long to wait for the server of a killed pgrung, which is shutting down when the next one
/// asks for the same directory.
const ORPHAN_WAIT: Duration = Duration::from_secs(5);

/// A data directory that outlives us, locked against a second pgrung.
#[derive(Debug)]
pub(super) struct KeptDir {
    path: PathBuf,
    made: Made,
    /// Held until dropped; the lock is on the directory itself, so it leaves no file in it.
    lock: File,
}

/// What to undo if the first start fails.
#[derive(Debug)]
enum Made {
    Nothing,
    /// The directory was empty.
    Content,
    /// The directory was missing, and so were its parents up to this one.
    Directories(PathBuf),
}

impl KeptDir {
    /// Makes the directory if it is missing, and hands it to the server's user if it is empty.
    pub(super) fn open(dir: &Path, programs: &Programs) -> Result<Self, EmbeddedError> {
        let dir = std::path::absolute(dir).tried("resolve", dir)?;
        let first_missing = dir.ancestors().take_while(|dir| !dir.exists()).last();
        if let Some(parent) = dir.parent().filter(|_| first_missing.is_some()) {
            // Parents get the usual mode: the server's user has to pass through them.
            fs::create_dir_all(parent).tried("make directory", parent)?;
            match DirBuilder::new().mode(PRIVATE).create(&dir) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                _ => Ok(()),
            }
            .tried("make directory", &dir)?;
        }
        let path = dir.canonicalize().tried("resolve", &dir)?;
        let lock = lock(&path)?;
        // From here on we are alone, and whatever is made is undone by dropping this.
        let mut kept = Self {
            made: first_missing.map_or(Made::Nothing, |first| Made::Directories(first.to_owned())),
            lock,
            path,
        };
        if kept.is_empty(programs)? {
            if matches!(kept.made, Made::Nothing) {
                kept.made = Made::Content;
            }
            programs
                .account()
                .give(&kept.lock)
                .tried("change the owner of", &kept.path)?;
        } else {
            kept.made = Made::Nothing;
        }
        programs.must_enter(&kept.path)?;
        Ok(kept)
    }

    /// The directory, with links resolved.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a cluster has to be made in it.
    pub(super) fn is_new(&self) -> bool {
        !matches!(self.made, Made::Nothing)
    }

    /// From now on nothing is undone.
    pub(super) fn keep_what_was_made(&mut self) {
        self.made = Made::Nothing;
    }

    /// Whether the directory is empty; an error if it holds anything but a cluster we can start.
    fn is_empty(&self, programs: &Programs) -> Result<bool, EmbeddedError> {
        let dir = self.path.clone();
        let version_file = dir.join("PG_VERSION");
        let cluster = match fs::read_to_string(&version_file) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut entries = fs::read_dir(&dir).tried("list", &dir)?;
                return match entries.next() {
                    None => Ok(true),
                    Some(_) => Err(EmbeddedError::NotACluster(dir)),
                };
            }
            Err(error) => return Err(error).tried("read", &version_file),
        };
        if cluster != programs.major().to_string() {
            return Err(EmbeddedError::OtherVersion {
                dir,
                cluster,
                bin: programs.bin_dir().to_owned(),
                programs: programs.major(),
            });
        }
        let deadline = Instant::now() + ORPHAN_WAIT;
        while let Some(pid) = server_in(&dir) {
            if Instant::now() > deadline {
                return Err(EmbeddedError::InUse {
                    dir,
                    pid: Some(pid),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(false)
    }

    fn undo(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.made, Made::Nothing) {
            Made::Nothing => Ok(()),
            Made::Content => {
                for entry in fs::read_dir(&self.path)? {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        remove_tree(&entry.path())?;
                    } else {
                        fs::remove_file(entry.path())?;
                    }
                }
                Ok(())
            }
            Made::Directories(first) => {
                remove_tree(&self.path)?;
                // Parents only while they are empty: others may have put something there.
                let mut parent = self.path.parent();
                while let Some(dir) = parent.filter(|dir| dir.starts_with(&first)) {
                    fs::remove_dir(dir)?;
                    parent = dir.parent();
                }
                Ok(())
            }
        }
    }
}

impl Drop for KeptDir {
    fn drop(&mut self) {
        let _ = self.undo();
    }
}

fn lock(dir: &Path) -> Result<File, EmbeddedError> {
    let file = File::open(dir).tried("open", dir)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(EmbeddedError::InUse {
            dir: dir.to_owned(),
            pid: server_in(dir),
        }),
        // A file system without locks; the server's own postmaster.pid still guards the data.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(error).tried("lock", dir),
    }
}

/// The live server that `postmaster.pid` names. A file left by a crash names a process that is gone
/// or another program; the server itself deals with that.
fn server_in(dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(dir.join("postmaster.pid")).ok()?;
    // A server in single-user mode writes its number negated.
    let pid = text.lines().next()?.trim().parse::<i32>().ok()?.abs();
    // Refused means another user's process, and that cannot be the server of this directory.
    kill(Pid::from_raw(pid), None).ok()?;
    if cfg!(target_os = "linux") {
        let is_server = match fs::read_link(format!("/proc/{pid}/cwd")) {
            // A server's working directory is its data directory.
            Ok(working_dir) => working_dir == dir,
            // Root in a container may not look there, but may read the name.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name.trim() == "postgres")
            }
            Err(_) => false,
        };
        return is_server.then_some(pid);
    }
    Some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_or_foreign_postmaster_pid_names_no_server() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(server_in(dir.path()), None);
        // Ourselves: alive, but at work elsewhere.
        let ours = std::process::id().to_string();
        fs::write(dir.path().join("postmaster.pid"), ours).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(server_in(dir.path()), None);
        }
    }
}
