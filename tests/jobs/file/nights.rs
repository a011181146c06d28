//! Nights of several loads: in their order, again, with one that fails, and a part of them.

use std::sync::Arc;

use nix::sys::signal::Signal;

use super::{fixture, not_run, run, told};
use crate::support::{Cmd, Database, Files, PASSWORD, wait_until};

const TABLES: &str = include_str!("../../../fixtures/jobs/nightly.sql");

/// The night of the README.
fn nightly(database: &Database) -> Cmd {
    database.pgrung("run").arg(fixture("nightly.toml"))
}

/// Tables `a`, `b` and `c`, files of the same names, and a load of each.
fn three(keys: [&str; 3]) -> (Arc<Database>, Files, String) {
    let tables = ["a", "b", "c"];
    let (database, files) = (Database::new(), Files::new());
    let mut lines = String::new();
    for (table, keys) in tables.into_iter().zip(keys) {
        database.run(&format!("CREATE TABLE {table} (id int PRIMARY KEY)"));
        files.write(&format!("{table}.csv"), "id\n1\n2\n");
        lines.push_str(&format!(
            "[[load]]\nname = \"{table}\"\ninput = \"{table}.csv\"\ntable = \"{table}\"\n{keys}\n"
        ));
    }
    (database, files, lines)
}

const GUARDED: &str = "mode = \"replace\"\nmin_rows = 3";

fn counts(database: &Database) -> [u64; 3] {
    ["a", "b", "c"].map(|table| database.count(table))
}

#[test]
fn a_night_run_twice_leaves_the_tables_as_the_first_one_did() {
    let database = Database::with(TABLES);
    let first = nightly(&database).run();
    first.exits(3).tells("customers: 3 rows merged into");
    first
        .tells("prices: 2 rows merged")
        .tells("orders: 4 rows loaded");
    first
        .tells("\n3 loads in ")
        .tells(": 0 failed, 0 not run\n");
    let summary = first.summary();
    assert_eq!(summary["command"], "run");
    assert_eq!(summary["exit_code"], 3);
    assert_eq!(told(summary, "/name"), ["customers", "prices", "orders"]);
    assert_eq!(told(summary, "/exit_code"), ["0", "0", "3"]);
    assert_eq!(told(summary, "/mode"), ["upsert", "replace", "append"]);
    assert_eq!(told(summary, "/rows/inserted"), ["2", "2", "4"]);
    let tables = || ["customers", "prices", "orders", "by_city"].map(|table| database.rows(table));
    let left = tables();
    assert_eq!(left[0], ["1|Ann|Oslo|2026-11-20", "2|Bob|Oslo|2026-11-22"]);
    assert_eq!(left[3], ["Oslo|2"]);

    let second = nightly(&database).run();
    second.exits(3);
    assert_eq!(tables(), left);
    let summary = second.summary();
    assert_eq!(told(summary, "/rows/unchanged"), ["2", "0", "0"]);
    assert_eq!(told(summary, "/rows/inserted"), ["0", "2", "0"]);
    assert_eq!(told(summary, "/rows/already_loaded"), ["0", "0", "4"]);
    for name in ["customers", "prices", "orders"] {
        let status = database.pgrung("status --job").arg(name).run();
        assert!(status.exits(0).stdout.contains(name), "{status}");
    }
}

#[test]
fn the_readme_shows_this_very_night() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let night = std::fs::read_to_string(fixture("nightly.toml")).unwrap();
    assert!(readme.contains(&format!("```toml\n{night}```\n")));
}

#[test]
fn a_load_that_fails_stops_those_behind_it() {
    let (database, files, lines) = three(["", GUARDED, ""]);
    let ran = run(&database, &files, &lines).run();
    ran.exits(4).says(&[
        "b: the input has 2 good rows, --min-rows wants 3",
        "c was not run: b has failed",
        "error: 1 load failed: b",
    ]);
    ran.tells("2 loads in ").tells(": 1 failed, 1 not run\n");
    assert_eq!(counts(&database), [2, 0, 0]);
    let summary = ran.summary();
    assert_eq!(told(summary, "/name"), ["a", "b"]);
    assert_eq!(told(summary, "/exit_code"), ["0", "4"]);
    assert_eq!(not_run(summary), ["c"]);
}

#[test]
fn with_keep_going_it_does_not_and_the_worst_end_is_told() {
    let (database, files, lines) = three([GUARDED, "", "no_header = true"]);
    let ran = run(&database, &files, &format!("keep_going = true\n{lines}")).run();
    // The header of the last one is a bad row.
    ran.exits(4).says(&["error: 1 load failed: a"]);
    assert_eq!(counts(&database), [0, 2, 2]);
    assert_eq!(told(ran.summary(), "/exit_code"), ["4", "0", "3"]);
}

#[test]
fn bad_rows_stop_nobody() {
    let (database, files, lines) = three(["no_header = true", "", ""]);
    run(&database, &files, &lines).run().exits(3);
    assert_eq!(counts(&database), [2, 2, 2]);
}

#[test]
fn only_the_loads_that_are_named_run_in_the_order_of_the_file() {
    let (database, files, lines) = three(["", "", ""]);
    let run = run(&database, &files, &lines).flags("--only c --only a");
    let ran = run.run();
    ran.exits(0);
    assert_eq!(counts(&database), [2, 0, 2]);
    assert_eq!(told(ran.summary(), "/name"), ["a", "c"]);
    assert_eq!(not_run(ran.summary()), Vec::<&str>::new());
}

#[test]
fn a_load_says_otherwise_than_the_defaults_also_that_it_wants_none_of_them() {
    let (database, files, lines) = three(["no_header = true", "", "after = []"]);
    let defaults = "[defaults]\nno_header = false\nafter = [\"INSERT INTO a VALUES (7)\"]\n";
    let ran = run(&database, &files, &format!("{defaults}{lines}"))
        .flags("--only a --only c")
        .run();
    ran.exits(3);
    assert_eq!(database.rows("a"), ["1", "2", "7"]);
    assert_eq!(counts(&database), [3, 0, 2]);
}

#[test]
fn an_input_that_is_late_fails_its_load_unless_that_is_optional() {
    let (database, files, lines) = three(["", "", ""]);
    let lines = lines.replace("\"b.csv\"", "[\"late-*.csv\", \"b.csv\"]");
    std::fs::rename(files.path("b.csv"), files.path("kept")).unwrap();
    let late = run(&database, &files, &lines).run();
    late.exits(2)
        .says(&["b: ", "job.toml:8:9: ", "late-*.csv\" matches no file"]);
    assert_eq!(counts(&database), [2, 0, 0]);

    let lines = lines.replace("table = \"b\"", "table = \"b\"\noptional = true");
    let passed_over = run(&database, &files, &lines).run();
    let reason = "b was not run: none of its inputs is there";
    passed_over.exits(0).says(&[reason]);
    assert_eq!(counts(&database), [2, 0, 2]);
    assert_eq!(not_run(passed_over.summary()), ["b"]);

    // A part of them is another matter.
    files.write("late-1.csv", "id\n3\n");
    run(&database, &files, &lines).run().exits(6);
    assert_eq!(counts(&database), [2, 0, 2]);
}

#[test]
fn ctrl_c_ends_the_load_under_way_and_begins_no_other() {
    let (database, files, lines) = three(["", "max_wait = \"20ms\"", ""]);
    let lines = format!("keep_going = true\n{}", lines.replace("\"b.csv\"", "\"-\""));
    let hook = "[on_failure]\nrun = [\"sh\", \"-c\", \"cat > told.json\"]\n";
    let run = run(&database, &files, &format!("{lines}{hook}"));
    let load = run.open_with("id\n1\n2\n");
    wait_until("rows come", || database.count("b") == 2);
    load.signal(Signal::SIGINT);
    let ran = load.wait();
    ran.exits(130).says(&[
        "b: 2 rows of this run are committed and stay in the table; to go on: ",
        "c was not run: the run was interrupted",
    ]);
    let printed = ran
        .stderr
        .lines()
        .find_map(|line| line.split_once("to go on: "));
    let (_, command) = printed.unwrap();
    assert!(
        command.contains(" run ") && command.contains("job.toml"),
        "{ran}"
    );
    assert_eq!(told(ran.summary(), "/exit_code"), ["0", "130"]);
    let told: serde_json::Value =
        serde_json::from_slice(&std::fs::read(files.path("told.json")).unwrap()).unwrap();
    assert_eq!(told["exit_code"], 130);
    assert_eq!(counts(&database), [2, 2, 0]);
}

#[test]
fn a_server_that_is_not_there_fails_the_load_and_not_the_file() {
    let (_, files, lines) = three(["", "", ""]);
    let nobody = format!("host=127.0.0.1 port=1 password='{PASSWORD}'");
    let at_once = format!("[defaults]\nmax_retries = 0\n{lines}");
    let ran = super::run_alone(&files, &at_once)
        .env("DATABASE_URL", nobody)
        .env("PGUSER", "nobody")
        .run();
    ran.exits(5).says(&["a: ", "b was not run: a has failed"]);
    let nonsense = super::run_alone(&files, &lines).env("DATABASE_URL", "port=http");
    let ran = nonsense.run();
    ran.exits(2).says(&["error: `port` in DATABASE_URL"]);
}

#[test]
fn with_json_there_is_one_account_on_stdout_and_with_quiet_none() {
    let (database, files, lines) = three(["", GUARDED, ""]);
    let run = run(&database, &files, &lines);
    let json = run.clone().flags("--log-format json").run();
    json.exits(4);
    assert_eq!(json.json()["loads"], json.summary()["loads"]);
    for line in json.stderr.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let quiet = run.flags("--quiet").run();
    assert_eq!(quiet.exits(4).stdout, "");
    assert!(!quiet.stderr.contains("not run"), "{quiet}");
}
