//! Batches that are merged one by one: streams, and what a crash leaves.

use crate::support::{Database, Files, PASSWORD, STRATEGIES, wait_until};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, name text)";

fn numbered(rows: std::ops::Range<i32>, name: &str) -> String {
    rows.map(|id| format!("{id},{name}\n")).collect()
}

#[test]
fn rows_of_a_stream_are_in_the_table_before_it_ends_and_later_ones_win() {
    for strategy in STRATEGIES {
        let database = Database::with(TABLE);
        let load = database
            .load_once("t")
            .flags("--mode upsert --max-wait 10ms");
        let mut running = load.args(["-s", strategy]).open_with("id,name\n1,a\n2,b\n");
        wait_until("the first batch is there", || database.count("t") == 2);
        running.send("1,c\n1,d\n3,e\n");
        wait_until("the second is", || database.count("t") == 3);
        running.send("2,b\n");
        let ran = running.end();
        ran.exits(0);
        assert_eq!(database.rows("t"), ["1|d", "2|b", "3|e"]);
        let told = ["inserted", "updated", "superseded", "unchanged"].map(|what| ran.rows(what));
        // Where each row is a statement, none of them loses within one.
        let expected = match strategy {
            "insert" | "pipeline" => [3, 2, 0, 1],
            _ => [3, 1, 1, 1],
        };
        assert_eq!(told, expected, "{strategy}: {ran}");
    }
}

#[test]
fn a_row_that_is_the_same_is_not_touched() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("a.csv", format!("id,name\n{}", numbered(0..1000, "a")));
    let load = database
        .load_once("t")
        .arg(file)
        .flags("--mode upsert --merge batch --batch-rows 100");
    load.run().exits(0);
    let versions = "SELECT count(DISTINCT xmin::text) FROM t WHERE xmax = 0";
    assert_eq!(database.number(versions), 10);
    let before = database.one("SELECT md5(string_agg(ctid::text || xmin, ',' ORDER BY id)) FROM t");
    let ran = load.run();
    ran.exits(0);
    assert_eq!(ran.rows("unchanged"), 1000, "{ran}");
    let after = database.one("SELECT md5(string_agg(ctid::text || xmin, ',' ORDER BY id)) FROM t");
    assert_eq!(before, after);
    assert_eq!(database.number(versions), 10);
}

#[test]
fn a_stream_that_was_killed_goes_on_behind_what_it_had_merged() {
    let database = Database::with(TABLE);
    let rows = format!("id,name\n{}{}", numbered(0..50, "a"), numbered(0..50, "b"));
    let load = database
        .load_once("t")
        .flags("--mode upsert --batch-rows 10 --import-id night");
    let first = load
        .clone()
        .env("PGRUNG_ABORT_AT", "after commit:6")
        .run_on(&rows);
    first.aborted();
    // Somebody else is later than what was committed; what comes again must not undo that.
    database.run("UPDATE t SET name = 'other' WHERE id = 20");
    let ran = load.run_on(&rows);
    ran.exits(0);
    assert_eq!(ran.rows("already_loaded"), 60, "{ran}");
    assert_eq!(
        database.number("SELECT count(*) FROM t WHERE name = 'b'"),
        50
    );
    // The next night it has the same name, and does its work again.
    let again = load.run_on(&rows);
    again.exits(0);
    assert_eq!(again.rows("already_loaded"), 0, "{again}");
    assert_eq!(again.rows("updated"), 100, "{again}");
}

#[test]
fn what_was_loaded_in_another_way_is_not_taken_for_merged() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("a.csv", format!("id,name\n{}", numbered(0..40, "a")));
    let load = |flags: &str| {
        database
            .load_once("t")
            .arg(&file)
            .flags(flags)
            .flags("--batch-rows 10 -j 1")
    };
    let killed = load("").env("PGRUNG_ABORT_AT", "after commit:2").run();
    killed.aborted();
    database.run("UPDATE t SET name = 'x'");
    let ran = load("--mode upsert --merge batch").run();
    ran.exits(0);
    assert_eq!(
        (ran.rows("updated"), ran.rows("inserted")),
        (20, 20),
        "{ran}"
    );
    assert_eq!(
        database.number("SELECT count(*) FROM t WHERE name = 'a'"),
        40
    );

    // And by another key, or by what is newer, it is another merge.
    database.run("TRUNCATE t; ALTER TABLE t ADD UNIQUE (name)");
    let names: String = (0..40).map(|id| format!("{id},n{id}\n")).collect();
    files.write("a.csv", format!("id,name\n{names}"));
    let killed = load("--mode upsert --merge batch")
        .env("PGRUNG_ABORT_AT", "after commit:2")
        .run();
    killed.aborted();
    let ran = load("--mode upsert --merge batch --key name").run();
    ran.exits(0);
    assert_eq!(
        (ran.rows("unchanged"), ran.rows("inserted")),
        (20, 20),
        "{ran}"
    );
}

#[test]
fn a_file_that_comes_before_what_was_merged_makes_it_begin_anew() {
    let database = Database::with(TABLE);
    let files = Files::new();
    files.write("b.csv", format!("id,name\n{}", numbered(0..40, "b")));
    let load = database.load_once("t").arg(files.path("*.csv"));
    let load = load.flags("--mode upsert --merge batch --batch-rows 10");
    load.clone()
        .env("PGRUNG_ABORT_AT", "after commit:2")
        .run()
        .aborted();
    files.write("a.csv", format!("id,name\n{}", numbered(0..60, "a")));
    load.run().exits(0);
    let count =
        |name: &str| database.number(&format!("SELECT count(*) FROM t WHERE name = '{name}'"));
    assert_eq!((count("a"), count("b")), (20, 40));

    // One behind it does not.
    database.run("TRUNCATE t");
    load.clone()
        .env("PGRUNG_ABORT_AT", "after commit:8")
        .run()
        .aborted();
    files.write("c.csv", format!("id,name\n{}", numbered(0..5, "c")));
    let ran = load.run();
    ran.exits(0);
    assert_eq!(ran.rows("already_loaded"), 80, "{ran}");
    assert_eq!((count("a"), count("b"), count("c")), (20, 35, 5));
}

#[test]
fn what_does_not_go_with_batches_is_said() {
    let database = Database::with(TABLE);
    for (flags, says) in [
        ("--merge batch", "needs --mode ignore or upsert"),
        ("--merge end", "needs --mode ignore or upsert"),
        (
            "--mode replace --merge batch",
            "replace and sync have to know all rows",
        ),
        ("--mode upsert --merge batch -j 2", "takes one worker"),
        (
            "--mode upsert --merge batch --superseded reject",
            "goes with --merge end",
        ),
        (
            "--mode upsert --merge end --no-ledger",
            "--no-ledger goes with --mode append",
        ),
    ] {
        let ran = database
            .load_once("t")
            .flags(flags)
            .run_on("id,name\n1,a\n");
        ran.exits(2).says(&[says]);
    }
    assert_eq!(database.count("t"), 0);
}

#[test]
fn a_bad_row_takes_no_good_one_with_it_and_supersedes_nothing() {
    for strategy in STRATEGIES {
        let database = Database::with(
            "CREATE TABLE parents (id int PRIMARY KEY); INSERT INTO parents VALUES (1);
             CREATE TABLE t (id int UNIQUE, parent int REFERENCES parents, even int CHECK (even % 2 = 0))",
        );
        let rows = "id,parent,even\n1,1,2\n1,9,4\n2,1,3\n,1,2\n3,1,2\nx,1,2\n4,9,2\n4,1,6\n";
        let load = database
            .load_once("t")
            .flags("--mode upsert --key id")
            .args(["-s", strategy]);
        let ran = load.run_on(rows);
        ran.exits(3);
        assert_eq!(database.rows("t"), ["1|1|2", "3|1|2", "4|1|6"]);
        assert_eq!(
            (ran.rows("rejected"), ran.rows("superseded")),
            (4, 1),
            "{ran}"
        );
        let reasons = database.one(
            "SELECT string_agg(record || ' ' || sqlstate, ', ' ORDER BY record) FROM pgrung.rejects",
        );
        assert_eq!(reasons, "2 23503, 3 23514, 4 23502, 6 22P02");
    }
}

#[test]
fn of_keys_that_are_one_in_the_table_the_first_comes_in_or_the_last_stays() {
    for (key, rows) in [
        ("numeric(6,2)", "1.004,first\n1.00,last\n"),
        ("varchar(9) COLLATE ci", "b,first\nB,last\n"),
    ] {
        let database = Database::with(&format!(
            "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TABLE t (id {key} PRIMARY KEY, name text)"
        ));
        for strategy in STRATEGIES {
            for (mode, stays) in [("ignore", "first"), ("upsert", "last")] {
                database.run("TRUNCATE t");
                let load = database.load_once("t").flags("--merge batch");
                let ran = load
                    .args(["-s", strategy, "--mode", mode])
                    .run_on(format!("id,name\n{rows}"));
                ran.exits(0);
                assert_eq!(
                    database.one("SELECT name FROM t"),
                    stays,
                    "{key} {strategy}"
                );
            }
        }
    }
}

#[test]
fn rows_with_domains_are_compared_and_children_are_merged_into() {
    for strategy in STRATEGIES {
        let database = Database::with(
            "CREATE DOMAIN positive AS int CHECK (value > 0);
             CREATE TABLE t (id int PRIMARY KEY, number positive); INSERT INTO t VALUES (1, 1), (2, 2);
             CREATE TABLE child () INHERITS (t); INSERT INTO child VALUES (3, 3)",
        );
        let load = database.load_once("t").flags("--mode upsert");
        let ran = load
            .args(["-s", strategy])
            .run_on("id,number\n1,1\n2,5\n3,6\n4,-1\n");
        ran.exits(3);
        let told = ["unchanged", "updated", "rejected"].map(|what| ran.rows(what));
        assert_eq!(told, [1, 2, 1], "{strategy}: {ran}");
        assert_eq!(database.rows("t"), ["1|1", "2|5", "3|6"]);

        database.run("DROP TABLE child");
        database.run(
            "CREATE TABLE plain (id int PRIMARY KEY, number positive); INSERT INTO plain TABLE t",
        );
        let load = database.load_once("plain").flags("--mode upsert");
        let ran = load.args(["-s", strategy]).run_on("id,number\n1,1\n2,7\n");
        ran.exits(0);
        let told = ["unchanged", "updated"].map(|what| ran.rows(what));
        assert_eq!(told, [1, 1], "{strategy}: {ran}");
    }
}

#[test]
fn a_table_with_policies_is_merged_into_by_every_strategy() {
    let database = Database::with(&format!(
        "{TABLE}; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY low ON t USING (id < 5) WITH CHECK (id < 5)"
    ));
    database.run("GRANT ALL ON t TO loader");
    for strategy in STRATEGIES {
        database.run("TRUNCATE t; INSERT INTO t VALUES (1, 'old')");
        let load = database.load_once("t").dsn(&database.loader_dsn(PASSWORD));
        let load = load.flags("--mode upsert --no-ledger");
        let ran = load.args(["-s", strategy]).run_on("id,name\n1,a\n2,b\n");
        ran.exits(0);
        assert_eq!(database.rows("t"), ["1|a", "2|b"], "{strategy}");
    }
}
