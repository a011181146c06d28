//! A spill that finds no room: the source waits, nothing is lost.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::{Database, Load, names_in, rows, wait_until};

const ROWS: u64 = 60_000;

/// Spills while the table is locked until there is no room, then lets the server go on.
fn fill(database: &Database, load: &Load, words: &[&str]) {
    let load = load
        .clone()
        .args(&["-j", "1", "--batch-rows", "500", "--max-wait", "50ms"]);
    let mut stream = load.spawn();
    stream.send(&rows(1, 1));
    wait_until("the first row", || {
        database.count() == 1 || stream.has_ended()
    });
    let lock = database.lock("t");
    let mut pipe = stream.take_pipe();
    let writer = thread::spawn(move || {
        use std::io::Write;
        pipe.write_all(rows(2, ROWS - 1).as_bytes()).unwrap();
    });
    wait_until("the spill is full", || {
        stream.stderr().contains("the source waits") || stream.has_ended()
    });
    // It stays full for a while.
    thread::sleep(Duration::from_millis(300));
    assert!(
        !writer.is_finished(),
        "the source does not wait: {}",
        stream.stderr()
    );
    drop(lock);
    writer.join().unwrap();
    let ran = stream.wait();
    ran.exits(0).says(words);
    assert_eq!(ran.rows("loaded"), ROWS, "{ran}");
    database.holds(ROWS);
}

#[test]
fn a_spill_at_its_limit_makes_the_source_wait_and_loses_nothing() {
    let database = Database::new();
    let dir = tempfile::tempdir().unwrap();
    let load = database.load().spill_to(dir.path());
    let load = load.args(&["--spill-limit", "200KiB"]);
    fill(&database, &load, &["the spill is full", "the source waits"]);
    assert!(
        names_in(dir.path()).is_empty(),
        "{:?}",
        names_in(dir.path())
    );
}

/// Whether we may give a process a file system of its own.
fn may_mount(dir: &Path) -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "tmpfs"])
        .arg(dir)
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}

#[test]
fn a_full_disk_makes_the_source_wait_and_loses_nothing() {
    let database = Database::new();
    let dir = tempfile::tempdir().unwrap();
    if !may_mount(dir.path()) {
        eprintln!("not tried: no right to mount a small file system");
        return;
    }
    let load = database.load().spill_to(dir.path());
    let load = load.on_small_disk(dir.path(), 256 << 10);
    fill(
        &database,
        &load,
        &["no room on the disk", "the source waits"],
    );
}

#[test]
fn a_batch_larger_than_the_whole_spill_waits_for_the_server() {
    let database = Database::new();
    let dir = tempfile::tempdir().unwrap();
    let load = database.load().spill_to(dir.path());
    let load = load.args(&["--spill-limit", "1KiB", "--batch-rows", "2000", "-j", "1"]);
    let mut stream = load.spawn();
    stream.send(&rows(1, 2_000));
    wait_until("the first batch", || database.count() == 2_000);
    let lock = database.lock("t");
    let mut pipe = stream.take_pipe();
    let writer = thread::spawn(move || {
        use std::io::Write;
        pipe.write_all(rows(2_001, 18_000).as_bytes()).unwrap();
    });
    wait_until("it is full", || {
        stream.stderr().contains("the source waits")
    });
    drop(lock);
    writer.join().unwrap();
    stream.wait().exits(0);
    database.holds(20_000);
    assert!(
        names_in(dir.path()).is_empty(),
        "{:?}",
        names_in(dir.path())
    );
}

#[test]
fn spilling_is_refused_where_it_could_not_be_exactly_once() {
    let database = Database::new();
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("never made");
    for (flags, words) in [
        (&["--overflow", "spill"][..], &["--spill-dir"][..]),
        (
            &[
                "--overflow",
                "spill",
                "--spill-dir",
                nested.to_str().unwrap(),
                "--no-ledger",
            ],
            &["ledger"],
        ),
        (
            &[
                "--overflow",
                "spill",
                "--spill-dir",
                nested.to_str().unwrap(),
                "--commit",
                "row",
                "--strategy",
                "insert",
            ],
            &["--commit batch"],
        ),
        (
            &[
                "--overflow",
                "spill",
                "--spill-dir",
                nested.to_str().unwrap(),
                "--commit",
                "load",
            ],
            &["--commit batch"],
        ),
    ] {
        let ran = database.load().args(flags).run(&rows(1, 3));
        ran.exits(2).says(words);
        assert_eq!(database.count(), 0, "{ran}");
        assert!(!nested.exists(), "{flags:?}");
    }
}
