//! Who holds what an import needs: an older run of it is ended, nobody else is.

use nix::sys::signal::Signal;

use crate::support::{Case, Database, Input, Ran, wait_until};

/// A case of which the first rows are committed.
fn begun(database: &std::sync::Arc<Database>) -> Case {
    let case = Case::new(database, Input::good(300));
    let ran = case.load().flags("--limit 100").run();
    ran.exits(0);
    case
}

fn is_whole(case: &Case, last: &Ran) {
    last.exits(0);
    case.exact("at the end", last);
}

#[test]
fn a_session_that_is_no_loaders_is_named_and_waited_for_and_not_ended() {
    let database = Database::new();
    let case = begun(&database);
    for (name, sql) in [
        ("psql", "SELECT FROM pgrung.imports FOR UPDATE"),
        // A name proves nothing.
        ("pgrung", "LOCK TABLE pgrung.sources IN SHARE MODE"),
        // Nor does a lock that is like a run's.
        (
            "pgrung",
            "SELECT pg_advisory_xact_lock_shared(1885827438, 1); LOCK TABLE pgrung.imports IN SHARE MODE",
        ),
    ] {
        let admin = database.session();
        let pid = admin.number("SELECT pg_backend_pid()");
        admin.run(&format!("SET application_name = '{name}'; BEGIN; {sql}"));
        let mut running = case.load().spawn();
        running.wait_to_say(&format!(
            "process {pid}, role postgres, application \"{name}\", in a transaction since"
        ));
        // It would have been ended by now.
        std::thread::sleep(std::time::Duration::from_secs(4));
        running.still_runs();
        admin.run("COMMIT");
        let ran = running.wait();
        assert!(!ran.exits(0).stderr.contains("taking over"), "{ran}");
    }
    is_whole(&case, &case.load().run());
}

#[test]
fn a_session_that_holds_on_is_named_in_the_error_and_nothing_waits_on_behind_it() {
    let database = Database::new();
    let case = begun(&database);
    for restart in [false, true] {
        let admin = database.session();
        admin.run("BEGIN; SELECT FROM pgrung.sources FOR UPDATE");
        let load = case.load().flags("--answer-timeout 4s");
        let load = if restart { load.arg("--restart") } else { load };
        let ran = load.run();
        ran.exits(1).says(&["application \"\"", "--answer-timeout"]);
        wait_until("nothing of it waits on", || {
            database.loaders("state <> 'idle'") == 0
        });
        admin.run("COMMIT");
    }
    is_whole(&case, &case.load().run());
}

#[test]
fn a_stopped_run_is_taken_over_from_also_by_a_restart_and_while_others_wait_for_it() {
    let database = Database::new();
    for restart in [false, true] {
        let case = Case::new(&database, Input::good(300));
        case.slow_down();
        let mut stopped = case.load().flags("-j 1 --batch-rows 40").spawn();
        case.in_mid_load(&mut stopped, 1);
        // In the middle of a batch: its fence stands.
        let fence = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1885827438
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        loop {
            stopped.signal(Signal::SIGSTOP);
            if database.number(fence) > 0 && database.loaders("state = 'idle in transaction'") > 0 {
                break;
            }
            stopped.signal(Signal::SIGCONT);
            stopped.still_runs();
        }
        let committed = case.rows();
        // Waits for the stopped run, and holds nothing itself that is ours to end.
        let admin = database.session();
        let load = case.load();
        let load = if restart { load.arg("--restart") } else { load };
        let running = load.spawn();
        let ran = running.wait();
        ran.exits(0).says(&["taking over"]);
        assert_eq!(admin.number("SELECT 1"), 1);
        let again = if restart { committed } else { 0 };
        assert_eq!(case.rows(), 300 + again, "{ran}");
        stopped.signal(Signal::SIGCONT);
        let old = stopped.wait();
        if !restart {
            old.exits(7).says(&["has taken over"]);
            is_whole(&case, &case.load().run());
        }
    }
}

#[test]
fn a_run_that_is_taken_over_while_it_closes_its_import_claims_no_success() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(300));
    case.slow_down();
    let mut running = case.load().flags("-j 1 --batch-rows 40").spawn();
    case.in_mid_load(&mut running, 1);
    let admin = database.session();
    admin.run("BEGIN; SELECT FROM pgrung.imports FOR UPDATE");
    wait_until("it closes the import", || database.waits_for_lock());
    // What a newer run does.
    admin.run(
        "UPDATE pgrung.imports SET epoch = epoch + 1;
         UPDATE pgrung.sources SET epoch = epoch + 1; COMMIT",
    );
    running.wait().exits(7).says(&["has taken over"]);
    let finished = "pgrung.imports WHERE finished_at IS NOT NULL";
    assert_eq!(database.count(finished), 0);
    is_whole(&case, &case.load().run());
}
