//! Rows that arrive on stdin from something that never ends: window, overflow, signals, log lines.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::command::summary;
use crate::support::running::{Running, SMALL, rows};
use crate::support::{Database, Files, run, wait_until};

const TABLE: &str = "CREATE TABLE t (id integer, name text)";

#[test]
fn a_row_of_a_trickle_is_committed_after_max_wait_and_a_commit() {
    let files = Files::new();
    let path = files.path("summary.json");
    let database = Database::with(TABLE);
    let mut load = database.load("t");
    load.args(["--max-wait", "150ms", "--summary"]).arg(&path);
    let mut load = Running::start(&mut load, "");
    for row in 1..=5 {
        load.send(&rows(row, 1));
        wait_until("the row comes", || database.count("t") == row);
    }
    load.close().exits(0);
    let told = summary(&path);
    assert_eq!(told["batches"]["flush"]["wait"], 5, "{told}");
    let wait = |quantile: &str| told["wait_ms"][quantile].as_f64().unwrap();
    // The deadline is generous: other tests keep both cores busy.
    assert!(wait("p50") >= 150.0 && wait("max") < 5_000.0, "{told}");
}

#[test]
fn rows_that_keep_arriving_do_not_put_the_commit_off() {
    let database = Database::with(TABLE);
    let mut load = Running::start(database.load("t").args(["--max-wait", "200ms"]), "");
    let mut sent = 0;
    wait_until("rows come while others arrive", || {
        sent += 1;
        load.send(&rows(sent, 1));
        database.count("t") > 0
    });
    load.close().exits(0);
    assert_eq!(database.count("t"), sent);
}

#[test]
fn sigterm_drains_what_was_read_from_a_pipe_and_leaves_a_torn_record_out() {
    let files = Files::new();
    let path = files.path("summary.json");
    let database = Database::with(TABLE);
    let mut load = database.load("t");
    load.args(["--batch-rows", "50", "--max-wait", "1h", "--summary"])
        .arg(&path);
    // One write, so the last 5 rows are read with the first 50.
    let load = Running::start(&mut load, &(rows(1, 55) + "56,to"));
    wait_until("the full batch comes", || database.count("t") == 50);
    load.signal(Signal::SIGTERM);
    let ran = load.finish_within(Duration::from_secs(20));
    ran.exits(143)
        .says(&["5 bytes of an unfinished record had been read and are not loaded"]);
    assert_eq!(ran.committed(), 55);
    let stored = database.session.one("SELECT count(*), sum(id) FROM t");
    assert_eq!(stored, "55|1540");
    let told = summary(&path);
    assert_eq!(told["rows"]["loaded"], 55, "{told}");
    assert_eq!(told["balanced"], true, "{told}");
}

/// Rows whose bytes no pipe and no buffer of the loads below can hold.
const MANY: u64 = 100_000;

#[test]
fn overflow_drop_drops_whole_batches_of_a_source_that_is_too_fast_and_counts_them() {
    let files = Files::new();
    let path = files.path("summary.json");
    let database = Database::with(TABLE);
    let mut load = database.load("t");
    load.args(["--overflow", "drop", "--report-every", "50ms", "--summary"])
        .arg(&path)
        .args(SMALL);
    let mut load = Running::start(&mut load, &rows(1, 10));
    wait_until("rows come", || database.count("t") == 10);
    let other = database.another_session();
    other.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    // Returns although the server takes nothing.
    load.send(&rows(11, MANY));
    other.run("ROLLBACK");
    let ran = load.close();
    ran.exits(3)
        .says(&["rows dropped so far (--overflow drop)", "; dropped "]);
    let told = summary(&path);
    let count = |key: &str| told["rows"][key].as_u64().unwrap();
    assert_eq!(count("read"), 10 + MANY, "{told}");
    assert_eq!(count("loaded") + count("dropped"), 10 + MANY, "{told}");
    assert!(count("dropped") >= MANY / 2, "{told}");
    assert_eq!(count("loaded"), database.count("t"), "{told}");
    assert_eq!(told["balanced"], true, "{told}");
    assert!(ran.stdout.contains(" dropped"), "{ran}");
    let whole =
        "SELECT count(*) FROM (SELECT FROM t GROUP BY (id - 1) / 10 HAVING count(*) <> 10) AS b";
    assert_eq!(
        database.session.one(whole),
        "0",
        "batches are dropped whole"
    );
}

#[test]
fn a_paused_server_stalls_the_source_and_nothing_is_lost() {
    let files = Files::new();
    let path = files.path("summary.json");
    let database = Database::with(TABLE);
    let mut load = database.load("t");
    load.args([
        "--batch-rows",
        "1000",
        "--max-wait",
        "20ms",
        "-j",
        "1",
        "--summary",
    ])
    .arg(&path);
    let mut load = Running::start(&mut load, &rows(1, 10));
    wait_until("rows come", || database.count("t") == 10);
    // Idle, so they hold nothing that other sessions of the server wait for.
    let backends = Backends::of(&database);
    backends.signal(Signal::SIGSTOP);
    let writer = std::thread::spawn(move || {
        load.send(&rows(11, MANY));
        load
    });
    std::thread::sleep(Duration::from_secs(3));
    let stalled = !writer.is_finished();
    let stored = database.count("t");
    drop(backends);
    assert!(stalled, "more is read than buffers hold");
    assert!(stored < 10 + MANY);
    writer.join().unwrap().close().exits(0);
    let distinct = "SELECT count(*), count(DISTINCT id) FROM t";
    let all = 10 + MANY;
    assert_eq!(database.session.one(distinct), format!("{all}|{all}"));
    let told = summary(&path);
    assert_eq!(told["rows"]["loaded"], all, "{told}");
    assert_eq!(told["rows"]["dropped"], 0, "{told}");
    assert_eq!(told["retries"], 0, "{told}");
}

/// Server processes of a load; they go on when this is dropped.
struct Backends(Vec<Pid>);

impl Backends {
    fn of(database: &Database) -> Self {
        let pids = database.session.lines(
            "SELECT pid FROM pg_stat_activity
             WHERE application_name = 'pgrung' AND datname = current_database()",
        );
        let pids = pids.iter().map(|pid| Pid::from_raw(pid.parse().unwrap()));
        Backends(pids.collect())
    }

    fn signal(&self, signal: Signal) {
        assert!(!self.0.is_empty());
        for pid in &self.0 {
            kill(*pid, signal).unwrap();
        }
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.signal(Signal::SIGCONT);
    }
}

#[test]
fn a_profile_decides_when_a_batch_closes_and_a_flag_overrides_it() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.path("summary.json");
    let file = files.write("rows.csv", "id,name\n".to_owned() + &rows(1, 2_500));
    for (flags, batches) in [
        (&["--profile", "etl"][..], 1),
        (&["--profile", "audit"], 3),
        (&["--profile", "audit", "--batch-rows", "500"], 5),
    ] {
        run(database
            .load("t")
            .args([&file, "-j", "1", "--summary"])
            .arg(&path)
            .args(flags))
        .exits(0);
        let told = summary(&path);
        assert_eq!(told["batches"]["count"], batches, "{flags:?}: {told}");
    }
}

#[test]
fn every_line_of_a_json_log_is_json() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let mut load = database.load("t");
    load.args(["--log-format", "json", "--verbose"])
        .args(["--report-every", "50ms", "--on-error", "stop"])
        .args(SMALL);
    let mut load = Running::start(&mut load, &rows(1, 10));
    wait_until("rows come", || database.count("t") == 10);
    std::thread::sleep(Duration::from_millis(200));
    load.send("x,\"a \"\"bad\"\"\nrow\"\n");
    let bad = load.close();
    bad.exits(1);
    let missing = run(database
        .load("t")
        .args(["--log-format", "json"])
        .arg(files.path("none.csv")));
    missing.exits(6);
    for (ran, levels) in [
        (&bad, &["detail", "notice", "error"][..]),
        (&missing, &["error"]),
    ] {
        let lines: Vec<Value> = ran
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}: {ran}")))
            .collect();
        for line in &lines {
            assert!(line["unix_seconds"].as_f64().unwrap() > 1.7e9, "{line}");
            assert!(!line["message"].as_str().unwrap().is_empty(), "{line}");
        }
        for level in levels {
            assert!(lines.iter().any(|line| line["level"] == *level), "{ran}");
        }
    }
    bad.says(&["22P02", "10 rows loaded"]);
}
