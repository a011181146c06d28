//! Files that took the name of others.

use std::fs;

use super::{database, exits, file, stored};
use crate::support::Files;

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
