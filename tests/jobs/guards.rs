//! What stops a load before anything of it is to be seen, and what runs before and after.

use std::sync::Arc;

use crate::support::{Cmd, Database, Files};

/// Ten rows that are there, and a load into them.
struct Ten {
    database: Arc<Database>,
    files: Files,
}

const BEFORE: [&str; 10] = [
    "0|a", "1|a", "2|a", "3|a", "4|a", "5|a", "6|a", "7|a", "8|a", "9|a",
];

impl Ten {
    fn new() -> Self {
        Ten {
            database: Database::with(
                "CREATE TABLE t (id int PRIMARY KEY, name text);
                 INSERT INTO t SELECT id, 'a' FROM generate_series(0, 9) AS id",
            ),
            files: Files::new(),
        }
    }

    /// A load of rows with these keys.
    fn load(&self, keys: std::ops::Range<u32>, flags: &str) -> Cmd {
        let rows = keys.map(|key| format!("{key},b\n")).collect::<String>();
        self.load_text(&format!("id,name\n{rows}"), flags)
    }

    fn load_text(&self, text: &str, flags: &str) -> Cmd {
        let file = self.files.write("input.csv", text);
        self.database
            .load_once("t")
            .arg(file)
            .flags("--progress none")
            .flags(flags)
    }

    #[track_caller]
    fn is_untouched(&self) {
        assert_eq!(self.database.rows("t"), BEFORE);
        let left = "SELECT (SELECT count(*) FROM pgrung.stagings) + (SELECT count(*) FROM pg_class WHERE relname ~ '_staging_')
                         + (SELECT count(*) FROM pgrung.imports)";
        assert_eq!(self.database.number(left), 0);
    }
}

#[test]
fn an_input_without_rows_replaces_nothing_unless_that_is_meant() {
    for mode in ["replace", "sync"] {
        let ten = Ten::new();
        for text in ["id,name\n", "id,name\nx,1\n"] {
            let ran = ten.load_text(text, "--mode").arg(mode).run();
            ran.exits(4).says(&[
                "0 good rows",
                "--min-rows wants 1",
                "the table is as it was",
            ]);
            ten.is_untouched();
        }
        ten.load_text("id,name\n", "--min-rows 0 --mode")
            .arg(mode)
            .run()
            .exits(0);
        assert_eq!(ten.database.count("t"), 0);
    }
    let ten = Ten::new();
    ten.load_text("id,name\n", "--mode upsert").run().exits(0);
    ten.load_text("id,name\n", "--mode upsert --min-rows 1")
        .run()
        .exits(4);
    ten.is_untouched_but_for_imports();
}

impl Ten {
    #[track_caller]
    fn is_untouched_but_for_imports(&self) {
        assert_eq!(self.database.rows("t"), BEFORE);
    }
}

#[test]
fn a_file_that_is_far_smaller_than_the_table_replaces_nothing() {
    for mode in ["replace", "sync"] {
        let ten = Ten::new();
        let flags = format!("--mode {mode} --max-shrink 50%");
        let ran = ten.load(0..4, &flags).run();
        ran.exits(4).says(&[
            "has 10 rows and would have 4",
            "60.0 % fewer",
            "allows 50 %",
            "the table is as it was",
        ]);
        ten.is_untouched();
        ten.load(0..5, &flags).run().exits(0);
        assert_eq!(ten.database.count("t"), 5);
    }
}

#[test]
fn keys_that_have_all_changed_delete_nothing() {
    let ten = Ten::new();
    let ran = ten.load(100..110, "--mode sync --max-delete 20%").run();
    ran.exits(4)
        .says(&["10 of the 10 rows", "--max-delete allows 20%"]);
    ten.is_untouched();
    ten.load(100..110, "--mode sync --max-delete 9")
        .run()
        .exits(4);
    ten.is_untouched();
    ten.load(2..12, "--mode sync --max-delete 2").run().exits(0);
    assert_eq!(ten.database.number("SELECT min(id) FROM t"), 2);
}

#[test]
fn a_share_of_bad_rows_stops_a_merge_and_fails_an_append() {
    let ten = Ten::new();
    let text = "id,name\n10,b\nx,b\n11,b\ny,b\n";
    for mode in ["ignore", "upsert", "replace", "sync"] {
        let ran = ten
            .load_text(text, "--reject-limit 40% --mode")
            .arg(mode)
            .run();
        ran.exits(4).says(&[
            "2 of 4 rows are bad",
            "allows 40%",
            "the table is as it was",
        ]);
        ten.is_untouched();
    }
    let ran = ten.load_text(text, "--reject-limit 40%").run();
    ran.exits(4)
        .says(&["2 of 4 rows are bad", "the good rows are in the table"]);
    ten.load_text(text, "--reject-limit 50% --mode sync")
        .run()
        .exits(3);
    assert_eq!(ten.database.rows("t"), ["10|b", "11|b"]);
}

#[test]
fn a_flag_that_means_nothing_in_its_mode_is_refused() {
    let ten = Ten::new();
    for (flags, said) in [
        ("--key id", "--key says by what rows are the same"),
        ("--newer name", "--newer says which of two rows wins"),
        (
            "--mode ignore --newer name",
            "--newer says which of two rows wins",
        ),
        ("--superseded reject", "no record supersedes another"),
        ("--max-shrink 5%", "only --mode replace and sync"),
        (
            "--mode upsert --max-delete 5",
            "only --mode replace and sync",
        ),
        ("--mode sync --max-shrink 5", "such as 5%"),
        (
            "--mode upsert --no-ledger",
            "--no-ledger goes with --mode append",
        ),
        ("--mode upsert --overflow drop", "go with --mode append"),
        (
            "--mode upsert --key name",
            "CREATE UNIQUE INDEX ON \"public\".\"t\" (\"name\")",
        ),
        ("--mode upsert --key nme", "no column \"nme\""),
        ("--mode upsert --newer nme", "no column \"nme\""),
        ("--mode upsert --columns name", "column \"id\" of the key"),
    ] {
        let columns = if flags.contains("--columns") {
            "b\n"
        } else {
            "id,name\n1,b\n"
        };
        ten.load_text(columns, flags)
            .flags(if flags.contains("--columns") {
                "--no-header"
            } else {
                ""
            })
            .run()
            .exits(2)
            .says(&[said]);
    }
    assert_eq!(ten.database.rows("t"), BEFORE);
}

#[test]
fn what_runs_before_and_after_is_seen_with_the_rows() {
    let ten = Ten::new();
    ten.database.run("CREATE TABLE log (at text, rows bigint); CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM t");
    let around = [
        "--before",
        "INSERT INTO log SELECT 'before', count(*) FROM t",
        "--after",
        "INSERT INTO log SELECT 'after', count(*) FROM t; REFRESH MATERIALIZED VIEW v",
    ];
    let log = || {
        ten.database
            .lines("SELECT at, rows FROM log ORDER BY at DESC")
    };
    for (mode, rows) in [("upsert", 15), ("replace", 10), ("sync", 10)] {
        ten.database.run("TRUNCATE log");
        ten.database.run("DELETE FROM t WHERE id > 9");
        let before = ten.database.count("t");
        ten.load(5..15, "--mode")
            .arg(mode)
            .args(around)
            .run()
            .exits(0);
        assert_eq!(
            log(),
            [format!("before|{before}"), format!("after|{rows}")],
            "{mode}"
        );
        assert_eq!(ten.database.number("SELECT count FROM v"), rows, "{mode}");
    }
    // What fails takes everything back.
    ten.database.run("TRUNCATE log");
    let then = ten.database.rows("t");
    for wrong in ["SELECT 1 / 0", "COMMIT", "ROLLBACK"] {
        let ran = ten
            .load(0..3, "--mode sync --before")
            .args(["DELETE FROM log", "--after", wrong])
            .run();
        ran.exits(1).says(&["--after"]);
        assert_eq!(ten.database.rows("t"), then, "{wrong}");
    }
}

#[test]
fn an_append_empties_the_table_before_it_and_not_again_when_it_goes_on() {
    let ten = Ten::new();
    let around = [
        "--before",
        "TRUNCATE t",
        "--after",
        "INSERT INTO log SELECT count(*) FROM t",
    ];
    ten.database.run("CREATE TABLE log (rows bigint)");
    let load = |keys, flags: &str| {
        ten.load(keys, flags)
            .args(around)
            .flags("--batch-rows 2 -j 1")
    };
    load(0..10, "")
        .env("PGRUNG_ABORT_AT", "after commit:3")
        .run()
        .aborted();
    assert_eq!(ten.database.count("t"), 6);
    load(0..10, "").run().exits(0);
    // The same once more: nothing is to be done, so nothing is done around it.
    load(0..10, "").run().exits(0);
    assert_eq!(ten.database.lines("SELECT rows FROM log"), ["10"]);
    assert_eq!(ten.database.count("t"), 10);
    // Another night, another content of the same name.
    load(5..9, "").run().exits(0);
    assert_eq!(ten.database.count("t"), 4);
    assert_eq!(
        ten.database.lines("SELECT rows FROM log ORDER BY 1"),
        ["4", "10"]
    );
    load(5..9, "--no-ledger").run().exits(0);
    assert_eq!(
        ten.database.lines("SELECT rows FROM log ORDER BY 1"),
        ["4", "4", "10"]
    );
}

#[test]
fn sql_of_a_file_runs_and_a_missing_one_is_an_error() {
    let ten = Ten::new();
    let sql = ten.files.write(
        "after.sql",
        "DELETE FROM t WHERE id = 3;\nDELETE FROM t WHERE id = 4;\n",
    );
    ten.load(0..10, "--mode upsert --after")
        .arg(format!("@{sql}"))
        .run()
        .exits(0);
    assert_eq!(ten.database.count("t"), 8);
    ten.load(0..10, "--mode upsert --after @/nonexistent")
        .run()
        .exits(2)
        .says(&["--after @/nonexistent", "No such file"]);
}
