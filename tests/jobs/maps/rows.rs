//! Records by the way of an expression: what a row's own queries see, how often they run, which rows are
//! at fault, and that everything around a load is as without.

use crate::support::{Cmd, Database, Files, PASSWORD, STRATEGIES};

/// A load of `text` into `t`, with these maps.
fn load(database: &Database, files: &Files, text: &str, maps: &[&str]) -> Cmd {
    let name = if text.starts_with('{') {
        "f.ndjson"
    } else {
        "f.csv"
    };
    let load = database
        .load_once("t")
        .arg(files.write(name, text))
        .flags("--progress none");
    maps.iter()
        .fold(load, |load, map| load.args(["--map", map]))
}

fn numbers(rows: impl Iterator<Item = u32>) -> String {
    rows.fold("id\n".to_owned(), |text, id| format!("{text}{id}\n"))
}

#[test]
fn an_expression_is_evaluated_once_for_each_row() {
    let files = Files::new();
    for strategy in STRATEGIES {
        let database = Database::with(
            "CREATE SEQUENCE s; CREATE TABLE t (id int, a bigint, b text, c varchar(20), d numeric(9,2))",
        );
        let maps = [
            "a = nextval('s')",
            "b = nextval('s')",
            "c = 'no ' || nextval('s')",
            "d = nextval('s')::text",
        ];
        let ran = load(&database, &files, &numbers(1..=200), &maps)
            .args(["--strategy", strategy])
            .run();
        ran.exits(0);
        let drawn = "SELECT count(DISTINCT n), max(n) FROM (SELECT a FROM t UNION ALL SELECT b::int FROM t UNION ALL SELECT substr(c, 4)::int FROM t UNION ALL SELECT d::int FROM t) AS of (n)";
        assert_eq!(database.one(drawn), "800|800", "{strategy}");
    }
}

#[test]
fn queries_in_an_expression_have_names_of_their_own() {
    let database = Database::with(
        "CREATE TABLE t (id int, name text); CREATE TABLE shops (f1 text, id text, name text); INSERT INTO shops VALUES ('q', '1', 'one'), ('r', '2', 'two')",
    );
    let map = "name = (SELECT s.name FROM shops s WHERE s.id = :field(\"id\"))";
    load(&database, &Files::new(), "id\n1\n2\n3\n", &[map])
        .run()
        .exits(0);
    assert_eq!(database.rows("t"), ["1|one", "2|two", "3|~"]);
}

#[test]
fn keys_of_json_are_found_however_they_are_written() {
    let (database, files) = (
        Database::with(
            "CREATE TABLE t (id int, name text, doc jsonb DEFAULT '0', made text DEFAULT 'x')",
        ),
        Files::new(),
    );
    let text = "{\"ID\": 1, \"Name\": \"a\", \"doc\": \"5\", \"made\": 3}\n{\"ID\": 2, \"doc\": null}\n{\"ID\": 3, \"doc\": {\"b\": 1}, \"name\": \"c\"}\n";
    let maps = [
        "ID = :value::int",
        "name = :field(\"ID\") || :field(\"NAME\")",
        "made = 'const'",
    ];
    load(&database, &files, text, &maps).run().exits(0);
    assert_eq!(
        database.rows("t"),
        ["1|1a|\"5\"|const", "2|~|~|const", "3|3c|{\"b\": 1}|const"]
    );
    // Keys that are several are.
    database.run("TRUNCATE t");
    let maps = ["name = :field(\"A\") || :field(\"a\")"];
    load(
        &database,
        &files,
        "{\"id\": 1, \"A\": \"x\", \"a\": \"y\"}\n",
        &maps,
    )
    .run()
    .exits(0);
    assert_eq!(database.one("SELECT name FROM t"), "xy");
}

#[test]
fn one_bad_row_among_many_is_found() {
    let (database, files) = (
        Database::with("CREATE TABLE t (id int, d date)"),
        Files::new(),
    );
    let date = |id: u32| {
        if id == 33_333 {
            "31/02/2020"
        } else {
            "28/02/2020"
        }
    };
    let text = (1..=50_000).fold("id,d\n".to_owned(), |text, id| {
        format!("{text}{id},{}\n", date(id))
    });
    let ran = load(
        &database,
        &files,
        &text,
        &["d = to_date(:value, 'DD/MM/YYYY')"],
    )
    .flags("-j 1 --batch-rows 50000")
    .run();
    ran.exits(3)
        .tells("50,000 read = 49,999 inserted + 1 rejected");
    assert_eq!(
        database.one("SELECT record, line, column_name, sqlstate FROM pgrung.rejects"),
        "33333|33334|d|22008"
    );
    assert_eq!(
        database.one("SELECT count(*), count(DISTINCT id) FROM t"),
        "49999|49999"
    );
}

#[test]
fn an_expression_that_fails_for_every_row_stops_the_load() {
    let (database, files) = (
        Database::with("CREATE TABLE t (id int, d date)"),
        Files::new(),
    );
    let text = (1..=5_000).fold("id,d\n".to_owned(), |text, id| {
        format!("{text}{id},2020-13-13\n")
    });
    for batch in ["10", "1000", "5000"] {
        let ran = load(
            &database,
            &files,
            &text,
            &["d = to_date(:value, 'YYYY-MM-DD')"],
        )
        .args(["--batch-rows", batch])
        .run();
        ran.exits(1).says(&["22008"]);
        assert_eq!(database.count("t"), 0);
    }
}

#[test]
fn what_a_statement_may_take_is_no_row_s_fault() {
    let (database, files) = (
        Database::with("CREATE TABLE t (id int, v int)"),
        Files::new(),
    );
    database.run(&format!(
        "ALTER DATABASE {} SET statement_timeout = '800ms'",
        database.name
    ));
    let maps = ["v = (SELECT :field(\"id\")::int FROM pg_sleep(0.02))"];
    let ran = load(&database, &files, &numbers(1..=100), &maps)
        .flags("-j 1 --batch-rows 100")
        .run();
    ran.exits(0);
    assert_eq!(database.one("SELECT count(*), sum(v) FROM t"), "100|5050");
}

#[test]
fn policies_and_deferred_constraints_judge_each_row() {
    let files = Files::new();
    for strategy in STRATEGIES {
        let database = Database::with(
            "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1), (2), (3);
             CREATE TABLE t (id int REFERENCES p DEFERRABLE INITIALLY DEFERRED, v text)",
        );
        let maps = ["id = replace(:value, 'no ', '')", "v = :record"];
        let deferred =
            load(&database, &files, "id\nno 1\nno 9\nno 2\n", &maps).args(["--strategy", strategy]);
        deferred.run().exits(3);
        assert_eq!(database.rows("t"), ["1|1", "2|3"]);
        assert_eq!(
            database.one("SELECT record, sqlstate FROM pgrung.rejects"),
            "2|23503"
        );
        // COPY itself would not take the table.
        database.run("TRUNCATE t; ALTER TABLE t ENABLE ROW LEVEL SECURITY");
        let bad = load(&database, &files, "id\nno 1\nno x\n", &maps);
        bad.args(["--strategy", strategy]).run().exits(3);
        let at_fault = "SELECT column_name FROM pgrung.rejects WHERE sqlstate = '22P02'";
        assert_eq!(database.lines(at_fault), ["id"], "{strategy}");
        database.run(
            "TRUNCATE t; GRANT INSERT, SELECT ON t TO loader;
             CREATE POLICY low ON t TO loader USING (true) WITH CHECK (id < 3)",
        );
        let policed = |text: &str| {
            let load = load(&database, &files, text, &maps).dsn(&database.loader_dsn(PASSWORD));
            load.args(["--no-ledger", "--strategy", strategy]).run()
        };
        policed("id\nno 1\nno 2\n").exits(0);
        policed("id\nno 2\nno 3\n")
            .exits(1)
            .says(&["f.csv: record 2, line 3: 42501", "row-level security"]);
    }
}

#[test]
fn what_stands_around_a_load_stays_as_it_is() {
    let files = Files::new();
    for flags in [
        "--strategy insert --commit row",
        "--commit load --batch-rows 2",
        "--no-ledger --batch-rows 2",
        "--no-ledger --commit load --batch-rows 2",
        "--mode replace --batch-rows 2",
        "--mode replace --commit load",
        "--durability end --batch-rows 1 -j 3",
    ] {
        let database = Database::with(
            "CREATE TABLE t (id int PRIMARY KEY, v text, o bigint); CREATE TABLE log (said text)",
        );
        let maps = [
            "id = ltrim(:value, '#')",
            "v = :value || ' of ' || :source || ' ' || :line",
            "o = :record",
        ];
        let text = "id,v\n#1,\"a\nb\"\n#2,\n#3,c\n";
        let before = ["--before", "INSERT INTO log VALUES ('before')"];
        let after = [
            "--after",
            "INSERT INTO log SELECT 'after ' || count(*) FROM t",
        ];
        let all = load(&database, &files, text, &maps).flags(flags);
        let all = all.args(before).args(after);
        all.run().exits(0);
        let path = files.path("f.csv").display().to_string();
        let rows = [
            format!("1|a\nb of {path} 2|1"),
            "2|~|2".to_owned(),
            format!("3|c of {path} 5|3"),
        ];
        assert_eq!(
            database.lines("SELECT * FROM t ORDER BY id"),
            rows,
            "{flags}"
        );
        assert_eq!(
            database.lines("SELECT * FROM log"),
            ["before", "after 3"],
            "{flags}"
        );
    }
}
