//! What a stream of hours needs, in seconds: a ledger that stays small, memory that does not grow,
//! connections that may be lost.

use std::thread;
use std::time::Duration;

use crate::support::{Feed, SMALL, Sink, rows, wait_until};

const DROPPED: &str = r#"pgrung_rows_total{outcome="dropped"}"#;

#[test]
fn the_spans_of_a_stream_that_ended_are_one() {
    let database = Sink::new();
    let load = database.load().flags("--batch-rows 2 -j 4");
    let ran = load.run_on(rows(1, 1_600));
    ran.exits(0);
    assert!(ran.number("/batches/count") > 500.0, "{ran}");
    database.holds(1_600);
    let spans = "SELECT count(*), sum(records), sum(loaded), min(first_record) FROM pgrung.spans";
    assert_eq!(database.one(spans), "1|1600|1600|1");
    let import = "SELECT count(*) FROM pgrung.imports WHERE finished_at IS NOT NULL";
    assert_eq!(database.number(import), 1);
}

/// Rows dropped on the way leave gaps that no merge closes; what is left is as few spans as gaps.
#[test]
fn the_spans_of_a_stream_with_drops_are_as_many_as_its_stretches() {
    let database = Sink::new();
    let load = database.load().flags(SMALL);
    let mut stream = load.flags("--overflow drop --queue 1").open();
    let feed = Feed::steady(stream.take_pipe(), u64::MAX, 3_000, "");
    for _ in 0..3 {
        let (stored, dropped) = (database.count(), DROPPED);
        wait_until("rows come", || database.count() > stored);
        let lock = database.lock("t");
        let before = stream.figures().get(dropped).unwrap_or(0.0);
        stream.wait_for(dropped, before + 1.0);
        drop(lock);
    }
    let last = feed.stop().rows;
    let ran = stream.wait();
    ran.exits(3);
    assert_eq!(database.count() + ran.rows("dropped"), last, "{ran}");
    let stretches = database.number(
        "SELECT count(*) FROM (SELECT id - lag(id) OVER (ORDER BY id) IS DISTINCT FROM 1 AS begins FROM t) s
         WHERE begins",
    );
    assert!(stretches > 1, "{ran}");
    let spans = database.number("SELECT count(*) FROM pgrung.spans");
    assert_eq!(spans, stretches, "{ran}");
}

#[test]
fn ten_times_the_rows_take_no_more_memory() {
    let database = Sink::new();
    let peak = |count: u64| {
        let load = database.load().flags("--batch-rows 500 -j 2");
        let mut stream = load.open();
        let rate = 100_000;
        let feed = Feed::steady(stream.take_pipe(), count, rate, "");
        feed.finish();
        let ran = stream.wait();
        ran.exits(0);
        assert_eq!(ran.rows("loaded"), count, "{ran}");
        ran.number("/peak_memory_bytes")
    };
    let (short, long) = (peak(20_000), peak(200_000));
    let grown = (long - short) / f64::from(1 << 20);
    assert!(grown < 5.0, "{grown} MiB more: {short}, {long}");
}

#[test]
fn a_stream_survives_the_loss_of_its_connections() {
    let database = Sink::new();
    let load = database
        .load()
        .flags("--batch-rows 100 --max-wait 50ms -j 2");
    let mut stream = load.open();
    let feed = Feed::steady(stream.take_pipe(), u64::MAX, 4_000, "");
    let mut ended = 0;
    wait_until("many connections have ended", || {
        thread::sleep(Duration::from_millis(250));
        ended += database.number(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'pgrung'",
        );
        ended > 8
    });
    let last = feed.stop().rows;
    let ran = stream.wait();
    ran.exits(0).says(&["trying again"]);
    assert!(ran.number("/retries") > 0.0, "{ran}");
    database.holds(last);
}
