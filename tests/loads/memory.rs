//! Memory does not depend on the size of the input.

use crate::support::Database;

const MIB: u64 = 1 << 20;

/// Loads `megabytes` made on the fly; the most memory that was resident, in bytes.
fn peak(megabytes: u64) -> u64 {
    let database = Database::with("CREATE UNLOGGED TABLE t (id bigint, filling text)");
    let mut running = database.load("t").arg("--no-header").open();
    let filling = "x".repeat(989);
    let rows = (0..1_000).map(|row| format!("{row:09},{filling}\n"));
    let chunk = rows.collect::<String>();
    assert_eq!(chunk.len(), 1_000_000);
    for _ in 0..megabytes {
        running.send(&chunk);
    }
    let ran = running.end();
    ran.exits(0);
    assert_eq!(ran.rows("loaded"), megabytes * 1_000);
    assert_eq!(ran.number("/bytes_read") as u64, megabytes * 1_000_000);
    ran.number("/peak_memory_bytes") as u64
}

#[test]
fn ten_times_the_input_takes_the_same_memory_below_64_mib() {
    let (small, large) = (peak(10) / MIB, peak(100) / MIB);
    assert!(large < 64, "{large} MiB");
    // Which buffers are full at the same time is chance: a few of 4 MiB.
    assert!(large < small + 16, "{large} MiB against {small} MiB");
}
