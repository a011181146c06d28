//! A spill that finds no room: the source waits, nothing is lost.

use std::thread;
use std::time::Duration;

use crate::support::stream::write_aside;
use crate::support::{Cmd, Files, Sink, nothing_in, rows, wait_until};

const ROWS: u64 = 60_000;

/// Spills while the table is locked until there is no room, then lets the server go on.
fn fill(database: &Sink, load: &Cmd, words: &[&str]) {
    let load = load.clone().flags("-j 1 --batch-rows 500 --max-wait 50ms");
    let mut stream = load.open();
    stream.send(rows(1, 1));
    wait_until("the first row", || {
        database.count() == 1 || stream.has_ended()
    });
    let lock = database.lock("t");
    let writer = write_aside(stream.take_pipe(), rows(2, ROWS - 1));
    stream.wait_to_say("the source waits");
    // It stays full for a while.
    thread::sleep(Duration::from_millis(300));
    let said = stream.stderr();
    assert!(!writer.is_finished(), "the source does not wait: {said}");
    drop(lock);
    writer.join().unwrap().unwrap();
    let ran = stream.wait();
    ran.exits(0).says(words);
    assert_eq!(ran.rows("loaded"), ROWS, "{ran}");
    database.holds(ROWS);
}

#[test]
fn a_spill_at_its_limit_makes_the_source_wait_and_loses_nothing() {
    let database = Sink::new();
    let dir = Files::new();
    let load = database.load().spill_to(dir.dir());
    let load = load.flags("--spill-limit 200KiB");
    fill(&database, &load, &["the spill is full", "the source waits"]);
    nothing_in(dir.dir());
}

#[test]
#[ignore = "needs the right to mount a file system; `make test` runs it where it is there"]
fn a_full_disk_makes_the_source_wait_and_loses_nothing() {
    let database = Sink::new();
    let dir = Files::new();
    let load = database.load().spill_to(dir.dir());
    let load = load.on_small_disk(dir.dir(), 256 << 10);
    fill(
        &database,
        &load,
        &["no room on the disk", "the source waits"],
    );
}

#[test]
fn a_batch_larger_than_the_whole_spill_waits_for_the_server() {
    let database = Sink::new();
    let dir = Files::new();
    let load = database.load().spill_to(dir.dir());
    let load = load.flags("--spill-limit 1KiB --batch-rows 2000 -j 1");
    let mut stream = load.open();
    stream.send(rows(1, 2_000));
    wait_until("the first batch", || database.count() == 2_000);
    let lock = database.lock("t");
    let writer = write_aside(stream.take_pipe(), rows(2_001, 18_000));
    stream.wait_to_say("the source waits");
    stream.still_runs();
    drop(lock);
    writer.join().unwrap().unwrap();
    stream.wait().exits(0);
    database.holds(20_000);
    nothing_in(dir.dir());
}

#[test]
fn spilling_is_refused_where_it_could_not_be_exactly_once() {
    let database = Sink::new();
    let dir = Files::new();
    let nested = dir.dir().join("never made");
    for flags in ["", "--profile events"] {
        let load = database.load().flags("--overflow spill").flags(flags);
        run_is_refused(&load, "--spill-dir");
    }
    for (flags, words) in [
        ("--no-ledger", "ledger"),
        ("--commit row --strategy insert", "--commit batch"),
        ("--commit load", "--commit batch"),
    ] {
        run_is_refused(&database.load().spill_to(&nested).flags(flags), words);
        assert!(!nested.exists(), "{flags}");
    }
    assert_eq!(database.count(), 0);
}

#[track_caller]
fn run_is_refused(load: &Cmd, words: &str) {
    load.run_on(rows(1, 3)).exits(2).says(&[words]);
}
