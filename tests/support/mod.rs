//! What all tests share: servers and databases on them, the command, the proxy between the two,
//! inputs, and the checkers.

pub mod case;
pub mod cleaner;
pub mod command;
pub mod exposition;
pub mod input;
pub mod pooler;
pub mod proxy;
pub mod server;
pub mod session;
pub mod stream;
pub mod tally;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// What the tests use of the library, named in this one place.
pub mod library {
    pub use ::pgrung::errors::{ConnectError, EmbeddedError};
    pub use ::pgrung::internal::{Encoder, Places, find_programs, pool};
    pub use ::pgrung::{ConnectSettings, Embedded, EmbeddedOptions, connect};
}

pub use case::{Case, Verdict};
pub use command::{Cmd, Ran, Running, pgrung};
pub use exposition::Exposition;
pub use input::{Fate, Input, Kind};
pub use pooler::Pooler;
pub use proxy::{Deal, Message, Proxy, Side};
pub use server::{Database, PASSWORD, Server};
pub use session::Session;
pub use stream::{Feed, Sink, rows};

/// A test a line: its name, and what is called.
macro_rules! tests {
    ($($name:ident: $call:expr;)*) => { $(#[test] fn $name() { $call })* };
}
pub(crate) use tests;

/// Every strategy that stores rows.
pub const STRATEGIES: [&str; 5] = ["copy", "insert", "pipeline", "multi-insert", "unnest"];

/// The same as flags; `insert` with both commits.
pub const RUNGS: [&str; 6] = [
    "--strategy insert --commit row",
    "--strategy insert",
    "--strategy pipeline",
    "--strategy multi-insert",
    "--strategy unnest",
    "--strategy copy",
];

/// Small batches that do not wait long, one after the other.
pub const SMALL: &str = "--batch-rows 10 --max-wait 20ms -j 1";

/// Whether this is `make torture`.
pub fn torture() -> bool {
    std::env::var_os("PGRUNG_TORTURE").is_some()
}

/// How often: the first number in `make test`, the second in `make torture`.
pub fn times(test: usize, torture_times: usize) -> usize {
    if torture() { torture_times } else { test }
}

/// A random number generator whose seed is printed, so that a failure can be had again:
/// `PGRUNG_SEED=...`.
pub fn seeded(test: &str) -> fastrand::Rng {
    seeded_with(test, fastrand::u64(..))
}

/// As [`seeded`], with the seed to take where none is set.
pub fn seeded_with(test: &str, usual: u64) -> fastrand::Rng {
    let set = std::env::var("PGRUNG_SEED").ok();
    let seed = set.map_or(usual, |text| text.parse().expect("PGRUNG_SEED is a number"));
    eprintln!("{test}: PGRUNG_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// # Panics
/// When it takes longer than a minute.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        let waited = begin.elapsed();
        assert!(waited < Duration::from_secs(60), "waited too long: {what}");
        // Soon at first, to hit the middle of what is short; later others need the cores more.
        thread::sleep((waited / 20).clamp(Duration::from_millis(1), Duration::from_millis(20)));
    }
}

/// A directory of one test that a server's user can get into, also if that is not us.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        let made = tempfile::Builder::new()
            .prefix("pgrung-test-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in("/tmp");
        Files(made.unwrap())
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// Writes a file; its path as text.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        text(&path)
    }

    /// A directory in it that everybody may write to, as `/tmp` is.
    pub fn tmpdir(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        path
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Names in a directory, in order.
pub fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
pub fn nothing_in(dir: &Path) {
    assert_eq!(names_in(dir), Vec::<String>::new());
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
