//! `pgrung plan`: the figures of a stream before it runs.

use serde_json::Value;

use crate::support::{Database, stream::pgrung};

fn plan(args: &[&str]) -> (Option<i32>, String, String) {
    let output = pgrung().arg("plan").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn json(args: &[&str]) -> Value {
    let (code, stdout, stderr) = plan(&[args, &["--json"]].concat());
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

const SLOW: [&str; 4] = ["--rows-per-second", "2000", "--row-bytes", "200"];

#[test]
fn a_plan_says_all_that_was_asked_for() {
    let (code, stdout, stderr) = plan(&[&SLOW[..], &["--latency", "200ms"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    for word in [
        "window", "batch", "% full", "wait ", "ceiling", "copy", "memory", "loss", "verdict",
    ] {
        assert!(stdout.contains(word), "no {word} in {stdout}");
    }
    assert!(stdout.contains("--max-wait"), "{stdout}");
    for durability in ["off", "end", "local", "on", "remote-write", "remote-apply"] {
        let told = stdout
            .lines()
            .any(|line| line.trim_start().starts_with(durability));
        assert!(told, "no {durability} in {stdout}");
    }
}

#[test]
fn which_trigger_fires_follows_from_the_arrivals() {
    assert_eq!(json(&SLOW)["batch"]["trigger"], "wait");
    let rows = [&SLOW[..], &["--batch-rows", "100"]].concat();
    assert_eq!(json(&rows)["batch"]["trigger"], "rows");
    let bytes = [&SLOW[..], &["--batch-bytes", "10KB"]].concat();
    let bytes = json(&bytes);
    assert_eq!(bytes["batch"]["trigger"], "bytes");
    assert_eq!(bytes["batch"]["rows"], 50);
}

#[test]
fn a_plan_in_json_has_its_figures_and_they_fit_together() {
    let found = json(&SLOW);
    assert_eq!(found["batch"]["rows"], 2_000);
    assert_eq!(found["pace"], "keeps-up");
    let wait = found["wait_ms"]["p99"].as_f64().unwrap();
    let transaction = found["transaction_ms"].as_f64().unwrap();
    assert!(wait <= 1_000.0 + transaction, "{found}");
    assert_eq!(found["ceilings"].as_array().unwrap().len(), 6);
    assert_eq!(found["loss"]["server_crash"].as_array().unwrap().len(), 6);
    let far = json(&[&SLOW[..], &["--round-trip", "100ms"]].concat());
    assert!(
        far["transaction_ms"].as_f64().unwrap() > transaction + 300.0,
        "{far}"
    );
}

#[test]
fn more_than_the_workers_carry_is_called_so() {
    let args = ["--rows-per-second", "1e9", "--row-bytes", "1000"];
    let found = json(&args);
    assert_eq!(found["pace"], "overloaded");
    assert_eq!(found["wait_ms"], Value::Null);
}

#[test]
fn a_plan_measures_the_server_it_is_given() {
    let database = Database::new();
    let far =
        crate::support::Proxy::start(database.server.port, std::time::Duration::from_millis(20));
    let near = json(&[&SLOW[..], &["--dsn", &database.dsn()]].concat());
    let far = json(&[&SLOW[..], &["--dsn", &database.dsn_at(far.port)]].concat());
    let transaction = |plan: &Value| plan["transaction_ms"].as_f64().unwrap();
    // At least BEGIN, the rows and COMMIT go there and back.
    assert!(
        transaction(&far) > transaction(&near) + 3.0 * 40.0,
        "{near}\n{far}"
    );
}

#[test]
fn what_cannot_be_planned_is_wrong_usage() {
    for args in [
        &["--rows-per-second", "0", "--row-bytes", "100"][..],
        &["--rows-per-second=-5", "--row-bytes", "100"],
        &["--rows-per-second", "nan", "--row-bytes", "100"],
        &["--rows-per-second", "inf", "--row-bytes", "100"],
        &["--rows-per-second", "many", "--row-bytes", "100"],
        &["--rows-per-second", "10", "--row-bytes", "0"],
        &["--rows-per-second", "10"],
        &["--row-bytes", "10"],
        &[
            "--rows-per-second",
            "10",
            "--row-bytes",
            "10",
            "--strategy",
            "discard",
        ],
        &[
            "--rows-per-second",
            "10",
            "--row-bytes",
            "10",
            "--workers",
            "0",
        ],
        &[
            "--rows-per-second",
            "10",
            "--row-bytes",
            "10",
            "--latency",
            "soon",
        ],
    ] {
        let (code, stdout, stderr) = plan(args);
        assert_eq!(code, Some(2), "{args:?}: {stdout}{stderr}");
        assert!(
            stdout.is_empty() && stderr.contains("error"),
            "{args:?}: {stderr}"
        );
    }
}
