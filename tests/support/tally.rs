//! Notes each fault tried and what it cost, for the sum that `make torture` prints.

use std::fs::OpenOptions;
use std::io::Write;

/// Appends `fault lost doubled` to the file that `PGRUNG_TALLY` names, if it names one. One short
/// append a fault: nothing is lost when a test fails, and tests may run side by side.
pub fn note(fault: &str, lost: u64, doubled: u64) {
    let Some(path) = std::env::var_os("PGRUNG_TALLY") else {
        return;
    };
    let line = format!("{lost}\t{doubled}\t{fault}\n");
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap();
}
