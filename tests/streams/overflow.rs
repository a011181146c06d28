//! A source that is faster than the server: what is dropped, and how it is told.

use crate::support::{SMALL, Sink, rows, wait_until};

/// Rows whose bytes no pipe and no buffer of the load below can hold.
const MANY: u64 = 100_000;

#[test]
fn overflow_drop_drops_whole_batches_of_a_source_that_is_too_fast_and_counts_them() {
    let database = Sink::new();
    let load = database.load().flags(SMALL).flags("--overflow drop");
    let mut stream = load.open_with(rows(1, 10));
    wait_until("rows come", || database.count() == 10);
    let lock = database.lock("t");
    // Returns although the server takes nothing.
    stream.send(rows(11, MANY));
    drop(lock);
    let ran = stream.end();
    ran.exits(3)
        .says(&["rows dropped so far (--overflow drop)", "; dropped "])
        .tells(" dropped");
    assert_eq!(ran.rows("read"), 10 + MANY, "{ran}");
    assert!(ran.rows("dropped") >= MANY / 2, "{ran}");
    assert_eq!(ran.rows("loaded"), database.count(), "{ran}");
    let whole =
        "SELECT count(*) FROM (SELECT FROM t GROUP BY (id - 1) / 10 HAVING count(*) <> 10) AS b";
    assert_eq!(database.number(whole), 0, "batches are dropped whole");
    database.holds_no_row_twice();
}
