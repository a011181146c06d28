//! The window: how long rows wait, and why batches close.

use std::thread;
use std::time::Duration;

use crate::support::{Database, Feed, Ran, rows, seeded, wait_until};

/// What a busy machine may add to a wait: two cores run all tests.
const SLACK_MS: f64 = 250.0;

/// Sends a row every so often, and waits until the last one is in the table before it ends.
fn trickle(database: &Database, every: Duration, count: u64, max_wait: &str) -> Ran {
    let load = database.load().args(&["--max-wait", max_wait, "-j", "1"]);
    let mut stream = load.spawn();
    for id in 1..=count {
        stream.send(&rows(id, 1));
        thread::sleep(every);
    }
    // The source is idle and stays open.
    wait_until("the last row", || database.count() == count);
    let ran = stream.end();
    ran.exits(0);
    ran
}

#[test]
fn a_trickle_is_committed_within_max_wait_and_a_commit() {
    let database = Database::new();
    let ran = trickle(&database, Duration::from_millis(200), 20, "300ms");
    ran.waits_at_most(300.0, SLACK_MS);
    database.holds(20);
    let commit = ran.number("/commit_latency_ms/max");
    let longest = database.longest_wait_ms();
    // The first row waits for the loader to start as well.
    assert!(
        longest < 300.0 + commit + 2.0 * SLACK_MS,
        "{longest} ms: {ran}"
    );
    assert_eq!(
        ran.number("/batches/count") as u64,
        ran.flushes("wait"),
        "{ran}"
    );
    assert!(ran.flushes("wait") >= 7, "{ran}");
}

#[test]
fn rows_further_apart_than_the_window_are_batches_of_their_own() {
    let database = Database::new();
    let ran = trickle(&database, Duration::from_millis(400), 6, "50ms");
    ran.waits_at_most(50.0, SLACK_MS);
    database.holds(6);
    assert_eq!(ran.flushes("wait"), 6, "{ran}");
}

#[test]
fn a_window_closes_in_time_although_rows_keep_arriving() {
    let database = Database::new();
    let load = database.load().args(&["--max-wait", "100ms", "-j", "1"]);
    let mut stream = load.spawn();
    let feed = Feed::steady(stream.take_pipe(), 6_000, 2_000, String::new());
    assert_eq!(feed.finish().rows, 6_000);
    let ran = stream.wait();
    ran.exits(0).waits_at_most(100.0, SLACK_MS);
    database.holds(6_000);
    assert_eq!(ran.flushes("rows") + ran.flushes("bytes"), 0, "{ran}");
    assert!(ran.flushes("wait") >= 10, "{ran}");
}

#[test]
fn bursts_close_batches_by_rows_and_the_rest_of_each_by_time() {
    let mut random = seeded("bursts");
    let database = Database::new();
    let load = database
        .load()
        .args(&["--batch-rows", "1000", "--max-wait", "50ms"]);
    let mut stream = load.spawn();
    let mut last = 0;
    for _ in 0..20 {
        let count = random.u64(1..5_000);
        stream.send(&rows(last + 1, count));
        last += count;
        thread::sleep(Duration::from_millis(random.u64(0..200)));
    }
    let ran = stream.end();
    ran.exits(0);
    assert_eq!(ran.rows("loaded"), last, "{ran}");
    database.holds(last);
    assert!(ran.flushes("rows") > 0 && ran.flushes("wait") > 0, "{ran}");
    assert_eq!(ran.flushes("bytes"), 0, "{ran}");
}

#[test]
fn fifty_thousand_rows_a_second_are_the_table() {
    let database = Database::new();
    let mut stream = database.load().args(&["--max-wait", "200ms"]).spawn();
    let feed = Feed::steady(stream.take_pipe(), 150_000, 50_000, String::new());
    assert_eq!(feed.finish().rows, 150_000);
    let ran = stream.wait();
    ran.exits(0);
    assert_eq!(ran.rows("read"), 150_000, "{ran}");
    assert_eq!(ran.rows("loaded"), 150_000, "{ran}");
    database.holds(150_000);
}

#[test]
fn a_row_larger_than_the_window_is_a_batch_of_its_own() {
    let database = Database::new();
    let load = database
        .load()
        .args(&["--batch-bytes", "100", "--max-wait", "10s"]);
    let large = format!("2,0,row 2;{}\n", "x".repeat(5_000));
    let ran = load.run(&[rows(1, 1), large, rows(3, 2)].concat());
    ran.exits(0);
    database.holds(4);
    assert!(ran.flushes("bytes") >= 2, "{ran}");
}
