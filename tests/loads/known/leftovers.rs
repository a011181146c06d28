//! Batches that a killed run left on disk.

use std::fs;

use super::{database, exits, file, stored};
use crate::support::{Database, Files, names_in, wait_until};

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
