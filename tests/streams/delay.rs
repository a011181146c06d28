//! A server far away: the round trip is part of every commit, and of no row's fate.

use std::time::Duration;

use crate::support::{Database, Feed, Proxy};

/// Round trips of the first batch of a worker that no other batch has: connecting, logging in, the
/// session's settings, preparing statements.
const FIRST_BATCH_TRIPS: f64 = 12.0;

fn far_away(delay_ms: u64, rows_per_second: u64) {
    let database = Database::new();
    let proxy = Proxy::start(database.server.port, Duration::from_millis(delay_ms));
    let load = crate::support::Load::new(&database.dsn_at(proxy.port), "t");
    let mut stream = load.args(&["-j", "4", "--max-wait", "300ms"]).spawn();
    let last = rows_per_second * 3;
    let feed = Feed::steady(stream.take_pipe(), 1, last, rows_per_second, String::new());
    let fed = feed.finish();
    assert_eq!(fed.rows, last);
    drop(fed);
    let ran = stream.wait();
    ran.exits(0);
    assert_eq!(ran.rows("loaded"), last, "{ran}");
    database.holds(last);
    let round_trip_ms = (2 * delay_ms) as f64;
    ran.waits_at_most(300.0, 250.0 + FIRST_BATCH_TRIPS * round_trip_ms);
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
