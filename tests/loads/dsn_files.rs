//! `--dsn-file`: the connection string in a file, away from the command line and the environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Cmd, Database, Files, PASSWORD, pgrung, text};

const TABLE: &str = "CREATE TABLE t (id int); GRANT INSERT, SELECT ON t TO loader";

/// A file with these rights; its path as text.
fn write(files: &Files, name: &str, content: impl AsRef<[u8]>, mode: u32) -> String {
    let path = files.write(name, content);
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

fn load(files: &Files, dsn_file: &str) -> Cmd {
    let rows = files.write("rows.csv", "id\n1\n2\n");
    let load = pgrung("load --verbose -t t --no-ledger").arg(rows);
    load.args(["--dsn-file", dsn_file])
}

#[test]
fn every_command_reads_the_connection_string_from_the_file() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let dsn = write(&files, "dsn", format!("\n {}\n\n", database.dsn()), 0o600);
    let rows = files.write("rows.csv", "id\n1\nx\n");
    for (words, code) in [
        (format!("load -t t --import-id i {rows}"), 3),
        ("status i".to_owned(), 0),
        ("rejects i".to_owned(), 0),
        ("replay i".to_owned(), 3),
        ("migrate".to_owned(), 0),
        ("plan --rows-per-second 9 --row-bytes 9".to_owned(), 0),
        ("bench --rounds 1 --rows 10 --strategies copy".to_owned(), 0),
    ] {
        // Where nothing else names a server, bench and plan do without one.
        let url = if code == 3 {
            "postgres://db.invalid/d"
        } else {
            ""
        };
        let command = pgrung(&words).env("DATABASE_URL", url);
        let ran = command.args(["--dsn-file", &dsn]).run();
        ran.exits(code);
        assert!(!ran.stderr.contains("private"), "{ran}");
    }
    assert_eq!(database.count("t"), 1);
}

#[test]
fn a_file_with_a_password_is_for_its_owner_alone() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let pairs = database.loader_dsn(PASSWORD);
    let port = database.server.port();
    let name = &database.name;
    let encoded = "s3cr%3Aet%40%2F%25x";
    let uri = format!("postgres://loader:{encoded}@127.0.0.1:{port}/{name}");
    let query = format!("postgres://loader@127.0.0.1:{port}/{name}?password={encoded}");
    for (dsn, mode, code) in [
        (&pairs, 0o600, 0),
        (&pairs, 0o400, 0),
        (&uri, 0o600, 0),
        (&query, 0o700, 0),
        (&pairs, 0o640, 2),
        (&pairs, 0o604, 2),
        (&uri, 0o620, 2),
        (&query, 0o601, 2),
    ] {
        let ran = load(&files, &write(&files, "dsn", dsn, mode)).run();
        ran.exits(code);
        assert_eq!(ran.stderr.contains("chmod 0600"), code == 2, "{ran}");
        fs::remove_file(files.path("dsn")).unwrap();
    }
    // Without a password it is nobody's secret.
    let bare = format!("host=127.0.0.1 port={port} user=loader dbname={name}");
    let bare = load(&files, &write(&files, "bare", bare, 0o644));
    bare.env("PGPASSWORD", PASSWORD).run().exits(0);
}

#[test]
fn a_file_that_holds_no_connection_string_is_told_without_its_text() {
    // Every run of these tests looks for the password.
    let files = Files::new();
    let two_lines = format!("host=h password={PASSWORD}\nuser=u");
    for (content, words) in [
        (&b""[..], "empty"),
        (b" \n\r\n\t", "empty"),
        (two_lines.as_bytes(), "more than one line"),
        (b"host=h\rpassword=s3cr", "more than one line"),
        (b"host=h password=s3cr\xe9", "UTF-8"),
        (b"s3cr", "neither a URI"),
        (b"host=h password=s3cr s3cr=x", "unknown parameter"),
        (b"postgres://u:s3cr/d@h", "an @"),
        (b"postgres://u:s3cr/d", "port"),
    ] {
        let dsn = write(&files, "dsn", content, 0o600);
        let ran = load(&files, &dsn).run();
        ran.exits(2).says(&["--dsn-file", &dsn, words]);
    }
    load(&files, "/nowhere/dsn")
        .run()
        .exits(2)
        .says(&["--dsn-file /nowhere/dsn", "No such file"]);
    let dir = text(files.dir());
    load(&files, &dir).run().exits(2).says(&["directory"]);
    // No file of that name, but what should be in it.
    let uri = format!("postgres://u:{PASSWORD}@h/d");
    load(&files, &uri).run().exits(2).says(&["--dsn"]);
    for other in [["--dsn", &uri].as_slice(), &["--embedded"]] {
        let ran = load(&files, "dsn").args(other).run();
        ran.exits(2).says(&["cannot be used with"]);
    }
}

#[test]
fn the_command_to_go_on_reads_the_same_file() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let dsn = write(&files, "the dsn", database.dsn(), 0o600);
    let rows = files.write("rows.csv", "id\n1\nx\n2\n");
    let load = pgrung("load -t t --reject-limit 0").arg(&rows);
    let load = load.args(["--dsn-file", &dsn]);
    let ran = load.run();
    ran.exits(4).says(&[&format!("--dsn-file '{dsn}'")]);
    files.write("rows.csv", "id\n1\n3\n2\n");
    load.go_on(&ran).exits(0);
    assert_eq!(database.count("t"), 3);
}
