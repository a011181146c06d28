//! `--mode replace` and `--mode sync` keep the table itself: what hangs on it, what points to it, and
//! who reads it.

mod catalogue;
mod children;
mod readers;
mod schema;
mod swaps;

use std::collections::BTreeMap;
use std::fmt::Write;

use fastrand::Rng;

use crate::support::{Cmd, Database, Files, STRATEGIES, seeded, times};
use catalogue::{catalogue, difference};
use schema::{Row, Schema, quote};

/// NULL is unquoted and empty.
fn csv<'a>(names: &[String], rows: impl Iterator<Item = &'a Row>) -> String {
    // Quoted names are quoted fields.
    let mut csv = names.join(",") + "\n";
    for row in rows {
        let fields = row
            .iter()
            .map(|field| field.as_deref().map(quote).unwrap_or_default());
        writeln!(csv, "{}", fields.collect::<Vec<_>>().join(",")).unwrap();
    }
    csv
}

/// The rows of a table in some columns, sorted.
fn stored(database: &Database, table: &str, columns: &[String]) -> Vec<Row> {
    let columns: Vec<String> = columns.iter().map(|name| format!("{name}::text")).collect();
    let rows = database.query(&format!("SELECT {} FROM {table}", columns.join(", ")));
    let row = |row: &tokio_postgres::Row| (0..row.len()).map(|place| row.get(place)).collect();
    let mut rows: Vec<Row> = rows.iter().map(row).collect();
    rows.sort_unstable();
    rows
}

/// What the table holds after a load of `records`: of each key the last one, if there is a key.
fn wanted(schema: &Schema, records: &[(Option<u32>, Row)]) -> (Vec<Row>, BTreeMap<u32, Row>) {
    let good = records
        .iter()
        .filter_map(|(n, row)| n.map(|n| (n, row.clone())));
    let last: BTreeMap<u32, Row> = good.clone().collect();
    let mut rows: Vec<Row> = match schema.by_key {
        true => last.values().cloned().collect(),
        false => good.map(|(_, row)| row).collect(),
    };
    rows.sort_unstable();
    (rows, last)
}

/// A load of a file, by any strategy.
fn random_load(rng: &mut Rng, database: &Database, table: &str, mode: &str) -> Cmd {
    let load = database.load_once(table).args(["--mode", mode]);
    let load = load.args(["--strategy", STRATEGIES[rng.usize(..STRATEGIES.len())]]);
    let load = load.args(["--batch-rows", ["7", "1000"][rng.usize(..2)]]);
    let load = load.args(["-j", ["1", "2"][rng.usize(..2)]]);
    load.flags("--progress none")
}

/// Loads two inputs, one after the other, into a table that a schema makes.
fn keeps_all_of_it(rng: &mut Rng, database: &Database, schema: &Schema) {
    let told = format!(
        "{};\n{}: {}",
        schema.sql.join(";\n"),
        schema.table,
        schema.mode
    );
    let session = database.session();
    for sql in &schema.sql {
        session
            .try_run(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}\n{told}"));
    }
    let old = schema.old_rows(rng);
    for sql in schema.insert(&old) {
        session
            .try_run(&sql)
            .unwrap_or_else(|error| panic!("{sql}: {error:?}\n{told}"));
    }
    let mut children: BTreeMap<u32, Row> = BTreeMap::new();
    for (n, row) in &old {
        if schema.children.is_some() && rng.bool() {
            session.run(&schema.insert_child(row));
            children.insert(*n, schema.key_of(row));
        }
    }
    let must_stay = match schema.children {
        Some("CASCADE" | "SET NULL") | None => Vec::new(),
        Some(_) => children.keys().copied().collect(),
    };
    let before = catalogue(database);
    let mut orphans = Vec::new();
    for _ in 0..2 {
        let records = schema.records(rng, &must_stay);
        let files = Files::new();
        let input = csv(&schema.inputs(), records.iter().map(|(_, row)| row));
        let load = random_load(rng, database, &schema.table, schema.mode);
        let ran = load.arg(files.write("input.csv", &input)).run();
        let told = format!("{told}\n{input}\n{ran}");
        assert!(ran.finished(), "{told}");
        let (rows, last) = wanted(schema, &records);
        let found = stored(database, &schema.table, &schema.inputs());
        assert_eq!(found, rows, "{told}");
        // One that the table refuses in the end may have lost to another one by then.
        let not_there = ran.rows("rejected") + ran.rows("superseded");
        let good = records.len() as u64 - not_there;
        assert_eq!(good, rows.len() as u64, "{told}");
        let changed = difference(&before, &catalogue(database));
        assert_eq!(changed, Vec::<String>::new(), "{told}");
        assert_eq!(
            database.number("SELECT count(*) FROM pgrung.stagings"),
            0,
            "{told}"
        );
        if let Some(action) = schema.children {
            let gone = children.extract_if(.., |n, _| !last.contains_key(n));
            let nulls = gone.map(|(_, key)| vec![None; key.len()]);
            orphans.extend(nulls.filter(|_| action == "SET NULL"));
            let mut left: Vec<Row> = children.values().chain(&orphans).cloned().collect();
            left.sort_unstable();
            let pointing = format!("{}.children", schema.schema);
            assert_eq!(
                stored(database, &pointing, &schema.pointing()),
                left,
                "{told}"
            );
        }
    }
    session.run("DROP PUBLICATION IF EXISTS pub");
    session.run(&format!(
        "SET client_min_messages = error; DROP SCHEMA {} CASCADE",
        schema.schema
    ));
}

#[test]
fn what_hangs_on_the_table_stays() {
    let mut rng = seeded("what_hangs_on_the_table_stays");
    let database = Database::with("CREATE TABLE first (id int)");
    let extension = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'";
    let citext = database.number(extension) > 0;
    if citext {
        database.run("CREATE EXTENSION citext");
    }
    // Makes the ledger.
    database.load_once("first").run_on("id\n1\n").exits(0);
    for _ in 0..times(50, 2_000) {
        let schema = Schema::random(&mut rng, citext);
        keeps_all_of_it(&mut rng, &database, &schema);
    }
}
