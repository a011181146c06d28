//! How a load ends when it does not go its way: limits, rails, signals, no ledger.

use std::fs;

use nix::sys::signal::Signal;

use super::kills::long_input;
use crate::support::{
    Case, Cmd, Database, Fate, Input, Kind, STRATEGIES, seeded, times, wait_until,
};

#[test]
fn the_reject_limit_stops_the_load_and_a_higher_one_goes_on() {
    let mut random = seeded("reject limit");
    let database = Database::new();
    for strategy in STRATEGIES {
        let mut fates = vec![Fate::Good; 100];
        for place in [3, 30, 31, 60, 95] {
            fates[place] = Fate::Bad(Kind::any(&mut random));
        }
        let case = Case::new(&database, Input::planned(1, &fates, &mut random));
        let load = case.load_by(strategy).flags("-j 1 --batch-rows 10");
        let ran = load.clone().flags("--reject-limit 2").run();
        ran.exits(4).says(&["more than 2 rows are bad"]);
        case.between("reject limit", &ran);
        case.exact("a higher limit", &load.flags("--reject-limit 5").run());
    }
}

#[test]
fn the_first_bad_row_stops_the_load_if_it_is_told_so() {
    let mut random = seeded("on-error stop");
    let database = Database::new();
    for strategy in STRATEGIES {
        let mut fates = vec![Fate::Good; 60];
        fates[37] = Fate::Bad(Kind::Check);
        let case = Case::new(&database, Input::planned(1, &fates, &mut random));
        let load = case.load_by(strategy).flags("-j 1 --batch-rows 10");
        let ran = load.clone().flags("--on-error stop").run();
        ran.exits(1).says(&["record 38", "23514"]);
        assert_eq!(case.rows(), 30);
        case.exact("on-error reject", &load.run());
    }
}

#[test]
fn without_a_ledger_the_bad_rows_are_in_the_file() {
    let mut random = seeded("no ledger");
    let database = Database::new();
    for strategy in STRATEGIES {
        let case = Case::new(&database, long_input(300, &mut random));
        let file = case.files.path("bad.csv");
        let ran = case
            .load_by(strategy)
            .flags("--no-ledger --batch-rows 40 -j 1")
            .args(["--rejects", file.to_str().unwrap()])
            .run();
        let bad = case.input.bad_count();
        ran.exits(if bad > 0 { 3 } else { 0 });
        let mut verdict = crate::support::Verdict::default();
        case.check_table(&mut verdict);
        assert!(verdict.is_clean(), "{verdict:#?}\n{ran}");
        assert_eq!(ran.rows("rejected"), bad);
        let found = fs::read(&file).unwrap();
        let header = found.iter().position(|byte| *byte == b'\n');
        let found = found[header.map_or(0, |at| at + 1)..].escape_ascii();
        assert_eq!(found.to_string(), case.input.bad_bytes());
    }
    let ledger = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgrung'";
    assert_eq!(database.number(ledger), 0);
}

#[test]
fn one_transaction_for_the_whole_load_is_all_or_nothing() {
    let mut random = seeded("commit load");
    let database = Database::new();
    for round in 0..times(6, 60) {
        let case = Case::new(&database, long_input(300, &mut random));
        let strategy = STRATEGIES[round % STRATEGIES.len()];
        let load = case
            .load_by(strategy)
            .flags("--commit load --batch-rows 20");
        let step = ["claim", "write", "settle"][random.usize(..3)];
        let at = format!("after {step}:{}", random.usize(1..15));
        let ran = load.clone().env("PGRUNG_ABORT_AT", &at).run();
        ran.aborted();
        assert_eq!(case.rows(), 0, "{at}");
        case.recover("one transaction", ran, &load);
    }
}

#[test]
fn after_a_signal_the_printed_command_goes_on() {
    let mut random = seeded("signals");
    let database = Database::new();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        for _ in 0..times(2, 20) {
            let case = Case::new(&database, long_input(2000, &mut random));
            let load = case.load().flags("--batch-rows 10 -j 2");
            let mut running = load.spawn();
            let wanted = random.i64(1..30);
            case.in_mid_load(&mut running, wanted);
            running.signal(signal);
            let ran = running.wait();
            ran.exits(code);
            case.between("signal", &ran);
            let committed = ran.rows("loaded");
            assert_eq!(committed as i64, case.rows(), "{ran}");
            let last = load.go_on(&ran);
            case.survived(&format!("{signal}"), &last);
        }
    }
}

/// A signal while the server does not answer must end the load too.
#[test]
fn a_signal_ends_a_load_that_waits_for_a_lock() {
    let database = Database::new();
    let case = Case::new(
        &database,
        long_input(2000, &mut fastrand::Rng::with_seed(2)),
    );
    case.slow_down();
    let load = case.load().flags("--batch-rows 10 -j 2");
    let mut running = load.spawn();
    case.in_mid_load(&mut running, 3);
    let holder = database.session();
    holder.run(&format!("BEGIN; LOCK TABLE {} IN SHARE MODE", case.table));
    wait_until("it waits for the lock", || database.waits_for_lock());
    running.signal(Signal::SIGTERM);
    let ran = running.wait();
    ran.exits(143);
    holder.run("COMMIT");
    case.recover("signal during a lock", ran, &load);
}

/// A load of batches of ten rows, one after the other.
pub fn load_in_tens(case: &Case, strategy: &str) -> Cmd {
    case.load_by(strategy).flags("-j 1 --batch-rows 10")
}

/// Such an import stays open, but what was answered is to be there.
#[test]
fn what_the_server_loses_of_a_load_up_to_a_limit_is_missed() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(300));
    case.slow_down();
    let load = load_in_tens(&case, "copy").flags("--limit 200");
    let mut running = load.spawn();
    case.in_mid_load(&mut running, 3);
    // The first batch, as a crash of a server that does not wait for its disk takes it.
    database.run(&format!(
        "DELETE FROM pgrung.spans WHERE first_record = 1; DELETE FROM {} WHERE id <= 10",
        case.table
    ));
    running
        .wait()
        .exits(1)
        .says(&["the server has lost 10 of 200 records"]);
    case.exact("missed", &case.load().run());
}

/// To try its last batch again would commit that alone.
#[test]
fn a_connection_lost_in_the_one_transaction_of_a_load_ends_it_with_nothing_loaded() {
    let database = Database::new();
    let case = Case::new(&database, Input::good(2000));
    case.slow_down();
    let load = load_in_tens(&case, "copy").flags("--commit load");
    let running = load.spawn();
    // The second batch or a later one.
    let asleep = "wait_event = 'PgSleep'";
    wait_until("a batch", || database.loaders(asleep) > 0);
    let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE application_name = 'pgrung' AND datname = current_database()
                   AND backend_xid IS NOT NULL";
    assert_eq!(database.number(ended), 1);
    let ran = running.wait();
    ran.exits(1)
        .says(&["the transaction of the whole load is lost"]);
    assert_eq!(case.rows(), 0);
    case.survived("lost with the whole load", &case.load().run());
}
