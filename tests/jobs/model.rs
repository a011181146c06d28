//! Random inputs by mode, strategy, batch, workers and kill point: the table is what twenty lines of
//! model make of it, and the counts are the model's.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use fastrand::Rng;
use serde_json::Value;

use crate::support::{Cmd, Database, Files, Pooler, STRATEGIES, pgrung, seeded, times};

const MODES: [&str; 4] = ["ignore", "upsert", "replace", "sync"];

/// A record: what may be NULL is, and 99 is nobody's parent.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    key: Option<i64>,
    name: &'static str,
    parent: i64,
    changed: Option<i64>,
    /// Whether a field is no value of its type.
    broken: bool,
}

/// A row of the table, by its key.
type Row = (&'static str, i64, Option<i64>);
type Table = BTreeMap<i64, Row>;

fn random_record(rng: &mut Rng, keys: i64, late: bool) -> Record {
    let parents = if late && rng.u8(..8) == 0 {
        99..100
    } else {
        0..3
    };
    Record {
        key: (rng.u8(..15) > 0).then(|| rng.i64(0..keys)),
        name: ["a", "b", "A", ""][rng.usize(..4)],
        parent: rng.i64(parents),
        changed: (rng.u8(..6) > 0).then(|| rng.i64(0..4)),
        broken: rng.u8(..20) == 0,
    }
}

fn csv(records: &[Record]) -> String {
    let mut csv = "id,name,parent,changed\n".to_owned();
    for Record {
        key,
        name,
        parent,
        changed,
        broken,
    } in records
    {
        let number =
            |number: &Option<i64>| number.map_or(String::new(), |number| number.to_string());
        let parent = if *broken {
            "broken".to_owned()
        } else {
            parent.to_string()
        };
        writeln!(
            csv,
            "{},\"{name}\",{parent},{}",
            number(key),
            number(changed)
        )
        .unwrap();
    }
    csv
}

/// What a load is.
#[derive(Debug, Clone)]
struct Setting {
    mode: &'static str,
    newer: bool,
    /// Whether a foreign key refuses rows when they are merged.
    late: bool,
    /// Whether each batch is merged on its own.
    batch: bool,
}

/// The model: what becomes of the table, and how many records became what.
fn model(
    setting: &Setting,
    table: &Table,
    records: &[Record],
) -> (Table, BTreeMap<&'static str, u64>) {
    let Setting {
        mode, newer, late, ..
    } = setting;
    let mut after = if *mode == "replace" {
        Table::new()
    } else {
        table.clone()
    };
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut count = |what| *counts.entry(what).or_default() += 1;
    let mut by_key: BTreeMap<i64, Vec<&Record>> = BTreeMap::new();
    for record in records {
        match record.key.filter(|_| !record.broken) {
            Some(key) => by_key.entry(key).or_default().push(record),
            None => count("rejected"),
        }
    }
    for (key, mut candidates) in by_key.clone() {
        if *newer {
            candidates.sort_by_key(|record| std::cmp::Reverse(record.changed));
        } else if *mode != "ignore" {
            candidates.reverse();
        }
        let mut won = false;
        for record in candidates {
            let row = (record.name, record.parent, record.changed);
            let there = after.get(&key).copied().filter(|_| !won);
            let bad = *late && record.parent == 99;
            match there {
                _ if won => count("superseded"),
                Some(_) if *mode == "ignore" => (count("ignored"), won = true).0,
                Some(old) if old == row => (count("unchanged"), won = true).0,
                Some((_, _, old)) if *newer && old >= record.changed => {
                    (count("superseded"), won = true).0
                }
                _ if bad => count("rejected"),
                Some(_) => (count("updated"), won = true, after.insert(key, row)).0,
                None => (count("inserted"), won = true, after.insert(key, row)).0,
            }
        }
        if !won && *mode == "sync" {
            after.remove(&key);
        }
    }
    if *mode == "sync" {
        after.retain(|key, _| by_key.contains_key(key));
    }
    let deleted = match *mode {
        "replace" => table.len(),
        _ => table.keys().filter(|key| !after.contains_key(key)).count(),
    };
    counts.insert("deleted", deleted as u64);
    (after, counts)
}

fn stored(database: &Database, table: &str) -> Table {
    let rows = database.query(&format!("SELECT id, name, parent, changed FROM {table}"));
    let name = |name: &str| {
        *["a", "b", "A", ""]
            .iter()
            .find(|known| **known == name)
            .unwrap()
    };
    let row = |row: &tokio_postgres::Row| (row.get(0), (name(row.get(1)), row.get(2), row.get(3)));
    rows.iter().map(row).collect()
}

fn counted(json: &Value) -> BTreeMap<&'static str, u64> {
    let names = [
        "inserted",
        "updated",
        "unchanged",
        "ignored",
        "superseded",
        "rejected",
        "deleted",
    ];
    let number = |name: &'static str| (name, json["rows"][name].as_u64().unwrap());
    names.into_iter().map(number).collect()
}

fn all(mut counts: BTreeMap<&'static str, u64>) -> BTreeMap<&'static str, u64> {
    for name in [
        "inserted",
        "updated",
        "unchanged",
        "ignored",
        "superseded",
        "rejected",
    ] {
        counts.entry(name).or_default();
    }
    counts
}

const POINTS: [&str; 12] = [
    "before claim",
    "after write",
    "before settle",
    "before commit",
    "after commit",
    "before merge",
    "before part commit",
    "after part commit",
    "before part commit:2",
    "after part commit:2",
    "before merge commit",
    "after merge commit",
];

/// One random table, its input and its load; then, as often as `nights` says, a load of another input.
fn one_table(rng: &mut Rng, database: &Arc<Database>, number: usize, dsn: &str, kills: bool) {
    let table = format!("t{number}");
    let setting = Setting {
        mode: MODES[rng.usize(..4)],
        newer: rng.bool(),
        late: rng.bool(),
        batch: rng.bool(),
    };
    let setting = Setting {
        newer: setting.newer && setting.mode != "ignore",
        batch: setting.batch && ["ignore", "upsert"].contains(&setting.mode),
        ..setting
    };
    let foreign = if setting.late {
        "REFERENCES parents"
    } else {
        ""
    };
    database.run(&format!(
        "CREATE TABLE {table} (other int DEFAULT 7, changed bigint, id bigint PRIMARY KEY, parent bigint {foreign}, name text)"
    ));
    let keys = [3, 20, 200][rng.usize(..3)];
    for _ in 0..3 {
        let files = Files::new();
        let mut all_records = Vec::new();
        let mut load = pgrung("load")
            .dsn(dsn)
            .args(["-t", &table, "--mode", setting.mode]);
        for file in 0..rng.usize(1..4) {
            let count = rng.usize(..80);
            let records: Vec<Record> = (0..count)
                .map(|_| random_record(rng, keys, setting.late))
                .collect();
            load = load.arg(files.write(&format!("{file}.csv"), csv(&records)));
            all_records.extend(records);
        }
        load = load.args([
            "--strategy",
            STRATEGIES[rng.usize(..STRATEGIES.len())],
            "--progress",
            "none",
        ]);
        load = load.args(["--batch-rows", ["1", "7", "1000"][rng.usize(..3)]]);
        load = load.flags("--min-rows 0");
        if setting.newer {
            load = load.flags("--newer changed");
        }
        if rng.bool() {
            load = load.flags("--commit load");
        } else if !setting.batch {
            load = load.args(["-j", ["1", "2", "3"][rng.usize(..3)]]);
        }
        if setting.batch {
            load = load.flags("--merge batch");
        }
        let before = stored(database, &table);
        let (after, counts) = model(&setting, &before, &all_records);
        check(
            rng,
            &load,
            database,
            &table,
            &setting,
            (before, after, counts, all_records),
            kills,
        );
    }
}

type Expected = (Table, Table, BTreeMap<&'static str, u64>, Vec<Record>);

fn check(
    rng: &mut Rng,
    load: &Cmd,
    database: &Database,
    table: &str,
    setting: &Setting,
    expected: Expected,
    kills: bool,
) {
    let (before, after, mut counts, records) = expected;
    let told = format!("{setting:?}\n{:?}\n{before:?}\n{records:?}", load.command());
    if kills {
        let point = POINTS[rng.usize(..POINTS.len())];
        let point = if point.contains(':') {
            point.to_owned()
        } else {
            format!("{point}:1")
        };
        load.clone().env("PGRUNG_ABORT_AT", &point).run();
        let now = stored(database, table);
        if setting.mode == "replace" || setting.mode == "sync" {
            assert!(
                now == before || now == after,
                "{point}: half of it is there\n{told}"
            );
        }
        let has_merged = database.number(&format!(
            "SELECT count(*) FROM pgrung.imports WHERE target = '\"public\".\"{table}\"' AND finished_at > now() - interval '1 minute' AND merged IS NOT NULL
             AND started_at > (SELECT coalesce(max(at), '-infinity') FROM seen)"
        ));
        if has_merged > 0 {
            // Done, but nobody heard of it: done again, from what it left.
            counts = model(setting, &now, &records).1;
        }
    }
    let ran = load.run();
    assert!(
        [Some(0), Some(3)].contains(&ran.code),
        "{}\n{told}",
        ran.stderr
    );
    let json = ran.summary().clone();
    assert_eq!(stored(database, table), after, "{told}");
    if !setting.batch {
        assert_eq!(counted(&json), all(counts), "{told}");
    } else if !kills {
        // Not the net effect: a bad record that would lose to a later one is judged before that comes.
        let (told_of, net) = (counted(&json), all(counts));
        assert!(told_of["rejected"] >= net["rejected"], "{told}");
        assert!(
            setting.late || told_of["rejected"] == net["rejected"],
            "{told}"
        );
        let is_there = |table: &Table| i64::try_from(table.len()).unwrap();
        let new = i64::try_from(told_of["inserted"]).unwrap();
        assert_eq!(new, is_there(&after) - is_there(&before), "{told}");
    }
    assert_eq!(json["rows"]["read"], records.len(), "{told}");
    assert_eq!(json["balanced"], true, "{told}");
    let rejected = json["rows"]["rejected"].as_i64().unwrap();
    let import = json["import_id"].as_str().unwrap();
    let kept = database.number(&format!(
        "SELECT count(*) FROM pgrung.rejects WHERE import_id = '{import}'"
    ));
    // A run before this one may have put some aside.
    let is_resumed = setting.batch && kills;
    assert!(kept == rejected || is_resumed && kept > rejected, "{told}");
    let left = "SELECT (SELECT count(*) FROM pgrung.stagings) + (SELECT count(*) FROM pg_class WHERE relname ~ '_staging_')";
    assert_eq!(database.number(left), 0, "{told}");
    database.run("TRUNCATE seen; INSERT INTO seen SELECT clock_timestamp()");
}

const PARENTS: &str =
    "CREATE TABLE parents (id bigint PRIMARY KEY); INSERT INTO parents VALUES (0), (1), (2);
                       CREATE TABLE seen (at timestamptz)";

#[test]
fn the_table_and_the_counts_are_the_models() {
    let mut rng = seeded("the_table_and_the_counts_are_the_models");
    let database = Database::with(PARENTS);
    for number in 0..times(40, 2_000) {
        one_table(&mut rng, &database, number, &database.dsn(), false);
    }
}

#[test]
fn a_kill_changes_neither_the_table_nor_the_counts() {
    let mut rng = seeded("a_kill_changes_neither_the_table_nor_the_counts");
    let database = Database::with(PARENTS);
    for number in 0..times(25, 2_000) {
        one_table(&mut rng, &database, number, &database.dsn(), true);
    }
}

#[test]
fn behind_a_pooler_it_is_the_same() {
    let mut rng = seeded("behind_a_pooler_it_is_the_same");
    let database = Database::with(PARENTS);
    let pooler = Pooler::start(&database.server, 5, "");
    for number in 0..times(10, 500) {
        one_table(
            &mut rng,
            &database,
            number,
            &pooler.dsn(&database.name),
            number % 2 == 0,
        );
    }
}
