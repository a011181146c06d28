//! What a stream says while it runs: lines for people and lines for machines.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Feed, Files, SMALL, Sink, rows, wait_until};

/// The number between `before` and `after` in `line`, thousands apart or not.
#[track_caller]
fn between(line: &str, before: &str, after: &str) -> f64 {
    let (_, rest) = line
        .split_once(before)
        .unwrap_or_else(|| panic!("no \"{before}\" in {line}"));
    let (number, _) = rest
        .split_once(after)
        .unwrap_or_else(|| panic!("no \"{after}\" after \"{before}\" in {line}"));
    number
        .replace(',', "")
        .parse()
        .unwrap_or_else(|_| panic!("\"{number}\" in {line}"))
}

#[test]
fn each_line_of_progress_has_the_figures_since_the_last() {
    let database = Sink::new();
    let load = database.load().flags("--batch-rows 100 --max-wait 50ms");
    let mut stream = load.with_figures("200ms").open();
    let feed = Feed::steady(stream.take_pipe(), u64::MAX, 3_000, "");
    wait_until("lines", || stream.stderr().matches("rows/s").count() >= 6);
    let last = feed.stop().rows as f64;
    let ran = stream.wait();
    ran.exits(0);
    let lines: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("rows/s"))
        .collect();
    let mut batches = 0.0;
    let mut before = 0.0;
    for line in &lines {
        let loaded = between(line, "pgrung: ", " rows loaded");
        assert!(loaded >= before && loaded <= last, "{line}");
        let rate = between(line, "rows loaded, ", " rows/s");
        // Over two tenths of a second, or more on a busy machine.
        assert!(
            rate * 0.2 <= (loaded - before) * 1.2 + 1.0,
            "{line}, before {before}"
        );
        before = loaded;
        let closed = between(line, "flush rows ", " bytes")
            + between(line, " bytes ", " wait")
            + between(line, " wait ", " end")
            + between(line, " end ", ";");
        batches += closed;
        if closed > 0.0 {
            let fill = between(line, "; fill ", " %");
            assert!(fill > 0.0 && fill <= 100.0, "{line}");
        }
        let p50 = between(line, "; wait p50 ", " ms");
        assert!(between(line, " p99 ", " ms") >= p50, "{line}");
        assert!(between(line, "; queue ", " of") <= 2.0, "{line}");
        assert_eq!(between(line, " of ", ";"), 2.0, "{line}");
        assert_eq!(between(line, "; retries ", ";"), 0.0, "{line}");
        assert_eq!(between(line, "; dropped ", ";"), 0.0, "{line}");
        assert!(line.contains("; spilled 0 B"), "{line}");
    }
    assert!(
        batches > 0.0 && batches <= ran.number("/batches/count"),
        "{ran}"
    );
}

#[test]
fn a_line_of_progress_tells_what_is_dropped_and_spilled() {
    let database = Sink::new();
    let dir = Files::new();
    for (load, word, code) in [
        (database.load().flags("--overflow drop"), "; dropped ", 3),
        (database.load().spill_to(dir.dir()), "; spilled ", 0),
    ] {
        let stored = database.count();
        let mut stream = load
            .flags(SMALL)
            .flags("--queue 1")
            .with_figures("100ms")
            .open();
        stream.send(rows(1, 10));
        wait_until("the first batch", || database.count() > stored);
        let lock = database.lock("t");
        stream.send(rows(11, 2_000));
        let some = |line: &str| {
            line.split_once(word)
                .is_some_and(|(_, rest)| !rest.starts_with("0"))
        };
        wait_until(word, || stream.stderr().lines().any(some));
        drop(lock);
        stream.end().exits(code);
    }
}

#[test]
fn every_line_of_a_json_log_is_an_object_with_time_level_and_message() {
    let database = Sink::new();
    let load = || database.load().flags("--log-format json --max-wait 20ms");
    let mut stream = load().arg("--verbose").with_figures("100ms").open();
    stream.send(rows(1, 10));
    stream.wait_to_say("10 rows loaded");
    // A message with quotes and a line break in it.
    stream.send("11,0,\"never\nclosed");
    let torn = stream.end();
    torn.exits(6);
    let refused = load()
        .flags("--on-error stop")
        .run_on("x,0,\"a \"\"bad\"\"\nrow\"\n");
    refused.exits(1).says(&["22P02"]);
    let missing = load().arg("/none.csv").run();
    missing.exits(6);
    for (ran, expected) in [
        (&torn, &["detail", "error", "notice"][..]),
        (&refused, &["error", "notice"]),
        (&missing, &["error"]),
    ] {
        let mut levels = BTreeSet::new();
        let mut before = String::new();
        for line in ran.stderr.lines() {
            let value: Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let fields: Vec<&String> = value.as_object().unwrap().keys().collect();
            assert_eq!(fields, ["level", "message", "time"], "{line}");
            // As RFC 3339, in UTC with milliseconds: such times sort as text.
            let time = value["time"].as_str().unwrap().to_owned();
            assert!(
                time >= before && time.len() == 24 && time.ends_with('Z'),
                "{line}"
            );
            before = time;
            assert!(!value["message"].as_str().unwrap().is_empty(), "{line}");
            levels.insert(value["level"].as_str().unwrap().to_owned());
        }
        assert_eq!(Vec::from_iter(levels), expected, "{ran}");
    }
}
