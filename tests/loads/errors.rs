//! Loads that go wrong: the exit code, the message with the place, and what stays in the table.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::process::Stdio;

use crate::support::server::free_port;
use crate::support::{Cmd, Database, Files, PASSWORD, RUNGS, Ran, gzip, pgrung, text};

/// Two good records, the second of two lines; what follows is record 3 on line 5.
pub const GOOD: &str = "id,name,day\n1,one,\n2,\"t\nwo\",2024-01-01\n";

pub const TABLE: &str =
    "CREATE TABLE t (id integer PRIMARY KEY, name varchar(5) NOT NULL, day date,
    CONSTRAINT small CHECK (id < 1000))";

const MAKE_AGAIN: &str = "TRUNCATE t";

#[track_caller]
fn told_and_stored_are_equal(ran: &Ran, database: &Database) -> u64 {
    let stored = database.count("t");
    assert_eq!(ran.committed(), stored, "{ran}");
    stored
}

/// Bad third records: bytes, SQLSTATE, column, and words of the message.
#[rustfmt::skip]
pub const BAD: [(&[u8], &str, Option<&str>, &str); 13] = [
    (b"x,abc,", "22P02", Some("id"), "invalid input syntax for type integer"),
    (b"99999999999,abc,", "22003", Some("id"), "out of range for type integer"),
    (b"3,,", "23502", Some("name"), "null value in column \"name\""),
    (b"3,abcdefgh,", "22001", Some("name"), "value too long"),
    (b"3,abc,2020-02-30", "22008", Some("day"), "date/time field value out of range"),
    (b"3,abc,soon", "22007", Some("day"), "invalid input syntax for type date"),
    (b"1,abc,", "23505", None, "duplicate key value"),
    (b"5000,abc,", "23514", None, "\"small\""),
    (b"3,abc", "22P04", None, "too few fields: 2, expected 3"),
    (b"3,abc,,", "22P04", None, "too many fields: 4, expected 3"),
    (b"3,a\"b,", "22P04", Some("name"), "a quote inside an unquoted field"),
    (b"3,\xff,", "22021", Some("name"), "invalid UTF-8"),
    (b"3,\0,", "22021", Some("name"), "a zero byte"),
];

/// The first bad row ends the load.
const STOP: &str = "--on-error stop";

#[test]
fn a_bad_row_is_named_by_source_record_line_column_code_and_words() {
    let database = Database::with(TABLE);
    let files = Files::new();
    for (at, (bad, sqlstate, column, words)) in BAD.into_iter().enumerate() {
        let mut content = GOOD.as_bytes().to_vec();
        content.extend(bad);
        content.extend(b"\n4,four,\n");
        let file = files.write("bad.csv", content);
        for (number, strategy) in RUNGS.into_iter().enumerate() {
            // Each row with half of the strategies alone in its batch, else with the good ones.
            let batch_rows = ["1", "1000"][(at + number) % 2];
            database.run(MAKE_AGAIN);
            let ran = database.loads(
                "t",
                &file,
                &format!("{strategy} {STOP} -j 1 --batch-rows {batch_rows}"),
            );
            let case = format!("{} {strategy} {batch_rows}", bad.escape_ascii());
            assert_eq!(ran.code, Some(1), "{case}: {ran}");
            let column = column.map_or(String::new(), |name| format!(", column \"{name}\""));
            let place = format!("{file}: record 3, line 5{column}: {sqlstate}: ");
            assert!(ran.stderr.contains(&place), "{case}: {place} not in {ran}");
            ran.says(&[words]);
            let stored = told_and_stored_are_equal(&ran, &database);
            let kept = strategy.contains("row") || batch_rows == "1";
            assert_eq!(stored, if kept { 2 } else { 0 }, "{case}: {ran}");
            assert_eq!(ran.summary()["rows"]["loaded"], stored, "{case}");
        }
    }
}

#[test]
fn a_bad_json_line_is_named_as_a_bad_row_is() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write(
        "bad.ndjson",
        "{\"id\": 1, \"name\": \"a\"}\n\n{\"id\": \"x\", \"name\": \"b\"}\n",
    );
    for strategy in RUNGS {
        database.run(MAKE_AGAIN);
        let ran = database.loads("t", &file, &format!("{strategy} {STOP}"));
        ran.exits(1)
            .says(&[&format!("{file}: record 2, line 3"), "22P02"]);
        told_and_stored_are_equal(&ran, &database);
    }
}

#[test]
fn of_a_row_nothing_is_shown_but_the_servers_own_words() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("bad.csv", format!("{GOOD}5000,priv8,\n"));
    for strategy in RUNGS {
        database.run(MAKE_AGAIN);
        let ran = database.loads("t", &file, &format!("{strategy} {STOP}"));
        ran.exits(1);
        assert!(!ran.stderr.contains("priv8"), "{ran}");
    }
}

#[test]
fn commit_load_rolls_everything_back_and_commit_row_keeps_what_came_before() {
    let files = Files::new();
    let rows: String = (3..500).map(|id| format!("{id},x,\n")).collect();
    let file = files.write("bad.csv", format!("{GOOD}{rows}1,again,\n"));
    let place = format!("{file}: record 500, line 502: 23505");
    let database = Database::with(TABLE);
    for (flags, kept) in [
        ("--commit load", 0),
        ("--commit load --strategy multi-insert", 0),
        ("--commit load --strategy unnest", 0),
        ("--commit load --strategy pipeline", 0),
        ("--commit row --strategy insert -j 1", 499),
        ("--commit batch -j 1", 450),
    ] {
        database.run(MAKE_AGAIN);
        let ran = database.loads("t", &file, &format!("{flags} {STOP} --batch-rows 50"));
        ran.exits(1).says(&[&place]);
        assert_eq!(
            told_and_stored_are_equal(&ran, &database),
            kept,
            "{flags:?}"
        );
    }
}

#[test]
fn commit_load_keeps_nothing_of_a_source_that_breaks_off() {
    let files = Files::new();
    let open = files.write("open.csv", format!("{GOOD}3,\"three,\n"));
    let packed = gzip(GOOD.as_bytes());
    let cut = files.write("cut.csv.gz", &packed[..packed.len() - 4]);
    let database = Database::with(TABLE);
    for file in [open, cut] {
        for batch_rows in ["1", "1000"] {
            let ran = database
                .load("t")
                .flags(&format!("--commit load --batch-rows {batch_rows}"))
                .arg(&file)
                .run();
            ran.exits(6).says(&[&file]);
            assert_eq!(told_and_stored_are_equal(&ran, &database), 0);
        }
    }
}

#[test]
fn a_bad_row_behind_rows_that_a_trigger_kept_out_leaves_a_balanced_account() {
    let files = Files::new();
    let file = files.write("bad.csv", format!("{GOOD}x,y,\n"));
    let database = Database::with(TABLE);
    database.run(
        "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN IF NEW.id = 1 THEN RETURN NULL; END IF; RETURN NEW; END$$;
         CREATE TRIGGER keep_out BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION keep_out()",
    );
    for strategy in RUNGS {
        database.run(MAKE_AGAIN);
        let ran = database.loads(
            "t",
            &file,
            &format!("{strategy} {STOP} -j 1 --batch-rows 3"),
        );
        ran.exits(1).says(&["record 3, line 5"]);
        told_and_stored_are_equal(&ran, &database);
    }
}

#[test]
fn a_constraint_that_waits_for_commit_still_names_the_row() {
    let files = Files::new();
    let file = files.write("seats.csv", "guest,seat\nann,1\nbob,2\ncyd,1\ndan,3\n");
    let child = files.write("child.csv", "id,parent\n1,1\n2,9\n3,1\n");
    let database = Database::with(
        "CREATE TABLE t (guest text, seat int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent VALUES (1);
         CREATE TABLE child (id int, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
    );
    for strategy in RUNGS {
        database.run("TRUNCATE t, child");
        // One worker: of two equal seats the later one is refused only if rows come in order.
        let ran = database.loads("t", &file, &format!("{strategy} {STOP} -j 1"));
        ran.exits(1).says(&["seats.csv: record 3, line 4", "23505"]);
        told_and_stored_are_equal(&ran, &database);
        let ran = database.loads("child", &child, &format!("{strategy} {STOP}"));
        ran.exits(1).says(&["child.csv: record 2, line 3", "23503"]);
        assert_eq!(ran.committed(), database.count("child"), "{ran}");
    }
}

#[test]
fn row_security_is_told_by_copy_for_the_table_and_by_the_others_for_the_row() {
    let files = Files::new();
    let file = files.write("rows.csv", GOOD);
    let database = Database::with(TABLE);
    database.run(
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT INSERT ON t TO loader;
         CREATE POLICY ones ON t FOR INSERT TO loader WITH CHECK (id = 1)",
    );
    for strategy in RUNGS {
        database.run(MAKE_AGAIN);
        let ran = pgrung("load -t t -j 1")
            .arg(&file)
            .dsn(&database.loader_dsn(PASSWORD))
            .flags(strategy)
            .arg("--no-ledger")
            .run();
        ran.exits(1);
        if strategy.contains("copy") {
            ran.says(&["0A000", "row-level security"]);
        } else {
            ran.says(&["rows.csv: record 2, line 3: 42501", "row-level security"]);
        }
        told_and_stored_are_equal(&ran, &database);
    }
}

#[test]
fn a_source_that_cannot_be_read_is_exit_code_6_before_anything_is_written() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let good = files.write("good.csv", GOOD);
    let missing = text(&files.path("missing.csv"));
    let directory = text(files.path("missing.csv").parent().unwrap());
    for (bad, words) in [
        (&missing, "no such file"),
        (&directory, "is a directory: name the files in it"),
    ] {
        for inputs in [vec![bad], vec![&good, bad]] {
            let ran = database.load("t").args(inputs).run();
            ran.exits(6).says(&[&format!("{bad}: "), words]);
            assert_eq!(told_and_stored_are_equal(&ran, &database), 0);
        }
    }
}

#[test]
fn a_file_without_the_right_to_read_it_is_exit_code_6() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("locked.csv", GOOD);
    let (command, words) = if nix::unistd::geteuid().is_root() {
        // Root may read everything but the memory of a process at address 0.
        let load = database
            .load("t")
            .flags("/proc/self/mem --compression none");
        (load, "/proc/self/mem: ")
    } else {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
        (database.load("t").arg(&file), "permission denied")
    };
    let ran = command.run();
    ran.exits(6).says(&[words]);
    assert_eq!(told_and_stored_are_equal(&ran, &database), 0);
}

#[test]
fn a_record_over_the_cap_is_refused_with_its_place() {
    let files = Files::new();
    // Shorter and longer than what is read at once.
    for length in [2_000, 1_000_000] {
        let database = Database::with("CREATE TABLE t (id int, name text)");
        let file = files.write(
            "long.csv",
            format!("id,name\n1,a\n2,b\n3,{}\n4,d\n", "x".repeat(length)),
        );
        let load = |cap: &str| {
            database
                .load("t")
                .arg(&file)
                .args(["--max-record-bytes", cap])
                .run()
        };
        let ran = load("1KiB");
        ran.exits(6).says(&[
            &format!("{file}: record 3, line 4: the record is longer than 1024 bytes"),
            "--max-record-bytes",
        ]);
        assert_eq!(told_and_stored_are_equal(&ran, &database), 2);
        database.run(MAKE_AGAIN);
        load("2MiB").exits(0);
        assert_eq!(database.count("t"), 4);
    }
}

#[test]
fn a_quote_that_is_never_closed_is_named_where_its_record_begins() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("open.csv", format!("{GOOD}3,\"three,\n4,four,\n"));
    let ran = database.load("t").arg(&file).run();
    ran.exits(6).says(&[&format!(
        "{file}: record 3, line 5: the source ends inside a quoted"
    )]);
    assert_eq!(told_and_stored_are_equal(&ran, &database), 2);
}

#[test]
fn files_of_one_load_have_one_header_and_one_format() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let first = files.write("1.csv", GOOD);
    for (name, content, words) in [
        (
            "2.csv",
            "name,id,day\nthree,3,\n",
            "the header differs from that of",
        ),
        (
            "2.ndjson",
            "{\"id\": 3, \"name\": \"c\"}\n",
            "is ndjson, but the first file of this load is csv",
        ),
    ] {
        database.run(MAKE_AGAIN);
        let other = files.write(name, content);
        let ran = database
            .load("t")
            .args([&first, &other])
            .flags("-j 1")
            .run();
        ran.exits(2).says(&[&format!("{other}: "), words]);
        told_and_stored_are_equal(&ran, &database);
    }
}

#[test]
fn what_is_no_table_to_load_is_exit_code_2() {
    let database = Database::with(
        "CREATE TABLE base (id int); CREATE VIEW v AS SELECT * FROM base;
         CREATE MATERIALIZED VIEW m AS SELECT * FROM base; CREATE SEQUENCE s; CREATE INDEX i ON base (id);
         CREATE TABLE nothing (); CREATE TABLE computed (a int GENERATED ALWAYS AS (1) STORED);
         CREATE TABLE \"Mixed\" (id int)",
    );
    let files = Files::new();
    let file = files.write("id.csv", "id\n1\n");
    for (table, flags, words) in [
        ("nowhere", "", "table nowhere does not exist"),
        ("no.where", "", "table no.where does not exist"),
        ("mixed", "", "quote them as '\"Name\"'"),
        ("v", "", "is a view: rows can be loaded into tables only"),
        ("m", "", "is a materialized view"),
        ("s", "", "is a sequence"),
        ("i", "", "is an index"),
        ("nothing", "--no-header", "no column that can be written"),
        ("nothing", "", "has no column \"id\""),
        ("computed", "--no-header", "no column that can be written"),
    ] {
        let ran = database.load(table).arg(&file).flags(flags).run();
        assert_eq!(ran.code, Some(2), "{table}: {ran}");
        ran.says(&[words]);
        assert_eq!(ran.committed(), 0);
    }
}

#[test]
fn without_the_right_to_insert_nothing_begins() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("rows.csv", GOOD);
    for strategy in RUNGS {
        let ran = pgrung("load -t t")
            .arg(&file)
            .dsn(&database.loader_dsn(PASSWORD))
            .flags(strategy)
            .arg("--no-ledger")
            .run();
        ran.exits(1)
            .says(&["42501", "permission denied for table t"]);
        assert_eq!(told_and_stored_are_equal(&ran, &database), 0);
    }
}

#[test]
fn without_a_server_or_a_login_the_exit_code_is_5_and_the_server_is_named() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("rows.csv", GOOD);
    let load = |dsn: &str| pgrung("load -t t").args([&file, "--dsn", dsn]).run();
    let port = free_port();
    let nobody = format!("host=127.0.0.1 port={port} user=me password='{PASSWORD}' dbname=d");
    load(&nobody)
        .exits(5)
        .says(&[&format!("127.0.0.1:{port}"), "cannot reach"]);
    load("host=/nonexistent user=me dbname=d")
        .exits(5)
        .says(&["/nonexistent"]);
    load(&database.loader_dsn("s3cr-wrong")).exits(5).says(&[
        "28P01",
        "password authentication failed",
        "loader",
    ]);
    load(&format!("{} dbname=nowhere", database.dsn()))
        .exits(5)
        .says(&["3D000", "nowhere"]);
    load(&format!("{} user=nobody_at_all", database.dsn()))
        .exits(5)
        .says(&["nobody_at_all"]);
    assert_eq!(database.count("t"), 0);
}

#[test]
fn a_name_that_is_no_text_is_no_reason_to_panic() {
    let database = Database::with("CREATE TABLE t (id int)");
    let files = Files::new();
    let file = files.write("rows.csv", "id\n1\nx\n");
    let odd = std::ffi::OsString::from_vec(b"rejects\xff.csv".to_vec());
    let load = database
        .load("t")
        .arg(&file)
        .flags("--reject-limit 0 --rejects");
    let ran = load.arg(files.path("").join(odd)).run();
    ran.exits(4).says(&["to go on: "]);
}

#[test]
fn an_account_that_cannot_be_shown_is_an_error_in_the_summary_too() {
    let database = Database::with("CREATE TABLE t (id int)");
    let files = Files::new();
    let file = files.write("rows.csv", "id\n1\n");
    let summary = files.path("summary.json");
    let load = database
        .load_once("t")
        .arg(&file)
        .arg("--summary")
        .arg(&summary);
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let status = load.command().stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    assert_eq!(told["exit_code"], 1);
    assert!(told["error"].as_str().unwrap().contains("stdout"), "{told}");
    assert_eq!(told["rows"]["loaded"], 1);
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_wrong() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("rows.csv", GOOD);
    let none = text(&files.path("none-*.csv"));
    for (flags, words) in [
        ("--commit row", "--commit row needs --strategy insert"),
        ("--commit load -j 2", "takes one worker"),
        ("--delimiter \"", "--delimiter and --quote are the same"),
        ("--delimiter ab", "one ASCII character"),
        ("--batch-bytes 0B", "not a size"),
        ("--batch-bytes 4", "4MiB or 4B"),
        ("--batch-bytes 4parsecs", "sizes look like 4MiB"),
        ("--batch-rows 0", "above 0"),
        ("--max-wait soon", "times look like 200ms"),
        ("--max-wait 4", "4s or 4ms"),
        ("--strategy magic", "possible values"),
        ("--workers 0", "above 0"),
        ("--workers 257", "--workers: 1 to 256"),
        ("--no-ledger", "--no-ledger keeps no imports"),
        ("--max-record-bytes 2GiB", "1GiB"),
        ("--limit x", "invalid digit"),
        ("--quiet --verbose", "cannot be used with"),
        ("--embedded --dsn postgres://h/d", "cannot be used with"),
        ("--no-such-flag", "unexpected argument"),
        ("--columns id,name", "--columns names 2 columns"),
        ("--columns id,name,name", "\"name\" twice"),
        ("--columns id,name,nope", "has no column \"nope\""),
        (&none, "matches no file"),
        ("- -", "named twice"),
        ("--dsn postgres://h:many/d", "port"),
    ] {
        let ran = database.loads("t", &file, flags);
        assert_eq!(ran.code, Some(2), "{flags}: {ran}");
        ran.says(&[words]);
    }
    let without_table = pgrung("load").arg(&file).run();
    without_table.exits(2).says(&["--table"]);
    pgrung("").run().exits(2);
    pgrung("bench --json --markdown").run().exits(2);
    let bench = pgrung("bench --input").arg(&file).run();
    bench.exits(2).says(&["--table"]);
    assert_eq!(database.count("t"), 0);
}

#[test]
fn the_password_is_in_no_output_whatever_is_wrong_with_it() {
    // Every run of these tests looks for it; these are the ways to get it wrong.
    let files = Files::new();
    let file = files.write("rows.csv", GOOD);
    let port = free_port();
    for dsn in [
        format!("postgres://me:{PASSWORD}@127.0.0.1:{port}/d"),
        format!("postgres://me:s3cr:et@127.0.0.1:{port}/d"),
        "postgres://me:s3cr/et@127.0.0.1/d".to_owned(),
        "postgres://me@127.0.0.1:s3cr/d".to_owned(),
        format!("host=127.0.0.1 port={port} password=s3cr user"),
        format!("host=127.0.0.1 port={port} pasword=s3cr"),
        format!("host=127.0.0.1 port={port} password='s3cr"),
        "host=127.0.0.1 password=s3cr port=s3cr".to_owned(),
        "postgres://127.0.0.1?password=s3cr&port=x".to_owned(),
    ] {
        let load = pgrung("load --verbose -t t").arg(&file);
        for command in [load, pgrung("bench")] {
            let ran = command.args(["--dsn", &dsn]).run();
            assert!(matches!(ran.code, Some(2 | 5)), "{dsn}: {ran}");
        }
    }
    let load = pgrung("load --verbose -t t").arg(&file);
    let load = load.env("PGHOST", "127.0.0.1").env("PGPASSWORD", PASSWORD);
    load.env("PGPORT", port.to_string()).run().exits(5);
}

#[test]
fn a_reader_of_stdout_that_went_away_is_no_failure() {
    let database = Database::with(TABLE);
    // As `| head -0`: gone before the first byte is written.
    let run = |load: &Cmd| {
        let mut child = load.command().stdin(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let _ = child.stdin.take().unwrap().write_all(GOOD.as_bytes());
        Ran::of(child.wait_with_output().unwrap())
    };
    run(&database.load("t")).exits(0);
    assert_eq!(database.count("t"), 2);
    run(&pgrung("load --help")).exits(0);
}

#[test]
fn a_summary_that_cannot_be_written_is_found_before_the_load() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let good = files.write("good.csv", GOOD);
    let nowhere = text(&files.path("no/such/summary.json"));
    let ran = database
        .load("t")
        .args([&good, "--summary", &nowhere])
        .run();
    ran.exits(2).says(&["--summary", &nowhere]);
    assert_eq!(told_and_stored_are_equal(&ran, &database), 0);
}

#[test]
fn a_full_disk_behind_the_summary_is_a_failure_and_hides_no_other() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let good = files.write("good.csv", GOOD);
    let bad = files.write("bad.csv", format!("{GOOD}x,y,\n"));
    let full = |file: &str| {
        database
            .load("t")
            .args([file, "--summary", "/dev/full"])
            .flags(STOP)
            .run()
    };
    full(&good).exits(1).says(&["cannot write /dev/full"]);
    database.run(MAKE_AGAIN);
    let ran = full(&bad);
    ran.exits(1)
        .says(&["record 3, line 5", "cannot write /dev/full"]);
    told_and_stored_are_equal(&ran, &database);
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure_and_hides_no_other() {
    let database = Database::with(TABLE);
    let run = |load: Cmd, text: &str| {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = load.command();
        let mut child = command.stdin(Stdio::piped()).stdout(full).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        Ran::of(child.wait_with_output().unwrap())
    };
    let ran = run(database.load("t"), GOOD);
    ran.exits(1).says(&["cannot write stdout"]);
    database.run(MAKE_AGAIN);
    let ran = run(database.load("t").flags(STOP), &format!("{GOOD}x,y,\n"));
    ran.exits(1).says(&["stdin: record 3, line 5"]);
}
