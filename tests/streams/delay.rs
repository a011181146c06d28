//! A server far away: the round trip is part of every commit, and of no row's fate.

use std::time::Duration;

use crate::support::{Feed, Proxy, Sink, tests};

fn far_away(delay_ms: u64, rows_per_second: u64) {
    let database = Sink::new();
    let line = Proxy::far(database.server.port(), Duration::from_millis(delay_ms));
    let load = database.load().dsn(&line.dsn(&database.name));
    let mut stream = load.flags("-j 4 --max-wait 300ms").open();
    let last = rows_per_second * 3;
    let feed = Feed::steady(stream.take_pipe(), last, rows_per_second, "");
    assert_eq!(feed.finish().rows, last);
    let ran = stream.wait();
    ran.exits(0);
    assert_eq!(ran.rows("loaded"), last, "{ran}");
    database.holds(last);
    // The line lets nothing through sooner, so this is the figure's truth, not the machine's speed.
    let commit = ran.number("/commit_latency_ms/p50");
    assert!(commit >= (2 * delay_ms) as f64, "{commit} ms: {ran}");
}

tests! {
    one_millisecond_away: far_away(1, 10_000);
    ten_milliseconds_away: far_away(10, 5_000);
    a_hundred_milliseconds_away: far_away(100, 2_000);
}
