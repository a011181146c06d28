//! Several runs with one directory for their spills.

use crate::support::{Cmd, Files, Running, Sink, names_in, nothing_in, rows, wait_until};

fn spilling(database: &Sink, table: &str, dir: &std::path::Path) -> Cmd {
    let load = database.load_into(table).spill_to(dir);
    load.flags("-j 1 --queue 1 --batch-rows 20 --max-wait 50ms")
}

fn start(database: &Sink, table: &str, dir: &std::path::Path) -> Running {
    let mut stream = spilling(database, table, dir).open();
    stream.send(rows(1, 20));
    wait_until("the first batch", || database.count_of(table) == 20);
    stream
}

#[test]
fn runs_with_one_spill_directory_do_not_disturb_each_other() {
    let database = Sink::new();
    database.table("u");
    database.table("v");
    let dir = Files::new();
    let mut first = start(&database, "t", dir.dir());
    let mut second = start(&database, "u", dir.dir());
    let locks = [database.lock("t"), database.lock("u")];
    first.send(rows(21, 1_980));
    second.send(rows(21, 2_980));
    first.wait_for("pgrung_spill_batches", 90.0);
    second.wait_for("pgrung_spill_batches", 90.0);
    let before = names_in(dir.dir());
    // A third one comes and goes meanwhile, and takes living runs' files for none of its own.
    let third = spilling(&database, "v", dir.dir()).run_on(rows(1, 300));
    third.exits(0);
    assert!(!third.stderr.contains("left on disk"), "{third}");
    database.table_holds("v", 1, 300);
    assert_eq!(names_in(dir.dir()), before);
    drop(locks);
    first.end().exits(0);
    second.end().exits(0);
    database.holds(2_000);
    database.table_holds("u", 1, 3_000);
    nothing_in(dir.dir());
}

/// Both find what a third has left; one of them takes it.
#[test]
fn two_runs_that_start_at_once_load_a_left_over_spill_once() {
    let database = Sink::new();
    database.table("u");
    database.table("v");
    let dir = Files::new();
    let mut dead = start(&database, "t", dir.dir());
    let lock = database.lock("t");
    dead.send(rows(21, 980));
    dead.wait_for("pgrung_spill_batches", 40.0);
    dead.kill();
    drop(lock);
    let mut first = spilling(&database, "u", dir.dir()).open();
    let mut second = spilling(&database, "v", dir.dir()).open();
    first.send(rows(1, 100));
    second.send(rows(1, 100));
    let (first, second) = (first.end(), second.end());
    first.exits(0);
    second.exits(0);
    let loaded = [&first, &second].map(|ran| ran.stderr.contains("left on disk is loaded"));
    assert!(loaded[0] != loaded[1], "{first}\n{second}");
    database.table_holds("u", 1, 100);
    database.table_holds("v", 1, 100);
    database.holds_no_row_twice();
    // All but what was in memory only.
    assert!(database.count() >= 960, "{first}\n{second}");
    nothing_in(dir.dir());
}
