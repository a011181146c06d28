//! `pgrung plan`: the figures of a stream before it runs.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Cmd, Database, Proxy, pgrung};

fn plan(words: &str) -> Cmd {
    pgrung("plan").flags(words)
}

#[track_caller]
fn json(plan: &Cmd) -> Value {
    plan.clone().arg("--json").run().exits(0).json()
}

const SLOW: &str = "--rows-per-second 2000 --row-bytes 200";

#[test]
fn a_plan_says_all_that_was_asked_for() {
    let ran = plan(SLOW).flags("--latency 200ms").run();
    ran.exits(0);
    for word in [
        "window",
        "batch",
        "% full",
        "wait ",
        "ceiling",
        "copy",
        "memory",
        "loss",
        "verdict",
        "--max-wait",
    ] {
        ran.tells(word);
    }
    for durability in ["off", "end", "local", "on", "remote-write", "remote-apply"] {
        let told = |line: &str| line.split_whitespace().next() == Some(durability);
        assert!(ran.stdout.lines().any(told), "no {durability}: {ran}");
    }
}

#[test]
fn which_trigger_fires_follows_from_the_arrivals() {
    assert_eq!(json(&plan(SLOW))["batch"]["trigger"], "wait");
    let rows = json(&plan(SLOW).flags("--batch-rows 100"));
    assert_eq!(rows["batch"]["trigger"], "rows");
    let bytes = json(&plan(SLOW).flags("--batch-bytes 10KB"));
    assert_eq!(bytes["batch"]["trigger"], "bytes");
    assert_eq!(bytes["batch"]["rows"], 50);
}

#[test]
fn a_plan_in_json_has_its_figures_and_they_fit_together() {
    let found = json(&plan(SLOW));
    assert_eq!(found["batch"]["rows"], 2_000);
    assert_eq!(found["pace"], "keeps-up");
    let wait = found["wait_ms"]["p99"].as_f64().unwrap();
    let transaction = found["transaction_ms"].as_f64().unwrap();
    assert!(wait <= 1_000.0 + transaction, "{found}");
    assert_eq!(found["ceilings"].as_array().unwrap().len(), 6);
    assert_eq!(found["loss"]["server_crash"].as_array().unwrap().len(), 6);
    // Computed from the round trip given, not measured.
    let far = json(&plan(SLOW).flags("--round-trip 100ms"));
    let farther = far["transaction_ms"].as_f64().unwrap();
    assert!(farther > transaction + 300.0, "{far}");
}

#[test]
fn more_than_the_workers_carry_is_called_so() {
    let found = json(&plan("--rows-per-second 1e9 --row-bytes 1000"));
    assert_eq!(found["pace"], "overloaded");
    assert_eq!(found["wait_ms"], Value::Null);
}

#[test]
fn a_plan_measures_the_server_it_is_given() {
    let database = Database::new();
    let line = Proxy::far(database.server.port(), Duration::from_millis(20));
    let far = json(&plan(SLOW).args(["--dsn", &line.dsn(&database.name)]));
    // At least BEGIN, the rows and COMMIT go there and back, and the line lets nothing through sooner.
    let transaction = far["transaction_ms"].as_f64().unwrap();
    assert!(transaction > 3.0 * 40.0, "{far}");
}

#[test]
fn a_plan_says_where_each_of_its_figures_is_from() {
    let database = Database::new();
    let here = |plan: Cmd| plan.args(["--dsn", &database.dsn()]);
    for (plan, round_trip, commit, delay) in [
        (plan(SLOW), "assumed", "assumed", "assumed"),
        (
            plan(SLOW).flags("--commit-time 3ms"),
            "assumed",
            "given",
            "assumed",
        ),
        (here(plan(SLOW)), "measured", "measured", "measured"),
        (
            here(plan(SLOW).flags("--round-trip 1ms")),
            "given",
            "measured",
            "measured",
        ),
        (
            here(plan(SLOW).flags("--round-trip 1ms --commit-time 3ms")),
            "given",
            "given",
            "assumed",
        ),
    ] {
        let basis = &json(&plan)["basis"];
        for (figure, from) in [
            ("round_trip", round_trip),
            ("commit", commit),
            ("wal_writer_delay", delay),
        ] {
            assert_eq!(basis[figure]["from"], from, "{figure}: {basis}");
        }
        let text = plan.run();
        text.exits(0).tells(&format!("({round_trip}), commit "));
        // Rows of another table are no promise for this one.
        text.tells("TPC-H lineitem")
            .tells("not those of your table")
            .tells("pgrung bench --input");
        text.tells("verdict  by these figures");
    }
    let given = json(&plan(SLOW).flags("--commit-time 3ms"));
    assert_eq!(given["basis"]["commit"]["ms"], 3.0);
    assert!(
        given["basis"]["row_costs"]
            .as_str()
            .unwrap()
            .contains("lineitem")
    );
}

#[test]
fn what_cannot_be_planned_is_wrong_usage() {
    for words in [
        "--rows-per-second 0 --row-bytes 100",
        "--rows-per-second=-5 --row-bytes 100",
        "--rows-per-second nan --row-bytes 100",
        "--rows-per-second inf --row-bytes 100",
        "--rows-per-second many --row-bytes 100",
        "--rows-per-second 10 --row-bytes 0",
        "--rows-per-second 10",
        "--row-bytes 10",
        "--rows-per-second 10 --row-bytes 10 --strategy discard",
        "--rows-per-second 10 --row-bytes 10 --workers 0",
        "--rows-per-second 10 --row-bytes 10 --latency soon",
    ] {
        let ran = plan(words).run();
        assert_eq!(ran.code, Some(2), "{words}: {ran}");
        assert_eq!(ran.stdout, "", "{words}: {ran}");
        ran.says(&["error"]);
    }
}
