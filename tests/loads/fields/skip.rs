//! `--skip`: fields that go to no column.

use std::fs;

use crate::support::{Database, Files, RUNGS, text};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, name text DEFAULT 'none', day date)";

/// Three fields of the table's columns, and two that go nowhere: what is in them is no date, no
/// UTF-8, of several lines, wide.
fn file() -> Vec<u8> {
    let mut file = b"id,Note,name,note 2,day\n".to_vec();
    for id in 1..=40 {
        let odd: &[u8] = match id % 4 {
            0 => b"\xff\xfe",
            1 => b"\"a \"\"line\nand, more\"",
            2 => b"\0",
            _ => &[b'w'; 100_000],
        };
        file.extend(format!("{id},").bytes());
        file.extend(odd);
        file.extend(format!(",\"n{id}\",").bytes());
        file.extend(odd);
        file.extend(b",2024-01-01\n");
    }
    file
}

const SKIP: [&str; 2] = ["--skip", "NOTE,note 2"];

#[test]
fn a_skipped_field_may_hold_anything_and_goes_nowhere_in_every_rung_and_mode() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.write("a.csv", file());
    let expected: Vec<String> = (1..=40)
        .map(|id| format!("{id}|n{id}|2024-01-01"))
        .collect();
    let stored = || database.lines("SELECT * FROM t ORDER BY id");
    for rung in RUNGS {
        for mode in ["append", "ignore", "upsert", "replace", "sync"] {
            if rung.contains("commit") && mode != "append" {
                continue;
            }
            database.run("TRUNCATE t");
            let load = database.load("t").arg(&path).args(SKIP).flags(rung);
            let ran = load.flags("--batch-rows 7 --mode").arg(mode).run();
            ran.exits(0);
            assert_eq!(stored(), expected, "{rung} {mode}");
        }
    }
}

#[test]
fn the_number_of_fields_and_their_quotes_stay_checked() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.write(
        "a.csv",
        b"x,id,x,day\n1,2\n,3,,,\nq\"q,4,,\n,5,q\"q,\n,6,,q\"q\n,7,,\xff\n,8,,\n",
    );
    // Two fields of one name are both skipped.
    let ran = database.loads("t", &path, "--skip x");
    ran.exits(3);
    assert_eq!(database.rows("t"), ["8|none|~"]);
    let rejects = "SELECT record, column_name, message FROM pgrung.rejects ORDER BY record";
    let quote = "a quote inside an unquoted field: quote the field and double the quote, or use --quote none";
    assert_eq!(
        database.lines(rejects)[..5],
        [
            "1|~|too few fields: 2, expected 4".to_string(),
            "2|~|too many fields: 5, expected 4".to_string(),
            format!("3|~|{quote}"),
            format!("4|~|{quote}"),
            format!("5|day|{quote}"),
        ]
    );
}

#[test]
fn a_name_that_is_no_field_is_an_error_with_the_nearest() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.write("a.csv", "id,remark\n1,x\n");
    let ran = database.loads("t", &path, "--skip remarks");
    ran.exits(2).says(&[
        "--skip names \"remarks\", which is no field of the input",
        "its fields are \"id\", \"remark\"; did you mean \"remark\"?",
    ]);
    // What the table says of a name that it does not have leads here.
    database.loads("t", &path, "").exits(2).says(&["--skip"]);
    let bare = database.loads("t", &path, "--no-header --skip day");
    bare.exits(2).says(&["--skip", "--columns"]);
    assert_eq!(database.count("t"), 0);

    let rows = files.write("b.csv", "1,x\n2,y\n");
    let named = "--no-header --columns id,x --skip x";
    database.loads("t", &rows, named).exits(0);
    assert_eq!(database.rows("t").join(" "), "1|none|~ 2|none|~");
    let all = database.loads("t", &rows, "--no-header --columns id,x --skip x,id");
    all.exits(2).says(&["nothing to load"]);
}

#[test]
fn a_generated_column_can_be_skipped() {
    let database =
        Database::with("CREATE TABLE t (id int, twice int GENERATED ALWAYS AS (id * 2) STORED)");
    let files = Files::new();
    // One column is left of two, so a blank line is still no record.
    let path = files.write("a.csv", "id,twice\n\n1,2\n\n");
    database.loads("t", &path, "").exits(2).says(&["--skip"]);
    let load = database.load_once("t").arg(&path).flags("--skip twice");
    load.run().exits(0);
    load.run().exits(0).tells("already loaded");
    assert_eq!(database.rows("t"), ["1|2"]);
}

#[test]
fn a_skipped_key_is_ignored_in_any_line_and_its_column_keeps_its_default() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.write(
        "a.ndjson",
        "{\"id\": 1, \"name\": \"x\"}\n{\"more\": {\"a\": [1]}, \"id\": 2, \"More\": 1, \"NAME\": 3}\n{\"id\": 3, \"mor\": 1}\n",
    );
    for rung in RUNGS {
        database.run("TRUNCATE t");
        let ran = database.loads("t", &path, &format!("--skip more,name {rung}"));
        ran.exits(3).tells("key \"mor\" is no column of this load");
        assert_eq!(database.rows("t").join(" "), "1|none|~ 2|none|~", "{rung}");
    }
}

#[test]
fn rejects_stay_whole_load_again_by_replay_and_by_their_file() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.write(
        "a.csv",
        "note,id,day,rest\n\"a\nb\",1,2024-01-01,r\nc,2,soon,\"s,t\"\n",
    );
    let bad = files.path("bad.csv");
    let load = database.load_once("t").args(["--import-id", "nightly"]);
    let load = load.args(["--skip", "note,rest", "--rejects"]).arg(&bad);
    load.arg(&path).run().exits(3);
    let whole = "\"note\",\"id\",\"day\",\"rest\"\nc,2,soon,\"s,t\"\n";
    assert_eq!(fs::read_to_string(&bad).unwrap(), whole);
    let export = files.path("export.csv");
    let exported = database.pgrung("rejects nightly --export").arg(&export);
    exported.run().exits(0);
    assert_eq!(fs::read_to_string(&export).unwrap(), whole);

    database.pgrung("replay nightly").run().exits(3);
    database.run("ALTER TABLE t ALTER day TYPE text");
    for strategy in ["copy", "insert"] {
        let replay = database.pgrung("replay nightly --strategy").arg(strategy);
        replay.run().exits(0);
    }
    assert_eq!(
        database.rows("t").join(" "),
        "1|none|2024-01-01 2|none|soon"
    );
    database.run("DELETE FROM t WHERE id = 2");
    let again = database.loads("t", &text(&export), "--skip note,rest");
    again.exits(0);
    assert_eq!(database.count("t"), 2);
}

#[test]
fn what_is_skipped_belongs_to_the_import() {
    let files = Files::new();
    let lines: String = (1..=50)
        .map(|id| format!("{{\"id\": {id}, \"a\": 1, \"b\": 1}}\n"))
        .collect();
    let rows: String = (1..=50).map(|id| format!("{id},x,y\n")).collect();
    for (name, content) in [("a.ndjson", lines), ("a.csv", format!("id,a,b\n{rows}"))] {
        let database = Database::with("CREATE TABLE t (id int, a text, b text)");
        let path = files.write(name, content);
        let load = |skip| {
            let load = database.load_once("t").arg(&path).args(["--skip", skip]);
            load.flags("--batch-rows 10 -j 1 --import-id mine --columns id,a,b")
        };
        let killed = load("a,b").env("PGRUNG_ABORT_AT", "after commit:2").run();
        killed.aborted();
        load("a").run().exits(6);
        load("a,b").run().exits(0).tells("already loaded");
        assert_eq!(database.count("t WHERE a IS NULL AND b IS NULL"), 50);
        load("a,b").run().exits(0).tells("0 inserted");
    }
    // The same columns, and another reading.
    let database = Database::with("CREATE TABLE t (id int)");
    let path = files.write("b.ndjson", "{\"id\": 1}\n{\"id\": 2, \"a\": 1}\n");
    let load = |flags| {
        let load = database.load_once("t").arg(&path).flags(flags);
        load.flags("--import-id mine --columns id").run()
    };
    load("--skip a").exits(0);
    load("").exits(6).says(&["skip was [\"a\"], now it is []"]);
    assert_eq!(database.count("t"), 2);
}
