//! What is asked of one file touches no other one, and no import hides another.

use super::{database, exits, file, stored};
use crate::support::{Cmd, Database, Files, gzip, times, wait_until};

#[test]
fn restart_loads_what_has_changed_and_never_the_company_it_came_in() {
    let (database, files) = (database(), Files::new());
    let paths = [
        files.write("a.csv", file(1..=1_000)),
        files.write("b.csv", file(1_001..=2_000)),
    ];
    exits(&database, &[&paths[0], &paths[1]], 0);
    files.write("b.csv", file(5_001..=6_000));
    let all = || database.load_once("t").args(&paths);
    all().run().exits(6).says(&["b.csv"]);
    let ran = all().arg("--restart").run();
    ran.exits(0).tells("1,000 inserted + 1,000 already loaded");
    ran.says(&[
        "b.csv: what import",
        "is forgotten, with 1000 rows",
        "a.csv: is as import",
    ]);
    assert_eq!(stored(&database), "3000 3000");
    all()
        .run()
        .exits(0)
        .tells("0 inserted + 2,000 already loaded");
    // As the only input it is what was asked for.
    let alone = database.load_once("t").args([&paths[0], "--restart"]).run();
    alone.exits(0).tells("1,000 read = 1,000 inserted");
    assert_eq!(stored(&database), "4000 3000");
    all()
        .run()
        .exits(0)
        .tells("0 inserted + 2,000 already loaded");
}

#[test]
fn a_file_of_which_no_row_was_loaded_may_be_mended() {
    let (database, files) = (database(), Files::new());
    let good = file(1..=20);
    let path = files.write("f.csv", good.replace("\n0", "\nno number 0"));
    exits(&database, &[&path], 3);
    assert_eq!(stored(&database), "0 0");
    files.write(
        "f.csv",
        good.replace("id,name", "id;name").replace(',', ";"),
    );
    let semicolons = database
        .load_once("t")
        .args([&path, "--delimiter", ";"])
        .run();
    semicolons.exits(0).tells("20 read = 20 inserted");
    // Nothing that was put aside is lost.
    assert_eq!(database.number("SELECT count(*) FROM pgrung.rejects"), 20);
    assert_eq!(stored(&database), "20 20");
    let again = database
        .load_once("t")
        .args([&path, "--delimiter", ";"])
        .run();
    again.exits(0).tells("0 inserted + 20 already loaded");
}

#[test]
fn two_openings_at_once_load_each_file_once() {
    let files = Files::new();
    let paths = [
        files.write("a.csv", file(1..=2_000)),
        files.write("b.csv", file(2_001..=4_000)),
    ];
    let ends = |load: Cmd| load.flags("--batch-rows 100").spawn();
    for round in 0..times(6, 100) {
        let database = database();
        if round % 2 == 1 {
            // The ledger waits for locks and then looks, whatever the server is set to.
            database.run(&format!(
                "ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'",
                database.name
            ));
        }
        database.pgrung("migrate").run().exits(0);
        let one = ends(database.load_once("t").arg(&paths[0]));
        let both = ends(database.load_once("t").args(&paths));
        let (one, both) = (one.wait(), both.wait());
        let codes = [&one, &both].map(|ran| ran.code);
        assert!(
            codes.iter().all(|code| matches!(code, Some(0 | 7))),
            "{one}\n{both}"
        );
        database.load_once("t").args(&paths).run().exits(0);
        assert_eq!(stored(&database), "4000 4000", "{one}\n{both}");
    }
}

#[test]
fn an_import_deleted_by_hand_is_gone_and_its_id_is_free() {
    let (database, files) = (database(), Files::new());
    let path = files.write("f.csv", format!("{}x,y\n", file(1..=20)));
    let load = || {
        database
            .load_once("t")
            .args([&path, "--import-id", "mine"])
            .run()
    };
    load().exits(3);
    database.run("DELETE FROM pgrung.imports; DELETE FROM t");
    assert_eq!(
        database.one("SELECT (SELECT count(*) FROM pgrung.spans) || ' ' || (SELECT count(*) FROM pgrung.rejects)"),
        "0 0"
    );
    load().exits(3).tells("21 read = 20 inserted + 1 rejected");
    assert_eq!(stored(&database), "20 20");
}

#[test]
fn status_counts_a_file_once_in_whatever_company_it_comes() {
    let (database, files) = (database(), Files::new());
    let paths = [
        files.write("a.csv", file(1..=300)),
        files.write("b.csv", file(301..=400)),
    ];
    exits(&database, &[&paths[0]], 0);
    exits(&database, &[&paths[1], &paths[0]], 0);
    let imports = database.pgrung("status --json").run().json();
    let loaded = imports
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["loaded"].as_u64().unwrap());
    assert_eq!(loaded.sum::<u64>(), 400, "{imports}");
}

/// Of two files one was loaded by another import.
#[test]
fn the_command_to_go_on_doubles_no_file_of_another_import() {
    let (database, files) = (database(), Files::new());
    let paths = [
        files.write("a.csv", file(1..=1_000)),
        files.write("b.csv", file(1_001..=2_000)),
    ];
    exits(&database, &[&paths[0]], 0);
    database.run("ALTER TABLE t ADD CHECK (id < 1900)");
    let load = database.load_once("t").args(&paths);
    let load = load.flags("--on-error stop --batch-rows 100 -j 1");
    let ran = load.run();
    ran.exits(1);
    database.run("ALTER TABLE t DROP CONSTRAINT t_id_check");
    assert!(!ran.stderr.contains("--import-id"), "{ran}");
    load.go_on(&ran).exits(0);
    assert_eq!(stored(&database), "2000 2000");
}

#[test]
fn a_file_is_known_under_any_import_id_and_any_name_it_grew_from() {
    let (database, files) = (database(), Files::new());
    let path = files.write("a.csv", file(1..=50));
    exits(&database, &[&path], 0);
    let named = database
        .load_once("t")
        .args([&path, "--import-id", "n"])
        .run();
    named.exits(0).tells("0 inserted + 50 already loaded");
    // Shorter than what a file is looked for by: each growth changes that.
    let copy = files.write("copy.csv", file(1..=50));
    files.write("a.csv", file(1..=60));
    exits(&database, &[&copy, &path], 0).tells("10 inserted + 100 already loaded");
    assert_eq!(stored(&database), "60 60");
}

#[test]
fn restart_forgets_nothing_of_a_file_that_cannot_be_read() {
    let (database, files) = (database(), Files::new());
    let plain = files.write("a.csv", file(1..=50));
    let packed = gzip(file(1_001..=100_000).as_bytes());
    let path = files.write("z.csv.gz", &packed);
    exits(&database, &[&plain, &path], 0);
    files.write("z.csv.gz", &packed[..packed.len() / 2]);
    let load = database.load_once("t").args([&plain, &path]);
    load.flags("--restart").run().exits(6);
    files.write("z.csv.gz", &packed);
    exits(&database, &[&plain, &path], 0).tells("0 inserted + 99,050 already loaded");
}

/// The same bytes with the columns the other way round, while the first run has committed nothing.
#[test]
fn a_run_of_other_columns_stops_the_one_that_is_at_the_same_file() {
    let database = Database::with("CREATE TABLE t (id int, other int)");
    database.slow_down("t", 1_000);
    let files = Files::new();
    let lines: Vec<String> = (1..=50).map(|id| format!("{id},{id}\n")).collect();
    let path = files.write("p.csv", lines.concat());
    let load = |columns| {
        let load = database
            .load_once("t")
            .args([&path, "--no-header", "--columns", columns]);
        load.flags("-j 1 --batch-rows 10")
    };
    let first = load("id,other").spawn();
    wait_until("the first batch is under way", || {
        database.loaders("wait_event = 'PgSleep'") > 0
    });
    let second = load("other,id").run();
    // At most one of them has the file, and then all of it; the other one knows why not.
    let ends = [&first.wait(), &second].map(|ran| ran.code);
    let [loaded, refused, overtaken] = [Some(0), Some(6), Some(7)];
    let is_told = |code| [loaded, refused, overtaken].contains(code);
    assert!(ends.iter().all(is_told), "{ends:?}: {second}");
    assert!(ends != [loaded, loaded], "{second}");
    let (stored, keys) = (
        database.count("t"),
        database.number("SELECT count(DISTINCT id) FROM t"),
    );
    assert_eq!(stored.cast_signed(), keys, "{ends:?}: {second}");
    assert_eq!(stored == 50, ends.contains(&loaded), "{ends:?}: {second}");
}

#[test]
fn an_import_id_takes_no_file_of_other_columns_and_none_for_another_table() {
    let (database, files) = (database(), Files::new());
    database.run("CREATE TABLE u (id int, name text)");
    let first = files.write("a.csv", file(1..=5));
    let turned = files.write("b.csv", "name,id\nx,6\n");
    let other = files.write("c.csv", file(7..=9));
    let load = |table, path: &String| {
        let load = database.load_once(table).args([path, "--import-id", "n"]);
        load.run()
    };
    load("t", &first).exits(0);
    for (table, path) in [("t", &turned), ("u", &other)] {
        let ran = load(table, path);
        ran.exits(6).says(&["import n is there already, but"]);
    }
    load("t", &other).exits(0);
    assert_eq!(stored(&database), "8 8");
    assert_eq!(database.count("u"), 0);
}
