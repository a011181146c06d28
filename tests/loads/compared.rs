//! What is called already loaded was compared in full, and what is asked of one file touches no
//! other one.

use std::fs;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::support::{
    Cmd, Database, Files, Ran, Running, gzip, names_in, seeded, times, wait_until,
};

/// A file of rows that are all of one length.
fn file(ids: RangeInclusive<u32>) -> String {
    let lines: Vec<String> = ids.map(|id| format!("{id:07},name {id:07}\n")).collect();
    format!("id,name\n{}", lines.concat())
}

fn database() -> Arc<Database> {
    Database::with("CREATE TABLE t (id int, name text)")
}

/// Rows and distinct ids in the table.
fn stored(database: &Database) -> String {
    database.one("SELECT count(*) || ' ' || count(DISTINCT id) FROM t")
}

#[track_caller]
fn exits(database: &Database, files: &[&String], code: i32) -> Ran {
    let ran = database.load_once("t").args(files).run();
    ran.exits(code);
    ran
}

#[test]
fn a_corrected_file_of_the_same_size_is_refused_with_its_place() {
    let mut random = seeded("corrected");
    let (database, files) = (database(), Files::new());
    let path = files.write("f.csv", file(1..=100_000));
    let load = || {
        database
            .load_once("t")
            .arg(&path)
            .flags("--batch-rows 10000 -j 2")
    };
    load().run().exits(0);
    load()
        .run()
        .exits(0)
        .tells("0 loaded + 100,000 already loaded");
    for _ in 0..times(6, 100) {
        let id = random.u32(1..=100_000);
        let changed = file(1..=100_000).replace(&format!("name {id:07}"), &format!("NAME {id:07}"));
        files.write("f.csv", changed);
        let ran = load().run();
        ran.exits(6).says(&["f.csv", "--restart"]);
        let words = ran.stderr.split_once("records ").unwrap().1;
        let (first, rest) = words.split_once(" to ").unwrap();
        let (last, _) = rest.split_once(' ').unwrap();
        let (first, last): (u32, u32) = (first.parse().unwrap(), last.parse().unwrap());
        assert!((first..=last).contains(&id), "{id}: {ran}");
    }
    assert_eq!(stored(&database), "100000 100000");
}

#[test]
fn a_record_corrected_in_what_an_unfinished_import_has_loaded_is_refused() {
    let (database, files) = (database(), Files::new());
    let path = files.write("f.csv", file(1..=60_000));
    let load = database
        .load_once("t")
        .arg(&path)
        .flags("-j 1 --batch-rows 10000");
    load.clone()
        .env("PGRUNG_ABORT_AT", "after commit:5")
        .run()
        .aborted();
    files.write(
        "f.csv",
        file(1..=60_000).replace("name 0044444", "NAME 0044444"),
    );
    load.run().exits(6).says(&["records 40001 to 50000 "]);
    files.write("f.csv", file(1..=60_000));
    load.run()
        .exits(0)
        .tells("10,000 loaded + 50,000 already loaded");
    assert_eq!(stored(&database), "60000 60000");
}

#[test]
fn a_packed_copy_of_a_plain_file_is_the_same_content_and_the_reverse() {
    for reverse in [false, true] {
        let (database, files) = (database(), Files::new());
        let text = file(1..=30_000);
        let plain = files.write("f.csv", &text);
        let packed = files.write("f.csv.gz", gzip(text.as_bytes()));
        let (first, second) = match reverse {
            false => (&plain, &packed),
            true => (&packed, &plain),
        };
        exits(&database, &[first], 0);
        exits(&database, &[second], 0).tells("0 loaded + 30,000 already loaded");
        exits(&database, &[second, first], 0).tells("0 loaded + 30,000 already loaded");
        let fresh = files.write("fresh.csv.gz", gzip(file(30_001..=40_000).as_bytes()));
        let unpacked = files.write("unpacked.csv", file(30_001..=40_000));
        exits(&database, &[&fresh, first, &unpacked], 0).says(&["has the same content"]);
        assert_eq!(stored(&database), "40000 40000");
    }
}

#[test]
fn other_rows_of_the_same_length_in_a_file_on_stdin_are_refused() {
    let (database, files) = (database(), Files::new());
    let first = files.write("day1.csv", file(1..=50_000));
    let second = files.write("day2.csv", file(50_001..=100_000));
    let load = |path: &String| {
        let load = database
            .load_once("t")
            .flags("- --import-id nightly --batch-rows 10000");
        load.stdin(path.as_ref()).run()
    };
    load(&first).exits(0);
    load(&first)
        .exits(0)
        .tells("0 loaded + 50,000 already loaded");
    load(&second).exits(6).says(&["stdin", "records 1 to"]);
    assert_eq!(stored(&database), "50000 50000");
}

/// A load of `path` that is in its midst, with far more before it than it holds in memory.
fn in_its_midst(database: &Database, path: &str) -> Running {
    database.slow_down("t", 5);
    let load = database.load_once("t").arg(path);
    let running = load.flags("-j 1 --batch-rows 500 --queue 1").spawn();
    wait_until("some batches", || database.count("t") > 2_000);
    running
}

#[test]
fn a_file_cut_while_it_is_read_is_not_finished_and_goes_on_when_it_is_whole() {
    let (database, files) = (database(), Files::new());
    let text = file(1..=200_000);
    for cut in [text.len() / 2, text.len() / 2 + 5] {
        database.run("TRUNCATE t; DROP SCHEMA IF EXISTS pgrung CASCADE");
        let path = files.write("f.csv", &text);
        let running = in_its_midst(&database, &path);
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(cut as u64)
            .unwrap();
        database.run("DROP TRIGGER slow ON t");
        running
            .wait()
            .exits(6)
            .says(&["f.csv", "while it was read"]);
        let rows = database.count("t");
        assert!(rows < 110_000, "{rows}");
        files.write("f.csv", &text);
        exits(&database, &[&path], 0);
        assert_eq!(stored(&database), "200000 200000");
    }
}

#[test]
fn a_file_rewritten_while_it_is_read_is_not_finished() {
    let (database, files) = (database(), Files::new());
    let path = files.write("f.csv", file(1..=200_000));
    let running = in_its_midst(&database, &path);
    files.write("f.csv", file(200_001..=400_000));
    database.run("DROP TRIGGER slow ON t");
    running.wait().exits(6);
    exits(&database, &[&path], 6).says(&["records 1 to"]);
}

/// The commonest night: three files of which one was still being uploaded.
#[test]
fn a_half_uploaded_file_goes_on_when_it_is_whole_and_the_others_stay_as_they_are() {
    let mut random = seeded("half uploaded");
    for _ in 0..times(8, 200) {
        let (database, files) = (database(), Files::new());
        let whole = file(1_001..=2_000);
        let cut = random.usize("id,name\n".len()..whole.len());
        let paths = [
            files.write("a.csv", file(1..=1_000)),
            files.write("b.csv", &whole[..cut]),
            files.write("c.csv", file(2_001..=3_000)),
        ];
        let all = [&paths[0], &paths[1], &paths[2]];
        let first = database.load_once("t").args(all).run();
        let in_last_field = whole[..cut].rsplit('\n').next().unwrap().contains(',');
        let at_record = whole[..cut].ends_with('\n');
        first.exits(if at_record || in_last_field { 0 } else { 6 });
        files.write("b.csv", &whole);
        let again = database.load_once("t").args(all).run();
        // A record that looked whole was loaded as it stood: only its owner knows what to do.
        let goes_on = at_record || !in_last_field || whole[cut..].starts_with('\n');
        if goes_on {
            again.exits(0);
            assert_eq!(stored(&database), "3000 3000", "cut at {cut}: {again}");
        } else {
            again
                .exits(6)
                .says(&["b.csv", "last record goes on", "--restart"]);
        }
        assert_eq!(
            database.number("SELECT count(*) FROM t WHERE id <= 1000 OR id > 2000"),
            2_000
        );
    }
}

#[test]
fn what_ends_in_the_middle_of_a_record_as_far_as_it_shows_is_not_finished() {
    let (database, files) = (database(), Files::new());
    for (name, text, whole) in [
        ("a.csv", "id,name\n1,a\n2", ",b\n"),
        ("b.csv", "id,name\r\n3,a\r\n4", ",b\r\n"),
        ("c.csv", "id,name\r\n5,a\r\n6,b\r", "\n"),
        (
            "d.ndjson",
            "{\"id\":7,\"name\":\"a\"}\n{\"id\":8,\"na",
            "me\":\"b\"}\n",
        ),
        ("e.csv", "id,name\n9,a\n10,\"b", "\"\n"),
    ] {
        let path = files.write(name, text);
        let cut = database.load_once("t").arg(&path).run();
        cut.exits(6).says(&[name]);
        files.write(name, format!("{text}{whole}"));
        exits(&database, &[&path], 0);
        assert_eq!(
            database.number("SELECT count(*) FROM t WHERE name = 'a'"),
            1,
            "{name}"
        );
        assert_eq!(
            database.number("SELECT count(*) FROM t WHERE name = 'b'"),
            1,
            "{name}"
        );
        database.run("TRUNCATE t; DROP SCHEMA pgrung CASCADE");
    }
}

/// Of one column: there a blank line is a record.
#[test]
fn a_last_record_that_only_lacked_its_line_break_was_whole() {
    let (database, files) = (Database::with("CREATE TABLE t (id text)"), Files::new());
    for (first, then) in [
        ("id\na", "\nb\n"),
        ("id\r\na", "\r\nb\r\n"),
        ("id\na", "\n\n"),
    ] {
        let path = files.write("f.csv", first);
        exits(&database, &[&path], 0);
        files.write("f.csv", format!("{first}{then}"));
        exits(&database, &[&path], 0).tells("1 loaded + 1 already loaded");
        exits(&database, &[&path], 0).tells("0 loaded + 2 already loaded");
        database.run("TRUNCATE t; DROP SCHEMA pgrung CASCADE");
    }
}

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
    ran.exits(0).tells("1,000 loaded + 1,000 already loaded");
    ran.says(&[
        "b.csv: what import",
        "is forgotten, with 1000 rows",
        "a.csv: is as import",
    ]);
    assert_eq!(stored(&database), "3000 3000");
    all()
        .run()
        .exits(0)
        .tells("0 loaded + 2,000 already loaded");
    // As the only input it is what was asked for.
    let alone = database.load_once("t").args([&paths[0], "--restart"]).run();
    alone.exits(0).tells("1,000 read = 1,000 loaded");
    assert_eq!(stored(&database), "4000 3000");
    all()
        .run()
        .exits(0)
        .tells("0 loaded + 2,000 already loaded");
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
    semicolons.exits(0).tells("20 read = 20 loaded");
    // Nothing that was put aside is lost.
    assert_eq!(database.number("SELECT count(*) FROM pgrung.rejects"), 20);
    assert_eq!(stored(&database), "20 20");
    let again = database
        .load_once("t")
        .args([&path, "--delimiter", ";"])
        .run();
    again.exits(0).tells("0 loaded + 20 already loaded");
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
    load().exits(3).tells("21 read = 20 loaded + 1 rejected");
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

/// Batches of a killed run wait on disk; meanwhile the file is loaded in batches of another size.
#[test]
fn batches_left_on_disk_are_loaded_whatever_another_run_has_loaded_of_them() {
    for abort in [None, Some("after commit:2"), Some("after commit:5")] {
        let (database, files) = (database(), Files::new());
        database.run("CREATE TABLE other (id int, name text)");
        database.slow_down("t", 100);
        let dir = files.tmpdir("spill");
        let path = files.write("f.csv", file(1..=1_000));
        let spilling = || database.load_once("t").arg(&path).spill_to(&dir);
        let first = spilling().flags("-j 1 --queue 1 --batch-rows 20");
        let mut running = first.with_figures("50ms").spawn();
        running.wait_for("pgrung_spill_batches", 30.0);
        assert_eq!(running.kill().signal, Some(9));
        database.run("DROP TRIGGER slow ON t");
        let other = database
            .load_once("t")
            .arg(&path)
            .flags("-j 1 --batch-rows 33");
        match abort {
            None => drop(other.run().exits(0)),
            Some(abort) => drop(other.env("PGRUNG_ABORT_AT", abort).run().aborted()),
        }
        // Whoever comes with that directory finds them, also on the way to another table.
        let fresh = files.write("fresh.csv", file(1..=10));
        let elsewhere = database.load_once("other").arg(&fresh).spill_to(&dir).run();
        elsewhere.exits(0);
        spilling().run().exits(0);
        assert_eq!(stored(&database), "1000 1000", "{abort:?}");
    }
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
    named.exits(0).tells("0 loaded + 50 already loaded");
    // Shorter than what a file is looked for by: each growth changes that.
    let copy = files.write("copy.csv", file(1..=50));
    files.write("a.csv", file(1..=60));
    exits(&database, &[&copy, &path], 0).tells("10 loaded + 100 already loaded");
    assert_eq!(stored(&database), "60 60");
}

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
        exits(&database, &[&paths[1]], 0).tells("50 read = 50 loaded");
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
    exits(&database, &[&path], 0).tells("50 read = 50 loaded");
    let old = database.load_once("t_old").arg(&path).run();
    old.exits(0).tells("0 loaded + 50 already loaded");
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
    exits(&database, &[&plain, &path], 0).tells("0 loaded + 99,050 already loaded");
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
    let stored = database.one("SELECT count(*) || ' ' || (count(*) - count(DISTINCT id)) FROM t");
    let all = if ends.contains(&loaded) { 50 } else { 10 };
    assert_eq!(stored, format!("{all} 0"), "{ends:?}: {second}");
}

#[test]
fn logs_that_are_rotated_are_known_under_their_new_names() {
    let (database, files) = (database(), Files::new());
    let log = |name: &str, ids| files.write(name, file(ids));
    let first = [log("l.csv", 1..=50)];
    exits(&database, &first.each_ref(), 0);
    let second = [log("l.csv.1", 1..=50), log("l.csv", 51..=90)];
    exits(&database, &second.each_ref(), 0);
    assert_eq!(stored(&database), "90 90");
    let third = [
        log("l.csv.2", 1..=50),
        log("l.csv.1", 51..=90),
        log("l.csv", 91..=95),
    ];
    for flags in ["", "--restart"] {
        let load = database.load_once("t").args(&third).flags("--format csv");
        load.flags(flags).run().exits(0);
        assert_eq!(stored(&database), "95 95", "{flags}");
    }
    log("l.csv", 91..=99);
    exits(&database, &[&third[2]], 0);
    assert_eq!(stored(&database), "99 99");
    // It is written to once more before it is renamed.
    let fourth = [log("l.csv.1", 91..=150), log("l.csv", 151..=160)];
    for _ in 0..2 {
        exits(&database, &fourth.each_ref(), 0);
        assert_eq!(stored(&database), "160 160");
    }
}

/// What is known of a table that was dropped is no proof of what is in the one made anew.
#[test]
fn logs_that_are_rotated_beside_a_table_that_is_made_anew_are_loaded_once() {
    let (database, files) = (database(), Files::new());
    let log = |name: &str, ids| files.write(name, file(ids));
    let old = [log("l.csv.1", 1..=400), log("l.csv", 2001..=2400)];
    exits(&database, &old.each_ref(), 0);
    database.run("DROP TABLE t; CREATE TABLE t (id int, name text)");
    fs::remove_file(&old[0]).unwrap();
    log("l.csv", 1..=5);
    exits(&database, &[&old[1]], 0);
    let new = [log("l.csv.1", 1..=400), log("l.csv", 2001..=2005)];
    for _ in 0..2 {
        exits(&database, &new.each_ref(), 0);
        assert_eq!(stored(&database), "405 405");
    }
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

/// Whichever run comes first after others were fenced off from a source, it is the newest.
#[test]
fn a_run_that_fences_others_off_stays_the_newest_itself() {
    let (database, files) = (database(), Files::new());
    let log = |name: &str, ids| files.write(name, file(ids));
    let first = log("l.csv", 1..=5);
    exits(&database, &[&first], 0);
    let both = [log("l.csv", 6..=10), log("l.csv.1", 1..=5)];
    exits(&database, &both.each_ref(), 0);
    database.run("DROP TABLE t; CREATE TABLE t (id int, name text)");
    fs::remove_file(&both[1]).unwrap();
    for ids in [1..=5, 1..=400] {
        log("l.csv", ids);
        exits(&database, &[&first], 0);
    }
    let both = [log("l.csv", 6..=10), log("l.csv.1", 1..=400)];
    for _ in 0..2 {
        exits(&database, &both.each_ref(), 0);
    }
    assert_eq!(database.one("SELECT count(*) FROM t"), "405");
}

/// Without another input that has its rows, nobody knows where they went.
#[test]
fn a_file_overwritten_with_other_rows_is_refused() {
    let (database, files) = (database(), Files::new());
    let path = files.write("l.csv", file(1..=50));
    exits(&database, &[&path], 0);
    let other = files.write("m.csv", file(100..=120));
    files.write("l.csv", file(51..=90));
    exits(&database, &[&path, &other], 6).says(&["l.csv", "--restart"]);
    assert_eq!(stored(&database), "50 50");
}

/// Kills a load of `files` while most of what it has read is on disk.
fn killed_while_spilled(database: &Database, files: &[&String], dir: &str) {
    let lock = "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END';
                CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION wait()";
    database.run(lock);
    let session = database.session();
    session.run("SELECT pg_advisory_lock(7)");
    let load = database.load_once("t").args(files);
    let load = load.flags("-j 1 --queue 1 --batch-rows 50 --overflow spill");
    let mut running = load.args(["--spill-dir", dir]).spawn();
    running.wait_to_say("batches go to disk");
    std::thread::sleep(std::time::Duration::from_millis(500));
    running.kill();
    session.run("SELECT pg_advisory_unlock(7)");
    wait_until("the server notices", || database.loaders("true") == 0);
    database.run("DROP TRIGGER wait ON t; DROP FUNCTION wait");
}

#[test]
fn batches_on_disk_of_a_file_that_was_loaded_under_another_name_are_refused() {
    let (database, files) = (database(), Files::new());
    let path = files.write("b.csv", file(1..=1000));
    let dir = files.path("spill").display().to_string();
    killed_while_spilled(&database, &[&path], &dir);
    fs::rename(&path, files.path("c.csv")).unwrap();
    let path = files.path("c.csv").display().to_string();
    exits(&database, &[&path], 0);
    let load = database.load_once("t").args(["--spill-dir", &dir]);
    let ran = load.flags("--overflow spill").arg(&path).run();
    ran.exits(6).says(&["b.csv", "c.csv", "remove the files"]);
    assert_eq!(stored(&database), "1000 1000");
}

#[test]
fn batches_on_disk_of_a_file_that_was_restarted_are_forgotten_with_it() {
    for company in [false, true] {
        let (database, files) = (database(), Files::new());
        let mut paths = vec![files.write("b.csv", file(1..=1000))];
        if company {
            paths.insert(0, files.write("a.csv", file(1001..=1100)));
        }
        let dir = files.path("spill").display().to_string();
        killed_while_spilled(&database, &paths.iter().collect::<Vec<_>>(), &dir);
        let restart = database.load_once("t").flags("--restart");
        restart.arg(&paths[paths.len() - 1]).run().exits(0);
        let load = database.load_once("t").args(["--spill-dir", &dir]);
        let ran = load.flags("--overflow spill").args(&paths).run();
        ran.exits(0).says(&["forgotten", "--restart"]);
        let rows = if company { "1100 1100" } else { "1000 1000" };
        assert_eq!(stored(&database), rows, "{ran}");
        // Nothing but the import itself tells that the files are of this database.
        let left = fs::read_dir(&dir).unwrap().count();
        assert_eq!(left == 0, company, "{ran}");
    }
}

#[test]
fn stdin_cut_within_a_record_goes_on_when_it_is_sent_whole() {
    let (database, files) = (database(), Files::new());
    let whole = file(1..=500);
    files.write("part", &whole[..8 + 21 * 300 + 3]);
    files.write("whole", &whole);
    let load = |name: &str| {
        let load = database.load_once("t").args(["-", "--import-id", "s"]);
        load.stdin(&files.path(name)).run()
    };
    load("part").exits(6).says(&["record 301", "in the middle"]);
    load("whole").exits(0);
    assert_eq!(stored(&database), "500 500");
}

#[test]
fn a_known_file_whose_header_names_its_columns_otherwise_is_refused() {
    let database = Database::with("CREATE TABLE t (id int, other int)");
    let files = Files::new();
    let first = files.write("a.csv", "id,other\n1,2\n");
    let second = files.write("b.csv", "id,other\n3,4\n");
    exits(&database, &[&first, &second], 0);
    // The same rows, at the same bytes.
    files.write("b.csv", "other,id\n3,4\n");
    exits(&database, &[&first, &second], 6).says(&["b.csv", "header"]);
    assert_eq!(database.rows("t"), ["1|2", "3|4"]);
}

#[test]
fn rows_that_a_trigger_has_moved_elsewhere_are_not_loaded_again_from_a_changed_file() {
    let (database, files) = (database(), Files::new());
    database.run(
        "CREATE TABLE kept (LIKE t);
         CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN INSERT INTO kept SELECT NEW.*; RETURN NULL; END';
         CREATE TRIGGER move BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION move()",
    );
    let path = files.write("f.csv", file(1..=20));
    exits(&database, &[&path], 3).tells("20 kept out by a trigger");
    files.write(
        "f.csv",
        file(1..=20).replace("name 0000007", "NAME 0000007"),
    );
    exits(&database, &[&path], 6).says(&["records 1 to 20 "]);
    assert_eq!(database.count("kept"), 20);
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
        .tells("51 read = 50 loaded + 1 rejected");
    assert_eq!(database.count("pgrung.rejects"), 1);
    assert_eq!(stored(&database), "100 100");
}

/// Batches of a killed run wait on disk; meanwhile the file changes and is loaded in part.
#[test]
fn batches_left_on_disk_that_differ_from_what_was_loaded_in_their_place_stay_there() {
    for (rows, abort) in [(20, "after commit:40"), (10, "after commit:80")] {
        let (database, files) = (database(), Files::new());
        database.slow_down("t", 100);
        let dir = files.tmpdir("spill");
        let path = files.write("f.csv", file(1..=1_000));
        let load = database.load_once("t").arg(&path).flags("-j 1");
        let spilling = load.clone().spill_to(&dir);
        let first = spilling.clone().flags("--queue 1 --batch-rows 20");
        let mut running = first.with_figures("50ms").spawn();
        running.wait_for("pgrung_spill_batches", 30.0);
        assert_eq!(running.kill().signal, Some(9));
        database.run("DROP TRIGGER slow ON t");
        let changed = file(1..=1_000).replace("name 0000700", "NAME 0000700");
        files.write("f.csv", changed);
        let other = load.flags("--batch-rows").arg(rows.to_string());
        other.env("PGRUNG_ABORT_AT", abort).run().aborted();
        let left = names_in(&dir);
        let loaded = stored(&database);
        let ran = spilling.run();
        ran.exits(6).says(&["the ledger has another span"]);
        assert_eq!(names_in(&dir), left);
        assert_eq!(stored(&database), loaded, "{rows} rows a batch");
    }
}

/// By its beginning a file is looked for; what it is, all of it says.
#[test]
fn files_that_only_begin_alike_are_all_loaded() {
    let (database, files) = (database(), Files::new());
    let begun = file(1..=5_000);
    let line = |id: u32| format!("{id:07},name {id:07}\n");
    let longer = files.write("longer.csv", begun.clone() + &line(5_001));
    let other = files.write("other.csv", begun.replace(&line(5_000), &line(5_002)));
    let first = files.write("first.csv", begun);
    exits(&database, &[&first, &longer, &other], 0).tells("15,001 read = 15,001 loaded");
    assert_eq!(stored(&database), "15001 5002");
}

#[test]
fn of_two_files_that_go_on_behind_what_is_loaded_of_one_each_is_loaded_once() {
    let (database, files) = (database(), Files::new());
    let whole = file(1..=5_000);
    let path = files.write("f.csv", &whole);
    let load = |paths: &[&String]| {
        let load = database.load_once("t").args(paths);
        load.flags("-j 1 --batch-rows 1000")
    };
    let killed = load(&[&path]).env("PGRUNG_ABORT_AT", "after commit:4");
    killed.run().aborted();
    let other = files.write("other.csv", whole.replace("name 0005000", "NAME 0005000"));
    let ran = load(&[&other, &path]).run();
    ran.exits(0).tells("6,000 loaded + 4,000 already loaded");
    assert_eq!(stored(&database), "10000 5000");
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

#[test]
fn a_limit_counts_what_is_loaded_already() {
    let (database, files) = (database(), Files::new());
    let paths = [
        files.write("a.csv", file(1..=50)),
        files.write("b.csv", file(51..=200)),
    ];
    exits(&database, &[&paths[0]], 0);
    let load = || database.load_once("t").args(&paths);
    let some = load().flags("--limit 60").run();
    some.exits(0).tells("10 loaded + 50 already loaded");
    load()
        .run()
        .exits(0)
        .tells("140 loaded + 60 already loaded");
    assert_eq!(stored(&database), "200 200");
}

/// What a record is depends on how many columns there are, in each of the files.
#[test]
fn of_one_column_a_blank_line_is_a_record_in_every_file() {
    let (database, files) = (Database::with("CREATE TABLE t (id text)"), Files::new());
    let paths = [
        files.write("a.csv", "id\na\n\n"),
        files.write("b.csv", "id\nb\n\nc\n"),
    ];
    exits(&database, &[&paths[0], &paths[1]], 0).tells("5 read = 5 loaded");
}

#[test]
fn spans_of_files_of_one_import_are_merged_each_with_its_own() {
    let (database, files) = (database(), Files::new());
    let paths = [
        files.write("a.csv", file(1..=40)),
        files.write("b.csv", file(41..=80)),
    ];
    let load = || database.load_once("t").args(&paths);
    load().flags("--batch-rows 10 -j 2").run().exits(0);
    let spans =
        "SELECT string_agg(source || ' ' || records, ', ' ORDER BY source) FROM pgrung.spans";
    assert_eq!(database.one(spans), "0 40, 1 40");
    load().run().exits(0).tells("0 loaded + 80 already loaded");
}

/// A pgrung of before the checksums has kept none.
#[test]
fn a_stretch_without_a_checksum_proves_nothing() {
    let (database, files) = (database(), Files::new());
    let path = files.write("f.csv", file(1..=40));
    exits(&database, &[&path], 0);
    database.run("UPDATE pgrung.spans SET checksum = NULL");
    exits(&database, &[&path], 6).says(&["records 1 to 40 ", "--restart"]);
    assert_eq!(stored(&database), "40 40");
}
