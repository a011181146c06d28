//! A server far away: the round trip is part of every commit, and of no row's fate.

use std::time::Duration;

use crate::support::{Database, Feed, Proxy};

/// Round trips that the first batch of a worker waits for before its transaction begins: connecting
/// and logging in. Here are so few batches that the 99th percentile is such a first one.
const LOGIN_TRIPS: f64 = 5.0;

fn far_away(delay_ms: u64, rows_per_second: u64) {
    let database = Database::new();
    let proxy = Proxy::start(database.server.port, Duration::from_millis(delay_ms));
    let load = crate::support::Load::new(&database.dsn_at(proxy.port), "t");
    let mut stream = load.args(&["-j", "4", "--max-wait", "300ms"]).spawn();
    let last = rows_per_second * 3;
    let feed = Feed::steady(stream.take_pipe(), last, rows_per_second, String::new());
    assert_eq!(feed.finish().rows, last);
    let ran = stream.wait();
    ran.exits(0);
    assert_eq!(ran.rows("loaded"), last, "{ran}");
    database.holds(last);
    let round_trip_ms = (2 * delay_ms) as f64;
    ran.waits_at_most(300.0, 250.0 + LOGIN_TRIPS * round_trip_ms);
    let commit = ran.number("/commit_latency_ms/p50");
    assert!(commit >= round_trip_ms, "{commit} ms: {ran}");
}

#[test]
fn one_millisecond_away() {
    far_away(1, 10_000);
}

#[test]
fn ten_milliseconds_away() {
    far_away(10, 5_000);
}

#[test]
fn a_hundred_milliseconds_away() {
    far_away(100, 2_000);
}
