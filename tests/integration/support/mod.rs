//! What all tests share: the private server, databases on it, the command, files.

pub mod command;
pub mod psql;
pub mod running;
pub mod server;
pub mod session;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

pub use command::{Ran, pgrung, run, run_with_stdin};
pub use server::{Database, PASSWORD};
pub use session::Session;

/// Every strategy that writes, as flags; `insert` with both commits.
pub const STRATEGIES: [&[&str]; 6] = [
    &["--strategy", "insert", "--commit", "row"],
    &["--strategy", "insert"],
    &["--strategy", "pipeline"],
    &["--strategy", "multi-insert"],
    &["--strategy", "unnest"],
    &["--strategy", "copy"],
];

/// Flags of every load of these tests that loads a file again into a table emptied in between.
pub const AGAIN: &[&str] = &["--restart"];

/// Flags of a load by a role that may do nothing but insert.
pub const WITHOUT_LEDGER: &[&str] = &["--no-ledger"];

/// A directory that a server's user can get into, also if that is not us.
pub fn open_tempdir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("pgrung-test-")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in("/tmp")
        .unwrap()
}

/// Files of one test.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        Files(open_tempdir())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file; its path as text.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        text(&path)
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// # Panics
/// When it takes longer than half a minute.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
