//! Several runs with one directory for their spills.

use crate::support::{Database, Load, Stream, names_in, rows, wait_until};

fn spilling(database: &Database, table: &str, dir: &std::path::Path) -> Load {
    let load = database.load_into(table).spill_to(dir);
    load.args(&[
        "-j",
        "1",
        "--queue",
        "1",
        "--batch-rows",
        "20",
        "--max-wait",
        "50ms",
    ])
}

fn start(database: &Database, table: &str, dir: &std::path::Path) -> Stream {
    let mut stream = spilling(database, table, dir).spawn();
    stream.send(&rows(1, 20));
    wait_until("the first batch", || database.count_of(table) == 20);
    stream
}

#[test]
fn runs_with_one_spill_directory_do_not_disturb_each_other() {
    let database = Database::new();
    database.table("u");
    database.table("v");
    let dir = tempfile::tempdir().unwrap();
    let mut first = start(&database, "t", dir.path());
    let mut second = start(&database, "u", dir.path());
    let locks = [database.lock("t"), database.lock("u")];
    first.send(&rows(21, 1_980));
    second.send(&rows(21, 2_980));
    first.wait_for("pgrung_spill_batches", 90.0);
    second.wait_for("pgrung_spill_batches", 90.0);
    let before = names_in(dir.path());
    // A third one comes and goes meanwhile, and takes living runs' files for none of its own.
    let third = spilling(&database, "v", dir.path()).run(&rows(1, 300));
    third.exits(0);
    assert!(!third.stderr.contains("left on disk"), "{third}");
    database.table_holds("v", 1, 300);
    assert_eq!(names_in(dir.path()), before);
    drop(locks);
    first.end().exits(0);
    second.end().exits(0);
    database.holds(2_000);
    database.table_holds("u", 1, 3_000);
    assert!(
        names_in(dir.path()).is_empty(),
        "{:?}",
        names_in(dir.path())
    );
}

/// Both find what a third has left; one of them takes it.
#[test]
fn two_runs_that_start_at_once_load_a_left_over_spill_once() {
    let database = Database::new();
    database.table("u");
    database.table("v");
    let dir = tempfile::tempdir().unwrap();
    let mut dead = start(&database, "t", dir.path());
    let lock = database.lock("t");
    dead.send(&rows(21, 980));
    dead.wait_for("pgrung_spill_batches", 40.0);
    dead.kill();
    drop(lock);
    let mut first = spilling(&database, "u", dir.path()).spawn();
    let mut second = spilling(&database, "v", dir.path()).spawn();
    first.send(&rows(1, 100));
    second.send(&rows(1, 100));
    let (first, second) = (first.end(), second.end());
    first.exits(0);
    second.exits(0);
    let loaded = [&first, &second].map(|ran| ran.stderr.contains("left on disk is loaded"));
    assert!(loaded.contains(&true), "{first}\n{second}");
    database.table_holds("u", 1, 100);
    database.table_holds("v", 1, 100);
    database.holds_no_row_twice();
    // All but what was in memory only.
    assert!(database.count() >= 960, "{first}\n{second}");
    assert!(
        names_in(dir.path()).is_empty(),
        "{:?}",
        names_in(dir.path())
    );
}
