//! Who reads the table meanwhile sees the old rows or the new ones, and is never refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::support::{Database, Files, Session};

/// Rows before and after.
const COUNTS: [i64; 2] = [50_000, 49_000];

/// Polls until the value is set, and once more; every count but those of the poll before.
fn poll(
    database: &Arc<Database>,
    over: &Arc<AtomicBool>,
    begin: &'static str,
    count: &'static str,
) -> JoinHandle<(u64, Vec<i64>)> {
    let (session, over): (Session, _) = (database.session(), over.clone());
    // A snapshot is taken by the first query.
    session.run(begin);
    let first = session.number(count);
    thread::spawn(move || {
        let (mut seen, mut polls) = (vec![first], 1);
        loop {
            let last = over.load(Ordering::Acquire);
            let found = session.number(count);
            polls += 1;
            if seen.last() != Some(&found) {
                seen.push(found);
            }
            if last {
                return (polls, seen);
            }
        }
    })
}

fn sees_old_or_new(mode: &str, pointed_to: bool) {
    let [old, new] = COUNTS;
    let database = Database::with(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, note text);
         INSERT INTO t SELECT n, 'old' FROM generate_series(1, {old}) n;
         CREATE TABLE children (id int REFERENCES t)"
    ));
    if !pointed_to {
        database.run("DROP TABLE children");
    }
    let files = Files::new();
    // Some rows are there already, some are other, some are new, and some go.
    let rows = (2001..=2000 + new).map(|n| match n % 2 {
        0 => format!("{n},old\n"),
        _ => format!("{n},new\n"),
    });
    let input = files.write(
        "input.csv",
        format!("id,note\n{}", rows.collect::<String>()),
    );
    let over = Arc::new(AtomicBool::new(false));
    let count = "SELECT count(*) FROM t";
    let simple = poll(&database, &over, "", count);
    let rows = poll(
        &database,
        &over,
        "",
        "SELECT count(id + length(note)) FROM (SELECT * FROM t ORDER BY id OFFSET 0) t",
    );
    let snapshot = poll(
        &database,
        &over,
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        count,
    );
    let prepared = poll(
        &database,
        &over,
        "PREPARE p AS SELECT count(*) FROM t",
        "EXECUTE p",
    );
    let ran = database
        .load_once("t")
        .arg(&input)
        .args(["--mode", mode])
        .flags("--progress none")
        .run();
    over.store(true, Ordering::Release);
    let readers = [simple, rows, prepared, snapshot].map(|reader| reader.join().unwrap());
    ran.exits(0);
    for (polls, seen) in &readers[..3] {
        assert!(*polls > 3, "{polls} polls");
        assert_eq!(*seen, COUNTS, "{mode}: {ran}");
    }
    assert_eq!(
        readers[3].1,
        [old],
        "{mode}: what an older snapshot sees\n{ran}"
    );
}

#[test]
fn readers_of_a_replaced_table_see_the_old_rows_or_the_new_ones() {
    sees_old_or_new("replace", false);
    sees_old_or_new("replace", true);
}

#[test]
fn readers_of_a_synchronized_table_see_the_old_rows_or_the_new_ones() {
    sees_old_or_new("sync", false);
}
