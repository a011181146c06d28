//! Places where a row could be lost, doubled or called loaded without being so.

use crate::support::{Database, Files};

/// A file of these ids, one a line, below the header `id`.
fn ids(range: std::ops::RangeInclusive<u32>) -> String {
    let lines: Vec<String> = range.map(|id| id.to_string()).collect();
    format!("id\n{}\n", lines.join("\n"))
}

#[test]
fn a_file_that_another_import_has_loaded_is_not_loaded_again_among_others() {
    let database = Database::with("CREATE TABLE t (id int)");
    let files = Files::new();
    let (first, second) = (
        files.write("f1.csv", ids(1..=50)),
        files.write("f2.csv", ids(51..=100)),
    );
    database.load_once("t").arg(&first).run().exits(0);
    let ran = database.load_once("t").args([&first, &second]).run();
    ran.exits(0)
        .says(&["f1.csv: loaded by import"])
        .tells("50 inserted + 50 already loaded");
    let ran = database.load_once("t").arg(&second).run();
    ran.exits(0).tells("0 inserted + 50 already loaded");
    assert_eq!(
        database.one("SELECT count(*) || ' ' || count(DISTINCT id) FROM t"),
        "100 100"
    );
}

#[test]
fn a_report_is_never_written_over_a_file_that_is_read() {
    let database = Database::with("CREATE TABLE t (id int)");
    let files = Files::new();
    let content = ids(1..=3);
    let file = files.write("f.csv", &content);
    for flag in ["--rejects", "--summary", "--metrics-file"] {
        let ran = database.load("t").arg(&file).arg(flag).arg(&file).run();
        ran.exits(2).says(&[flag, "read as well"]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
    }
    database
        .loads("t", &file, "--rejects /no/such/directory/x")
        .exits(2);
    let bench = database.pgrung("bench --table t --no-header --input");
    let ran = bench.arg(&file).arg("--summary").arg(&file).run();
    ran.exits(2).says(&["--summary", "read as well"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
    assert_eq!(database.count("t"), 0);
}

#[test]
fn other_rows_under_the_name_of_a_merged_stream_are_not_called_loaded() {
    let database = Database::with("CREATE TABLE t (id int)");
    let load = || database.load_once("t").flags("- --batch-rows 1");
    load().run_on(ids(1..=4)).exits(0);
    let import = database.one("SELECT import_id FROM pgrung.imports");
    assert_eq!(database.one("SELECT count(*) FROM pgrung.spans"), "1");
    let ran = load().args(["--import-id", &import]).run_on(ids(5..=8));
    ran.exits(6);
    assert_eq!(database.count("t"), 4);
}

#[test]
fn what_was_dropped_of_a_file_is_loaded_by_the_next_run() {
    let database = Database::with("CREATE TABLE t (id int)");
    database.slow_down("t", 50);
    let files = Files::new();
    let file = files.write("f.csv", ids(1..=1000));
    database
        .load_once("t")
        .arg(&file)
        .flags("--overflow drop -j 1 --batch-rows 10")
        .run()
        .exits(3)
        .says(&["dropped"]);
    assert!(database.count("t") < 1000);
    let unfinished = "pgrung.imports WHERE finished_at IS NULL";
    assert_eq!(database.count(unfinished), 1);
    database.run("DROP TRIGGER slow ON t");
    database.load_once("t").arg(&file).run().exits(0);
    assert_eq!(
        database.one("SELECT count(*) || ' ' || count(DISTINCT id) FROM t"),
        "1000 1000"
    );
}

#[test]
fn the_reject_limit_counts_all_batches_of_one_transaction() {
    let database = Database::with("CREATE TABLE t (id int)");
    let files = Files::new();
    // A bad row in each batch.
    let file = files.write("f.csv", ids(1..=60).replace("0\n", "x\n"));
    let limit = "--commit load --batch-rows 10 --reject-limit 4";
    let ran = database.load_once("t").arg(&file).flags(limit).run();
    ran.exits(4);
    assert_eq!(database.count("t"), 0);
}

#[test]
fn a_long_chain_of_children_before_their_parents_loads_beside_a_bad_row() {
    let database = Database::with("CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES t)");
    let files = Files::new();
    let chain: Vec<String> = (1..600).map(|id| format!("{id},{}", id + 1)).collect();
    let file = files.write(
        "f.csv",
        format!("id,parent\n0,99999\n{}\n600,\n", chain.join("\n")),
    );
    let ran = database.load_once("t").arg(&file).run();
    ran.exits(3).tells("600 inserted + 1 rejected");
}

#[test]
fn sizes_beyond_reason_are_wrong_usage() {
    let database = Database::with("CREATE TABLE t (id int)");
    for flags in [
        ["--batch-bytes", "100000GiB"],
        ["--queue", "9999999999999"],
        ["--report-every", "0"],
    ] {
        let ran = database.load("t").args(flags).run_on("id\n1\n");
        ran.exits(2).says(&[flags[0]]);
    }
}

#[test]
fn a_source_that_turns_out_to_be_another_one_leaves_no_row_behind() {
    let database = Database::with("CREATE TABLE t (id text)");
    let load = || {
        let load = database.load_once("t");
        load.flags("- --import-id mine -j 1 --batch-rows 1")
    };
    let two = load().env("PGRUNG_ABORT_AT", "after commit:2");
    two.run_on("id\n1111111\n2222222\n3333333\n").aborted();
    // A gap, as a killed worker leaves it.
    database
        .run("DELETE FROM pgrung.spans WHERE start_byte = 3; DELETE FROM t WHERE id = '1111111'");
    load().run_on("id\nforeign row\n2222222\n").exits(6);
    assert_eq!(database.rows("t"), ["2222222"]);
}

#[test]
fn a_source_that_ends_before_what_is_loaded_of_it_leaves_no_row_behind() {
    let database = Database::with("CREATE TABLE t (id text)");
    let load = |flags| {
        let load = database.load_once("t").flags("- --import-id mine -j 1");
        load.flags(flags)
    };
    let two = load("--batch-rows 1").env("PGRUNG_ABORT_AT", "after commit:2");
    two.run_on("id\n1111111\n2222222\n3333333\n").aborted();
    database
        .run("DELETE FROM pgrung.spans WHERE start_byte = 3; DELETE FROM t WHERE id = '1111111'");
    load("").run_on("id\nother\n").exits(6);
    assert_eq!(database.rows("t"), ["2222222"]);
}
