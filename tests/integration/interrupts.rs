//! Loads that are interrupted, by a signal or by a server that goes away.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgrung::{Embedded, EmbeddedOptions};

use crate::support::command::{finish, summary};
use crate::support::running::{Running, SMALL, rows};
use crate::support::{
    Database, Files, STRATEGIES, Session, WITHOUT_LEDGER, pgrung, run, wait_until,
};

const TABLE: &str = "CREATE TABLE t (id integer, name text)";

#[test]
fn ctrl_c_and_sigterm_end_a_load_and_tell_what_is_in_the_table() {
    let files = Files::new();
    let path = files.path("summary.json");
    let database = Database::with(TABLE);
    for strategy in STRATEGIES {
        for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
            database.session.run("TRUNCATE t");
            let mut load = database.load("t");
            load.args(strategy).args(SMALL).arg("--summary").arg(&path);
            let load = Running::start(&mut load, &rows(1, 55));
            wait_until("rows come", || database.count("t") == 55);
            load.signal(signal);
            let ran = load.finish();
            ran.exits(code).says(&["interrupted"]);
            assert_eq!(ran.committed(), 55, "{strategy:?}: {ran}");
            let told = summary(&path);
            assert_eq!(told["rows"]["loaded"], 55, "{strategy:?}: {told}");
            assert_eq!(told["balanced"], true, "{strategy:?}: {told}");
        }
    }
}

#[test]
fn ctrl_c_in_the_middle_of_full_speed_tells_what_is_in_the_table() {
    let files = Files::new();
    let path = files.path("summary.json");
    let file = files.write("rows.csv", "id,name\n".to_owned() + &rows(1, 500_000));
    let database = Database::with(TABLE);
    for strategy in STRATEGIES {
        database.session.run("TRUNCATE t");
        let child = database
            .load("t")
            .arg(&file)
            .args(strategy)
            .args(["--batch-rows", "20", "-j", "2", "--summary"])
            .arg(&path)
            .spawn()
            .unwrap();
        wait_until("rows come", || database.count("t") > 100);
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
        let ran = finish(child);
        ran.exits(130);
        let stored = database.count("t");
        assert!(stored < 500_000, "{strategy:?}: too late to prove anything");
        assert_eq!(ran.committed(), stored, "{strategy:?}: {ran}");
        let told = summary(&path);
        assert_eq!(told["rows"]["loaded"], stored, "{strategy:?}: {told}");
        assert_eq!(told["balanced"], true, "{strategy:?}: {told}");
        let distinct = database.session.one("SELECT count(DISTINCT id) FROM t");
        assert_eq!(distinct, stored.to_string());
    }
}

#[test]
fn ctrl_c_leaves_nothing_of_a_load_that_is_one_transaction() {
    let database = Database::with(TABLE);
    let mut load = database.load("t");
    load.args([
        "--commit",
        "load",
        "--batch-rows",
        "10",
        "--max-wait",
        "20ms",
    ]);
    let load = Running::start(&mut load, &rows(1, 55));
    wait_until("rows are written", || has_written(&database.session));
    load.signal(Signal::SIGINT);
    let ran = load.finish();
    ran.exits(130);
    assert_eq!(ran.committed(), 0, "{ran}");
    assert_eq!(database.count("t"), 0);
}

#[test]
fn ctrl_c_is_heard_before_the_first_byte_has_come() {
    let database = Database::with(TABLE);
    let load = Running::start(&mut database.load("t"), "");
    // Long enough to get to the wait for stdin.
    std::thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    load.signal(Signal::SIGINT);
    load.finish_within(Duration::from_secs(5)).exits(130);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn ctrl_c_is_heard_while_the_table_is_locked_before_the_load_begins() {
    let database = Database::with(TABLE);
    let other = database.another_session();
    other.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    let load = Running::start(&mut database.load("t"), &rows(1, 5));
    wait_until("the load waits for the lock", || {
        waits_for_lock(&database.session)
    });
    load.signal(Signal::SIGINT);
    load.finish_within(Duration::from_secs(5)).exits(130);
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_a_batch_that_is_stuck() {
    let database = Database::with(TABLE);
    let mut load = Running::start(database.load("t").args(SMALL), &rows(1, 10));
    wait_until("rows come", || database.count("t") == 10);
    let other = database.another_session();
    other.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    load.send(&rows(11, 10));
    wait_until("the load waits for the lock", || {
        waits_for_lock(&database.session)
    });
    load.signal(Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(300));
    load.signal(Signal::SIGINT);
    load.finish_within(Duration::from_secs(5)).exits(130);
    other.run("ROLLBACK");
    assert_eq!(database.count("t"), 10);
}

/// Whether a load holds rows of the table in a transaction that waits for more.
fn has_written(session: &Session) -> bool {
    let open = "SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid)
                WHERE application_name = 'pgrung' AND datname = current_database()
                  AND state = 'idle in transaction' AND backend_xid IS NOT NULL
                  AND relation = 't'::regclass AND mode = 'RowExclusiveLock'";
    session.one(open) == "1"
}

fn waits_for_lock(session: &Session) -> bool {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE application_name = 'pgrung' AND datname = current_database()
                     AND wait_event_type = 'Lock'";
    session.one(waiting) == "1"
}

/// Ends all sessions of a load on this database.
fn end_sessions(session: &Session) {
    session.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
         WHERE application_name = 'pgrung' AND datname = current_database()",
    );
}

#[test]
fn a_lost_connection_is_made_again_and_no_row_is_lost_or_doubled() {
    let files = Files::new();
    let path = files.path("summary.json");
    let database = Database::with(TABLE);
    for strategy in STRATEGIES {
        database.session.run("TRUNCATE t");
        let mut load = database.load("t");
        load.args(strategy).args(SMALL).arg("--summary").arg(&path);
        let mut load = Running::start(&mut load, &rows(1, 50));
        wait_until("rows come", || database.count("t") == 50);
        end_sessions(&database.session);
        load.send(&rows(51, 50));
        load.close().exits(0).says(&["trying again"]);
        assert_eq!(
            database
                .session
                .one("SELECT count(*), count(DISTINCT id) FROM t"),
            "100|100",
            "{strategy:?}"
        );
        let told = summary(&path);
        assert!(told["retries"].as_u64().unwrap() >= 1, "{told}");
    }
}

#[test]
fn without_a_ledger_a_connection_lost_between_commits_of_single_rows_leaves_a_doubt() {
    let database = Database::with(TABLE);
    let mut load = database.load_once("t");
    load.args(STRATEGIES[0]).args(SMALL).args(WITHOUT_LEDGER);
    let mut load = Running::start(&mut load, &rows(1, 50));
    wait_until("rows come", || database.count("t") == 50);
    end_sessions(&database.session);
    load.send(&rows(51, 50));
    let ran = load.close();
    ran.exits(1)
        .says(&["it is not known whether record 51 is stored"]);
    assert_eq!(ran.committed(), 50, "{ran}");
    assert_eq!(database.count("t"), 50);
}

#[test]
fn a_load_that_is_one_transaction_does_not_survive_its_connection() {
    let database = Database::with(TABLE);
    let mut load = database.load("t");
    load.args(["--commit", "load", "--batch-rows", "10"]);
    let mut load = Running::start(&mut load, &rows(1, 50));
    wait_until("rows are written", || has_written(&database.session));
    end_sessions(&database.session);
    load.send(&rows(51, 50));
    let ran = load.close();
    ran.exits(1)
        .says(&["the transaction of the whole load is lost"]);
    assert_eq!(ran.committed(), 0, "{ran}");
    assert_eq!(database.count("t"), 0);
}

/// A server of the test's own.
fn own_server() -> Embedded {
    let server = Embedded::start(EmbeddedOptions::default()).unwrap();
    Session::open(&server.config()).unwrap().run(TABLE);
    server
}

fn load_into(server: &Embedded) -> Command {
    let mut command = pgrung();
    command.args(["load", "--dsn", &server.dsn(), "--table", "t"]);
    command.args(SMALL);
    command
}

#[test]
fn a_server_that_stops_in_the_middle_ends_the_load_with_the_true_count() {
    let mut server = own_server();
    let count = |server: &Embedded| Session::open(&server.config()).unwrap().count("t");
    for (immediate, stored) in [(false, 50), (true, 100)] {
        let mut load = load_into(&server);
        load.args(["--max-retries", "2"]);
        let mut load = Running::start(&mut load, &rows(1, 50));
        wait_until("rows come", || count(&server) == stored);
        server.shutdown(immediate).unwrap();
        load.send(&rows(51, 50));
        let ran = load.close();
        // It cannot connect any more, which is exit code 5 also in the middle.
        ran.exits(5)
            .says(&["trying again", "(given up after 2 retries)"]);
        assert_eq!(ran.committed(), 50, "{ran}");
        server.start_again().unwrap();
        assert_eq!(count(&server), stored);
    }
    server.stop().unwrap();
}

#[test]
fn a_server_that_comes_back_is_loaded_to_the_end() {
    let mut server = own_server();
    let mut load = load_into(&server);
    let mut load = Running::start(&mut load, &rows(1, 50));
    let session = |server: &Embedded| Session::open(&server.config()).unwrap();
    wait_until("rows come", || session(&server).count("t") == 50);
    server.shutdown(true).unwrap();
    load.send(&rows(51, 50));
    std::thread::sleep(Duration::from_millis(300));
    server.start_again().unwrap();
    load.close().exits(0).says(&["trying again"]);
    let all = session(&server).one("SELECT count(*), count(DISTINCT id) FROM t");
    assert_eq!(all, "100|100");
    server.stop().unwrap();
}

#[test]
fn a_server_that_stops_answering_is_given_up_after_the_answer_timeout() {
    let database = Database::with(TABLE);
    let mut load = database.load("t");
    load.args(SMALL)
        .args(["--answer-timeout", "300ms", "--max-retries", "1"]);
    let mut load = Running::start(&mut load, &rows(1, 10));
    wait_until("rows come", || database.count("t") == 10);
    let other = database.another_session();
    other.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    load.send(&rows(11, 10));
    let ran = load.close();
    ran.exits(1)
        .says(&["no answer from the server within 300ms"]);
    assert_eq!(ran.committed(), 10, "{ran}");
    other.run("ROLLBACK");
    assert_eq!(database.count("t"), 10);
}

#[test]
fn ctrl_c_stops_an_embedded_server_and_removes_it() {
    let files = Files::new();
    let tmpdir = files.path("tmp");
    std::fs::create_dir(&tmpdir).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&tmpdir, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let mut load = pgrung();
    // A table that every cluster has and nobody may write; the rows never end.
    load.args(["load", "--embedded", "--table", "pg_catalog.pg_description"])
        .args(["--strategy", "discard", "--verbose"])
        .env("TMPDIR", &tmpdir);
    let load = Running::start(&mut load, "1,1,1,text\n");
    wait_until("the server runs", || {
        std::fs::read_dir(&tmpdir).unwrap().flatten().any(|entry| {
            let pid = entry.path().join("data/postmaster.pid");
            std::fs::read_to_string(pid).is_ok_and(|text| text.contains("ready"))
        })
    });
    std::thread::sleep(Duration::from_millis(300));
    load.signal(Signal::SIGINT);
    load.finish_within(Duration::from_secs(20)).exits(130);
    assert_eq!(std::fs::read_dir(&tmpdir).unwrap().count(), 0);
    // And the directory can be used for the next one.
    let file = files.write("none.csv", "");
    run(pgrung()
        .args([
            "load",
            "--embedded",
            "--table",
            "nowhere",
            "--no-header",
            &file,
        ])
        .env("TMPDIR", &tmpdir))
    .exits(2);
    assert_eq!(std::fs::read_dir(&tmpdir).unwrap().count(), 0);
}
