//! What all faults share: servers, the proxy between loader and server, inputs with a planned fate
//! for each row, the loader, and the checker.

pub mod case;
pub mod input;
pub mod load;
pub mod proxy;
pub mod server;
pub mod tally;

use std::thread;
use std::time::{Duration, Instant};

pub use case::{Case, Verdict};
pub use input::{Fate, Input, Kind};
pub use load::{Load, Ran, Running};
pub use proxy::{Deal, Message, Proxy, Side};
pub use server::{Database, Server};

/// Every strategy that stores rows.
pub const STRATEGIES: [&str; 5] = ["copy", "insert", "pipeline", "multi-insert", "unnest"];

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
    let seed = std::env::var("PGRUNG_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{test}: PGRUNG_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// # Panics
/// When it takes longer than a minute.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
