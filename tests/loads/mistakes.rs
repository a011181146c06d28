//! What users get wrong, and whether the answer leads on: names nearly right, delimiters not named,
//! files of other kinds, settings that clash, connection strings in the wrong place.

use std::fs::File;
use std::io::Write;

use crate::support::{Database, Files, PASSWORD, RUNGS, gzip, pgrung, text};

const TABLE: &str = "CREATE TABLE orders (id int, customer text, placed date);
    CREATE TABLE \"Mixed\" (id int); CREATE SCHEMA app; CREATE TABLE app.invoices (id int)";

const ROWS: &str = "id,customer,placed\n1,Ann,2024-01-01\n";

/// Refused before the first row, with these words.
#[track_caller]
fn refuses(database: &Database, file: &str, flags: &str, words: &[&str]) {
    let ran = database.loads("orders", &file, flags);
    assert_eq!(ran.code, Some(2), "{flags}: {ran}");
    ran.says(words);
    assert_eq!(database.count("orders"), 0);
}

#[test]
fn a_table_that_does_not_exist_brings_the_nearest_one_that_does() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("orders.csv", ROWS);
    for (typed, near) in [
        ("order", "\"public\".\"orders\""),
        ("oredrs", "\"public\".\"orders\""),
        ("public.Orderz", "\"public\".\"orders\""),
        ("mixed", "\"public\".\"Mixed\""),
        ("invoices", "\"app\".\"invoices\""),
        ("ap.invoices", "\"app\".\"invoices\""),
    ] {
        let ran = database.loads(typed, &file, "");
        ran.exits(2)
            .says(&["does not exist", &format!("did you mean {near}?")]);
    }
    let far = database.loads("zebra", &file, "");
    far.exits(2).says(&["does not exist"]);
    assert!(!far.stderr.contains("did you mean"), "{far}");
}

#[test]
fn a_column_that_does_not_exist_brings_the_nearest_one_that_does() {
    let database = Database::with(TABLE);
    let files = Files::new();
    for (header, near) in [
        ("custmer", "customer"),
        ("Placed_", "placed"),
        (" id", "id"),
    ] {
        let file = files.write("near.csv", format!("{header}\nx\n"));
        refuses(
            &database,
            &file,
            "",
            &[&format!("did you mean \"{near}\"?")],
        );
    }
    let file = files.write("keys.ndjson", "{\"custmer\": 1}\n");
    refuses(&database, &file, "", &["did you mean \"customer\"?"]);
    let flags = "--columns id,custommer,placed";
    refuses(
        &database,
        &files.write("a.csv", ROWS),
        flags,
        &["did you mean \"customer\"?"],
    );
}

#[test]
fn a_header_divided_by_another_byte_suggests_the_delimiter() {
    let database = Database::with(TABLE);
    let files = Files::new();
    for (delimiter, flag) in [
        (";", "--delimiter ';'"),
        ("\t", "--delimiter tab"),
        ("|", "--delimiter '|'"),
    ] {
        let file = files.write("orders.csv", ROWS.replace(',', delimiter));
        refuses(&database, &file, "", &[&file, flag]);
        refuses(
            &database,
            &file,
            "--columns id,customer,placed",
            &[&file, flag],
        );
    }
    let commas = files.write("orders.tsv", ROWS);
    refuses(&database, &commas, "", &["--delimiter ,"]);
    // A comma in a name does not hide it, quoted or not.
    let file = files.write("mixed.csv", "id;customer;a, b\n1;2;3\n");
    refuses(&database, &file, "", &["--delimiter ';'"]);
    let file = files.write("quoted.csv", "id;customer;\"a, b\"\n1;2;3\n");
    let quoted = database.loads("orders", &file, "");
    quoted.exits(6).says(&[&file, "--delimiter ';'"]);
    // What is advised helps.
    let file = files.write("semicolons.csv", ROWS.replace(',', ";"));
    database.loads("orders", &file, "--delimiter ;").exits(0);
}

#[test]
fn a_header_that_looks_like_data_suggests_no_header_and_is_not_shown() {
    let database = Database::with(TABLE);
    let files = Files::new();
    for row in ["17,Bobby,2024-02-03", "17,Bobby,", "\"Bobby\",2024-02-03,x"] {
        let file = files.write("rows.csv", format!("{row}\n"));
        refuses(
            &database,
            &file,
            "",
            &[&file, "--no-header", "looks like data"],
        );
        let ran = database.loads("orders", &file, "");
        assert!(!ran.stderr.contains("Bobby"), "{ran}");
    }
    let words = files.write("words.csv", "Ann,Bob,Cy\n");
    refuses(
        &database,
        &words,
        "",
        &["if the first line is data, add --no-header"],
    );
    // Where --columns names the fields, the row is passed over without a fault: it must be told.
    let file = files.write("passed.csv", "17,Bobby,2024-02-03\n18,Cy,2024-02-04\n");
    let ran = database.loads("orders", &file, "--columns id,customer,placed");
    ran.exits(0).says(&["looks like data", "--no-header"]);
    assert!(!ran.stderr.contains("Bobby"), "{ran}");
    let ran = database.loads(
        "orders",
        &files.write("good.csv", ROWS),
        "--columns id,customer,placed",
    );
    assert!(!ran.exits(0).stderr.contains("looks like data"), "{ran}");
}

#[test]
fn a_file_of_another_kind_is_named_for_what_it_is_before_any_row() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let mut tar = vec![0; 1024];
    tar[..10].copy_from_slice(b"orders.csv");
    tar[257..263].copy_from_slice(b"ustar\0");
    let utf16 =
        |bytes: fn(u16) -> [u8; 2]| ROWS.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let kinds: [(&str, Vec<u8>); 18] = [
        (
            "a zip archive",
            b"PK\x03\x04\x14\0\0\0\x08\0orders.csv".to_vec(),
        ),
        (
            "an Excel workbook",
            [
                &b"PK\x03\x04\x14\0\x06\0\x08\0\0\0!\0"[..],
                &[0; 16],
                b"[Content_Types].xml xl/workbook.xml",
            ]
            .concat(),
        ),
        (
            "an old Excel or other Office file",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0".to_vec(),
        ),
        ("a Parquet file", b"PAR1\x15\x04\x15\x10".to_vec()),
        ("an ORC file", b"ORC\x08\x01\0\x12".to_vec()),
        ("an Avro file", b"Obj\x01\x04\x14avro.codec".to_vec()),
        ("an Arrow file", b"ARROW1\0\0\xff\xff".to_vec()),
        ("a SQLite database", b"SQLite format 3\0\x10\0".to_vec()),
        ("a PDF file", b"%PDF-1.7\n%\xe2\xe3\n".to_vec()),
        (
            "a web page",
            b"\n<!DOCTYPE html>\n<html><body>Not found</body></html>\n".to_vec(),
        ),
        (
            "an XML file",
            b"<?xml version=\"1.0\"?>\n<rows/>\n".to_vec(),
        ),
        ("a tar archive", tar.clone()),
        ("a tar archive", gzip(&tar)),
        ("a 7z archive", b"7z\xbc\xaf\x27\x1c\0\x04".to_vec()),
        ("a pg_dump archive", b"PGDMP\x01\x0e\0".to_vec()),
        ("a binary COPY file", b"PGCOPY\n\xff\r\n\0\0\0\0\0".to_vec()),
        (
            "a JSON array",
            b"[\n  {\"id\": 1},\n  {\"id\": 2}\n]\n".to_vec(),
        ),
        ("gzip data", gzip(&gzip(ROWS.as_bytes()))),
    ];
    for (kind, bytes) in kinds {
        for name in ["rows.csv", "rows.json"] {
            let file = files.write(name, &bytes);
            let ran = database.loads("orders", &file, "");
            assert_eq!(ran.code, Some(6), "{kind}: {ran}");
            ran.says(&[&format!("{file}: is {kind}")]);
        }
    }
    for (encoding, bytes) in [
        ("UTF-16LE", utf16(u16::to_le_bytes)),
        ("UTF-16BE", utf16(u16::to_be_bytes)),
    ] {
        let ran = database.loads("orders", &files.write("wide.csv", bytes), "");
        ran.exits(6).says(&[encoding, "iconv"]);
    }
    // Not by the name, and not text that only begins alike.
    let words = files.write(
        "rows.zip",
        "id,customer,placed\n1,PAR1,2024-01-01\n2,ORC,\n",
    );
    database.loads("orders", &words, "").exits(0);
    database.run("CREATE TABLE kinds (\"PAR1\" text, \"ORC\" text, \"PK\" text)");
    let words = files.write("kinds.csv", "PAR1,ORC,PK\n1,2,3\n");
    database.loads("kinds", &words, "").exits(0);
    let words = files.write("orc.csv", "ORC\n1\n");
    database.loads("kinds", &words, "").exits(0);
}

#[test]
fn a_second_file_of_another_kind_is_named_too() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let good = files.write("a.csv", ROWS);
    let zip = files.write("b.csv", b"PK\x03\x04\x14\0\0\0\x08\0orders.csv");
    let ran = database.load("orders").args([&good, &zip]).run();
    ran.exits(6).says(&[&format!("{zip}: is a zip archive")]);
}

#[test]
fn reading_settings_that_clash_are_refused() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("rows.csv", ROWS);
    let tabs = files.write("rows.tsv", ROWS.replace(',', "\t"));
    for (file, flags, words) in [
        (&file, "--quote ,", "--delimiter and --quote are the same"),
        (&tabs, "--quote tab", "--delimiter and --quote are the same"),
        (
            &file,
            "--format tsv --quote tab",
            "--delimiter and --quote are the same",
        ),
        (&file, "--escape ,", "--delimiter and --escape are the same"),
        (
            &file,
            "--delimiter ; --escape ;",
            "--delimiter and --escape are the same",
        ),
        (&file, "--quote none --escape \\", "--escape"),
        (&file, "--null ,", "--null"),
        (&file, "--null a,b", "--null"),
        (&file, "--null \"", "--null"),
    ] {
        let ran = database.loads("orders", file, flags);
        assert_eq!(ran.code, Some(2), "{flags}: {ran}");
        ran.says(&[words]);
    }
    let broken = database
        .load("orders")
        .args([&file, "--null", "a\nb"])
        .run();
    broken.exits(2).says(&["--null"]);
    assert_eq!(database.count("orders"), 0);
    // What only looks alike is none.
    database.loads("orders", &tabs, "--quote ,").exits(0);
    let ran = database.loads("orders", &file, "--quote none --null \" --import-id again");
    ran.exits(0);
}

#[test]
fn gzip_padded_with_zeros_is_read_and_other_bytes_behind_it_are_an_error() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let packed = gzip(ROWS.as_bytes());
    let more = gzip(b"2,Bob,2024-01-02\n");
    for (number, zeros) in [1, 511, 300_000].into_iter().enumerate() {
        let bytes = [&packed[..], &more, &vec![0; zeros]].concat();
        let file = files.write(&format!("padded{number}.csv.gz"), bytes);
        database.run("TRUNCATE orders");
        let load = database.load("orders").arg(&file);
        let ran = load.flags(&format!("--import-id {number}")).run();
        ran.exits(0);
        assert_eq!(database.count("orders"), 2, "{zeros} zeros: {ran}");
    }
    for (name, behind) in [
        ("garbage", b"\0\0garbage".to_vec()),
        ("member", [&[0, 0][..], &more].concat()),
    ] {
        let file = files.write(&format!("{name}.csv.gz"), [&packed[..], &behind].concat());
        let ran = database.loads("orders", &file, "");
        ran.exits(6).says(&[&file, "gzip"]);
    }
    let file = files.write(
        "plain.csv.gz",
        [&packed[..], b"2,Bob,2024-01-02\n"].concat(),
    );
    database
        .loads("orders", &file, "")
        .exits(6)
        .says(&[&file, "gzip"]);
}

#[test]
fn discard_says_read_and_never_loaded() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let rows: String = (1..=300)
        .map(|id| format!("{id},Ann,2024-01-01\n"))
        .collect();
    let good = files.write("rows.csv", format!("id,customer,placed\n{rows}"));
    let bad = files.write("bad.csv", format!("id,customer,placed\n{rows}x,y\n"));
    let flags = "--strategy discard --progress plain --report-every 10ms --batch-rows 10 -j 1";
    let ran = database.loads("orders", &good, flags);
    ran.exits(0)
        .tells("300 rows read and encoded, none sent")
        .tells("300 read = 300 read only");
    let stopped = database.loads("orders", &bad, flags);
    stopped
        .exits(1)
        .says(&["300 rows were read and encoded, none was sent"]);
    let nothing = files.write("nothing.csv", "id,customer,placed\nx,y\n");
    let nothing = database.loads("orders", &nothing, flags);
    nothing.exits(1).tells("0 read = 0 read only");
    assert!(!format!("{nothing}").contains("loaded"), "{nothing}");
    for ran in [&ran, &stopped] {
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(
            !said.contains("loaded") && !said.contains("stay in"),
            "{ran}"
        );
        assert_eq!((ran.rows("loaded"), ran.rows("inserted")), (0, 0));
        assert_eq!(ran.rows("discarded"), 300);
    }
    assert_eq!(database.count("orders"), 0);
    // Nothing of it is known to a load that loads.
    let load = database.load_once("orders").arg(&good);
    assert_eq!(load.run().exits(0).rows("loaded"), 300);
}

#[test]
fn a_connection_string_in_the_wrong_place_is_not_echoed_and_leads_to_dsn() {
    // Every run of these tests looks for the password.
    let files = Files::new();
    let file = files.write("rows.csv", ROWS);
    let uri = format!("postgres://me:{PASSWORD}@127.0.0.1:1/d");
    let long = format!("postgresql://me:{PASSWORD}@127.0.0.1:1/d");
    let pairs = format!("host=127.0.0.1 port=1 password={PASSWORD}");
    let alone = format!("password={PASSWORD}");
    for string in [&uri, &long, &pairs, &alone] {
        let wrong = [
            pgrung("load -t orders").args([string]),
            pgrung("load").args(["-t", string, &file]),
            pgrung("load").args([&format!("--table={string}"), &file]),
            pgrung("load -t orders").args([&file, string]),
            pgrung("status").args([string]),
            pgrung("replay").args([string]),
            pgrung("rejects").args([string]),
            pgrung("migrate").args([string]),
            pgrung("plan").args([string]),
            pgrung("bench").args([string]),
            pgrung("bench --input").args([string, "--table", "t"]),
            pgrung("load -t orders --import-id").args([string, &file]),
            pgrung("load -t orders --dns").args([string, &file]),
            pgrung("").args([string]),
        ];
        for command in wrong {
            let ran = command.run();
            ran.exits(2).says(&["--dsn"]);
        }
    }
    let url = format!("https://me:{PASSWORD}@example.org/rows.csv");
    let ran = pgrung("load -t orders").args([&url]).run();
    ran.exits(2).says(&["curl"]);
    // Names that only look like one.
    let odd = files.path("host=web1");
    std::fs::create_dir(&odd).unwrap();
    std::fs::write(odd.join("part.csv"), ROWS).unwrap();
    let database = Database::with(TABLE);
    let glob = text(&odd.join("*.csv"));
    database.loads("orders", &glob, "").exits(0);
    let inside = database
        .load_once("orders")
        .flags("--import-id again host=web1/part.csv");
    inside.current_dir(files.dir()).run().exits(0);
}

#[test]
fn another_client_encoding_is_told_and_not_heeded() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("rows.csv", "id,customer\n1,é\n");
    for (value, told) in [
        ("LATIN1", true),
        ("SQL_ASCII", true),
        ("UTF8", false),
        ("utf-8", false),
        ("unicode", false),
    ] {
        database.run("TRUNCATE orders");
        let load = database
            .load("orders")
            .arg(&file)
            .env("PGCLIENTENCODING", value);
        let ran = load.flags("--import-id").arg(value).run();
        ran.exits(0);
        assert_eq!(
            ran.stderr.contains("PGCLIENTENCODING"),
            told,
            "{value}: {ran}"
        );
        assert!(!told || ran.stderr.contains("UTF-8"), "{ran}");
        assert_eq!(database.one("SELECT customer FROM orders"), "é");
    }
}

#[test]
fn names_reach_the_terminal_without_control_characters() {
    let odd = "a\u{1b}]0;t\u{7}b\u{9b}1m\u{202e}c";
    let database = Database::with(&format!("CREATE TABLE \"{odd}\" (id int, \"{odd}\" int)"));
    let files = Files::new();
    let file = files.write(&format!("{odd}.csv"), format!("id,{odd}\n1,2\nx,3\n4,y\n"));
    let unclean = |text: &str| {
        text.chars()
            .any(|sign| (sign.is_control() && sign != '\n') || sign == '\u{202e}')
    };
    for strategy in RUNGS {
        let load = database
            .load_once(&format!("\"{odd}\""))
            .flags(strategy)
            .arg(&file);
        let rejects = files.path(&format!("{odd}.bad"));
        let ran = load.arg("--verbose").arg("--rejects").arg(rejects).run();
        ran.exits(3).tells("a\\u{1b}");
        assert!(
            !unclean(&ran.stdout) && !unclean(&ran.stderr),
            "{strategy}: {ran:?}"
        );
    }
    let load = database.load(&format!("\"{odd}\"")).arg(&file).run();
    let import_id = load.exits(3).summary()["import_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let commands = [
        database.pgrung("status"),
        database.pgrung("status --json"),
        database.pgrung("rejects").arg(&import_id),
        database.pgrung("rejects --json").arg(&import_id),
        database.pgrung("status --log-format json"),
        database.pgrung("replay").arg(&import_id),
        database
            .pgrung("bench --rows 9 --rounds 1 --strategies copy --no-header --input")
            .arg(&file)
            .args(["--table", &format!("\"{odd}\"")]),
        database.load(&format!("{odd}x")).arg(&file),
        database.load(&format!("\"{odd}\"")).arg(files.path(odd)),
        database
            .load(&format!("\"{odd}\""))
            .args([&file, "--columns", "id,nope"]),
        database
            .load(&format!("\"{odd}\""))
            .args([&file, "--columns", odd]),
    ];
    for command in commands {
        let ran = command.run();
        assert!(!unclean(&ran.stdout) && !unclean(&ran.stderr), "{ran:?}");
    }
    for json in ["status --json", "status --log-format json"] {
        let ran = database.pgrung(json).run();
        assert!(ran.exits(0).json().to_string().contains("imports") || ran.json().is_array());
    }
}

#[test]
fn what_is_no_text_at_all_is_no_reason_to_panic() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let path = files.path("noise.csv");
    let mut noise = File::create(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let bytes: Vec<u8> = (0..200_000).map(|_| random.u8(..)).collect();
    noise.write_all(&bytes).unwrap();
    let ran = database.load("orders").arg(&path).run();
    assert!(matches!(ran.code, Some(1..=6)), "{ran}");
}

#[test]
fn what_is_no_file_is_not_replaced_by_one() {
    let (database, files) = (Database::with("CREATE TABLE t (id int)"), Files::new());
    let (pipe, link, file) = (
        files.path("pipe"),
        files.path("link"),
        files.path("file.prom"),
    );
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    File::create(&file).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let load = |metrics: &std::path::Path| {
        let load = database.load("t").arg("--no-header").arg("--metrics-file");
        load.arg(metrics).run_on("1\n")
    };
    load(&pipe)
        .exits(2)
        .says(&["--metrics-file", "no regular file"]);
    load(&link).exits(0);
    assert!(link.is_symlink() && file.metadata().unwrap().len() > 0);
}

#[test]
fn no_time_for_an_answer_is_wrong_usage() {
    let database = Database::with("CREATE TABLE t (id int)");
    for command in ["load -t t -", "status", "migrate", "rejects i", "replay i"] {
        let command = pgrung(command).flags("--answer-timeout 0s");
        let ran = command.dsn(&database.dsn()).run();
        ran.exits(2).says(&["--answer-timeout"]);
    }
}
