//! `--encoding`: other encodings than UTF-8, judged by what psql's \copy makes of them.

use std::fs;

use encoding_rs::Encoding;

use crate::support::{Database, Files, RUNGS, STRATEGIES, seeded, times};

/// Each as it is named here and by the server.
const BOTH: [(&str, &str); 11] = [
    ("latin1", "WIN1252"),
    ("iso-8859-2", "LATIN2"),
    ("iso-8859-15", "LATIN9"),
    ("windows-1251", "WIN1251"),
    ("koi8-r", "KOI8R"),
    ("shift_jis", "SJIS"),
    ("euc-jp", "EUC_JP"),
    ("gbk", "GBK"),
    ("gb18030", "GB18030"),
    ("big5", "BIG5"),
    ("euc-kr", "UHC"),
];

fn bytes(label: &str, text: &str) -> Vec<u8> {
    let encoding = Encoding::for_label(label.as_bytes()).unwrap();
    let (bytes, _, unknown) = encoding.encode(text);
    assert!(!unknown, "{label} {text}");
    bytes.into_owned()
}

/// Some of the characters outside ASCII that the server reads as the standard does.
fn characters(
    database: &Database,
    (label, name): (&str, &str),
    random: &mut fastrand::Rng,
) -> Vec<Vec<u8>> {
    let encoding = Encoding::for_label(label.as_bytes()).unwrap();
    let mut tried: Vec<(Vec<u8>, String)> = Vec::new();
    while tried.len() < 300 {
        let mut bytes = vec![random.u8(0x80..)];
        if !encoding.is_single_byte() && random.u8(..8) > 0 {
            // Backslashes and bars among them.
            let any = random.u8(..);
            bytes.push(random.choice([any, b'\\', b'|']).unwrap());
        }
        if label == "gb18030" && random.u8(..4) == 0 {
            bytes = vec![
                0x81,
                random.u8(b'0'..=b'9'),
                random.u8(0x81..),
                random.u8(b'0'..=b'9'),
            ];
        }
        let text = encoding.decode_without_bom_handling_and_without_replacement(&bytes);
        if let Some(text) = text.filter(|text| text.chars().count() == 1) {
            tried.push((bytes.clone(), text.into_owned()));
        }
    }
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let values: Vec<String> = (tried.iter().zip(0..))
        .map(|((bytes, _), place)| format!("({place}, '\\x{}'::bytea)", hex(bytes)))
        .collect();
    let sql = format!(
        "SELECT read(bytes, '{name}') FROM (VALUES {}) v (place, bytes) ORDER BY place",
        values.join(", ")
    );
    let read = database.query(&sql);
    let same = tried.into_iter().zip(read);
    let same = same.filter(|((_, text), row)| row.get::<_, Option<&str>>(0) == Some(text));
    let same: Vec<Vec<u8>> = same.map(|((bytes, _), _)| bytes).collect();
    assert!(same.len() > 150, "{label}: {} of 300", same.len());
    same
}

#[test]
fn what_psql_copies_in_an_encoding_every_strategy_loads() {
    let mut random = seeded("encodings");
    let database = Database::with(
        "CREATE TABLE t (id int, a text, b text);
         CREATE FUNCTION read(bytes bytea, name text) RETURNS text LANGUAGE plpgsql AS
         'BEGIN RETURN convert_from(bytes, name); EXCEPTION WHEN OTHERS THEN RETURN NULL; END'",
    );
    let files = Files::new();
    for (label, name) in BOTH {
        let characters = characters(&database, (label, name), &mut random);
        for _ in 0..times(1, 30) {
            let mut content = b"id,a,b\n".to_vec();
            for id in 0..random.usize(1..60) {
                content.extend(id.to_string().bytes());
                for _ in 0..2 {
                    content.extend(b",\"");
                    for _ in 0..random.usize(..9) {
                        match random.u8(..4) {
                            0 => content.extend(
                                ["a", "\n", "\r", ",", "\\", "|", "\"\"", "}"][random.usize(..8)]
                                    .bytes(),
                            ),
                            _ => content.extend(random.choice(&characters).unwrap()),
                        }
                    }
                    content.push(b'"');
                }
                content.push(b'\n');
            }
            let file = files.write("a.csv", &content);
            let copy =
                format!("\\copy t from '{file}' with (format csv, header, encoding '{name}')");
            database.psql().args(["-c", &copy]).run().exits(0);
            let rows = |database: &Database| database.lines("SELECT * FROM t ORDER BY id");
            let expected = rows(&database);
            for strategy in STRATEGIES {
                database.run("TRUNCATE t");
                let flags = format!("--encoding {label} --strategy {strategy} --batch-rows 7");
                database.loads("t", &file, &flags).exits(0);
                assert_eq!(rows(&database), expected, "{label} {strategy}");
            }
            database.run("TRUNCATE t");
        }
    }
}

const PEOPLE: &str = "CREATE TABLE t (id int PRIMARY KEY, \"名前\" text, day date)";

/// Records in Shift_JIS whose characters end in a backslash; two of them are no text, one no date.
fn people() -> Vec<u8> {
    let mut content = bytes("shift_jis", "id,名前,day,能\n1,表\\,2024-01-01,能\n");
    content.extend(b"2,\x81,2024-01-02,\n3,\"\x95\",2024-01-03,\n");
    content.extend(bytes("shift_jis", "4,\"ソ\n,\",表,\n5,五,2024-01-05,"));
    // Of a skipped field nothing counts.
    content.extend(b"\x81\n");
    content
}

#[test]
fn what_the_encoding_does_not_have_is_a_reject_with_its_bytes_and_place() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let path = files.write("a.csv", people());
    for rung in RUNGS {
        database.run("TRUNCATE t");
        let load = database
            .load("t")
            .args(["--encoding", "sjis", "--skip", "能"]);
        load.flags(rung).arg(&path).run().exits(3);
        let expected = ["1|表\\|2024-01-01", "5|五|2024-01-05"];
        assert_eq!(database.rows("t"), expected, "{rung}");
        let rejects = database.query(
            "SELECT record, line, start_byte, end_byte, original, sqlstate, column_name, message
             FROM pgrung.rejects WHERE import_id = (SELECT max(import_id) FROM pgrung.imports)
             ORDER BY record",
        );
        database.run("TRUNCATE pgrung.imports CASCADE; TRUNCATE pgrung.rejects");
        assert_eq!(rejects.len(), 3, "{rung}");
        let content = people();
        let second = content.windows(3).position(|bytes| bytes == b"\n2,");
        let mut at = second.unwrap() + 1;
        for (row, (record, line, sqlstate, column)) in rejects.iter().zip([
            (2i64, 3i64, "22021", "名前"),
            (3, 4, "22021", "名前"),
            (4, 5, "22007", "day"),
        ]) {
            assert_eq!(
                (row.get::<_, i64>(0), row.get::<_, i64>(1)),
                (record, line),
                "{rung}"
            );
            let original: &[u8] = row.get(4);
            let end = at + original.len();
            assert_eq!(original, &content[at..end], "{rung}");
            let place = [2, 3].map(|column| row.get::<_, i64>(column));
            assert_eq!(place, [at as i64, end as i64], "{rung}");
            at = end;
            let why = [5, 6].map(|column| row.get::<_, &str>(column));
            assert_eq!(why, [sqlstate, column], "{rung}");
            let message: &str = row.get(7);
            assert_eq!(
                message.starts_with("invalid Shift_JIS: "),
                record < 4,
                "{message}"
            );
        }
    }
}

#[test]
fn rejects_are_written_in_their_encoding_and_replayed_in_it() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let path = files.write("a.csv", people());
    let encoding = ["--encoding", "shift_jis", "--skip", "能"];
    let bad = files.path("bad.csv");
    let load = database.load_once("t").args(encoding).arg(&path);
    let load = load.args(["--import-id", "mine", "--rejects"]).arg(&bad);
    load.run().exits(3);
    let later = files.path("later.csv");
    let export = database.pgrung("rejects mine --export").arg(&later);
    export.run().exits(0);
    let exported = fs::read(&later).unwrap();
    assert_eq!(exported, fs::read(&bad).unwrap());
    let header = bytes("shift_jis", "\"id\",\"名前\",\"day\",\"能\"\n2,");
    assert!(exported.starts_with(&header), "{}", exported.escape_ascii());

    database.run("ALTER TABLE t ALTER day TYPE text");
    database.pgrung("replay mine").run().exits(3);
    assert_eq!(database.rows("t")[1], "4|ソ\n,|表");
    // Mended by hand the file loads in the same encoding.
    let mended: Vec<u8> = exported
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(b"4,") && !line.starts_with(b",\""))
        .flatten()
        .map(|byte| {
            if matches!(byte, 0x81 | 0x95) {
                b'x'
            } else {
                *byte
            }
        })
        .collect();
    let mended = [
        header.strip_suffix(b"2,").unwrap(),
        &mended[header.len() - 2..],
    ]
    .concat();
    files.write("mended.csv", &mended);
    let again = database.load("t").args(encoding);
    again.arg(files.path("mended.csv")).run().exits(0);
    assert_eq!(database.count("t WHERE \"名前\" = 'x'"), 2);
}

#[test]
fn lines_of_json_are_decoded_and_their_keys() {
    let database = Database::with(PEOPLE);
    let files = Files::new();
    let mut content = bytes(
        "shift_jis",
        "{\"id\": 1, \"名前\": \"表\"}\n{\"名前\": \"\\u8868ソ\\\"\", \"id\": 2}\n",
    );
    content.extend(b"{\"id\": 3, \"day\": \"\x81\"}\n");
    // The source ends in a string whose last byte reads as a backslash, and is not cut off there.
    content.extend(bytes("shift_jis", "{\"id\": 4, \"名前\": \"能\"}"));
    let path = files.write("a.ndjson", &content);
    for rung in RUNGS {
        database.run("TRUNCATE t");
        let ran = database.loads("t", &path, &format!("--encoding shift_jis {rung}"));
        ran.exits(3).tells("invalid Shift_JIS");
        let expected = ["1|表|~", "2|表ソ\"|~", "4|能|~"];
        assert_eq!(database.rows("t"), expected, "{rung}");
    }
}

#[test]
fn bytes_that_windows_1252_leaves_open_are_control_characters() {
    let database = Database::with("CREATE TABLE t (id int, a text)");
    let files = Files::new();
    let path = files.write("a.csv", b"1,\x81\x80\n");
    let flags = "--no-header --encoding iso-8859-1";
    database.loads("t", &path, flags).exits(0);
    assert_eq!(database.rows("t"), ["1|\u{81}€"]);
}

#[test]
fn what_cannot_be_read_so_is_an_error_before_the_first_row() {
    let database = Database::with("CREATE TABLE t (id int, a text)");
    let files = Files::new();
    let plain = files.write("a.csv", "id,a\n1,x\n");
    let marked = files.write("b.csv", "\u{feff}id,a\n1,x\n");
    let wide: Vec<u8> = "\u{feff}id,a\n1,x\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let wide = files.write("c.csv", wide);
    let broken = files.write("d.csv", b"id,\xe9\n1,x\n");
    for (path, flags, code, words) in [
        (
            &plain,
            "--encoding utf-16le",
            2,
            "iconv -f UTF-16LE -t UTF-8 FILE | pgrung load -",
        ),
        (&plain, "--encoding latin-9000", 2, "WHATWG"),
        (
            &plain,
            "--encoding gbk --delimiter |",
            2,
            "--delimiter can be a part of a longer character",
        ),
        (&plain, "--encoding euc-kr --quote q", 2, "--quote can be"),
        (&plain, "--encoding big5 --escape \\", 2, "--escape can be"),
        (&plain, "--encoding koi8-r --null é", 2, "does not have"),
        (
            &plain,
            "--encoding koi8-r --null-in a=é",
            2,
            "does not have",
        ),
        (
            &marked,
            "--encoding latin1",
            6,
            "UTF-8 by its byte order mark",
        ),
        (&wide, "", 6, "iconv -f UTF-16LE"),
        (&wide, "--encoding latin1", 6, "iconv -f UTF-16LE"),
        (&broken, "", 6, "header, line 1: invalid UTF-8"),
    ] {
        database.loads("t", path, flags).exits(code).says(&[words]);
    }
    assert_eq!(database.count("t"), 0);
    // All of these are right where no character is longer, or the byte is in none.
    for flags in [
        "--encoding latin1 --delimiter |",
        "--encoding euc-jp --delimiter |",
        "--encoding gbk --delimiter ;",
    ] {
        let delimiter = &flags[flags.len() - 1..];
        let path = files.write("e.csv", format!("id{delimiter}a\n1{delimiter}x\n"));
        database.loads("t", &path, flags).exits(0);
    }
    assert_eq!(database.count("t"), 3);
}

#[test]
fn the_encoding_belongs_to_the_import_and_null_is_written_in_it() {
    let database = Database::with("CREATE TABLE t (id int, a text, b text)");
    let files = Files::new();
    let content = bytes("latin1", "id,a,b\n1,é,ü\n2,ü,é\nx,é,ü\n");
    let path = files.write("a.csv", &content);
    let load = |encoding| {
        let load = database
            .load_once("t")
            .args(["--import-id", "mine", "--null", "é"]);
        let load = load.args(["--null-in", "b=ü", "--encoding", encoding]);
        load.arg(&path).run()
    };
    load("latin1").exits(3);
    assert_eq!(database.rows("t"), ["1|~|~", "2|ü|é"]);
    load("windows-1252").exits(3).tells("already loaded");
    let other = load("iso-8859-2");
    other
        .exits(6)
        .says(&["encoding was \"windows-1252\", now it is \"ISO-8859-2\""]);
    assert_eq!(database.count("t"), 2);
    database.run("ALTER TABLE t ALTER id TYPE text");
    database.pgrung("replay mine").run().exits(0);
    assert_eq!(database.rows("t")[2], "x|~|~");
}
