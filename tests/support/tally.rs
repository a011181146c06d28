//! Notes what was tried and what it cost, for the sums that `make torture` prints.

use std::fs::OpenOptions;
use std::io::Write;

/// Appends `fault lost doubled` to the file that `PGRUNG_TALLY` names, if it names one.
pub fn note(fault: &str, lost: u64, doubled: u64) {
    append("PGRUNG_TALLY", &format!("{lost}\t{doubled}\t{fault}\n"));
}

/// The same of values, and of those that became something else than by psql, in the file that
/// `PGRUNG_LITERALS` names.
pub fn literals(tried: usize, wrong: usize) {
    append("PGRUNG_LITERALS", &format!("{tried}\t{wrong}\n"));
}

/// One short append a line: nothing is lost when a test fails, and tests may run side by side.
fn append(variable: &str, line: &str) {
    let Some(path) = std::env::var_os(variable) else {
        return;
    };
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap();
}
