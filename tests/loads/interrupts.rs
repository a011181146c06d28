//! Loads that are interrupted, by a signal or by a server that goes away.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Cmd, Database, Files, RUNGS, SMALL, Server, names_in, nothing_in, pgrung, wait_until,
};

const TABLE: &str = "CREATE TABLE t (id integer, name text)";

const ALL: &str = "SELECT count(*), count(DISTINCT id) FROM t";

/// `id,name` rows, the first one numbered `first`.
fn rows(first: u64, count: u64) -> String {
    (first..first + count)
        .map(|id| format!("{id},name {id}\n"))
        .collect()
}

/// A load of stdin, of rows as above.
fn load(database: &Database) -> Cmd {
    database.load("t").arg("--no-header")
}

#[test]
fn ctrl_c_and_sigterm_end_a_load_and_tell_what_is_in_the_table() {
    let database = Database::with(TABLE);
    for strategy in RUNGS {
        for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
            database.run("TRUNCATE t");
            let load = load(&database).flags(strategy).flags(SMALL);
            let load = load.open_with(rows(1, 55));
            wait_until("rows come", || database.count("t") == 55);
            load.signal(signal);
            let ran = load.wait();
            ran.exits(code).says(&["interrupted"]);
            assert_eq!(ran.committed(), 55, "{strategy}: {ran}");
            assert_eq!(ran.rows("loaded"), 55, "{strategy}: {ran}");
        }
    }
}

#[test]
fn ctrl_c_in_the_middle_of_full_speed_tells_what_is_in_the_table() {
    let files = Files::new();
    let file = files.write("rows.csv", rows(1, 500_000));
    let database = Database::with(TABLE);
    for strategy in RUNGS {
        database.run("TRUNCATE t");
        let load = load(&database).arg(&file).flags(strategy);
        let load = load.flags("--batch-rows 20 -j 2").spawn();
        wait_until("rows come", || database.count("t") > 100);
        load.signal(Signal::SIGINT);
        let ran = load.wait();
        ran.exits(130);
        let stored = database.count("t");
        assert!(stored < 500_000, "{strategy}: too late to prove anything");
        assert_eq!(ran.committed(), stored, "{strategy}: {ran}");
        assert_eq!(ran.rows("loaded"), stored, "{strategy}: {ran}");
        assert_eq!(database.one(ALL), format!("{stored}|{stored}"));
    }
}

#[test]
fn ctrl_c_leaves_nothing_of_a_load_that_is_one_transaction() {
    let database = Database::with(TABLE);
    let load = load(&database).flags("--commit load --batch-rows 10 --max-wait 20ms");
    let load = load.open_with(rows(1, 55));
    wait_until("rows are written", || has_written(&database));
    load.signal(Signal::SIGINT);
    let ran = load.wait();
    ran.exits(130);
    assert_eq!(ran.committed(), 0, "{ran}");
    assert_eq!(database.count("t"), 0);
}

#[test]
fn ctrl_c_is_heard_before_the_first_byte_has_come() {
    let database = Database::with(TABLE);
    let load = load(&database).open();
    // Long enough to get to the wait for stdin.
    thread::sleep(Duration::from_millis(500));
    load.signal(Signal::SIGINT);
    load.wait().exits(130);
}

#[test]
fn ctrl_c_is_heard_while_the_table_is_locked_before_the_load_begins() {
    let database = Database::with(TABLE);
    let lock = database.lock("t");
    let load = load(&database).open_with(rows(1, 5));
    wait_until("the load waits", || database.waits_for_lock());
    load.signal(Signal::SIGINT);
    load.wait().exits(130);
    drop(lock);
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_a_batch_that_is_stuck() {
    let database = Database::with(TABLE);
    let mut load = load(&database).flags(SMALL).open_with(rows(1, 10));
    wait_until("rows come", || database.count("t") == 10);
    let lock = database.lock("t");
    load.send(rows(11, 10));
    wait_until("the load waits", || database.waits_for_lock());
    load.signal(Signal::SIGINT);
    thread::sleep(Duration::from_millis(300));
    load.still_runs();
    load.signal(Signal::SIGINT);
    let ran = load.wait();
    ran.exits(130);
    // What it had done is not known: better no figure than a false one.
    assert!(ran.summary().get("rows").is_none(), "{ran}");
    drop(lock);
    assert_eq!(database.count("t"), 10);
}

#[test]
fn sigterm_ends_a_load_with_rejects_also_when_the_server_stands_still() {
    let server = Server::start(&[]);
    let database = Database::on(&server);
    database.run(TABLE);
    let files = Files::new();
    let mut load = load(&database)
        .flags(SMALL)
        .flags("--grace 1s --rejects")
        .arg(files.path("rejects.csv"))
        .open_with(rows(1, 10));
    wait_until("rows come", || database.count("t") == 10);
    // Some looks at the server are under way at any time.
    let pause = server.pause();
    load.send(rows(11, 10));
    load.signal(Signal::SIGTERM);
    load.wait().exits(143);
    drop(pause);
}

/// Whether a load holds rows of the table in a transaction that has waited for more for a while: it
/// is idle between two statements of a batch too.
fn has_written(database: &Database) -> bool {
    let open = "state = 'idle in transaction' AND clock_timestamp() - state_change > '300 ms'
                AND backend_xid IS NOT NULL AND pid IN (
                    SELECT pid FROM pg_locks
                    WHERE relation = 't'::regclass AND mode = 'RowExclusiveLock')";
    database.loaders(open) == 1
}

/// Ends all sessions of a load on this database.
fn end_sessions(database: &Database) {
    database.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE application_name = 'pgrung' AND datname = current_database()",
    );
}

#[test]
fn a_lost_connection_is_made_again_and_no_row_is_lost_or_doubled() {
    let database = Database::with(TABLE);
    for strategy in RUNGS {
        database.run("TRUNCATE t");
        let load = load(&database).flags(strategy).flags(SMALL);
        let mut load = load.open_with(rows(1, 50));
        wait_until("rows come", || database.count("t") == 50);
        end_sessions(&database);
        load.send(rows(51, 50));
        let ran = load.end();
        ran.exits(0).says(&["trying again"]);
        assert_eq!(database.one(ALL), "100|100", "{strategy}");
        assert!(ran.number("/retries") >= 1.0, "{ran}");
    }
}

#[test]
fn without_a_ledger_a_connection_lost_between_batches_of_single_rows_is_made_again() {
    let database = Database::with(TABLE);
    let load = database.load_once("t").flags(RUNGS[0]).flags(SMALL);
    let load = load.flags("--no-ledger --no-header");
    let mut load = load.open_with(rows(1, 50));
    wait_until("rows come", || database.count("t") == 50);
    end_sessions(&database);
    load.send(rows(51, 50));
    let ran = load.end();
    ran.exits(0).says(&["trying again"]);
    assert_eq!(database.one(ALL), "100|100");
}

#[test]
fn a_load_that_is_one_transaction_does_not_survive_its_connection() {
    let database = Database::with(TABLE);
    let load = load(&database).flags("--commit load --batch-rows 10");
    let mut load = load.open_with(rows(1, 50));
    wait_until("rows are written", || has_written(&database));
    end_sessions(&database);
    load.send(rows(51, 50));
    let ran = load.end();
    ran.exits(1)
        .says(&["the transaction of the whole load is lost"]);
    assert_eq!(ran.committed(), 0, "{ran}");
    assert_eq!(database.count("t"), 0);
}

/// A database on a server of the test's own.
fn on_own_server() -> Arc<Database> {
    let database = Database::on(&Server::start(&[]));
    database.run(TABLE);
    database
}

#[test]
fn a_server_that_stops_in_the_middle_ends_the_load_with_the_true_count() {
    let database = on_own_server();
    for (immediate, stored) in [(false, 50), (true, 100)] {
        let load = load(&database).flags(SMALL).flags("--max-retries 2");
        let mut load = load.open_with(rows(1, 50));
        wait_until("rows come", || database.count("t") == stored);
        database.server.embedded().shutdown(immediate).unwrap();
        load.send(rows(51, 50));
        let ran = load.end();
        // It cannot connect any more, which is exit code 5 also in the middle.
        ran.exits(5)
            .says(&["trying again", "(given up after 2 retries)"]);
        assert_eq!(ran.committed(), 50, "{ran}");
        database.server.embedded().start_again().unwrap();
        assert_eq!(database.count("t"), stored);
    }
}

#[test]
fn a_server_that_comes_back_is_loaded_to_the_end() {
    let database = on_own_server();
    let mut load = load(&database).flags(SMALL).open_with(rows(1, 50));
    wait_until("rows come", || database.count("t") == 50);
    database.server.embedded().shutdown(true).unwrap();
    load.send(rows(51, 50));
    load.wait_to_say("trying again");
    database.server.embedded().start_again().unwrap();
    load.end().exits(0);
    assert_eq!(database.one(ALL), "100|100");
}

#[test]
fn a_server_that_stops_answering_is_given_up_after_the_answer_timeout() {
    let database = Database::with(TABLE);
    let load = load(&database).flags(SMALL);
    let load = load.flags("--answer-timeout 2s --max-retries 1");
    let mut load = load.open_with(rows(1, 10));
    wait_until("rows come", || database.count("t") == 10);
    let lock = database.lock("t");
    load.send(rows(11, 10));
    let ran = load.end();
    ran.exits(1).says(&["no answer from the server within 2s"]);
    assert_eq!(ran.committed(), 10, "{ran}");
    drop(lock);
    assert_eq!(database.count("t"), 10);
}

#[test]
fn the_answer_timeout_is_for_one_answer_and_not_for_all_of_a_batch() {
    let database = Database::with(TABLE);
    for (strategy, rows_written) in [("insert", 100), ("pipeline", 100), ("multi-insert", 40_000)] {
        let load = load(&database).flags("--answer-timeout 2s --max-retries 0 --batch-rows 40000");
        database.slow_down("t", if rows_written == 100 { 40 } else { 100 });
        database.run("TRUNCATE t");
        // A batch takes four seconds or more, each answer a tenth of one.
        let ran = load
            .flags("-j 1 --max-wait 10s --strategy")
            .arg(strategy)
            .run_on(rows(1, rows_written));
        ran.exits(0);
        assert_eq!(database.count("t"), rows_written, "{strategy}");
    }
}

#[test]
fn ctrl_c_stops_an_embedded_server_and_removes_it() {
    let files = Files::new();
    let tmpdir = files.tmpdir("tmp");
    // A table that every cluster has and nobody may write; the rows never end.
    let load = pgrung("load --embedded --table pg_catalog.pg_description --strategy discard")
        .flags("--verbose --no-header --report-every 50ms")
        .env("TMPDIR", &tmpdir);
    let mut load = load.open_with("1,1,1,text\n");
    load.wait_to_say(" rows/s");
    load.still_runs();
    assert!(!names_in(&tmpdir).is_empty());
    load.signal(Signal::SIGINT);
    load.wait().exits(130);
    nothing_in(&tmpdir);
    // And the directory can be used for the next one.
    let load = pgrung("load --embedded --table nowhere --no-header").env("TMPDIR", &tmpdir);
    load.run().exits(2);
    nothing_in(&tmpdir);
}
