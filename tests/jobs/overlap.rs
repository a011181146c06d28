//! Two runs of one job: one is at it, and the other knows which.

use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::support::{Cmd, Database, Files, Pooler, pgrung, wait_until};

fn table() -> Arc<Database> {
    Database::with("CREATE TABLE t (id int PRIMARY KEY, name text)")
}

fn load(dsn: &str, flags: &str) -> Cmd {
    pgrung("load")
        .dsn(dsn)
        .flags("-t t --progress none --max-wait 20ms")
        .flags(flags)
}

/// Whether a run holds the lease.
fn is_held(database: &Database) -> bool {
    let there = database.number("SELECT count(*) FROM pg_class WHERE relname = 'leases'") > 0;
    there
        && database.number("SELECT count(*) FROM pgrung.leases WHERE renewed_at > '-infinity'") > 0
}

fn runs_of_one_job(database: &Database, dsn: &str) {
    let files = Files::new();
    let file = files.write("input.csv", "id,name\n1,b\n2,b\n");
    // One that waits for its source.
    let mut first = load(dsn, "--mode upsert --merge end").open_with("id,name\n1,a\n");
    wait_until("the first has the lease", || is_held(database));
    let busy = load(dsn, "--mode sync --overlap-policy fail")
        .arg(&file)
        .run();
    busy.exits(7).says(&[
        "another run is at it",
        &format!("process {}", first.pid()),
        "at it since",
    ]);
    load(dsn, "--mode sync --overlap-policy wait=100ms")
        .arg(&file)
        .run()
        .exits(7);
    // Another job on the same table is another matter.
    load(dsn, "--job other --overlap-policy fail")
        .arg(&file)
        .run()
        .exits(0);
    database.run("DELETE FROM t");
    let mut second = load(dsn, "--mode upsert").arg(&file).spawn();
    second.wait_to_say("it is waited for");
    first.send("3,a\n");
    first.end().exits(0);
    second.wait().exits(0);
    assert_eq!(database.rows("t"), ["1|b", "2|b", "3|a"]);
    assert!(!is_held(database));
}

#[test]
fn of_two_runs_one_waits_or_fails() {
    let database = table();
    runs_of_one_job(&database, &database.dsn());
}

#[test]
fn behind_a_pooler_too() {
    let database = table();
    let pooler = Pooler::start(&database.server, 5, "");
    runs_of_one_job(&database, &pooler.dsn(&database.name));
}

#[test]
fn who_takes_over_leaves_nothing_for_the_other_to_do() {
    let database = table();
    let files = Files::new();
    let file = files.write("input.csv", "id,name\n1,b\n2,b\n");
    let first = load(&database.dsn(), "--mode upsert --merge end").open_with("id,name\n1,a\n9,a\n");
    wait_until("the first has the lease", || is_held(&database));
    load(&database.dsn(), "--mode upsert --overlap-policy take-over")
        .arg(&file)
        .run()
        .exits(0);
    first.end().exits(7).says(&["has taken over"]);
    assert_eq!(database.rows("t"), ["1|b", "2|b"]);
    assert_eq!(
        database.number("SELECT count(*) FROM pg_class WHERE relname ~ '_staging_'"),
        0
    );
}

#[test]
fn a_stream_that_is_taken_over_merges_no_batch_more() {
    for first_flags in ["--mode upsert", "--mode append"] {
        let database = table();
        let files = Files::new();
        let file = files.write("input.csv", "id,name\n1,b\n2,b\n");
        let job = "--job mine";
        let mut first = load(&database.dsn(), first_flags)
            .flags(job)
            .open_with("id,name\n1,a\n9,a\n");
        wait_until("its first batch is there", || database.count("t") == 2);
        load(&database.dsn(), "--mode upsert --overlap-policy take-over")
            .flags(job)
            .arg(&file)
            .run()
            .exits(0);
        first.send("2,c\n7,c\n");
        first.end().exits(7).says(&["has taken over"]);
        assert_eq!(database.rows("t"), ["1|b", "2|b", "9|a"]);
        // Also if there was nothing more to come.
        let first = load(&database.dsn(), first_flags)
            .flags(job)
            .open_with("id,name\n20,a\n");
        wait_until("its batch is there", || database.count("t") == 4);
        load(&database.dsn(), "--mode upsert --overlap-policy take-over")
            .flags(job)
            .arg(&file)
            .run()
            .exits(0);
        first.end().exits(7);
    }
}

#[test]
fn a_run_that_was_killed_is_not_waited_for() {
    let database = table();
    let files = Files::new();
    let file = files.write("input.csv", "id,name\n1,b\n");
    let first = load(&database.dsn(), "--mode upsert").open_with("id,name\n1,a\n");
    wait_until("the first has the lease", || is_held(&database));
    first.signal(Signal::SIGKILL);
    first.wait();
    load(&database.dsn(), "--mode upsert --overlap-policy fail")
        .arg(&file)
        .run()
        .exits(0);
    assert_eq!(database.rows("t"), ["1|b"]);
}

#[test]
fn a_run_on_another_machine_is_gone_when_its_lease_is_not_renewed() {
    let database = table();
    let files = Files::new();
    let file = files.write("input.csv", "id,name\n1,b\n");
    load(&database.dsn(), "--mode upsert")
        .arg(&file)
        .run()
        .exits(0);
    let holder = |age: &str| {
        database.run(&format!(
            "UPDATE pgrung.leases SET host = 'elsewhere', process = 1, instance = 'boot pid:[1] 5', renewed_at = now() - interval '{age}'"
        ));
    };
    let again = load(&database.dsn(), "--mode upsert --overlap-policy fail").arg(&file);
    holder("20 s");
    again.run().exits(7).says(&["process 1 on elsewhere"]);
    holder("40 s");
    again.run().exits(0);
}

#[test]
fn who_merges_is_not_waited_for_by_a_run_that_is_to_fail() {
    for mode in ["upsert", "sync"] {
        for policy in ["fail", "wait=100ms"] {
            let (database, files) = (table(), Files::new());
            let file = files.write("input.csv", "id,name\n1,b\n2,b\n");
            let load = |flags: &str| load(&database.dsn(), flags).args(["--mode", mode, &file]);
            let session = database.session();
            session.run("BEGIN; LOCK TABLE t");
            let first = load("").spawn();
            wait_until("it merges", || database.waits_for_lock());
            let second = load(&format!(
                "--answer-timeout 2s --max-retries 0 --overlap-policy {policy}"
            ));
            let process = format!("process {}", first.pid());
            second
                .run()
                .exits(7)
                .says(&["another run is at it", &process]);
            drop(session);
            first.wait().exits(0);
        }
    }
}
