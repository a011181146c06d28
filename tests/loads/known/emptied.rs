//! Tables that were emptied, renamed or made anew between two runs.

use super::{database, exits, file, stored};
use crate::support::Files;

#[test]
fn what_a_truncated_table_had_of_other_files_of_an_import_is_forgotten_too() {
    let (database, files) = (database(), Files::new());
    let paths = [
        files.write("a.csv", file(1..=50)),
        files.write("b.csv", file(51..=100)),
    ];
    for id in [&[][..], &["--import-id", "n"]] {
        database.load_once("t").args(&paths).args(id).run().exits(0);
        database.run("TRUNCATE t");
        let again = database.load_once("t").arg(&paths[0]).args(id).run();
        again.exits(0).says(&["was emptied since"]);
        exits(&database, &[&paths[1]], 0).tells("50 read = 50 inserted");
        assert_eq!(stored(&database), "100 100");
        database.run("TRUNCATE t; DROP SCHEMA pgrung CASCADE");
    }
}

#[test]
fn other_rows_in_a_truncated_table_are_no_proof_for_an_interrupted_import() {
    let (database, files) = (database(), Files::new());
    let path = files.write("a.csv", file(1..=50));
    let load = database
        .load_once("t")
        .arg(&path)
        .flags("-j 1 --batch-rows 10");
    load.env("PGRUNG_ABORT_AT", "after commit:2")
        .run()
        .aborted();
    database.run("TRUNCATE t");
    let other = files.write("o.csv", file(1_001..=1_060));
    exits(&database, &[&other], 0);
    exits(&database, &[&path], 6).says(&["truncated or rewritten"]);
    assert_eq!(stored(&database), "60 60");
}

#[test]
fn a_table_that_was_renamed_away_keeps_its_import() {
    let (database, files) = (database(), Files::new());
    let path = files.write("a.csv", file(1..=50));
    exits(&database, &[&path], 0);
    database.run("ALTER TABLE t RENAME TO t_old; CREATE TABLE t (id int, name text)");
    exits(&database, &[&path], 0).tells("50 read = 50 inserted");
    let old = database.load_once("t_old").arg(&path).run();
    old.exits(0).tells("0 inserted + 50 already loaded");
}

#[test]
fn a_staging_table_that_was_emptied_is_filled_again_by_one_command_a_file() {
    let (database, files) = (database(), Files::new());
    let parts = [
        files.write("a.csv", file(1..=50)),
        files.write("b.csv", file(51..=100)),
    ];
    for night in [
        "SELECT 1",
        "TRUNCATE t",
        "DROP TABLE t; CREATE TABLE t (id int, name text)",
    ] {
        database.run(night);
        for part in &parts {
            exits(&database, &[part], 0);
        }
        assert_eq!(stored(&database), "100 100", "{night}");
    }
}

/// What was put aside of the other file of the import is put aside once when that comes again.
#[test]
fn a_reject_of_a_file_that_comes_again_after_its_table_was_emptied_is_one_reject() {
    let (database, files) = (database(), Files::new());
    let paths = [
        files.write("a.csv", file(1..=50)),
        files.write("b.csv", format!("{}x,y\n", file(51..=100))),
    ];
    let load = |paths: &[String]| {
        let load = database.load_once("t").args(paths);
        load.args(["--import-id", "n"]).run()
    };
    load(&paths).exits(3);
    database.run("TRUNCATE t");
    load(&paths[..1]).exits(0).says(&["was emptied since"]);
    load(&paths[1..])
        .exits(3)
        .tells("51 read = 50 inserted + 1 rejected");
    assert_eq!(database.count("pgrung.rejects"), 1);
    assert_eq!(stored(&database), "100 100");
}
