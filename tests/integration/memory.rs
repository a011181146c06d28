//! Memory does not depend on the size of the input.

use std::io::Write;
use std::process::Stdio;

use crate::support::command::{finish, summary};
use crate::support::{Database, Files};

const MIB: u64 = 1 << 20;

/// Loads `megabytes` made on the fly; the most memory that was resident, in bytes.
fn peak(strategy: &str, megabytes: u64) -> u64 {
    let database = Database::with("CREATE UNLOGGED TABLE t (id bigint, filling text)");
    let files = Files::new();
    let path = files.path("summary.json");
    let mut child = database
        .load("t")
        .args(["--no-header", "--strategy", strategy, "--summary"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let filling = "x".repeat(989);
    let mut chunk = String::new();
    for row in 0..1_000 {
        chunk += &format!("{row:09},{filling}\n");
    }
    assert_eq!(chunk.len(), 1_000_000);
    for _ in 0..megabytes {
        stdin.write_all(chunk.as_bytes()).unwrap();
    }
    drop(stdin);
    finish(child).exits(0);
    let told = summary(&path);
    assert_eq!(told["rows"]["loaded"], megabytes * 1_000);
    assert_eq!(told["bytes_read"], megabytes * 1_000_000);
    told["peak_memory_bytes"].as_u64().unwrap()
}

#[test]
fn ten_times_the_input_takes_the_same_memory_below_64_mib() {
    let small = peak("copy", 10);
    let large = peak("copy", 100);
    assert!(large < 64 * MIB, "{} MiB", large / MIB);
    // Which buffers are full at the same time is chance: a few of 4 MiB.
    assert!(
        large < small + 16 * MIB,
        "{} MiB against {} MiB",
        large / MIB,
        small / MIB
    );
}
