//! Rows that only the table itself can judge, and keys that are equal without being the same.

use std::fs;
use std::sync::Arc;

use crate::support::{Database, Files, Ran};

/// Loads `text` into table `t` that `sql` makes.
fn load(database: &Arc<Database>, text: &str, flags: &str) -> Ran {
    let files = Files::new();
    let file = files.write("input.csv", text);
    database
        .load_once("t")
        .arg(file)
        .flags("--progress none")
        .flags(flags)
        .run()
}

const MODES: [&str; 4] = ["ignore", "upsert", "replace", "sync"];

#[test]
fn what_only_the_table_refuses_is_put_aside_with_its_bytes_and_its_place() {
    for (what, table, bad, state) in [
        ("a foreign key", "v int REFERENCES p", "7", "23503"),
        ("a unique index", "v int UNIQUE", "1", "23505"),
        (
            "an exclusion",
            "v int, EXCLUDE USING gist (int4range(v, v + 1) WITH &&)",
            "1",
            "23P01",
        ),
        (
            "a check of another column",
            "v int, w int DEFAULT 5, CHECK (v < w)",
            "9",
            "23514",
        ),
        (
            "a partial index",
            "v int, EXCLUDE USING btree (v WITH =) WHERE (v > 0)",
            "1",
            "23P01",
        ),
        (
            "a generated column",
            "v int, w int GENERATED ALWAYS AS (10 / (v - 3)) STORED",
            "3",
            "22012",
        ),
    ] {
        for mode in MODES {
            let database = Database::with(&format!(
                "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p SELECT generate_series(1, 2);
                 CREATE TABLE t (id int PRIMARY KEY, {table})"
            ));
            let files = Files::new();
            let rejects = files.path("rejects.csv");
            let text = format!("id,v\n1,1\n\n\"2\",\"{bad}\"\n3,2\n");
            let ran = load(
                &database,
                &text,
                &format!("--mode {mode} --rejects {}", rejects.display()),
            );
            ran.exits(3).tells(state).tells("record 2, line 4");
            assert_eq!(
                database.lines("SELECT id, v FROM t ORDER BY id"),
                ["1|1", "3|2"],
                "{what} {mode}"
            );
            assert_eq!(
                fs::read_to_string(&rejects).unwrap(),
                format!("\"id\",\"v\"\n\n\"2\",\"{bad}\"\n"),
                "{what} {mode}"
            );
            let place = database.lines("SELECT record, line, convert_from(substr(original, 1, 4), 'UTF8') FROM pgrung.rejects");
            assert_eq!(place.len(), 1);
            let bytes =
                database.lines("SELECT start_byte, end_byte, length(original) FROM pgrung.rejects");
            let numbers: Vec<usize> = bytes[0]
                .split('|')
                .map(|number| number.parse().unwrap())
                .collect();
            assert_eq!(
                &text[numbers[0]..numbers[1]],
                format!("\n\"2\",\"{bad}\"\n").as_str(),
                "{what}"
            );
            assert_eq!(numbers[1] - numbers[0], numbers[2], "{what}");
        }
    }
}

#[test]
fn a_trigger_that_refuses_a_row_puts_it_aside_and_one_that_refuses_all_stops() {
    for (condition, code) in [("NEW.v = 7", 3), ("true", 1)] {
        for mode in MODES {
            let database = Database::with(&format!(
                "CREATE TABLE t (id int PRIMARY KEY, v int);
                 CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
                     'BEGIN IF {condition} THEN RAISE EXCEPTION ''no %'', NEW.v USING ERRCODE = ''42501''; END IF; RETURN NEW; END';
                 CREATE TRIGGER no BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION no()"
            ));
            let ran = load(
                &database,
                "id,v\n1,1\n2,7\n3,2\n",
                &format!("--mode {mode}"),
            );
            // A row that fails alone is bad, whatever its code; if all of them fail alone, all are.
            match code {
                3 => {
                    ran.exits(3).tells("42501");
                    assert_eq!(
                        database.lines("SELECT id FROM t ORDER BY id"),
                        ["1", "3"],
                        "{mode}"
                    );
                }
                _ => assert_eq!(database.count("t"), 0, "{mode}"),
            }
        }
    }
}

#[test]
fn a_value_too_large_for_the_index_is_put_aside() {
    let database = Database::with("CREATE TABLE t (id text PRIMARY KEY, v int)");
    let mut rng = fastrand::Rng::with_seed(1);
    let large: String = (0..40_000).map(|_| rng.alphanumeric()).collect();
    let text = format!("id,v\na,1\n{large},2\nb,3\n");
    for mode in MODES {
        load(&database, &text, &format!("--mode {mode}"))
            .exits(3)
            .tells("54000");
        assert_eq!(
            database.lines("SELECT id FROM t ORDER BY id"),
            ["a", "b"],
            "{mode}"
        );
    }
}

#[test]
fn rows_of_one_load_may_point_to_each_other() {
    for mode in MODES {
        for bad in [false, true] {
            let database =
                Database::with("CREATE TABLE t (id int PRIMARY KEY, above int REFERENCES t)");
            let more = if bad { "9,99\n" } else { "" };
            let text = format!("id,above\n1,2\n2,3\n3,4\n{more}4,\n5,4\n");
            let ran = load(
                &database,
                &text,
                &format!("--mode {mode} --batch-rows 1 -j 3"),
            );
            ran.exits(if bad { 3 } else { 0 });
            assert_eq!(
                database.lines("SELECT id FROM t ORDER BY id"),
                ["1", "2", "3", "4", "5"],
                "{mode}"
            );
        }
    }
}

#[test]
fn a_record_that_is_bad_supersedes_none() {
    for flags in [
        "--mode upsert",
        "--mode sync",
        "--mode replace",
        "--mode upsert --commit load",
        "--mode upsert --newer n",
    ] {
        let database = Database::with(
            "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1), (2);
             CREATE TABLE t (id int PRIMARY KEY, v int REFERENCES p, n int)",
        );
        let ran = load(
            &database,
            "id,v,n\n1,1,1\n1,2,2\n1,8,3\n1,9,4\n2,9,1\n",
            flags,
        );
        ran.exits(3);
        assert_eq!(database.rows("t"), ["1|2|2"], "{flags}");
        assert_eq!(
            [
                ran.rows("inserted"),
                ran.rows("superseded"),
                ran.rows("rejected")
            ],
            [1, 1, 3],
            "{flags}"
        );
    }
}

#[test]
fn losers_are_kept_with_the_rejects_if_that_is_wanted() {
    for foreign in ["", "REFERENCES p"] {
        for flags in ["", "--commit load", "--strategy insert --batch-rows 1"] {
            let database = Database::with(&format!(
                "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1), (2);
                 CREATE TABLE t (id int PRIMARY KEY, v int {foreign})"
            ));
            let ran = load(
                &database,
                "id,v\n1,1\n2,1\n1,2\n2,2\n1,1\n",
                &format!("--mode upsert --superseded reject {flags}"),
            );
            ran.exits(0);
            assert_eq!(
                [
                    ran.rows("inserted"),
                    ran.rows("superseded"),
                    ran.rows("rejected")
                ],
                [2, 3, 0]
            );
            let kept = database.lines("SELECT record, line, regexp_replace(message, ' of .*', ''), convert_from(original, 'UTF8') FROM pgrung.rejects ORDER BY record");
            assert_eq!(
                kept,
                [
                    "1|2|superseded by record 5|1,1\n",
                    "2|3|superseded by record 4|2,1\n",
                    "3|4|superseded by record 5|1,2\n"
                ],
                "{foreign} {flags}"
            );
        }
    }
}

#[test]
fn keys_that_are_equal_and_not_the_same_are_one_key() {
    for (ty, rows, keys) in [
        ("numeric", "1.0,a\n1.00,b\n", "1.00|b"),
        ("float8", "0,a\n-0,b\n", "-0|b"),
        ("text COLLATE ci", "\u{e9}A,a\n\u{c9}a,b\n", "\u{c9}a|b"),
        ("char(5)", "a,a\na  ,b\n", "a    |b"),
        (
            "jsonb",
            "\"{\"\"n\"\": 1}\",a\n\"{\"\"n\"\": 1.0}\",b\n",
            "{\"n\": 1.0}|b",
        ),
        ("interval", "1 day,a\n24 hours,b\n", "24:00:00|b"),
        (
            "timestamptz",
            "2026-01-01 00:00+00,a\n2026-01-01 01:00+01,b\n",
            "2026-01-01 00:00:00+00|b",
        ),
    ] {
        for mode in ["upsert", "replace", "sync"] {
            for strategy in ["copy", "insert"] {
                let database = Database::with(&format!(
                    "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                     CREATE TABLE t (id {ty} PRIMARY KEY, v text)"
                ));
                let flags = format!("--mode {mode} --strategy {strategy}");
                let ran = load(&database, &format!("id,v\n{rows}"), &flags);
                ran.exits(0);
                assert_eq!(database.rows("t"), [keys], "{ty} {flags}");
                assert_eq!(
                    [ran.rows("inserted"), ran.rows("superseded")],
                    [1, 1],
                    "{ty} {flags}"
                );
                // Again, by the other spelling alone: the row is as the input says.
                let first = rows.lines().next().unwrap();
                load(&database, &format!("id,v\n{first}\n"), &flags).exits(0);
                assert_eq!(database.lines("SELECT v FROM t"), ["a"], "{ty} {flags}");
            }
        }
    }
}

#[test]
fn what_a_trigger_keeps_out_is_counted_and_a_table_that_cannot_be_made_exact_is_left() {
    let trigger = |event: &str, when: &str| {
        format!(
            "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (7, 1), (8, 1);
             CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER no BEFORE {event} ON t FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION no()"
        )
    };
    let input = "id,v\n1,2\n2,2\n7,2\n9,2\n";
    let database = Database::with(&trigger("INSERT OR UPDATE", "NEW.id IN (7, 9)"));
    let ran = load(&database, input, "--mode upsert");
    ran.exits(3);
    let counts = ["inserted", "updated", "suppressed", "unchanged"].map(|name| ran.rows(name));
    assert_eq!(counts, [1, 1, 2, 0]);
    assert_eq!(database.rows("t"), ["1|2", "2|2", "7|1", "8|1"]);
    for mode in ["replace", "sync"] {
        let database = Database::with(&trigger("DELETE", "OLD.id = 8"));
        load(&database, input, &format!("--mode {mode}"))
            .exits(1)
            .says(&["would have 5 rows and not the 4"]);
        assert_eq!(database.rows("t"), ["1|1", "7|1", "8|1"], "{mode}");
    }
}

#[test]
fn a_deferrable_key_and_a_generated_one_work_as_any_other() {
    for key in [
        "id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v int",
        "id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int",
        "v int, id int NOT NULL, UNIQUE (id) INCLUDE (v)",
    ] {
        for mode in MODES {
            let database = Database::with(&format!("CREATE TABLE t ({key})"));
            for (text, rows) in [("1,1\n2,1\n1,2\n", 2), ("2,5\n3,5\n", 3)] {
                let named = if key.contains("INCLUDE") {
                    "--key id"
                } else {
                    ""
                };
                load(
                    &database,
                    &format!("id,v\n{text}"),
                    &format!("--mode {mode} {named}"),
                )
                .exits(0);
                let rows = if ["replace", "sync"].contains(&mode) {
                    2
                } else {
                    rows
                };
                assert_eq!(database.count("t"), rows, "{key} {mode}");
            }
        }
    }
}

#[test]
fn rows_that_are_as_the_input_says_are_not_touched() {
    let database = Database::with(
        "CREATE TABLE t (id int PRIMARY KEY, v json, p point, n numeric, x xml, other int DEFAULT 4);
         CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''touched''; END'",
    );
    let text =
        "id,v,p,n,x\n1,\"{\"\"a\"\":  1}\",\"(1,2)\",1.50,<a/>\n2,,,,\n3,[],\"(0,0)\",NaN,b\n";
    load(&database, text, "--mode upsert").exits(0);
    database.run("CREATE TRIGGER no BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION no()");
    let before = database.lines("SELECT ctid, xmin, xmax FROM t");
    for flags in [
        "--mode upsert",
        "--mode sync",
        "--mode ignore",
        "--mode upsert --commit load",
        "--mode upsert --key id -j 3",
    ] {
        let ran = load(&database, text, flags);
        ran.exits(0);
        assert_eq!(ran.rows("unchanged") + ran.rows("ignored"), 3, "{flags}");
        assert_eq!(
            database.lines("SELECT ctid, xmin, xmax FROM t"),
            before,
            "{flags}"
        );
    }
}

#[test]
fn keys_are_compared_as_their_index_does_whatever_the_search_path() {
    for mode in ["upsert", "sync"] {
        let database = Database::with(
            "CREATE SCHEMA e; CREATE EXTENSION citext SCHEMA e; CREATE TABLE t (id e.citext PRIMARY KEY, v int);
             INSERT INTO t VALUES ('A', 1), ('c', 1)",
        );
        let ran = load(
            &database,
            "id,v\na,2\nB,1\nb,2\nC,1\n",
            &format!("--mode {mode} -j 3"),
        );
        ran.exits(0);
        assert_eq!(database.rows("t"), ["C|1", "a|2", "b|2"], "{mode}");
        let counts = ["inserted", "updated", "superseded"].map(|name| ran.rows(name));
        assert_eq!(counts, [1, 2, 1], "{mode}");
    }
    let database = Database::with(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE t (id text, v int); CREATE UNIQUE INDEX ON t (id COLLATE ci)",
    );
    load(&database, "id,v\na,2\n", "--mode upsert --key id")
        .exits(2)
        .says(&["no unique index on (\"id\")"]);
    let database = Database::with(
        "CREATE TABLE t (id text, v int); CREATE UNIQUE INDEX ON t (id text_pattern_ops)",
    );
    for v in 1..3 {
        let text: String = (0..500)
            .map(|id| format!("{}{id},{v}\n", ["a", "B", "\u{e4}"][id % 3]))
            .collect();
        load(
            &database,
            &format!("id,v\n{text}"),
            "--mode upsert --key id -j 4",
        )
        .exits(0);
        assert_eq!(
            database.lines("SELECT v, count(*) FROM t GROUP BY 1"),
            [format!("{v}|500")]
        );
    }
}

#[test]
fn a_merge_that_waits_says_that_it_is_one() {
    let database = Database::with("CREATE TABLE t (id int PRIMARY KEY)");
    let lock = database.lock("t");
    let load = database
        .load_once("t")
        .flags("--mode sync --progress plain --report-every 20ms");
    let mut running = load.open_with("id\n1\n2\n");
    drop(running.take_pipe());
    running.wait_to_say("merging 2 rows");
    drop(lock);
    running.wait().exits(0);
    assert_eq!(database.count("t"), 2);
}

#[test]
fn a_key_of_arrays_is_merged_and_an_identity_that_cannot_be_set_is_refused() {
    for mode in MODES {
        let database = Database::with("CREATE TABLE t (k int[] PRIMARY KEY, v int)");
        let ran = load(
            &database,
            "k,v\n\"{1,2}\",1\n{3},2\n",
            &format!("--mode {mode}"),
        );
        ran.exits(0);
        assert_eq!(database.rows("t"), ["{1,2}|1", "{3}|2"], "{mode}");

        let database = Database::with(
            "CREATE TABLE t (k int PRIMARY KEY, number int GENERATED ALWAYS AS IDENTITY)",
        );
        let ran = load(&database, "k,number\n1,7\n", &format!("--mode {mode}"));
        match mode {
            "upsert" | "sync" => ran
                .exits(2)
                .says(&["\"number\"", "GENERATED ALWAYS AS IDENTITY"]),
            _ => ran.exits(0),
        };
    }
}
