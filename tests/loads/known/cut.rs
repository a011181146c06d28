//! Files and pipes that end too early, or change while they are read.

use std::fs;

use super::{database, exits, file, stored};
use crate::support::{Database, Files, Running, seeded, times, wait_until};

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
        exits(&database, &[&path], 0).tells("1 inserted + 1 already loaded");
        exits(&database, &[&path], 0).tells("0 inserted + 2 already loaded");
        database.run("TRUNCATE t; DROP SCHEMA pgrung CASCADE");
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
    ran.exits(0).tells("6,000 inserted + 4,000 already loaded");
    assert_eq!(stored(&database), "10000 5000");
}
