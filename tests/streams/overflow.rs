//! A source that is faster than the server: what is dropped, and how it is told.

use crate::support::{Database, Files, SMALL, Sink, pgrung, rows, wait_until};

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

/// A buffer that a file leaves behind is there for the next.
#[test]
fn many_files_that_overflow_are_all_read() {
    let database = Database::with("CREATE TABLE t (id int)");
    let files = Files::new();
    let inputs: Vec<String> = (0..9)
        .map(|file| {
            let ids = (0..500).map(|id| format!("{}\n", file * 500 + id));
            files.write(&format!("{file}.csv"), ids.collect::<String>())
        })
        .collect();
    let dir = files.path("spill");
    for (overflow, workers) in [("drop", "1"), ("spill", "1"), ("spill", "3")] {
        database.run("TRUNCATE t");
        let load = pgrung("load -t t --restart --no-header --batch-rows 7 --queue 1").args([
            "--overflow",
            overflow,
            "-j",
            workers,
        ]);
        let load = match overflow {
            "spill" => load.arg("--spill-dir").arg(&dir),
            _ => load,
        };
        let ran = load.dsn(&database.dsn()).args(&inputs).run();
        ran.exits(if ran.rows("dropped") > 0 { 3 } else { 0 });
        let loaded = database.count("t");
        assert_eq!(loaded + ran.rows("dropped"), 4500, "{ran}");
    }
}
