//! What is called already loaded was compared in full.

use super::{database, exits, file, stored};
use crate::support::{Database, Files, gzip, seeded, times};

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
        .tells("0 inserted + 100,000 already loaded");
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
        .tells("10,000 inserted + 50,000 already loaded");
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
        exits(&database, &[second], 0).tells("0 inserted + 30,000 already loaded");
        exits(&database, &[second, first], 0).tells("0 inserted + 30,000 already loaded");
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
        .tells("0 inserted + 50,000 already loaded");
    load(&second).exits(6).says(&["stdin", "records 1 to"]);
    assert_eq!(stored(&database), "50000 50000");
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

/// By its beginning a file is looked for; what it is, all of it says.
#[test]
fn files_that_only_begin_alike_are_all_loaded() {
    let (database, files) = (database(), Files::new());
    let begun = file(1..=5_000);
    let line = |id: u32| format!("{id:07},name {id:07}\n");
    let longer = files.write("longer.csv", begun.clone() + &line(5_001));
    let other = files.write("other.csv", begun.replace(&line(5_000), &line(5_002)));
    let first = files.write("first.csv", begun);
    exits(&database, &[&first, &longer, &other], 0).tells("15,001 read = 15,001 inserted");
    assert_eq!(stored(&database), "15001 5002");
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
    some.exits(0).tells("10 inserted + 50 already loaded");
    load()
        .run()
        .exits(0)
        .tells("140 inserted + 60 already loaded");
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
    exits(&database, &[&paths[0], &paths[1]], 0).tells("5 read = 5 inserted");
}

#[test]
fn spans_of_files_of_one_import_are_compacted_each_with_its_own() {
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
    load()
        .run()
        .exits(0)
        .tells("0 inserted + 80 already loaded");
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
