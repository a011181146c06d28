//! What all streams share: servers, the loader behind a pipe, sources, figures.

pub mod exposition;
pub mod proxy;
pub mod server;
pub mod source;
pub mod stream;

use std::thread;
use std::time::{Duration, Instant};

pub use exposition::Exposition;
pub use proxy::Proxy;
pub use server::{Database, Server};
pub use source::{Feed, rows};
pub use stream::{Load, Ran, Stream};

/// Whether this is `make torture`.
pub fn torture() -> bool {
    std::env::var_os("PGRUNG_TORTURE").is_some()
}

/// How often: the first number in `make test`, the second in `make torture`.
pub fn times(test: usize, torture_times: usize) -> usize {
    if torture() { torture_times } else { test }
}

/// A random number generator whose seed is printed, so that a failure can be had again.
pub fn seeded(test: &str) -> fastrand::Rng {
    let seed = std::env::var("PGRUNG_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{test}: PGRUNG_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// # Panics
/// When it takes longer than half a minute.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Names in a directory, in order.
pub fn names_in(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
