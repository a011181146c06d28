//! A merge that was killed, and what happened before the next run; and what others do meanwhile.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::support::{Cmd, Database, Files, wait_until};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (0, 'old')";

struct Load {
    database: Arc<Database>,
    files: Files,
}

impl Load {
    fn new(sql: &str) -> Self {
        Load {
            database: Database::with(sql),
            files: Files::new(),
        }
    }

    /// A load of `rows`, of the same file each time.
    fn of(&self, rows: &str, flags: &str) -> Cmd {
        let file = self.files.write("f.csv", format!("id,v\n{rows}"));
        self.database
            .load_once("t")
            .arg(file)
            .flags("--progress none")
            .flags(flags)
    }
}

fn rows(v: &str) -> String {
    (1..=1000).map(|id| format!("{id},{v}\n")).collect()
}

#[test]
fn a_file_that_has_grown_since_a_kill_is_merged_as_it_is_now() {
    for (key, point) in [
        ("int", "after part commit:1"),
        ("text", "before part commit:1"),
        ("int", "before merge:1"),
        ("int", "before merge commit:1"),
    ] {
        for mode in ["upsert", "ignore"] {
            let load = Load::new(&format!(
                "CREATE TABLE t (id {key} PRIMARY KEY, v text); INSERT INTO t VALUES ('0', 'old')"
            ));
            let first = rows("x") + "1,z\n";
            let mode_flag = format!("--mode {mode} -j 2");
            load.of(&first, &mode_flag)
                .env("PGRUNG_ABORT_AT", point)
                .run()
                .aborted();
            let ran = load
                .of(&(first.clone() + &rows("y") + "2000,y\n"), &mode_flag)
                .run();
            ran.exits(0);
            let wins = if mode == "upsert" { "y" } else { "x" };
            let found = load
                .database
                .lines("SELECT v, count(*) FROM t WHERE id::text <> '2000' GROUP BY 1 ORDER BY 1");
            assert_eq!(
                found,
                ["old|1".to_owned(), format!("{wins}|1000")],
                "{key} {point} {mode}"
            );
            assert_eq!(
                load.database
                    .number("SELECT count(*) FROM t WHERE id::text = '2000'"),
                1
            );
            assert_eq!(ran.rows("read"), 2002);
        }
    }
}

#[test]
fn what_became_of_the_table_since_a_kill_is_not_taken_for_granted() {
    for between in [
        "TRUNCATE t",
        "DELETE FROM t",
        "UPDATE t SET v = 'other'",
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text)",
    ] {
        for unlogged in ["", "ALTER TABLE t SET UNLOGGED"] {
            for point in ["after part commit:1", "after part commit:2"] {
                let load = Load::new(&format!("{TABLE}; {unlogged}"));
                let flags = "--mode upsert -j 2";
                load.of(&rows("x"), flags)
                    .env("PGRUNG_ABORT_AT", point)
                    .run()
                    .aborted();
                load.database.run(between);
                load.of(&rows("x"), flags).run().exits(0);
                let found = load
                    .database
                    .number("SELECT count(*) FROM t WHERE v = 'x' AND id > 0");
                assert_eq!(found, 1000, "{between} {unlogged} {point}");
            }
        }
    }
}

#[test]
fn a_replace_by_another_job_is_not_taken_for_granted_either() {
    let load = Load::new(TABLE);
    load.of(&rows("x"), "--mode upsert -j 2")
        .env("PGRUNG_ABORT_AT", "after part commit:1")
        .run()
        .aborted();
    let other = load.files.write("g.csv", "id,v\n1,g\n5000,g\n");
    load.database
        .load_once("t")
        .arg(other)
        .flags("--mode replace --job other")
        .run()
        .exits(0);
    load.of(&rows("x"), "--mode upsert -j 2").run().exits(0);
    assert_eq!(
        load.database.number("SELECT count(*) FROM t WHERE v = 'x'"),
        1000
    );
    assert_eq!(load.database.count("t"), 1001);
}

#[test]
fn rejects_of_parts_that_were_merged_are_counted_by_the_run_that_finishes() {
    for flags in ["", "--after SELECT"] {
        let load = Load::new(
            "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1); CREATE TABLE t (id int PRIMARY KEY, v int REFERENCES p)",
        );
        let text: String = (1..=100)
            .map(|id| format!("{id},{}\n", if id % 10 == 0 { 9 } else { 1 }))
            .collect();
        load.of(&text, "--mode upsert -j 2")
            .env("PGRUNG_ABORT_AT", "after part commit:2")
            .run()
            .aborted();
        let ran = load.of(&text, "--mode upsert -j 2").flags(flags).run();
        ran.exits(3);
        assert_eq!(ran.rows("rejected"), 10, "{flags}");
        assert_eq!(
            load.database.number("SELECT count(*) FROM pgrung.rejects"),
            10
        );
        assert_eq!(load.database.count("t"), 90);
    }
}

#[test]
fn a_row_that_another_writer_brings_meanwhile_is_overwritten_like_any_other() {
    // The trigger makes the time between a look at the table and the end of the statement long.
    let load = Load::new(&format!(
        "{TABLE}; CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
         CREATE TRIGGER slow AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION slow()"
    ));
    let running = load.of("1,input\n", "--mode upsert").spawn();
    wait_until("the merge updates", || {
        load.database
            .number("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
            > 0
    });
    let session = load.database.session();
    let other = thread::spawn(move || {
        session.try_run("SET lock_timeout = '20s'; INSERT INTO t VALUES (1, 'other')")
    });
    thread::sleep(Duration::from_millis(100));
    running.wait().exits(0);
    let _ = other.join();
    assert_eq!(load.database.one("SELECT v FROM t WHERE id = 1"), "input");
}

#[test]
fn rows_of_a_partition_that_its_table_was_replaced_without_are_loaded_again() {
    for (child, parent) in [("ta", "PARTITION BY LIST (v)"), ("ta", "")] {
        let child_sql = match parent {
            "" => "CREATE TABLE ta () INHERITS (t)".to_owned(),
            _ => "CREATE TABLE ta PARTITION OF t FOR VALUES IN ('a'); CREATE TABLE tb PARTITION OF t FOR VALUES IN ('b')".to_owned(),
        };
        let load = Load::new(&format!(
            "CREATE TABLE t (id int, v text) {parent}; {child_sql}"
        ));
        let file = load.files.write("a.csv", "id,v\n1,a\n2,a\n");
        let append = load
            .database
            .load_once(child)
            .arg(&file)
            .flags("--progress none");
        append.run().exits(0);
        load.of("7,a\n8,b\n", "--mode replace").run().exits(0);
        append.run().exits(0);
        assert_eq!(
            load.database.lines("SELECT id FROM t ORDER BY id"),
            ["1", "2", "7", "8"],
            "{parent}"
        );
    }
}

#[test]
fn a_table_that_does_something_else_than_it_is_told_is_refused() {
    let load = Load::new(&format!(
        "{TABLE}; CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING"
    ));
    load.of("0,new\n", "--mode upsert")
        .run()
        .exits(2)
        .says(&["rule \"r\""]);
    let load = Load::new(&format!(
        "{TABLE}; GRANT ALL ON t TO loader; GRANT CREATE ON DATABASE {{}} TO loader; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON t USING (v = 'mine') WITH CHECK (true)"
    ).replace("GRANT CREATE ON DATABASE {} TO loader; ", ""));
    load.database.run("GRANT CREATE ON SCHEMA public TO loader");
    let file = load.files.write("f.csv", "id,v\n1,mine\n");
    let dsn = load.database.loader_dsn(crate::support::PASSWORD);
    load.database.pgrung("migrate").run().exits(0);
    load.database.run(
        "GRANT ALL ON SCHEMA pgrung TO loader; GRANT ALL ON ALL TABLES IN SCHEMA pgrung TO loader",
    );
    let sync = crate::support::pgrung("load -t t --mode sync --progress none")
        .arg(file)
        .dsn(&dsn);
    sync.run()
        .exits(2)
        .says(&["policies of \"public\".\"t\" may hide rows"]);
}

#[test]
fn guards_and_stops_hold_for_what_the_table_refuses_in_the_merge() {
    let sql = "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, v int REFERENCES p); INSERT INTO t SELECT generate_series(1, 9)";
    for mode in ["replace", "sync", "upsert"] {
        let load = Load::new(sql);
        let ran = load
            .of("1,1\n2,2\n3,3\n", &format!("--mode {mode} --min-rows 1"))
            .run();
        ran.exits(4).says(&["0 good rows"]);
        load.of("1,\n2,9\n", &format!("--mode {mode} --on-error stop"))
            .run()
            .exits(1)
            .says(&["23503"]);
        assert_eq!(load.database.count("t"), 9, "{mode}");
    }
    let load = Load::new(sql);
    let rejects = load.files.path("rejects.csv");
    let ran = load
        .of("1,1\n2,2\n3,\n", "--mode sync --reject-limit 1 --rejects")
        .arg(&rejects)
        .run();
    ran.exits(4);
    assert_eq!(std::fs::read_to_string(rejects).unwrap().lines().count(), 0);
}

#[test]
fn what_a_trigger_fills_in_or_mends_is_no_reject() {
    let load = Load::new(
        "CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL CHECK (v = upper(v)));
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := coalesce(upper(NEW.v), ''NONE''); RETURN NEW; END';
         CREATE TRIGGER f BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
    );
    for mode in ["upsert", "replace", "sync", "ignore"] {
        load.of("1,a\n2,B\n3,\n", &format!("--mode {mode}"))
            .run()
            .exits(0);
        assert_eq!(load.database.rows("t"), ["1|A", "2|B", "3|NONE"], "{mode}");
    }
}

#[test]
fn long_chains_of_rows_get_in_beside_a_bad_one() {
    let load = Load::new("CREATE TABLE t (id int PRIMARY KEY, v int REFERENCES t)");
    let chain: String = (1..=60).map(|id| format!("{id},{}\n", id + 1)).collect();
    let ran = load.of(&(chain + "61,\n200,999\n"), "--mode upsert").run();
    ran.exits(3);
    assert_eq!([ran.rows("inserted"), ran.rows("rejected")], [61, 1]);
}

#[test]
fn a_loser_that_wins_late_is_counted_once() {
    let load = Load::new(
        "CREATE TABLE t (id int PRIMARY KEY, v int REFERENCES t, u int UNIQUE); INSERT INTO t VALUES (9, NULL, 5)",
    );
    let file = load.files.write("g.csv", "id,v,u\n1,2,1\n1,,5\n2,,2\n");
    let ran = load
        .database
        .load_once("t")
        .arg(file)
        .flags("--mode upsert")
        .run();
    ran.exits(3);
    let counts = ["inserted", "superseded", "rejected"].map(|name| ran.rows(name));
    assert_eq!(counts, [2, 0, 1]);
}

#[test]
fn a_file_between_two_of_the_same_content_is_read() {
    for flags in [
        "replace",
        "sync",
        "upsert",
        "upsert --merge batch",
        "ignore",
    ] {
        let database = Database::with("CREATE TABLE t (id int PRIMARY KEY, name text)");
        let files = Files::new();
        for (file, rows) in [
            ("1.csv", "1,a\n2,a\n"),
            ("2.csv", "1,b\n3,b\n"),
            ("3.csv", "1,a\n2,a\n"),
        ] {
            files.write(file, format!("id,name\n{rows}"));
        }
        let load = database.load_once("t").arg(files.path("*.csv"));
        let load = load.flags(&format!("--mode {flags}"));
        load.run().exits(0);
        assert_eq!(database.rows("t"), ["1|a", "2|a", "3|b"], "{flags}");
    }
}
