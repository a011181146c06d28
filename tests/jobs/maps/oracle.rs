//! Random tables, maps and inputs, with the server as oracle: the rows are those that PostgreSQL itself
//! makes of the same fields, one record at a time, and the rejects those that it refuses.

use std::fmt::Write;

use fastrand::Rng;

use super::plan::{Plan, Record, csv_field, csv_line, random_plan};
use crate::support::{Database, Files, Pooler, Ran, seeded, times};

const TYPES: &str = "CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'glad');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE oracle_rejects (seq bigint, columns text[])";

impl Plan {
    /// Definitions of the columns of the table.
    fn columns(&self) -> String {
        let columns = self
            .feeds
            .iter()
            .map(|feed| format!("{} {}", feed.name, feed.ty));
        let columns: Vec<String> = columns.collect();
        columns.join(", ") + ", made text GENERATED ALWAYS AS (id::text || '!') STORED"
    }

    /// What fills the columns, as SQL on a row of `raw`, and whether that is text.
    fn expressions(&self) -> Vec<(String, bool)> {
        let each = self.feeds.iter().enumerate().map(|(at, feed)| {
            let (map, is_text) = feed.map.clone().unwrap_or(("{v}".to_owned(), true));
            let sql = map
                .replace("{v}", &format!("f{at}"))
                .replace("{src}", "src");
            let sql = sql.replace("{rec}", "rec").replace("{line}", "line");
            (format!("({sql}\n)"), is_text)
        });
        each.collect()
    }

    /// Lets psql copy all fields into `raw`, with where they came from.
    fn copy(&self, database: &Database, files: &Files) {
        let mut raw = String::new();
        for (Record(source, number, line, fields), seq) in self.records.iter().zip(1..) {
            let path = csv_field(Some(&self.paths[*source]));
            write!(raw, "{seq},{path},{number},{line},{}", csv_line(fields)).unwrap();
        }
        let fields: Vec<String> = (0..self.feeds.len())
            .map(|at| format!("f{at} text"))
            .collect();
        database.run(&format!(
            "DROP TABLE IF EXISTS raw; CREATE TABLE raw (seq bigint, src text, rec bigint, line bigint, {})",
            fields.join(", ")
        ));
        let copy = format!("\\copy raw from '{}' csv", files.write("raw.csv", raw));
        database.psql().args(["-c", &copy]).run().exits(0);
    }

    /// Lets the server make the rows of `oracle` of those of `raw`, one by one, and tell which columns
    /// refuse one. Text is read as a literal of the column's type is, and another value has to fit.
    fn ask(&self, database: &Database, old: &[i32]) {
        let names: Vec<&str> = self.feeds.iter().map(|feed| feed.name.as_str()).collect();
        let mut each = String::new();
        for (name, (sql, is_text)) in names.iter().zip(self.expressions()) {
            let value = match is_text {
                true => format!(
                    "EXECUTE $q$SELECT quote_nullable({sql}) FROM raw WHERE seq = $1$q$ INTO value USING record;"
                ),
                false => format!("value := $q${sql}$q$;"),
            };
            write!(
                each,
                "BEGIN {value} list := list || ', ' || value;
                 EXECUTE format('INSERT INTO oracle ({name}) SELECT %s FROM raw WHERE seq = $1', value) USING record;
                 RAISE SQLSTATE 'UNDO1';
                 EXCEPTION WHEN SQLSTATE 'UNDO1' THEN NULL; WHEN OTHERS THEN bad := bad || '{name}'::text; END;\n"
            )
            .unwrap();
        }
        database.run(&format!(
            "DROP TABLE IF EXISTS oracle; TRUNCATE oracle_rejects; CREATE TABLE oracle ({}, seq bigint);
             DO $do$ DECLARE record bigint; value text; bad text[]; list text; BEGIN
             FOR record IN SELECT seq FROM raw ORDER BY seq LOOP
                 bad := '{{}}'; list := record;
                 {each}
                 IF bad = '{{}}' THEN
                     EXECUTE format('INSERT INTO oracle (seq, {}) SELECT %s FROM raw WHERE seq = $1', list) USING record;
                 ELSE INSERT INTO oracle_rejects VALUES (record, bad); END IF;
             END LOOP; END $do$",
            self.columns(),
            names.join(", "),
        ));
        // The last record of a key wins, and over what was there.
        if self.keyed {
            database.run("DELETE FROM oracle o WHERE EXISTS (SELECT FROM oracle l WHERE l.id = o.id AND l.seq > o.seq)");
        }
        let stays = match self.flags.split(' ').nth(1) {
            Some("append") => "true",
            Some("upsert") => "NOT EXISTS (SELECT FROM oracle WHERE oracle.id = old.id)",
            _ => "false",
        };
        database.run(&format!(
            "INSERT INTO oracle (id) SELECT id FROM unnest(ARRAY{old:?}) AS old (id) WHERE {stays}"
        ));
    }
}

const POINTS: [&str; 6] = [
    "after claim:1",
    "after write:1",
    "before commit:1",
    "after commit:1",
    "after commit:2",
    "before merge commit:1",
];

fn one_table(rng: &mut Rng, database: &Database, number: usize, pooler: Option<&Pooler>) {
    let (table, files) = (format!("t{number}"), Files::new());
    let plan = random_plan(rng, &files);
    let key = if plan.keyed { ", PRIMARY KEY (id)" } else { "" };
    database.run(&format!(
        "CREATE TABLE {table} ({}{key}); INSERT INTO {table} (id) VALUES (1), (2), (100)",
        plan.columns()
    ));
    plan.copy(database, &files);
    plan.ask(database, &[1, 2, 100]);
    let mut load = plan.load(rng, database, &table);
    if let Some(pooler) = pooler {
        load = load.dsn(&pooler.dsn(&database.name));
    }
    let refused = database.count("oracle_rejects");
    // Where all are refused the load stops.
    if plan.feeds.iter().all(|feed| feed.map.is_none()) || refused == plan.records.len() as u64 {
        return;
    }
    if rng.bool() {
        let point = POINTS[rng.usize(..POINTS.len())];
        load.clone().env("PGRUNG_ABORT_AT", point).run();
    }
    let ran = load.run();
    let told = format!("{:?}\n{ran}", load.command());
    assert_eq!(ran.code, Some(if refused > 0 { 3 } else { 0 }), "{told}");
    let names: Vec<&str> = plan.feeds.iter().map(|feed| feed.name.as_str()).collect();
    let rows_of = |table: &str| {
        let row = names.join(", ");
        database.lines(&format!(
            "SELECT ROW({row}, made)::text FROM {table} ORDER BY 1"
        ))
    };
    assert_eq!(rows_of(&table), rows_of("oracle"), "{told}");
    check_rejects(database, &plan, &ran, &told);
}

/// The rejects are those of the oracle, each with a column that refuses it.
fn check_rejects(database: &Database, plan: &Plan, ran: &Ran, told: &str) {
    let import = ran.summary()["import_id"].as_str().unwrap();
    let found = database.query(&format!(
        "SELECT source, record, line, column_name, sqlstate FROM pgrung.rejects WHERE import_id = '{import}' ORDER BY 1, 2"
    ));
    let refused = database.query("SELECT seq, columns FROM oracle_rejects ORDER BY seq");
    assert_eq!(found.len(), refused.len(), "{told}");
    for (reject, refused) in found.iter().zip(&refused) {
        let (seq, at_fault): (i64, Vec<String>) = (refused.get(0), refused.get(1));
        let Record(source, number, line, _) = plan.records[seq as usize - 1];
        let place = (reject.get(0), reject.get(1), reject.get(2));
        assert_eq!(place, (source as i32, number as i64, line as i64), "{told}");
        let (column, state): (Option<String>, String) = (reject.get(3), reject.get(4));
        let told = format!("{place:?}: {column:?} {state}, of {at_fault:?}\n{told}");
        // A domain's check names none, nor does a value of another type that does not fit.
        let may_be_unnamed = || {
            let at_fault = |name: &String| at_fault.contains(name);
            let mut feeds = plan.feeds.iter().filter(|feed| at_fault(&feed.name));
            !state.starts_with("22")
                || feeds.any(|feed| matches!(feed.map, Some((_, is_text)) if !is_text))
        };
        match &column {
            Some(column) => assert!(at_fault.contains(column), "{told}"),
            None => assert!(may_be_unnamed(), "{told}"),
        }
    }
}

fn tables(test: &str, count: usize, pooled: bool) {
    let mut rng = seeded(test);
    let database = Database::with(TYPES);
    let pooler = pooled.then(|| Pooler::start(&database.server, 5, ""));
    for number in 0..count {
        one_table(&mut rng, &database, number, pooler.as_ref());
    }
}

#[test]
fn the_rows_are_those_that_the_server_makes_of_the_fields() {
    tables(
        "the_rows_are_those_that_the_server_makes_of_the_fields",
        times(40, 3_000),
        false,
    );
}

#[test]
fn behind_a_pooler_the_rows_are_the_same() {
    tables(
        "behind_a_pooler_the_rows_are_the_same",
        times(10, 500),
        true,
    );
}
