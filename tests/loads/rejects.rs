//! Why rows were rejected, told while they are, at the end, and later from the ledger.

use std::fs;
use std::sync::Arc;

use serde_json::Value;

use crate::support::{Database, Files, Ran, text};

const TABLE: &str = "CREATE TABLE orders (id int PRIMARY KEY, customer text NOT NULL, placed date)";

const HEADER: &str = "id;customer;placed\n";

const BAD: [&str; 4] = [
    "x;Eve;\n",
    "2;;2024-01-01\n",
    "y;\"Li\nsa\";\n",
    "4;Al;soon\n",
];

/// A database in which four of six rows of `orders.csv` were rejected, as import `nightly`, and
/// what the load said.
fn rejected(files: &Files, flags: &str) -> (Arc<Database>, Ran) {
    let database = Database::with(TABLE);
    let [first, second, third, fourth] = BAD;
    let rows = format!("{HEADER}1;Ann;\n{first}{second}{third}5;Bo;2024-02-02\n{fourth}");
    let file = files.write("orders.csv", rows);
    let load = database
        .load_once("orders")
        .flags("--import-id nightly --delimiter ;");
    let ran = load.flags(flags).arg(&file).run();
    ran.exits(3);
    (database, ran)
}

/// The lines that tell reasons.
fn reasons(said: &str) -> Vec<&str> {
    said.lines()
        .filter(|line| line.starts_with("  rejected "))
        .collect()
}

#[test]
fn rejects_are_told_later_in_the_words_of_the_load() {
    let files = Files::new();
    let (database, load) = rejected(&files, "");
    let told = database.pgrung("rejects nightly").run();
    told.exits(0)
        .tells("import nightly into \"public\".\"orders\": 4 rejects");
    let (then, later) = (reasons(&load.stdout), reasons(&told.stdout));
    assert_eq!(then.len(), 3, "{load}");
    assert_eq!(then, later, "{told}");
    assert!(
        later[0].contains("2 x 22P02 in \"id\", the first in "),
        "{told}"
    );
    let json = database.pgrung("rejects nightly --json").run();
    let json: Value = json.exits(0).json();
    assert_eq!(json["rejects"], 4, "{json}");
    assert_eq!(
        json["reject_reasons"],
        load.summary()["reject_reasons"],
        "{json}"
    );
}

#[test]
fn rejects_are_exported_later_as_the_load_exports_them_and_load_again() {
    let files = Files::new();
    let then = text(&files.path("then.csv"));
    let (database, _) = rejected(&files, &format!("--rejects {then}"));
    let later = text(&files.path("later.csv"));
    let ran = database
        .pgrung("rejects nightly --export")
        .arg(&later)
        .run();
    ran.exits(0).says(&["4 rejects are in ", &later]);
    for ending in ["", ".reasons.ndjson"] {
        let [then, later] =
            [&then, &later].map(|path| fs::read_to_string(format!("{path}{ending}")).unwrap());
        assert_eq!(then, later);
    }
    let exported = fs::read_to_string(&later).unwrap();
    assert!(exported.ends_with(&BAD.concat()), "{exported}");
    // Mended by hand it loads as it is.
    let mended = exported
        .replace("x;", "7;")
        .replace("y;", "8;")
        .replace("2;;", "2;Cy;")
        .replace("soon", "");
    fs::write(&later, mended).unwrap();
    database.loads("orders", &later, "--delimiter ;").exits(0);
    assert_eq!(database.count("orders"), 6);
}

#[test]
fn rejects_that_were_replayed_are_no_more() {
    let files = Files::new();
    let (database, _) = rejected(&files, "");
    database.run("ALTER TABLE orders ALTER customer DROP NOT NULL");
    database.pgrung("replay nightly").run().exits(3);
    let told = database.pgrung("rejects nightly").run();
    told.exits(0).tells("3 rejects");
    assert!(!told.stdout.contains("23502"), "{told}");
    database.run("DELETE FROM pgrung.rejects WHERE replayed_at IS NULL");
    database
        .pgrung("rejects nightly")
        .run()
        .exits(0)
        .tells("no rejects");
    let nowhere = database.pgrung("rejects nowhere").run();
    nowhere.exits(2).says(&["there is no import nowhere"]);
    let export = files.path("no/such/file.csv");
    let lost = database
        .pgrung("rejects nightly --export")
        .arg(export)
        .run();
    lost.exits(2).says(&["--export", "no such directory"]);
}

#[test]
fn rejects_of_an_unlogged_table_and_of_json_lines_are_told_too() {
    let database = Database::with("CREATE UNLOGGED TABLE u (id int)");
    let files = Files::new();
    let file = files.write("rows.ndjson", "{\"id\": 1}\n{\"id\": \"x\"}\n");
    let load = database
        .load_once("u")
        .flags("--import-id lines")
        .arg(&file);
    load.run().exits(3);
    let export = text(&files.path("bad.ndjson"));
    let ran = database.pgrung("rejects lines --export").arg(&export).run();
    ran.exits(0).tells("1 x 22P02");
    assert_eq!(fs::read_to_string(export).unwrap(), "{\"id\": \"x\"}\n");
}

#[test]
fn status_has_the_first_reason_and_where_the_others_are() {
    let files = Files::new();
    let (database, _) = rejected(&files, "");
    let status = database.pgrung("status").run();
    status
        .exits(0)
        .tells("orders.csv, record 2, line 3: 22P02 in \"id\": invalid input syntax");
    status.tells("pgrung rejects nightly");
    let json = database.pgrung("status --json").run();
    let first = &json.exits(0).json()[0]["first_reject"];
    assert_eq!(
        (&first["record"], &first["line"]),
        (&2.into(), &3.into()),
        "{first}"
    );
    assert_eq!(first["sqlstate"], "22P02");
    database.run("UPDATE pgrung.rejects SET replayed_at = now()");
    let json = database.pgrung("status --json").run();
    assert!(json.exits(0).json()[0]["first_reject"].is_null(), "{json}");
}

#[test]
fn status_tells_times_as_rfc_3339_whatever_the_session_is_set_to() {
    let files = Files::new();
    let (database, _) = rejected(&files, "");
    for options in [
        "-c DateStyle=German",
        "-c TimeZone=Asia/Kathmandu",
        "-c DateStyle=SQL,DMY",
    ] {
        let ran = database
            .pgrung("status --json")
            .env("PGOPTIONS", options)
            .run();
        let import = &ran.exits(0).json()[0];
        for key in ["started_at", "run_at", "finished_at"] {
            let time = import[key].as_str().unwrap();
            let shape = time
                .bytes()
                .map(|byte| if byte.is_ascii_digit() { b'9' } else { byte });
            assert!(
                shape.eq(*b"9999-99-99T99:99:99Z"),
                "{options}: {key} {time}"
            );
            let same = format!(
                "SELECT (run_at - '{time}' BETWEEN '0' AND '1 s')::int::bigint FROM pgrung.imports"
            );
            assert!(
                key != "run_at" || database.number(&same) == 1,
                "{options}: {time}"
            );
        }
    }
}

#[test]
fn status_tells_unfinished_imports_first_and_sources_of_one_name_apart() {
    let database = Database::with(TABLE);
    let files = Files::new();
    let file = files.write("a.csv", "id,customer\n1,a\n2,b\n3,c\n");
    let load = |id: &str| database.load_once("orders").args(["--import-id", id]);
    load("open")
        .flags("--limit 1 --batch-rows 1")
        .arg(&file)
        .run()
        .exits(0);
    let other = files.write("b.csv", "id,customer\n7,a\n");
    load("done").arg(&other).run().exits(0);
    let json = database.pgrung("status --json").run();
    let ids: Vec<String> = json
        .exits(0)
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|import| import["import_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, ["open", "done"], "{json}");
    // Two sources under one name, as two days of one file are.
    database.run("UPDATE pgrung.sources SET name = 'same'");
    database.run("INSERT INTO pgrung.sources SELECT (jsonb_populate_record(s, '{\"source\": 77}')).* FROM pgrung.sources s WHERE import_id = 'open'");
    let json = database.pgrung("status --json open").run();
    let sources = json.exits(0).json()[0]["sources"].as_array().unwrap().len();
    assert_eq!(sources, 2, "{json}");
}

#[test]
fn verbose_tells_each_reason_as_it_comes() {
    let files = Files::new();
    let (_, load) = rejected(&files, "--verbose --batch-rows 1 -j 1 --progress none");
    let told: Vec<&str> = load
        .stderr
        .lines()
        .filter(|line| line.contains("rejected "))
        .collect();
    assert_eq!(told.len(), 3, "each reason once: {load}");
    for (line, code) in told.iter().zip(["22P02", "23502", "22007"]) {
        assert!(
            line.contains(code) && line.contains("the first in "),
            "{load}"
        );
    }
    let (_, quiet) = rejected(&files, "");
    assert!(!quiet.stderr.contains("rejected "), "{quiet}");
}
