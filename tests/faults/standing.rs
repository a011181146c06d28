//! What others do to the table, in the middle of a load and between two runs: exit code 0 says that
//! the rows are there, and rows that are there are not loaded again.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use crate::support::{Case, Cmd, Database, Fate, Files, Input, Kind, PASSWORD, RUNGS, Ran, seeded};

const REPLACE: &str = "CREATE TABLE other (LIKE {t} INCLUDING ALL); DROP TABLE {t};
                       ALTER TABLE other RENAME TO {t}";

fn in_tens(case: &Case) -> Cmd {
    case.load().flags("-j 1 --batch-rows 10")
}

/// A load that dies when two of its batches are committed.
fn interrupt(case: &Case) {
    let ran = in_tens(case).env("PGRUNG_ABORT_AT", "after commit:2").run();
    ran.aborted();
    case.nothing_left_over("interrupted");
}

/// A load in the middle of which another session runs `sql`.
fn disturbed(case: &Case, sql: &str, flags: &str) -> Ran {
    case.slow_down();
    let mut load = in_tens(case).flags(flags).spawn();
    crate::support::wait_until("a few rows", || load.has_ended() || case.rows() >= 30);
    load.still_runs();
    case.database.run(&sql.replace("{t}", &case.table));
    load.wait()
}

#[test]
fn a_table_truncated_in_the_middle_of_a_load_is_no_success() {
    let database = Database::new();
    for flags in ["", "--no-ledger", "--strategy insert"] {
        let case = Case::new(&database, Input::good(2000));
        let ran = disturbed(&case, "TRUNCATE {t}", flags);
        ran.exits(1)
            .says(&["was truncated while it was loaded", "empty it"]);
        if flags != "--no-ledger" {
            // What the message says leads there.
            case.load().run().exits(6).says(&["--restart"]);
            database.run(&format!("TRUNCATE {}", case.table));
            case.exact("anew", &case.load().arg("--restart").run());
        }
    }
}

#[test]
fn a_table_dropped_and_made_anew_in_the_middle_of_a_load_gets_none_of_its_rows() {
    let database = Database::new();
    for flags in ["", "--strategy insert", "--strategy unnest", "--no-ledger"] {
        let case = Case::new(&database, Input::good(2000));
        let ran = disturbed(&case, REPLACE, flags);
        ran.exits(1).says(&["dropped and made anew"]);
        assert!(flags == "--no-ledger" || case.rows() == 0, "{ran}");
    }
}

#[test]
fn a_partition_truncated_in_the_middle_of_a_load_is_no_success() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(2000));
    let table = &case.table;
    database.run(&format!(
        "DROP TABLE {table}; CREATE TABLE {table} (id bigint, payload text, n int, d date, s text, p int) PARTITION BY HASH (id);
         CREATE TABLE {table}_0 PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
    ));
    disturbed(&case, "TRUNCATE {t}_0", "")
        .exits(1)
        .says(&["was truncated"]);
}

#[test]
fn storage_that_changes_and_keeps_the_rows_is_no_fault() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(2000));
    let ran = disturbed(&case, "VACUUM FULL {t}", "");
    case.survived("VACUUM FULL", &ran);
    case.load()
        .run()
        .exits(0)
        .says(&["nothing is left to load"]);
}

#[test]
fn deleted_rows_are_told() {
    let database = Database::new();
    for (sql, words) in [
        ("DELETE FROM {t} WHERE id < 20", "19 rows of"),
        ("DELETE FROM {t}", "rows of"),
    ] {
        let case = Case::new(&database, Input::good(2000));
        case.slow_down();
        let mut load = in_tens(&case).spawn();
        case.in_mid_load(&mut load, 3);
        // A session that ends tells the statistics at once.
        let sql = sql.replace("{t}", &case.table);
        database.psql().args(["-c", &sql]).run().exits(0);
        let ran = load.wait();
        ran.exits(0)
            .says(&[words, "were deleted while it was loaded"]);
    }
}

/// Rows with rejects among them, which are written behind savepoints.
fn mixed() -> Input {
    let mut fates = vec![Fate::Good; 60];
    // Among the last rows that an interrupted load commits.
    fates[13] = Fate::Bad(Kind::NoNumber);
    fates[38] = Fate::Bad(Kind::Check);
    Input::planned(1, &fates, &mut seeded("standing"))
}

#[test]
fn an_import_goes_on_in_a_table_that_was_rewritten_or_renamed() {
    let database = Database::new();
    for sql in [
        "VACUUM FULL {t}",
        "CREATE INDEX by_id_{t} ON {t} (id); CLUSTER {t} USING by_id_{t}",
        "ALTER TABLE {t} RENAME TO {t}_new",
        "ALTER TABLE {t} RENAME TO {t}_new; VACUUM FULL {t}_new",
    ] {
        for finished in [false, true] {
            let mut case = Case::new(&database, mixed());
            let id = format!("import of {}", case.table);
            let named = |case: &Case, rows| {
                let load = case.load().args(["--import-id", &id]);
                load.flags("-j 1 --batch-rows").arg(rows)
            };
            match finished {
                false => named(&case, "10")
                    .env("PGRUNG_ABORT_AT", "after commit:2")
                    .run()
                    .aborted(),
                // One batch: its span is never compacted.
                true => named(&case, "1000").run().exits(3),
            };
            for sql in sql.split("; ") {
                database.run(&sql.replace("{t}", &case.table));
            }
            if sql.contains("RENAME") {
                case.table += "_new";
            }
            let ran = named(&case, "10").run();
            case.exact(&format!("{sql}, finished: {finished}"), &ran);
        }
    }
}

#[test]
fn an_import_goes_on_in_a_table_that_has_another_schema() {
    let database = Database::new();
    let case = Case::new(&database, mixed());
    interrupt(&case);
    let table = &case.table;
    database.run(&format!(
        "CREATE SCHEMA s; ALTER TABLE {table} SET SCHEMA s"
    ));
    let import = database.one("SELECT import_id FROM pgrung.imports");
    let load = database.load_once(&format!("s.{table}")).arg(&case.file);
    let ran = load.args(["--import-id", &import]).run();
    ran.exits(3);
    assert_eq!((ran.rows("loaded"), ran.rows("already_loaded")), (39, 19));
    assert_eq!(database.count(&format!("s.{table}")), 58);
}

#[test]
fn a_table_emptied_between_two_nights_is_loaded_again() {
    let database = Database::new();
    for (sql, unlogged) in [
        ("TRUNCATE {t}", false),
        ("DELETE FROM {t}", false),
        ("TRUNCATE {t}", true),
    ] {
        let case = Case::with(&database, mixed(), unlogged);
        case.exact("the first night", &in_tens(&case).run());
        case.load()
            .run()
            .exits(3)
            .says(&["nothing is left to load"]);
        database.run(&sql.replace("{t}", &case.table));
        let ran = in_tens(&case).run();
        ran.says(&["was emptied since", "58 rows"]);
        case.exact(sql, &ran);
    }
}

#[test]
fn other_rows_in_an_emptied_table_are_not_taken_for_those_that_were_loaded() {
    let database = Database::new();
    let case = Case::new(&database, mixed());
    in_tens(&case).run().exits(3);
    let table = &case.table;
    database.run(&format!(
        "TRUNCATE {table}; INSERT INTO {table} (id, n) SELECT n, 1 FROM generate_series(1000, 1100) n"
    ));
    in_tens(&case)
        .run()
        .exits(6)
        .says(&["truncated or rewritten since"]);
}

fn as_loader(database: &Arc<Database>, case: &Case) -> Cmd {
    database.run(&format!(
        "GRANT USAGE ON SCHEMA pgrung TO loader; GRANT INSERT ON {} TO loader;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgrung TO loader;
         GRANT SELECT ON parents TO loader",
        case.table
    ));
    in_tens(case)
        .dsn(&database.loader_dsn(PASSWORD))
        .flags("--strategy insert")
}

#[test]
fn a_role_that_may_not_read_is_not_told_that_the_table_is_empty() {
    let database = Database::new();
    database.pgrung("migrate").run().exits(0);
    for policy in [
        "SELECT 1",
        "ALTER TABLE {t} ENABLE ROW LEVEL SECURITY; GRANT SELECT ON {t} TO loader;
         CREATE POLICY all_in ON {t} FOR INSERT TO loader WITH CHECK (true)",
    ] {
        let case = Case::new(&database, mixed());
        database.run(&policy.replace("{t}", &case.table));
        let load = as_loader(&database, &case);
        let ran = load.clone().env("PGRUNG_ABORT_AT", "after commit:2").run();
        ran.aborted();
        case.exact(policy, &load.run());
        load.run().exits(3).says(&["nothing is left to load"]);
        // Of other storage it cannot tell what is in it.
        database.run(&format!("VACUUM FULL {}", case.table));
        load.run().exits(6).says(&["may not read it"]);
        case.load()
            .run()
            .exits(3)
            .says(&["nothing is left to load"]);
        load.run().exits(3).says(&["nothing is left to load"]);
    }
}

#[test]
fn an_interrupted_import_whose_rows_vanished_is_refused() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(50));
    interrupt(&case);
    database.run(&format!("DELETE FROM {}", case.table));
    in_tens(&case)
        .run()
        .exits(6)
        .says(&["was interrupted when 20 rows", "--restart"]);
}

#[test]
fn a_file_of_rejects_that_cannot_be_written_does_not_hide_what_is_committed() {
    for rung in RUNGS {
        let database = Database::with("CREATE TABLE t (id int)");
        let files = Files::new();
        let rows: String = (0..3000).map(|id| format!("{id}\n")).collect();
        let file = files.write("f.csv", format!("id\n{rows}x\n"));
        symlink("/dev/full", files.path("bad.csv")).unwrap();
        let load = database.load_once("t").arg(file).flags(rung);
        let load = load
            .flags("-j 1 --no-ledger --rejects")
            .arg(files.path("bad.csv"));
        let ran = load.run();
        ran.exits(1).says(&["bad.csv"]);
        assert_eq!(ran.committed(), database.count("t"), "{rung}: {ran}");
    }
}

#[test]
fn a_table_that_was_made_unlogged_or_logged_between_two_runs_is_refused() {
    let database = Database::new();
    for (unlogged, sql) in [(false, "SET UNLOGGED"), (true, "SET LOGGED")] {
        let case = Case::with(&database, Input::good(50), unlogged);
        interrupt(&case);
        database.run(&format!("ALTER TABLE {} {sql}", case.table));
        let ran = in_tens(&case).run();
        ran.exits(6).says(&["was made logged or unlogged since"]);
        assert_eq!(case.rows(), 20, "{sql}");
    }
}

#[test]
fn rows_that_a_replay_has_loaded_are_there_after_a_rewrite_too() {
    let database = Database::with("CREATE TABLE t (id int CHECK (id % 3 > 0))");
    let files = Files::new();
    let rows = files.write("rows.csv", "id\n1\n2\n3\n4\n5\n6\n");
    let load = || {
        let load = database.load_once("t").args(["--import-id", "i"]);
        load.arg(&rows).run()
    };
    load().exits(3);
    database.run("ALTER TABLE t DROP CONSTRAINT t_id_check; ALTER TABLE t RENAME TO renamed");
    database.pgrung("replay").arg("i").run().exits(0);
    database.run("ALTER TABLE renamed RENAME TO t");
    database.run("VACUUM FULL t");
    load().exits(0).says(&["nothing is left to load"]);
    assert_eq!(database.count("t"), 6);
}
