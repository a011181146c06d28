//! The window: why batches close, and that rows come although the source stays open.

use std::thread;
use std::time::Duration;

use crate::support::{Feed, Sink, rows, seeded, wait_until};

#[test]
fn a_trickle_is_committed_while_its_source_stays_open() {
    let database = Sink::new();
    let mut stream = database.load().flags("--max-wait 300ms -j 1").open();
    for id in 1..=20 {
        stream.send(rows(id, 1));
        thread::sleep(Duration::from_millis(200));
    }
    wait_until("the last row", || database.count() == 20);
    let ran = stream.end();
    ran.exits(0);
    database.holds(20);
    let batches = ran.number("/batches/count") as u64;
    assert_eq!(batches, ran.flushes("wait"), "{ran}");
    assert!((2..20).contains(&batches), "{ran}");
}

#[test]
fn rows_further_apart_than_the_window_are_batches_of_their_own() {
    let database = Sink::new();
    let mut stream = database.load().flags("--max-wait 50ms -j 1").open();
    for id in 1..=6 {
        stream.send(rows(id, 1));
        wait_until("the row", || database.count() == id);
    }
    let ran = stream.end();
    ran.exits(0);
    database.holds(6);
    assert_eq!(ran.flushes("wait"), 6, "{ran}");
    // Nothing can be committed before its window closes.
    assert!(ran.number("/wait_ms/p50") >= 50.0, "{ran}");
}

#[test]
fn a_window_closes_although_rows_keep_arriving() {
    let database = Sink::new();
    let mut stream = database.load().flags("--max-wait 100ms -j 1").open();
    let feed = Feed::steady(stream.take_pipe(), u64::MAX, 2_000, "");
    wait_until("rows come", || database.count() > 2_000);
    let last = feed.stop().rows;
    let ran = stream.wait();
    ran.exits(0);
    database.holds(last);
    assert_eq!(ran.flushes("rows") + ran.flushes("bytes"), 0, "{ran}");
    assert!(ran.flushes("wait") > 1, "{ran}");
}

#[test]
fn bursts_close_batches_by_rows_and_the_rest_of_each_by_time() {
    let mut random = seeded("bursts");
    let database = Sink::new();
    let load = database.load().flags("--batch-rows 1000 --max-wait 50ms");
    let mut stream = load.open();
    let mut last = 0;
    for _ in 0..20 {
        let count = random.u64(1..5_000);
        stream.send(rows(last + 1, count));
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
    let database = Sink::new();
    let mut stream = database.load().flags("--max-wait 200ms").open();
    let feed = Feed::steady(stream.take_pipe(), 150_000, 50_000, "");
    assert_eq!(feed.finish().rows, 150_000);
    let ran = stream.wait();
    ran.exits(0);
    assert_eq!(ran.rows("read"), 150_000, "{ran}");
    assert_eq!(ran.rows("loaded"), 150_000, "{ran}");
    database.holds(150_000);
}

#[test]
fn a_row_larger_than_the_window_is_a_batch_of_its_own() {
    let database = Sink::new();
    let load = database.load().flags("--batch-bytes 100B --max-wait 10s");
    let large = format!("2,0,row 2;{}\n", "x".repeat(5_000));
    let ran = load.run_on([rows(1, 1), large, rows(3, 2)].concat());
    ran.exits(0);
    database.holds(4);
    assert!(ran.flushes("bytes") >= 2, "{ran}");
}
