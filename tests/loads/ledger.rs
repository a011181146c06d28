//! What the ledger promises: each row once, each bad row kept with all that helps to mend it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::errors::{BAD, GOOD, TABLE};
use crate::support::{Database, Files, PASSWORD, RUNGS, Ran, pgrung, text};

/// Good and bad records in turn; the bad ones as the ledger must know them.
fn mixed() -> (Vec<u8>, Vec<String>) {
    let mut content = GOOD.as_bytes().to_vec();
    let mut rejects = Vec::new();
    let (mut record, mut line) = (3, 5);
    for (bad, sqlstate, column, _) in BAD {
        let start = content.len();
        content.extend(bad);
        content.push(b'\n');
        rejects.push(format!(
            "{record}|{line}|{start}|{}|{sqlstate}|{}|{}",
            content.len(),
            column.unwrap_or("~"),
            hex(&content[start..]),
        ));
        content.extend(format!("{},good,\n", 100 + record).bytes());
        record += 2;
        line += 2;
    }
    (content, rejects)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The rejects of one import that are not replayed.
fn rejects(database: &Database, import_id: &str) -> Vec<String> {
    database.lines(&format!(
        "SELECT record, line, start_byte, end_byte, sqlstate, column_name, encode(original, 'hex')
         FROM pgrung.rejects WHERE import_id = '{import_id}' AND replayed_at IS NULL ORDER BY record"
    ))
}

/// The import that the summary on stdout names.
fn import_id(ran: &Ran) -> &str {
    let found = ran.stdout.lines().find_map(|line| {
        let (key, id) = line.trim().split_once(' ')?;
        (key == "import").then(|| id.trim())
    });
    found.unwrap_or_else(|| panic!("no import: {ran}"))
}

#[test]
fn rejects_are_kept_with_place_reason_and_original_bytes_whatever_the_strategy() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let (content, expected) = mixed();
    let file = files.write("mixed.csv", content);
    let mut first: Option<Vec<String>> = None;
    for strategy in RUNGS {
        for batch_rows in ["4", "1000"] {
            database.run("TRUNCATE t");
            let ran = database.loads(
                "t",
                &file,
                &format!("{strategy} -j 1 --batch-rows {batch_rows}"),
            );
            ran.exits(3);
            let case = format!("{strategy} {batch_rows}");
            assert_eq!(rejects(&database, import_id(&ran)), expected, "{case}");
            let rows = database.rows("t");
            assert_eq!(&rows, first.get_or_insert_with(|| rows.clone()), "{case}");
            let told = ran.summary();
            assert_eq!(told["rows"]["rejected"], BAD.len(), "{case}");
            assert_eq!(told["rows"]["loaded"], 2 + BAD.len(), "{case}");
        }
    }
}

/// A new table that refuses negative numbers until it is told not to.
const STRICT: &str = "DROP TABLE IF EXISTS t; CREATE TABLE t (id integer, name text, CONSTRAINT positive CHECK (id > 0))";
const MEND: &str = "ALTER TABLE t DROP CONSTRAINT IF EXISTS positive";
const ALL: &str = "SELECT string_agg(id::text || name, ' ' ORDER BY id) FROM t";

/// The same rows in every way to write them: name, content, options.
const FORMATS: [(&str, &str, &str); 6] = [
    ("a.csv", "name,id\na,1\n\"b\n\",-2\nc,-3", ""),
    ("b.csv", "name,id\r\na,1\r\n\"b\n\",-2\r\nc,-3\r\n", ""),
    ("c.csv", "name,id\ra,1\r\"b\n\",-2\rc,-3\r", ""),
    ("d.tsv", "id\tname\n1\ta\n-2\t\"b\n\"\n-3\tc\n", ""),
    (
        "e.txt",
        "1;a\n-2;'b\n'\n-3;c\n",
        "--no-header --delimiter ; --quote '",
    ),
    (
        "f.ndjson",
        "{\"id\":1,\"name\":\"a\"}\n\n{\"id\":-2,\"name\":\"b\\n\"}\n{\"name\":\"c\",\"id\":-3}",
        "",
    ),
];

#[test]
fn a_file_of_rejects_loads_as_it_is_once_the_cause_is_mended() {
    let database = Database::new();
    let files = Files::new();
    for (name, content, options) in FORMATS {
        let file = files.write(name, content);
        for ledger in ["", "--no-ledger"] {
            database.run(STRICT);
            let aside = text(&files.path(&format!("rejects-{name}")));
            let ran = database
                .load_once("t")
                .args([&file, "--rejects", &aside, "-j", "1"])
                .flags(options)
                .flags(ledger)
                .run();
            ran.exits(3);
            assert_eq!(database.one(ALL), "1a", "{name}: {ran}");
            for path in [&aside, &format!("{aside}.reasons.ndjson")] {
                let mode = fs::metadata(path).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{path}");
            }
            let reasons: Vec<Value> = fs::read_to_string(format!("{aside}.reasons.ndjson"))
                .unwrap()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            for (reason, record) in reasons.iter().zip([2, 3]) {
                assert_eq!(reason["record"], record, "{name}");
                assert_eq!(reason["sqlstate"], "23514", "{name}");
                assert_eq!(reason["constraint"], "positive", "{name}");
                let source = reason["source"].as_str().unwrap();
                assert!(source.ends_with(name), "{source}");
            }
            assert_eq!(reasons.len(), 2, "{name}");

            database.run(MEND);
            database.loads("t", &aside, options).exits(0);
            assert_eq!(database.one(ALL), "-3c -2b\n 1a", "{name}");
        }
    }
}

#[test]
fn replay_loads_each_reject_exactly_once() {
    let database = Database::new();
    let files = Files::new();
    for (name, content, options) in FORMATS {
        let file = files.write(name, content);
        let import = format!("it's {name}");
        database.run(STRICT);
        let ran = database
            .load_once("t")
            .arg(&file)
            .flags(options)
            .args(["--import-id", &import])
            .run();
        ran.exits(3);
        let replay = |strategy: &str, code: i32, words: &str| {
            let ran = database
                .pgrung("replay")
                .args([&import, "-s", strategy])
                .run();
            ran.exits(code);
            assert!(ran.stdout.starts_with(words), "{name}: {ran}");
        };
        replay("copy", 3, "0 rejects loaded, 2 still bad");
        replay("discard", 2, "");
        // One of the two is mended.
        database.run(MEND);
        database.run("ALTER TABLE t ADD CONSTRAINT above CHECK (id > -3)");
        replay("insert", 3, "1 reject loaded, 1 still bad");
        assert_eq!(database.one(ALL), "-2b\n 1a", "{name}");
        let reason = "SELECT record, constraint_name FROM pgrung.rejects WHERE replayed_at IS NULL";
        assert_eq!(database.lines(reason), ["3|above"], "{name}");
        database.run("ALTER TABLE t DROP CONSTRAINT above");
        replay("unnest", 0, "1 reject loaded, 0 still bad");
        replay("copy", 0, "0 rejects loaded, 0 still bad");
        assert_eq!(database.one(ALL), "-3c -2b\n 1a", "{name}");
        let told = status(&database, &[&import]);
        let counts = ["loaded", "rejected", "rejects_open"].map(|key| told[0][key].as_u64());
        assert_eq!(counts, [Some(3), Some(2), Some(0)], "{name}: {told}");
    }
}

/// `pgrung status --json`.
fn status(database: &Database, arguments: &[&str]) -> Value {
    let ran = database
        .pgrung("status")
        .arg("--json")
        .args(arguments)
        .run();
    serde_json::from_str(&ran.exits(0).stdout).unwrap()
}

#[test]
fn status_tells_imports_progress_and_rejects_as_text_and_as_json() {
    let database = Database::with(STRICT);
    let files = Files::new();
    let text = |arguments: &[&str]| database.pgrung("status").args(arguments).run().stdout;
    assert_eq!(text(&[]), "no imports\n");
    assert_eq!(status(&database, &[]), Value::Array(Vec::new()));

    let file = files.write("rows.csv", "id,name\n1,a\n2,b\n-3,c\n");
    let file = fs::canonicalize(file).unwrap();
    let load = database.load_once("t").arg(&file);
    load.flags("--import-id nightly").run().exits(3);
    let more = files.write("more.csv", "id,name\n4,d\n5,\"e\n");
    let broken = database.load_once("t").arg(&more).run();
    broken.exits(6);

    let told = status(&database, &["nightly"]);
    let import = &told[0];
    assert_eq!(told.as_array().unwrap().len(), 1);
    assert_eq!(import["import_id"], "nightly");
    assert_eq!(import["table"], "\"public\".\"t\"");
    assert_eq!(import["state"], "finished");
    assert_eq!(import["runs"], 1);
    assert_eq!(import["loaded"], 2);
    assert_eq!(import["rejected"], 1);
    assert_eq!(import["rejects_open"], 1);
    assert_eq!(import["sources"][0]["name"], file.to_str().unwrap());
    assert_eq!(import["sources"][0]["finished"], true);
    let bytes = fs::metadata(&file).unwrap().len();
    assert_eq!(
        import["sources"][0]["bytes"],
        bytes - "id,name\n".len() as u64
    );
    let all = status(&database, &[]);
    assert_eq!(all.as_array().unwrap().len(), 2);
    assert_eq!(all[0]["import_id"], import_id(&broken), "the latest first");
    assert_eq!(all[0]["state"], "unfinished");
    assert_eq!(all[0]["loaded"], 1);

    let lines = text(&["nightly"]);
    for words in [
        "nightly  finished  into \"public\".\"t\": 2 rows loaded, 1 rejected (1 open)",
        "; 1 run, first ",
        &format!("  {}: ", file.display()),
        ", complete\n",
    ] {
        assert!(lines.contains(words), "\"{words}\" is not in {lines}");
    }
    assert!(text(&[]).contains("  unfinished  into "));
    let ran = database.pgrung("status").arg("nowhere").run();
    ran.exits(2).says(&["there is no import nowhere"]);
}

#[test]
fn what_is_loaded_already_is_not_loaded_again() {
    let database = Database::with(STRICT);
    let files = Files::new();
    let file = files.write("rows.csv", "id,name\n1,a\n2,b\n-3,c\n4,d\n");
    let copy = files.path("copy.csv");
    fs::copy(&file, &copy).unwrap();
    let first = database.load_once("t").arg(&file).run();
    first.exits(3);
    for (file, strategy) in [(Path::new(&file), "copy"), (&copy, "insert")] {
        let ran = database
            .load_once("t")
            .arg(file)
            .flags(&format!("--strategy {strategy} --batch-rows 1"))
            .run();
        ran.says(&["compared in full", "nothing is left", "--restart"]);
        assert_eq!(import_id(&ran), import_id(&first));
        assert_eq!(database.count("t"), 3, "{ran}");
        let told = ran.summary();
        assert_eq!(told["rows"]["loaded"], 0, "{told}");
        assert_eq!(told["rows"]["already_loaded"], 3, "{told}");
    }
    assert_eq!(status(&database, &[]).as_array().unwrap().len(), 1);
    // Without a ledger, or told to, it is.
    database
        .load_once("t")
        .args([&file, "--no-ledger", "--on-error", "stop"])
        .run()
        .exits(1);
    assert_eq!(database.count("t"), 3);
    database.load("t").arg(&file).run().exits(3);
    assert_eq!(database.count("t"), 6);
}

#[test]
fn an_interrupted_import_goes_on_where_it_ended_in_another_way() {
    let database = Database::with("CREATE TABLE t (id integer, name text)");
    let files = Files::new();
    let rows: String = (1..=1000).map(|id| format!("{id},x\n")).collect();
    let file = files.write("rows.csv", format!("id,name\n{rows}"));
    let load = |flags: &str| {
        let load = database.load_once("t").arg(&file);
        load.flags("--import-id parts").flags(flags).run()
    };
    load("--limit 300 --batch-rows 70").exits(0);
    assert_eq!(database.count("t"), 300);
    let ran = load("--strategy unnest --batch-rows 33 -j 2");
    ran.exits(0)
        .says(&["import parts goes on: 300 records are committed already"]);
    let told = ran.summary();
    assert_eq!(told["rows"]["loaded"], 700, "{told}");
    assert_eq!(told["rows"]["already_loaded"], 300, "{told}");
    let distinct = "SELECT count(*), count(DISTINCT id) FROM t";
    assert_eq!(database.one(distinct), "1000|1000");
    // A file that has changed, and a table that has lost the rows, are no continuation.
    let longer = files.write("rows.csv", "id,name\n1,x\n");
    load("").exits(6).says(&[&longer]);
    files.write("rows.csv", format!("id,name\n{rows}"));
    database.run("TRUNCATE t; INSERT INTO t VALUES (1, 'y')");
    load("")
        .exits(6)
        .says(&["holds 1 of 1000 rows", "--restart"]);
    assert_eq!(database.count("t"), 1);
}

#[test]
fn a_ledger_newer_than_the_program_is_left_alone() {
    let database = Database::with("CREATE TABLE t (id int)");
    database.pgrung("migrate").run().exits(0);
    let known = database.number("SELECT max(version) FROM pgrung.migrations");
    let newer = known + 1;
    database.run(&format!(
        "INSERT INTO pgrung.migrations SELECT {newer}, 'from_the_future', applied_on, checksum
         FROM pgrung.migrations WHERE version = {known}"
    ));
    let words = format!("is of version {newer}, this pgrung knows {known}: use a newer pgrung");
    for command in [database.load_once("t"), database.pgrung("replay nightly")] {
        command.run_on("id\n1\n").exits(1).says(&[&words]);
    }
    assert_eq!(database.count("t"), 0);
    assert_eq!(database.count("pgrung.imports"), 0);
    // Who needs no ledger is not kept from loading.
    let without = database.load_once("t").arg("--no-ledger");
    without.run_on("id\n1\n").exits(0);
    assert_eq!(database.count("t"), 1);
}

#[test]
fn migrate_makes_the_ledger_once() {
    let database = Database::new();
    let ran = database.pgrung("migrate").run();
    ran.exits(0);
    assert!(ran.stdout.starts_with("applied "), "{ran}");
    let ran = database.pgrung("migrate").run();
    ran.exits(0);
    assert_eq!(ran.stdout, "the ledger is up to date\n");
}

#[test]
fn a_role_without_rights_on_the_ledger_is_told_both_ways_out() {
    let database = Database::with(STRICT);
    database.run("GRANT INSERT, SELECT ON t TO loader");
    let files = Files::new();
    let file = files.write("rows.csv", "id,name\n1,a\n-2,b\n");
    let load = |flags: &str| {
        let load = pgrung("load -t t").arg(&file).flags(flags);
        load.dsn(&database.loader_dsn(PASSWORD)).run()
    };
    // Neither before the ledger is there nor when it is somebody else's.
    for migrated in [false, true] {
        if migrated {
            database.pgrung("migrate").run().exits(0);
        }
        load("")
            .exits(1)
            .says(&["42501", "run `pgrung migrate` once", "--no-ledger"]);
        assert_eq!(database.count("t"), 0);
    }
    let aside = text(&files.path("rejects.csv"));
    load(&format!("--no-ledger --rejects {aside}")).exits(3);
    assert_eq!(database.count("t"), 1);
    // The rights that the message names are enough.
    database.run(
        "GRANT USAGE ON SCHEMA pgrung TO loader;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgrung TO loader",
    );
    for strategy in RUNGS {
        database.run("TRUNCATE t");
        load(&format!("{strategy} --restart")).exits(3);
        assert_eq!(database.count("t"), 1);
    }
}

#[test]
fn an_import_is_unfinished_as_long_as_one_of_its_files_is() {
    let database = Database::with("CREATE TABLE t (id integer)");
    let files = Files::new();
    let ids = |rows: u32| (1..=rows).fold("id\n".to_owned(), |text, id| text + &format!("{id}\n"));
    let first = files.write("a.csv", ids(20));
    let second = files.write("b.csv", ids(50));
    let load = |inputs: &[&String]| {
        let load = database.load_once("t").args(inputs);
        load.flags("--import-id n -j 1 --batch-rows 10")
    };
    let state = |expected: &str| assert_eq!(status(&database, &["n"])[0]["state"], expected);
    let both = load(&[&first, &second]);
    let killed = |commits: &str| both.clone().env("PGRUNG_ABORT_AT", commits).run();
    killed("after commit:3").aborted();
    load(&[&first]).run().exits(0);
    state("unfinished");
    both.run().exits(0);
    state("finished");
    // What has grown is no longer read to its end.
    files.write("b.csv", ids(100));
    killed("after commit:1").aborted();
    state("unfinished");
    both.run().exits(0);
    state("finished");
    // Nor is what is read up to a limit.
    files.write("b.csv", ids(200));
    both.clone().flags("--limit 150").run().exits(0);
    state("unfinished");
    both.run().exits(0);
    assert_eq!(database.count("t"), 220);
}
