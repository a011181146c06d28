//! `pgrung check`: what a load would do, done and rolled back.

use crate::support::{Database, Files, pgrung};

/// All that a check must leave as it is.
const STATE: &str = "
SELECT (SELECT md5(coalesce(string_agg(ctid::text || xmin || t::text, ',' ORDER BY id), '')) FROM t)
       || (SELECT count(*) FROM log) || (SELECT count(*) FROM pg_class WHERE relname ~ '_staging_')";

const TABLES: &str = "
CREATE TABLE parents (id int PRIMARY KEY);
INSERT INTO parents VALUES (1), (2);
CREATE TABLE t (id int PRIMARY KEY, parent int REFERENCES parents, name varchar(5), at timestamptz DEFAULT now(), note text);
INSERT INTO t VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 1, 'c');
CREATE TABLE log (what text);";

const INPUT: &str = "id,parent,name\n1,1,a\n2,1,B\n4,9,d\n5,2,e\n5,2,f\nx,1,g\n,1,h\n6,1,toolong\n";

#[test]
fn a_check_tells_what_the_load_then_does_and_changes_nothing() {
    for mode in ["append", "ignore", "upsert", "replace", "sync"] {
        let database = Database::with(TABLES);
        let files = Files::new();
        let file = files.write("a.csv", INPUT);
        let flags = |words: &str| {
            let cmd = database
                .pgrung(words)
                .args(["-t", "t", "--mode", mode, &file]);
            cmd.args([
                "--after",
                "INSERT INTO log VALUES ('after')",
                "--before",
                "INSERT INTO log VALUES ('before')",
            ])
        };
        let before = database.one(STATE);
        let checked = flags("check").run();
        checked.exits(3).tells("nothing is changed");
        assert_eq!(database.one(STATE), before, "{mode}");
        for left in ["imports", "stagings", "rejects", "spans"] {
            assert_eq!(
                database.count(&format!("pgrung.{left}")),
                0,
                "{mode}: {left}"
            );
        }
        let loaded = flags("load").run();
        loaded.exits(3);
        for what in [
            "read",
            "inserted",
            "updated",
            "unchanged",
            "ignored",
            "superseded",
            "rejected",
            "deleted",
        ] {
            assert_eq!(
                checked.rows(what),
                loaded.rows(what),
                "{mode}: {what}\n{checked}\n{loaded}"
            );
        }
        let reasons = |ran: &crate::support::Ran| {
            let reasons = ran.summary()["reject_reasons"].as_array().unwrap().clone();
            let mut codes: Vec<_> = reasons
                .iter()
                .map(|it| (it["sqlstate"].to_string(), it["count"].to_string()))
                .collect();
            codes.sort();
            codes
        };
        assert_eq!(reasons(&checked), reasons(&loaded), "{mode}");
        assert_eq!(database.count("log"), 2);
    }
}

#[test]
fn it_tells_columns_with_an_example_locks_and_what_is_left_out() {
    let database = Database::with(TABLES);
    let files = Files::new();
    let file = files.write("a.csv", "id,parent,name\nx,1,bad\n7,2,é\n");
    let ran = database
        .pgrung("check")
        .args([
            "-t",
            "t",
            "--mode",
            "upsert",
            &file,
            "--map",
            "note = :source || ':' || :record",
        ])
        .run();
    ran.exits(3);
    let summary = ran.summary();
    let columns = summary["columns"].as_array().unwrap();
    let told: Vec<String> = columns
        .iter()
        .map(|it| {
            format!(
                "{} {} {} {}",
                it["column"], it["type"], it["from"], it["example"]
            )
            .replace('"', "")
        })
        .collect();
    assert_eq!(
        told,
        [
            "id integer id 7",
            "parent integer parent 2",
            "name character varying(5) name é",
            &format!("note text :source || ':' || :record {file}:2"),
        ]
    );
    let left_out = &summary["left_out"];
    assert_eq!(
        left_out.to_string(),
        r#"[{"column":"at","gets":"its default"}]"#
    );
    let locks = summary["locks"].to_string();
    assert!(
        locks.contains(r#"{"mode":"ROW EXCLUSIVE","table":"t"}"#),
        "{locks}"
    );
    assert!(locks.contains(r#""table":"parents""#), "{locks}");
    assert_eq!(summary["import_id"], serde_json::Value::Null);
}

#[test]
fn a_guard_that_would_stop_the_load_stops_the_check() {
    let database = Database::with(TABLES);
    let before = database.one(STATE);
    let check = |flags: &str| database.pgrung("check").args(["-t", "t"]).flags(flags);
    let ran = check("--mode sync --max-delete 1").run_on("id,parent,name\n1,1,a\n");
    ran.exits(4)
        .says(&["2 of the 3 rows of the table would be deleted"]);
    let ran = check("--mode replace").run_on("id,parent,name\n");
    ran.exits(4).says(&["0 good rows"]);
    let ran = check("--on-error stop").run_on("id,parent,name\nx,1,a\n");
    ran.exits(1);
    assert_eq!(database.one(STATE), before);
    assert_eq!(database.count("pgrung.stagings"), 0);
}

#[test]
fn a_file_that_is_loaded_already_and_one_that_is_loaded_just_now_are_left_alone() {
    let database = Database::with(TABLES);
    let files = Files::new();
    let file = files.write("a.csv", "id,parent,name\n7,1,a\n8,1,b\n");
    let load = database
        .load_once("t")
        .arg(&file)
        .flags("--batch-rows 1 -j 1");
    load.clone()
        .env("PGRUNG_ABORT_AT", "after commit:1")
        .run()
        .aborted();
    let ledger = "SELECT (SELECT string_agg(i::text, ',') FROM pgrung.imports i) || (SELECT string_agg(s::text, ',') FROM pgrung.sources s)";
    let before = database.one(ledger);
    let ran = database.pgrung("check").args(["-t", "t", &file]).run();
    ran.exits(3);
    // It looks at rows only: one of them is in the table.
    assert_eq!(
        (ran.rows("inserted"), ran.rows("rejected")),
        (1, 1),
        "{ran}"
    );
    assert_eq!(database.one(ledger), before);
    let ran = load.run();
    ran.exits(0);
    assert_eq!(ran.rows("already_loaded"), 1, "{ran}");
}

#[test]
fn the_loads_of_a_job_file_are_checked_without_hooks() {
    let database = Database::with(TABLES);
    let files = Files::new();
    files.write("a.csv", "id,parent,name\n7,1,a\nx,1,b\n");
    let job = files.write(
        "job.toml",
        format!(
            "[connection]\ndsn = {:?}\n[[load]]\nname = \"a\"\ninput = [\"a.csv\"]\ntable = \"t\"\n[on_success]\nrun = [\"touch\", \"hooked\"]\n",
            database.dsn()
        ),
    );
    let before = database.one(STATE);
    let ran = pgrung("run").args([&job, "--check"]).run();
    ran.exits(3);
    assert_eq!(ran.summary()["loads"][0]["command"], "check");
    assert_eq!(ran.summary()["loads"][0]["rows"]["inserted"], 1);
    assert_eq!(database.one(STATE), before);
    assert!(!files.path("hooked").exists());
}
