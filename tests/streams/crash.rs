//! The loader dies while batches are on disk: the next run loads each of them exactly once.
//!
//! What was in memory only, at most the queue and the batch under way, dies with the loader: a pipe
//! cannot be read again. Before each of these tests' crashes the server stands still, so those are
//! the first two batches after it stopped; all later ones are on disk.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Cmd, Files, Running, Sink, names_in, nothing_in, rows, seeded, times, wait_until,
};

/// Rows of a batch.
const BATCH: u64 = 20;

/// Batches that may be in memory only: one at the worker, one in the queue.
const IN_MEMORY: u64 = 2;

fn spilling(database: &Sink, dir: &Path) -> Cmd {
    spilling_into(database, "t", dir)
}

fn spilling_into(database: &Sink, table: &str, dir: &Path) -> Cmd {
    let load = database.load_into(table).spill_to(dir);
    // A window that never closes by time: what is sent in whole batches is in whole batches.
    load.flags("-j 1 --queue 1 --batch-rows 20 --max-wait 60s")
}

/// A first run is killed with all rows from the third batch after `first` on on disk. Sends the rows
/// `first` to `last`; the first batch is committed.
fn killed_while_spilled(database: &Sink, table: &str, dir: &Path, first: u64, last: u64) {
    let mut stream = spilling_into(database, table, dir).open();
    let stored = database.count_of(table);
    stream.send(rows(first, BATCH));
    wait_until("the first batch", || database.count_of(table) > stored);
    let lock = database.lock(table);
    stream.send(rows(first + BATCH, last + 1 - first - BATCH));
    all_spilled(&mut stream, (last + 1 - first) / BATCH - 1);
    for name in names_in(dir) {
        let mode = std::fs::metadata(dir.join(&name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let ran = stream.kill();
    assert_eq!(ran.signal, Some(9), "{ran}");
    drop(lock);
    wait_until("the server notices", || database.loaders("true") == 0);
}

/// Waits until all `batches` that were sent are on disk, but for those in memory only. One more
/// does not wait there: it is at hand for the worker, and stays on disk all the same.
fn all_spilled(stream: &mut Running, batches: u64) {
    let wanted = batches - IN_MEMORY - 1;
    stream.wait_for("pgrung_spill_batches", wanted as f64);
    // The last ones may be on their way.
    let mut before = 0.0;
    wait_until("nothing moves any more", || {
        std::thread::sleep(Duration::from_millis(120));
        let now = stream.figures().of("pgrung_spilled_bytes_total");
        std::mem::replace(&mut before, now) == now
    });
}

/// The rows `first` to `last` are in `table` once each, but for those that were in memory only.
#[track_caller]
fn nothing_spilled_is_lost(database: &Sink, table: &str, first: u64, last: u64) {
    let batches_in_memory_end = first + (1 + IN_MEMORY) * BATCH;
    let found = database.one(&format!(
        "SELECT count(*), count(DISTINCT id) FROM {table}
         WHERE id BETWEEN {batches_in_memory_end} AND {last}"
    ));
    let count = last + 1 - batches_in_memory_end;
    assert_eq!(found, format!("{count}|{count}"), "{table}: rows, ids");
    let all = database.one(&format!(
        "SELECT count(*) - count(DISTINCT id), count(*) FILTER (WHERE id < {BATCH} + {first} AND id >= {first})
         FROM {table}"
    ));
    assert_eq!(
        all,
        format!("0|{BATCH}"),
        "{table}: rows twice, rows of the first batch"
    );
}

/// The ledger knows as many rows as the tables hold.
#[track_caller]
fn the_ledger_agrees(database: &Sink, tables: &[&str]) {
    let stored: u64 = tables.iter().map(|table| database.count_of(table)).sum();
    let known = database.number("SELECT coalesce(sum(loaded), 0)::bigint FROM pgrung.spans");
    assert_eq!(known.cast_unsigned(), stored);
}

#[test]
fn what_a_killed_loader_left_on_disk_is_loaded_once_by_the_next_run() {
    let database = Sink::new();
    let parent = Files::new();
    let dir = parent.path("spill");
    killed_while_spilled(&database, "t", &dir, 1, 2_000);
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let ran = spilling(&database, &dir).run_on(rows(2_001, 100));
    ran.exits(0).says(&["left on disk is loaded"]);
    // The account is that of this run's own source.
    assert_eq!(ran.rows("read"), 100, "{ran}");
    nothing_spilled_is_lost(&database, "t", 1, 2_000);
    database.table_holds("(SELECT * FROM t WHERE id > 2000) s", 2_001, 2_100);
    the_ledger_agrees(&database, &["t"]);
    nothing_in(&dir);
}

#[test]
fn two_killed_loaders_leave_two_spills_and_the_third_run_loads_both() {
    let database = Sink::new();
    let dir = Files::new();
    killed_while_spilled(&database, "t", dir.dir(), 1, 1_000);
    // The second finds the first one's batches, and dies before the third of them is committed.
    let load = spilling(&database, dir.dir()).env("PGRUNG_ABORT_AT", "before commit:3");
    let ran = load.run_on(rows(9_001, 10));
    ran.aborted();
    let ran = spilling(&database, dir.dir()).run_on("");
    ran.exits(0).says(&["left on disk is loaded"]);
    nothing_spilled_is_lost(&database, "t", 1, 1_000);
    the_ledger_agrees(&database, &["t"]);
    nothing_in(dir.dir());
}

#[test]
fn an_abort_at_any_step_of_draining_loses_and_doubles_nothing() {
    for (point, number) in [
        ("before claim", 1),
        ("after write", 4),
        ("before commit", 2),
        ("after commit", 1),
        ("after commit", 7),
    ] {
        let database = Sink::new();
        let dir = Files::new();
        killed_while_spilled(&database, "t", dir.dir(), 1, 400);
        let load = spilling(&database, dir.dir());
        let ran = load
            .clone()
            .env("PGRUNG_ABORT_AT", format!("{point}:{number}"))
            .run_on("");
        ran.aborted();
        load.run_on("").exits(0);
        nothing_spilled_is_lost(&database, "t", 1, 400);
        the_ledger_agrees(&database, &["t"]);
        nothing_in(dir.dir());
    }
}

#[test]
fn runs_killed_at_random_times_of_spilling_and_draining_lose_nothing_on_disk() {
    let mut random = seeded("killed while draining");
    for _ in 0..times(1, 20) {
        let database = Sink::new();
        let dir = Files::new();
        killed_while_spilled(&database, "t", dir.dir(), 1, 1_000);
        // Slow enough that a kill hits in the middle.
        database.slow_down("t", 10);
        for round in 0..3 {
            let stored = database.count();
            let mut stream = spilling(&database, dir.dir()).open();
            let wanted = stored + random.u64(1..12) * BATCH;
            wait_until("some of it", || {
                database.count() >= wanted || stream.has_ended()
            });
            std::thread::sleep(Duration::from_millis(random.u64(0..10)));
            assert!(!stream.has_ended(), "round {round}: {}", stream.stderr());
            stream.signal(Signal::SIGKILL);
            stream.wait();
            database.holds_no_row_twice();
        }
        spilling(&database, dir.dir()).run_on("").exits(0);
        nothing_spilled_is_lost(&database, "t", 1, 1_000);
        the_ledger_agrees(&database, &["t"]);
        nothing_in(dir.dir());
    }
}

/// A spill that is drained by its own run while that run is killed.
#[test]
fn a_loader_killed_while_it_drains_its_own_spill_leaves_the_rest_to_the_next() {
    let database = Sink::new();
    let dir = Files::new();
    let mut stream = spilling(&database, dir.dir()).open();
    stream.send(rows(1, BATCH));
    wait_until("the first batch", || database.count() == BATCH);
    database.slow_down("t", 10);
    stream.send(rows(BATCH + 1, 1_000 - BATCH));
    stream.wait_for("pgrung_spilled_bytes_total", 1.0);
    wait_until("batches from disk", || database.count() >= 10 * BATCH);
    let ran = stream.kill();
    assert_eq!(ran.signal, Some(9), "{ran}");
    spilling(&database, dir.dir()).run_on("").exits(0);
    // Nothing was in memory only: what was handed on stays on disk until its commit is known.
    database.holds(1_000);
    the_ledger_agrees(&database, &["t"]);
    nothing_in(dir.dir());
}

#[test]
fn bad_rows_among_what_was_left_on_disk_are_put_aside_and_told_by_exit_code_3() {
    let database = Sink::new();
    let dir = Files::new();
    let mut stream = spilling(&database, dir.dir()).open_with(rows(1, BATCH));
    wait_until("the first batch", || database.count() == BATCH);
    let lock = database.lock("t");
    // Ten batches, the last of which has three bad rows.
    stream.send(rows(BATCH + 1, 9 * BATCH));
    stream.send(rows(10 * BATCH + 1, BATCH - 3) + "none,0,bad\nnone,0,bad\nnone,0,bad\n");
    all_spilled(&mut stream, 10);
    stream.kill();
    drop(lock);
    wait_until("the server notices", || database.loaders("true") == 0);
    let ran = spilling(&database, dir.dir()).run_on("");
    ran.exits(3)
        .says(&["left on disk is loaded", "3 are rejects"]);
    assert_eq!(database.count_of("pgrung.rejects"), 3);
    // None of them is a row of this run's own source.
    assert_eq!((ran.rows("read"), ran.rows("rejected")), (0, 0), "{ran}");
    database.holds_no_row_twice();
    nothing_in(dir.dir());
    spilling(&database, dir.dir()).run_on("").exits(0);
}

#[test]
fn a_spill_is_loaded_into_its_own_table_by_a_run_into_another() {
    let database = Sink::new();
    database.table("u");
    let dir = Files::new();
    killed_while_spilled(&database, "t", dir.dir(), 1, 500);
    let ran = spilling_into(&database, "u", dir.dir()).run_on(rows(1, 50));
    ran.exits(0).says(&["left on disk is loaded"]);
    nothing_spilled_is_lost(&database, "t", 1, 500);
    database.table_holds("u", 1, 50);
    the_ledger_agrees(&database, &["t", "u"]);
    nothing_in(dir.dir());
}

/// The next run, into another table, must not be blamed.
#[test]
fn a_spill_whose_table_is_gone_is_named_and_kept_until_the_table_is_back() {
    let database = Sink::new();
    database.table("u");
    let dir = Files::new();
    killed_while_spilled(&database, "t", dir.dir(), 1, 500);
    database.run("ALTER TABLE t RENAME TO elsewhere");
    let before = names_in(dir.dir());
    let ran = spilling_into(&database, "u", dir.dir()).run_on(rows(1, 50));
    let place = dir.dir().to_str().unwrap();
    ran.exits(2)
        .says(&[place, "left batches for", "\"public\".\"t\" does not exist"]);
    assert_eq!(database.count_of("u"), 0);
    assert_eq!(names_in(dir.dir()), before);
    database.run("ALTER TABLE elsewhere RENAME TO t");
    spilling_into(&database, "u", dir.dir())
        .run_on(rows(1, 50))
        .exits(0);
    nothing_spilled_is_lost(&database, "t", 1, 500);
    database.table_holds("u", 1, 50);
    nothing_in(dir.dir());
}

#[test]
fn a_run_terminated_while_spilled_leaves_the_rest_to_the_next() {
    let database = Sink::new();
    let dir = Files::new();
    let load = spilling(&database, dir.dir()).flags("--grace 300ms");
    let mut stream = load.open();
    stream.send(rows(1, BATCH));
    wait_until("the first batch", || database.count() == BATCH);
    let lock = database.lock("t");
    stream.send(rows(BATCH + 1, 1_000 - BATCH));
    all_spilled(&mut stream, 1_000 / BATCH - 1);
    stream.signal(Signal::SIGTERM);
    let ran = stream.wait();
    ran.exits(143).says(&["rows wait on disk"]);
    assert_eq!(ran.rows("loaded"), BATCH, "{ran}");
    drop(lock);
    spilling(&database, dir.dir()).run_on("").exits(0);
    nothing_spilled_is_lost(&database, "t", 1, 1_000);
    the_ledger_agrees(&database, &["t"]);
    nothing_in(dir.dir());
}

/// The rows of other batches do not make up for those that are gone.
#[test]
fn what_the_server_loses_of_what_was_left_on_disk_is_missed_and_stays_there() {
    let database = Sink::new();
    let dir = Files::new();
    killed_while_spilled(&database, "t", dir.dir(), 1, 400);
    database.slow_down("t", 100);
    let mut stream = spilling(&database, dir.dir()).open();
    wait_until("some of it", || database.count() >= 6 * BATCH);
    // One batch, as a crash of a server that does not wait for its disk takes it.
    database.run(
        "DELETE FROM pgrung.spans WHERE first_record = (SELECT max(first_record) FROM pgrung.spans);
         DELETE FROM t WHERE id > (SELECT max(first_record + records) - 1 FROM pgrung.spans)",
    );
    assert!(!stream.has_ended());
    let ran = stream.end();
    ran.exits(1).says(&["the server has lost 20 of"]);
    database.run("DROP TRIGGER slow ON t");
    spilling(&database, dir.dir()).run_on("").exits(0);
    nothing_spilled_is_lost(&database, "t", 1, 400);
    the_ledger_agrees(&database, &["t"]);
    nothing_in(dir.dir());
}

#[test]
fn batches_that_the_disk_does_not_give_back_are_told_and_their_files_stay() {
    let database = Sink::new();
    let dir = Files::new();
    killed_while_spilled(&database, "t", dir.dir(), 1, 400);
    let names = names_in(dir.dir());
    let paths = names.iter().map(|name| dir.path(name));
    let length = |path: &std::path::PathBuf| std::fs::metadata(path).unwrap().len();
    let largest = paths.max_by_key(length).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    for _ in 0..2 {
        let ran = spilling(&database, dir.dir()).run_on("");
        ran.exits(1).says(&["are damaged", "the files stay"]);
        assert_eq!(names_in(dir.dir()), names);
        database.holds_no_row_twice();
        the_ledger_agrees(&database, &["t"]);
    }
}

/// The last of them: with it the file goes from the disk.
#[test]
fn a_batch_goes_from_the_disk_when_its_commit_is_known_and_not_before() {
    for point in ["before write:10", "before commit:10"] {
        let database = Sink::new();
        let dir = Files::new();
        let load = spilling(&database, dir.dir()).env("PGRUNG_ABORT_AT", point);
        let mut stream = load.open_with(rows(1, BATCH));
        wait_until("the first batch", || database.count() == BATCH);
        let lock = database.lock("t");
        stream.send(rows(BATCH + 1, 9 * BATCH));
        all_spilled(&mut stream, 9);
        drop(lock);
        stream.wait().aborted();
        spilling(&database, dir.dir()).run_on("").exits(0);
        database.holds(10 * BATCH);
        the_ledger_agrees(&database, &["t"]);
        nothing_in(dir.dir());
    }
}
