//! The comparison of the strategies, on a private server and on a given one.

use nix::sys::signal::Signal;

use crate::support::{Cmd, Database, Files, Server, nothing_in, pgrung, wait_until};

const SMALL: &str = "--rows 2000 --rounds 1 --max-seconds 120s";

const RUNGS: [&str; 7] = [
    "insert, commit a row",
    "insert",
    "pipeline",
    "multi-insert",
    "unnest",
    "copy",
    "discard",
];

/// `pgrung bench` on a database.
fn on(database: &Database) -> Cmd {
    pgrung("bench").args(["--dsn", &database.dsn()])
}

/// Schemas that a bench made and did not remove.
fn left_over(database: &Database) -> Vec<String> {
    database.lines(
        "SELECT nspname FROM pg_namespace
         WHERE nspname !~ '^pg_(catalog|toast|temp)' AND nspname NOT IN ('public', 'information_schema')",
    )
}

#[test]
fn without_a_connection_it_brings_its_own_server_and_leaves_nothing() {
    let files = Files::new();
    let tmpdir = files.tmpdir("tmp");
    let ran = pgrung("bench").flags(SMALL).env("TMPDIR", &tmpdir).run();
    ran.exits(0).says(&["starting a private PostgreSQL server"]);
    for rung in RUNGS {
        // Two spaces end a cell: "insert" is not "insert, commit a row".
        let named = |line: &str| line.trim_start().split("  ").next() == Some(rung);
        assert!(ran.stdout.lines().any(named), "{rung}: {ran}");
    }
    ran.tells("lineitem");
    nothing_in(&tmpdir);
}

#[test]
fn as_json_every_rung_has_its_figures() {
    // Its own server: the log that it writes is counted.
    let database = Database::on(&Server::start(&[]));
    let ran = on(&database).flags(SMALL).arg("--json").run();
    let told = ran.exits(0).json();
    assert_eq!(told["rows"], 2000, "{told}");
    assert!(told["machine"].is_object() || told["machine"].is_string());
    assert!(!told["server"].is_null());
    let results = told["results"].as_array().unwrap();
    assert_eq!(results.len(), RUNGS.len());
    for (result, name) in results.iter().zip(RUNGS) {
        let (strategy, commit) = match name {
            "insert, commit a row" => ("insert", "row"),
            name => (name, "batch"),
        };
        assert_eq!(result["strategy"], strategy, "{told}");
        assert_eq!(result["commit"], commit, "{told}");
        assert_eq!(result["complete"], true, "{told}");
        assert_eq!(result["rows"], 2000, "{result}");
        let number = |key: &str| {
            result[key]
                .as_f64()
                .unwrap_or_else(|| panic!("{key}: {result}"))
        };
        assert!(number("rows_per_second") > 0.0 && number("seconds") > 0.0);
        assert!(number("ratio") > 0.0 && number("client_cpu_seconds") >= 0.0);
        let writes = name != "discard";
        assert_eq!(number("table_bytes") > 0.0, writes, "{result}");
        if writes {
            assert!(number("wal_bytes") > 100_000.0, "{result}");
            for key in ["p50", "p99", "p999", "max"] {
                let latency = result["commit_latency_ms"][key].as_f64();
                assert!(latency.is_some_and(|ms| ms > 0.0), "{key}: {result}");
            }
        }
    }
    assert_eq!(results[0]["ratio"], 1.0);
    assert_eq!(left_over(&database), Vec::<String>::new());
}

#[test]
fn as_markdown_it_is_a_table_with_a_line_for_every_rung() {
    let database = Database::new();
    let ran = on(&database)
        .flags("--rows 100 --rounds 1")
        .arg("--markdown")
        .run();
    ran.exits(0);
    let rows: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    assert_eq!(rows.len(), 2 + RUNGS.len(), "{ran}");
    let bars = |line: &str| line.matches('|').count();
    assert!(rows.iter().all(|row| bars(row) == bars(rows[0])), "{ran}");
    for (row, rung) in rows[2..].iter().zip(RUNGS) {
        assert!(row.starts_with(&format!("| {rung} |")), "{rung}: {ran}");
    }
}

#[test]
fn the_users_own_table_lends_its_shape_and_is_not_touched() {
    let database = Database::with(
        "CREATE TABLE \"Mine\" (id int PRIMARY KEY, name text NOT NULL DEFAULT 'x', twice int GENERATED ALWAYS AS (id * 2) STORED);
         INSERT INTO \"Mine\" VALUES (1, 'before')",
    );
    let files = Files::new();
    let rows: String = (1..=500).map(|id| format!("{id},name {id}\n")).collect();
    let file = files.write("mine.csv", format!("id,name\n{rows}"));
    let ran = on(&database)
        .args(["--input", &file, "--table", "\"Mine\""])
        .flags("--rounds 1 --strategies multi-insert,copy --json --batch-rows 7 -j 2")
        .run();
    let told = ran.exits(0).json();
    let names: Vec<&str> = told["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["strategy"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["multi-insert", "copy"]);
    assert_eq!(told["rows"], 500);
    assert_eq!(database.rows("\"Mine\""), ["1|before|2"]);
    assert_eq!(left_over(&database), Vec::<String>::new());
}

#[test]
fn durability_is_the_same_for_all_rungs_and_the_servers_own_if_not_given() {
    let database = Database::with(
        "CREATE TABLE seen (how text);
         CREATE FUNCTION note() RETURNS text LANGUAGE sql
             AS $$ INSERT INTO public.seen VALUES (current_setting('synchronous_commit')) RETURNING how $$;
         CREATE TABLE mine (id int, how text DEFAULT note())",
    );
    let name = &database.name;
    database.run(&format!(
        "ALTER DATABASE {name} SET synchronous_commit = local"
    ));
    let files = Files::new();
    let file = files.write("mine.csv", "id\n1\n2\n");
    for (given, wanted, told) in [
        ("", "local", "null"),
        ("--durability off", "off", "\"off\""),
        (
            "--durability remote-apply",
            "remote_apply",
            "\"remote-apply\"",
        ),
    ] {
        let mine = on(&database).args(["--input", &file, "--table", "mine"]);
        let ran = mine.flags("--rounds 1 --json").flags(given).run();
        let json = ran.exits(0).json();
        assert_eq!(json["durability"].to_string(), told, "{json}");
        // Each rung but the floor, and the warm-up.
        let seen = database.lines("SELECT how, count(*) FROM seen GROUP BY 1");
        assert_eq!(seen, [format!("{wanted}|{}", 2 * RUNGS.len())], "{given}");
        database.run("TRUNCATE seen");
    }
}

#[test]
fn rows_that_do_not_fit_the_users_table_stop_it_and_it_cleans_up() {
    let database = Database::with("CREATE TABLE mine (id int)");
    let files = Files::new();
    let file = files.write("mine.csv", "id\n1\nx\n");
    let ran = on(&database)
        .args(["--input", &file])
        .flags("--table mine --rounds 1")
        .run();
    ran.exits(1).says(&["mine.csv: record 2, line 3", "22P02"]);
    assert_eq!(left_over(&database), Vec::<String>::new());
}

#[test]
fn a_rung_too_slow_for_its_time_stops_early_and_says_how_far_it_came() {
    let database = Database::new();
    // So many transactions are more than any machine makes in that time, one is not.
    let ran = on(&database)
        .flags("--rows 30000 --rounds 1 --strategies insert --batch-rows 1 --max-seconds 2s --json")
        .run();
    let told = ran.exits(0).json();
    assert_eq!(told["rows"], 30_000);
    assert_eq!(told["results"][0]["complete"], false);
    let done = told["results"][0]["rows"].as_u64().unwrap();
    assert!(done > 0 && done < 30_000, "{told}");
    assert_eq!(left_over(&database), Vec::<String>::new());
}

#[test]
fn ctrl_c_ends_it_and_its_schema_is_gone() {
    let database = Database::new();
    for strategy in ["insert", "copy"] {
        let child = on(&database)
            .flags(&format!("--rows 3000 --rounds 500 --strategies {strategy}"))
            .spawn();
        wait_until("a run has begun", || {
            let made = "SELECT count(*) FROM pg_class WHERE relname = 'run'";
            database.number(made) == 1
        });
        child.signal(Signal::SIGINT);
        child.wait().exits(130).says(&["interrupted"]);
        assert_eq!(left_over(&database), Vec::<String>::new(), "{strategy}");
    }
}

#[test]
fn a_rung_without_a_finished_batch_has_no_figure() {
    let database = Database::new();
    let flags = "--rows 2000 --rounds 2 --strategies insert,copy --max-seconds 1us --rtt 1ms";
    let ran = on(&database).flags(flags).run();
    ran.exits(0).tells("no batch finished in 1us");
    ran.tells("--max-seconds");
    let figure = |line: &&str| {
        let rung = RUNGS.iter().any(|rung| line.starts_with(rung));
        rung && line
            .split("  ")
            .any(|cell| cell.trim() == "0" || cell.contains("0..0"))
    };
    let zeros: Vec<&str> = ran.stdout.lines().filter(figure).collect();
    assert!(zeros.is_empty(), "{zeros:?}: {ran}");
    let told = on(&database).flags(flags).arg("--json").run();
    let told = told.exits(0).json();
    for result in told["results"].as_array().unwrap() {
        for key in ["rows_per_second", "rows_per_second_min", "ratio"] {
            assert!(result[key].is_null(), "{key}: {result}");
        }
        assert_eq!(result["complete"], false);
    }
    assert!(
        told["round_trips"][0]["results"][0]["rows_per_second"].is_null(),
        "{told}"
    );
    assert_eq!(left_over(&database), Vec::<String>::new());
}

#[test]
fn what_the_copies_of_a_table_lack_is_said() {
    let database = Database::with(
        "CREATE TABLE parents (id int PRIMARY KEY); INSERT INTO parents VALUES (1);
         CREATE TABLE mine (id int PRIMARY KEY, parent int CONSTRAINT to_parents REFERENCES parents);
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER \"Audit\" BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION nothing();
         CREATE UNLOGGED TABLE plain (id int PRIMARY KEY, parent int);
         CREATE TABLE parted (id int, parent int) PARTITION BY LIST (id)",
    );
    let files = Files::new();
    let file = files.write("mine.csv", "id,parent\n1,1\n2,1\n");
    let bench = |table: &str, form: &str| {
        let flags = format!("--rounds 1 --strategies copy {form} --table {table} --input");
        on(&database).flags(&flags).arg(&file).run()
    };
    for form in ["", "--markdown"] {
        let ran = bench("mine", form);
        ran.exits(0)
            .tells("trigger \"Audit\", foreign key \"to_parents\"");
        ran.tells("left out");
    }
    let told = bench("mine", "--json").json();
    assert_eq!(told["left_out"].as_array().unwrap().len(), 2, "{told}");
    bench("plain", "").exits(0).tells("that it is unlogged");
    bench("parted", "").exits(0).tells("its partitions");
    let none = on(&database)
        .flags(SMALL)
        .arg("--strategies")
        .arg("copy")
        .run();
    assert!(!none.exits(0).stdout.contains("left out"), "{none}");
}
