//! What the ledger tells of past nights, and what of them may go.

use std::sync::Arc;

use crate::support::{Database, Files};

const TABLES: &str =
    "CREATE TABLE t (id int PRIMARY KEY, name text); CREATE TABLE u (id int, name text)";

fn load(database: &Arc<Database>, files: &Files, table: &str, name: &str, flags: &str) -> String {
    let file = files.write(name, format!("id,name\n1,{name}\nx,bad\n"));
    let ran = database
        .load_once(table)
        .arg(file)
        .flags("--progress none")
        .flags(flags)
        .run();
    ran.exits(3);
    ran.summary()["import_id"].as_str().unwrap().to_owned()
}

fn ids(database: &Database, flags: &str) -> Vec<String> {
    let ran = database.pgrung("status --json").flags(flags).run();
    ran.exits(0);
    let mut ids: Vec<String> = ran
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["import_id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// Makes all that an import has noted older.
fn age(database: &Database, import: &str, days: u32) {
    database.run(&format!(
        "UPDATE pgrung.imports SET started_at = started_at - interval '{days} d', run_at = run_at - interval '{days} d',
                finished_at = finished_at - interval '{days} d', replaced_at = replaced_at - interval '{days} d' WHERE import_id = '{import}';
         UPDATE pgrung.rejects SET rejected_at = rejected_at - interval '{days} d' WHERE import_id = '{import}'"
    ));
}

#[test]
fn status_tells_of_one_job_one_table_or_the_last_days() {
    let (database, files) = (Database::with(TABLES), Files::new());
    let nightly = load(
        &database,
        &files,
        "t",
        "a.csv",
        "--mode upsert --job nightly",
    );
    let weekly = load(&database, &files, "u", "b.csv", "--job weekly");
    let other = load(&database, &files, "u", "c.csv", "");
    let sorted = |ids: &[&String]| {
        let mut ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        ids.sort();
        ids
    };
    age(&database, &other, 8);
    assert_eq!(ids(&database, ""), sorted(&[&nightly, &weekly, &other]));
    assert_eq!(ids(&database, "--job nightly"), sorted(&[&nightly]));
    assert_eq!(
        ids(&database, "--table public.u"),
        sorted(&[&weekly, &other])
    );
    assert_eq!(ids(&database, "-t t"), sorted(&[&nightly]));
    assert_eq!(ids(&database, "-t nosuch"), Vec::<String>::new());
    assert_eq!(ids(&database, "--since 7d"), sorted(&[&nightly, &weekly]));
    assert_eq!(ids(&database, "--since 7d --table u"), sorted(&[&weekly]));
}

#[test]
fn what_no_later_load_needs_is_pruned_and_no_more() {
    let (database, files) = (Database::with(TABLES), Files::new());
    let old = load(&database, &files, "t", "a.csv", "--mode upsert");
    let young = load(&database, &files, "t", "b.csv", "--mode upsert");
    let known = load(&database, &files, "u", "c.csv", "");
    database.run("CREATE TABLE v (id int, name text)");
    let dropped = load(&database, &files, "v", "d.csv", "");
    database.run("DROP TABLE v");
    for import in [&old, &known, &dropped] {
        age(&database, import, 91);
    }
    let prune = |flags: &str| {
        database
            .pgrung("prune --older-than 90d --log-format json")
            .flags(flags)
            .run()
    };
    let told = |flags: &str| {
        let ran = prune(flags);
        ran.exits(0);
        let json = ran.json();
        ["imports", "rejects", "stagings", "kept"].map(|name| json[name].as_u64().unwrap())
    };
    assert_eq!(told("--dry-run"), [2, 3, 0, 1]);
    assert_eq!(ids(&database, "").len(), 4);
    assert_eq!(told(""), [2, 3, 0, 1]);
    let mut left = vec![young, known];
    left.sort();
    assert_eq!(ids(&database, ""), left);
    assert_eq!(database.number("SELECT count(*) FROM pgrung.rejects"), 1);
    assert_eq!(told(""), [0, 0, 0, 1]);
    // The old file is still known.
    let file = files.path("c.csv");
    database
        .load_once("u")
        .arg(file)
        .flags("--progress none")
        .run()
        .exits(3);
    assert_eq!(database.count("u"), 1);
}

#[test]
fn rows_that_wait_for_a_merge_that_never_comes_are_pruned_too() {
    let (database, files) = (Database::with(TABLES), Files::new());
    let file = files.write("a.csv", "id,name\n1,a\n");
    let load = database
        .load_once("t")
        .arg(&file)
        .flags("--mode upsert --progress none");
    load.clone()
        .env("PGRUNG_ABORT_AT", "before merge:1")
        .run()
        .aborted();
    let staged = "SELECT count(*) FROM pg_class WHERE relname ~ '_staging_'";
    let status = database.pgrung("status").run();
    status
        .exits(0)
        .tells("1 rows staged in")
        .tells("upsert \"public\".\"t\"");
    // Its lease is that of a dead process, but nobody has found out yet.
    let prune = database.pgrung("prune --older-than 1d");
    prune.run().exits(0);
    assert_eq!(database.number(staged), 1);
    database.run("UPDATE pgrung.imports SET run_at = run_at - interval '2 d'; UPDATE pgrung.leases SET renewed_at = now() - interval '2 d'");
    prune.run().exits(0);
    assert_eq!(database.number(staged), 0);
    assert_eq!(ids(&database, ""), Vec::<String>::new());
    load.run().exits(0);
    assert_eq!(database.rows("t"), ["1|a"]);
}
