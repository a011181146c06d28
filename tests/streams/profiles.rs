//! Profiles: what each of them does to a stream, and that a single flag overrides it.

use std::thread;
use std::time::Duration;

use crate::support::{Cmd, Ran, Sink, rows, wait_until};

/// A table that keeps what its rows' commits waited for.
fn database() -> Sink {
    let database = Sink::new();
    database.run("ALTER TABLE t ADD durability text DEFAULT current_setting('synchronous_commit')");
    database
}

fn load(database: &Sink, profile: &str) -> Cmd {
    let load = database.load().args(["--profile", profile]);
    load.flags("--columns id,sent_us,payload -j 1 --queue 1")
}

#[test]
fn a_profile_sets_the_wait_and_the_durability_and_a_flag_overrides_them() {
    let database = database();
    for (profile, flags, wait_ms, durability) in [
        ("bulk", "", 1_000.0, "off"),
        ("etl", "", 1_000.0, "on"),
        ("events", "", 500.0, "off"),
        ("metrics", "", 5_000.0, "off"),
        ("audit", "", 20.0, "on"),
        ("metrics", "--max-wait 300ms --durability on", 300.0, "on"),
        ("audit", "--max-wait 300ms --durability off", 300.0, "off"),
    ] {
        let stored = database.count();
        let mut stream = load(&database, profile).flags(flags).open();
        stream.send(rows(stored + 1, 1));
        wait_until("the row", || database.count() > stored);
        let ran = stream.end();
        ran.exits(0);
        assert_eq!(ran.flushes("wait"), 1, "{ran}");
        // No machine is fast enough to commit before the window closes.
        let wait = ran.number("/wait_ms/max");
        assert!(wait >= wait_ms, "{profile} {flags}: {wait}");
        let found = database.one("SELECT durability FROM t ORDER BY id DESC");
        assert_eq!(found, durability, "{profile} {flags}");
    }
}

#[test]
fn a_profile_sets_the_rows_of_a_batch_and_a_flag_overrides_them() {
    let database = database();
    for (profile, flags, count, full) in [
        ("bulk", "", 60_001, 0),
        ("etl", "", 60_001, 0),
        ("events", "", 20_001, 1),
        ("metrics", "", 50_001, 1),
        ("audit", "", 2_500, 2),
        ("events", "--batch-rows 15000", 20_001, 1),
        ("audit", "--batch-rows 100", 1_001, 10),
    ] {
        database.run("TRUNCATE t");
        let load = load(&database, profile).flags("--max-wait 30s --overflow block");
        let ran = load.flags(flags).run_on(rows(1, count));
        ran.exits(0);
        let closed = (
            ran.flushes("rows"),
            ran.flushes("end"),
            ran.number("/batches/count"),
        );
        assert_eq!(
            closed,
            (full, 1, full as f64 + 1.0),
            "{profile} {flags}: {ran}"
        );
        database.holds(count);
    }
}

/// Loads while the table is locked for a moment.
fn stalled(database: &Sink, load: &Cmd) -> Ran {
    database.run("TRUNCATE t");
    let load = load.clone().flags("--batch-rows 10 --max-wait 30s");
    let mut stream = load.open();
    stream.send(rows(1, 10));
    wait_until("the first batch", || database.count() == 10);
    let lock = database.lock("t");
    stream.send(rows(11, 990));
    thread::sleep(Duration::from_millis(300));
    drop(lock);
    stream.end()
}

#[test]
fn a_profile_sets_what_happens_to_an_overflow_and_a_flag_overrides_it() {
    let database = database();
    for (profile, flags, drops) in [
        ("bulk", "", false),
        ("etl", "", false),
        ("events", "", true),
        ("metrics", "", true),
        ("audit", "", false),
        ("events", "--overflow block", false),
        ("audit", "--overflow drop", true),
    ] {
        let ran = stalled(&database, &load(&database, profile).flags(flags));
        ran.exits(if drops { 3 } else { 0 });
        assert_eq!(ran.rows("dropped") > 0, drops, "{profile} {flags}: {ran}");
        assert_eq!(database.count() + ran.rows("dropped"), 1_000, "{ran}");
    }
}
