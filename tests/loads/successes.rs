//! Loads that go well: sources, tables, strategies, and the account given at the end.

use std::fs;

use serde_json::Value;

use crate::support::{Database, Files, PASSWORD, RUNGS, pgrung, text};

/// `id,name` with `count` rows, the first one numbered `first`.
fn people(first: u64, count: u64) -> String {
    let rows = (first..first + count).map(|id| format!("{id},name {id}\n"));
    "id,name\n".to_owned() + &rows.collect::<String>()
}

const PEOPLE: &str = "CREATE TABLE people (id integer, name text)";

/// The sum of the ids shows that the right rows are there, not only as many.
fn ids(database: &Database) -> String {
    database.one("SELECT count(*), coalesce(sum(id), 0), count(DISTINCT id) FROM people")
}

#[test]
fn files_and_globs_and_stdin_are_loaded_together() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    files.write("part-1.csv", people(1, 10));
    files.write("part-2.csv", people(11, 10));
    let other = files.write("other.csv", people(21, 10));
    let glob = text(&files.path("part-?.csv"));
    let ran = database
        .load("people")
        .args([&glob, &other, "-"])
        .run_on(people(31, 10));
    ran.exits(0);
    assert_eq!(ids(&database), "40|820|40");
}

#[test]
fn without_an_input_stdin_is_read() {
    let database = Database::with(PEOPLE);
    database.load("people").run_on(people(1, 3)).exits(0);
    assert_eq!(ids(&database), "3|6|3");
}

#[test]
fn a_file_whose_name_looks_like_a_glob_is_that_file() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let file = files.write("a[1]*.csv", people(1, 3));
    database.load("people").arg(file).run().exits(0);
    assert_eq!(ids(&database), "3|6|3");
}

#[test]
fn a_named_pipe_is_a_source() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let pipe = files.path("pipe.csv");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let load = database.load("people").arg(&pipe).spawn();
    fs::write(&pipe, people(1, 3)).unwrap();
    load.wait().exits(0);
    assert_eq!(ids(&database), "3|6|3");
}

#[test]
fn a_limit_counts_over_all_files() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let [one, two] = [1, 11].map(|first| files.write(&format!("{first}.csv"), people(first, 10)));
    let load = database.load("people").args([&one, &two]);
    load.flags("--limit 13").run().exits(0);
    assert_eq!(ids(&database), "13|91|13");
}

#[test]
fn the_server_is_named_by_the_environment_too() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let file = files.write("people.csv", people(1, 3));
    pgrung("load --table people")
        .arg(file)
        .env("PGHOST", database.server.embedded().socket_dir())
        .env("PGPORT", database.server.port().to_string())
        .env("PGUSER", "postgres")
        .env("PGPASSWORD", PASSWORD)
        .env("PGDATABASE", &database.name)
        .run()
        .exits(0);
    pgrung("load --table people")
        .arg(files.write("more.csv", people(4, 3)))
        .env("DATABASE_URL", database.dsn())
        .run()
        .exits(0);
    assert_eq!(ids(&database), "6|21|6");
}

#[test]
fn a_password_and_the_right_to_insert_are_all_that_a_load_needs() {
    let database = Database::with(PEOPLE);
    database.run("GRANT INSERT ON people TO loader");
    let files = Files::new();
    let file = files.write("people.csv", people(1, 10));
    for strategy in RUNGS {
        pgrung("load --table people")
            .arg(&file)
            .dsn(&database.loader_dsn(PASSWORD))
            .flags(strategy)
            .arg("--no-ledger")
            .run()
            .exits(0);
    }
    assert_eq!(database.count("people"), 60);
}

#[test]
fn many_workers_and_small_batches_load_every_row_once() {
    let files = Files::new();
    let parts: Vec<String> = (0..3)
        .map(|part| files.write(&format!("{part}.csv"), people(1 + 700 * part, 700)))
        .collect();
    let database = Database::with(PEOPLE);
    for strategy in RUNGS {
        database.run("TRUNCATE people");
        let load = database.load("people").args(&parts).flags(strategy);
        load.flags("--batch-rows 50 -j 4").run().exits(0);
        assert_eq!(ids(&database), "2100|2206050|2100", "{strategy}");
    }
}

#[test]
fn the_summary_tells_what_is_in_the_table() {
    let database = Database::with("CREATE SCHEMA s; CREATE TABLE s.\"People\" (id int, name text)");
    let files = Files::new();
    let content = people(1, 1050);
    let file = files.write("people.csv", &content);
    let ran = database
        .load("s.\"People\"")
        .arg(&file)
        .flags("--strategy multi-insert -j 1")
        .flags("--batch-rows 100")
        .run();
    ran.exits(0);
    let told = ran.summary();
    let mut keys: Vec<&String> = told.as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(
        keys,
        "balanced batches bottleneck bytes_read command commit_latency_ms elapsed_seconds error \
         exit_code finished_at import_id mode peak_memory_bytes reject_reasons retries rows \
         rows_per_second started_at strategy table version wait_ms workers writers_waited_seconds"
            .split_whitespace()
            .collect::<Vec<_>>()
    );
    assert_eq!(database.count("s.\"People\""), 1050);
    for (path, expected) in [
        ("/rows/read", 1050),
        ("/rows/loaded", 1050),
        ("/rows/rejected", 0),
        ("/rows/already_loaded", 0),
        ("/rows/dropped", 0),
        ("/rows/suppressed", 0),
        ("/workers", 1),
        ("/bytes_read", content.len()),
        ("/batches/count", 11),
        ("/batches/flush/rows", 10),
        ("/batches/flush/end", 1),
    ] {
        assert_eq!(ran.number(path), expected as f64, "{path}");
    }
    assert_eq!(told["table"], "\"s\".\"People\"");
    assert_eq!(told["strategy"], "multi-insert");
    let number = |value: &Value| value.as_f64().unwrap();
    let fill = number(&told["batches"]["fill_mean"]);
    assert!((0.9..=1.0).contains(&fill), "{fill}");
    for durations in ["commit_latency_ms", "wait_ms"] {
        let quantiles =
            ["p50", "p90", "p99", "p999", "max"].map(|key| number(&told[durations][key]));
        assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{told}");
    }
    assert!(number(&told["wait_ms"]["max"]) >= number(&told["commit_latency_ms"]["p50"]));
    assert!(number(&told["elapsed_seconds"]) > 0.0);
    // The text on stdout is the same account.
    for word in [
        "1,050 rows loaded into \"s\".\"People\"",
        "1,050 read = 1,050 inserted",
        "closed by rows 10",
        "from the first row of a batch to its commit",
        &format!("import   {}", told["import_id"].as_str().unwrap()),
    ] {
        ran.tells(word);
    }
}

#[test]
fn quiet_says_nothing_and_verbose_says_what_was_decided() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let quiet = database
        .load("people")
        .arg(files.write("1.csv", people(1, 5)))
        .arg("--quiet")
        .run();
    quiet.exits(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let verbose = database
        .load("people")
        .arg(files.write("2.csv", people(6, 5)))
        .arg("--verbose")
        .run();
    verbose.exits(0).says(&[
        "2.csv: csv, columns \"id\", \"name\"",
        "pgrung: import ",
        "memory for batches: ",
    ]);
}

#[test]
fn discard_reads_everything_and_writes_nothing() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let file = files.write("people.csv", people(1, 50));
    let ran = database.loads("people", &file, "--strategy discard");
    ran.exits(0);
    assert_eq!(database.count("people"), 0);
}

#[test]
fn json_lines_reach_every_type_with_every_strategy() {
    let database = Database::new();
    let files = Files::new();
    let file = files.write(
        "things.ndjson",
        concat!(
            "{\"id\": 1, \"name\": \"a\\nb \\u00e9\", \"price\": 1.50, \"tags\": [\"x\", 1], \"on\": true}\n",
            "\n",
            "{\"on\": null, \"id\": 2, \"tags\": {\"k\": null}, \"name\": {\"first\": \"A\"}}\r\n",
            "{\"id\": 3, \"day\": \"2024-02-29\", \"name\": \"\", \"tags\": \"s\"}",
        ),
    );
    for strategy in RUNGS {
        database.run(
            "DROP TABLE IF EXISTS things;
             CREATE TABLE things (id int, name text, price numeric(8, 2), tags jsonb, \"on\" boolean,
                 day date, made text DEFAULT 'by default')",
        );
        database.loads("things", &file, strategy).exits(0);
        assert_eq!(
            database.rows("things"),
            [
                "1|a\nb é|1.50|[\"x\", 1]|t|~|by default",
                "2|{\"first\": \"A\"}|~|{\"k\": null}|~|~|by default",
                "3||~|\"s\"|~|2024-02-29|by default",
            ],
            "{strategy}"
        );
    }
}

#[test]
fn partitions_mixed_case_generated_and_identity_columns_are_filled_alike() {
    let database = Database::new();
    let files = Files::new();
    let file = files.write("rows.csv", "Day,a\n2023-05-01,1\n2024-05-01,2\n");
    for strategy in RUNGS {
        database.run(
            "DROP TABLE IF EXISTS \"Order Lines\";
             CREATE TABLE \"Order Lines\" (\"No\" bigint GENERATED ALWAYS AS IDENTITY, \"Day\" date,
                 a int, twice int GENERATED ALWAYS AS (a * 2) STORED, b text DEFAULT 'x')
                 PARTITION BY RANGE (\"Day\");
             CREATE TABLE IF NOT EXISTS old PARTITION OF \"Order Lines\" FOR VALUES FROM ('2023-01-01') TO ('2024-01-01');
             CREATE TABLE IF NOT EXISTS new PARTITION OF \"Order Lines\" FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        );
        let load = database.load("\"Order Lines\"").arg(&file).flags(strategy);
        load.flags("-j 1").run().exits(0);
        assert_eq!(
            database
                .lines("SELECT tableoid::regclass, twice, b, a FROM \"Order Lines\" ORDER BY a"),
            ["old|2|x|1", "new|4|x|2"],
            "{strategy}"
        );
    }
}

#[test]
fn rows_wider_than_a_statement_has_parameters_for_are_split() {
    const COLUMNS: usize = 1500;
    let list = |of: &dyn Fn(usize) -> String| (0..COLUMNS).map(of).collect::<Vec<_>>().join(",");
    let database = Database::new();
    let files = Files::new();
    let mut content = list(&|column| format!("c{column}")) + "\n";
    for row in 0..100 {
        content += &(list(&|column| (row + column).to_string()) + "\n");
    }
    let file = files.write("wide.csv", content);
    // 1,500 x 100 is more than the 65,535 parameters that one statement takes.
    for strategy in RUNGS {
        database.run(&format!(
            "DROP TABLE IF EXISTS wide; CREATE TABLE wide ({})",
            list(&|column| format!("c{column} int"))
        ));
        database.loads("wide", &file, strategy).exits(0);
        assert_eq!(
            database.one("SELECT count(*), sum(c0), sum(c1499) FROM wide"),
            "100|4950|154850",
            "{strategy}"
        );
    }
}

#[test]
fn rows_that_a_trigger_keeps_out_are_counted_and_the_exit_code_tells() {
    let database = Database::new();
    let files = Files::new();
    let file = files.write("people.csv", people(1, 10));
    database.run(
        "CREATE FUNCTION odd_only() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN IF NEW.id % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END$$",
    );
    for strategy in RUNGS {
        database.run(
            "DROP TABLE IF EXISTS people; CREATE TABLE people (id int, name text);
             CREATE TRIGGER odd_only BEFORE INSERT ON people FOR EACH ROW EXECUTE FUNCTION odd_only()",
        );
        let ran = database.loads("people", &file, &format!("{strategy} --batch-rows 3"));
        ran.exits(3);
        let account = "10 read = 5 inserted + 5 kept out by a trigger";
        assert!(ran.stdout.contains(account), "{strategy}: {ran}");
        assert_eq!(ids(&database), "5|25|5", "{strategy}");
        let told = ran.summary();
        assert_eq!(told["rows"]["suppressed"], 5, "{strategy}");
    }
}

#[test]
fn rows_that_were_there_before_stay() {
    let database = Database::with(PEOPLE);
    database.run("INSERT INTO people VALUES (1000, 'before')");
    let files = Files::new();
    for (number, commit) in ["batch", "load"].into_iter().enumerate() {
        let first = 1 + 10 * number as u64;
        let file = files.write(&format!("{commit}.csv"), people(first, 10));
        let load = database.load("people").arg(&file);
        load.args(["--commit", commit]).run().exits(0);
    }
    assert_eq!(ids(&database), "21|1210|21");
}

#[test]
fn a_load_into_an_embedded_server_keeps_its_rows_in_the_directory_given() {
    let files = Files::new();
    let dir = files.path("cluster");
    let embedded = format!("--embedded={}", dir.display());
    let load = |table: &str| {
        let load = pgrung("load --no-header").args([&embedded, "--table", table]);
        load.run()
    };
    load("no_such_table").exits(2).says(&["no_such_table"]);
    assert!(dir.join("PG_VERSION").exists());
    assert!(!dir.join("postmaster.pid").exists(), "it is stopped");
}

#[test]
fn the_account_says_why_rows_were_rejected_in_groups() {
    let database = Database::with("CREATE TABLE t (id int, day date NOT NULL)");
    let lines = |id: u32| match id % 10 {
        3 => format!("{id},2026-02-30\n"),
        6 => format!("x{id},2026-02-28\n"),
        _ => format!("{id},2026-02-28\n"),
    };
    let text: String = std::iter::once("id,day\n".to_owned())
        .chain((1..=50).map(lines))
        .chain(std::iter::once("51,\n".to_owned()))
        .collect();
    let load = database.load_once("t").flags("-j 1 --batch-rows 20");
    let ran = load.run_on(text);
    ran.exits(3)
        .tells("5 x 22008 in \"day\"")
        .tells("1 x 23502 in \"day\"");
    let reasons = ran.summary()["reject_reasons"].as_array().unwrap();
    let told = |reason: &serde_json::Value| {
        let text = |key: &str| reason[key].as_str().unwrap_or_default().to_owned();
        (
            reason["count"].as_u64(),
            text("sqlstate"),
            text("column"),
            text("example"),
        )
    };
    let told: Vec<_> = reasons.iter().map(told).collect();
    assert_eq!(told.len(), 3, "{ran}");
    for (count, sqlstate, column, place) in [
        (5, "22008", "day", "stdin, record 3, line 4: "),
        (5, "22P02", "id", "stdin, record 6, line 7: "),
        (1, "23502", "day", "stdin, record 51, line 52: "),
    ] {
        let found = told
            .iter()
            .find(|reason| reason.1 == sqlstate)
            .expect(sqlstate);
        assert_eq!((found.0, found.2.as_str()), (Some(count), column), "{ran}");
        assert!(found.3.starts_with(place), "{ran}");
    }
}
