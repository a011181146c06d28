//! What the tables hold after a night, as the files and the modes say.

use std::collections::BTreeMap;

use super::script::Night;

/// A field or a value; `None` is NULL.
type Value = Option<String>;

/// What a column takes.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Int,
    Number,
    Text,
    Day,
}
use Kind::{Day, Int, Number, Text};

/// A load of the job file, and its table.
pub struct Load {
    pub name: &'static str,
    mode: &'static str,
    delimiter: char,
    columns: &'static [(&'static str, Kind)],
    /// The first columns are the key; of `append`, what tells one row from another.
    key: usize,
    /// So many of the first columns are never NULL.
    required: usize,
}

pub const LOADS: [Load; 5] = [
    Load {
        name: "customers",
        mode: "upsert",
        delimiter: ',',
        columns: &[
            ("id", Int),
            ("name", Text),
            ("city", Text),
            ("changed_at", Day),
        ],
        key: 1,
        required: 1,
    },
    Load {
        name: "prices",
        mode: "replace",
        delimiter: ',',
        columns: &[("article", Text), ("price", Number)],
        key: 1,
        required: 2,
    },
    Load {
        name: "stock",
        mode: "sync",
        delimiter: ',',
        columns: &[("article", Text), ("amount", Int)],
        key: 1,
        required: 2,
    },
    Load {
        name: "readings",
        mode: "ignore",
        delimiter: ';',
        columns: &[("meter", Int), ("day", Day), ("kwh", Number)],
        key: 2,
        required: 2,
    },
    Load {
        name: "sales",
        mode: "append",
        delimiter: ',',
        columns: &[
            ("id", Int),
            ("customer", Int),
            ("day", Day),
            ("article", Text),
        ],
        key: 1,
        required: 3,
    },
];

const CHANGED_AT: usize = 3;
const CUSTOMER: usize = 1;

/// Rows by their key.
type Rows = BTreeMap<Vec<Value>, Vec<Value>>;

/// A record: the value of each column that the file has, or why there is none.
type Record = Result<BTreeMap<usize, Value>, ()>;

/// The tables.
#[derive(Default)]
pub struct Model {
    tables: BTreeMap<&'static str, Rows>,
    /// Lines of sales that were read, and whether they were put aside.
    sales: BTreeMap<String, bool>,
}

impl Model {
    /// The rows of a table as `Database::rows` shows them, in any order.
    pub fn rows(&self, table: &str) -> Vec<String> {
        let rows = self
            .tables
            .get(table)
            .into_iter()
            .flat_map(BTreeMap::values);
        let shown = |value: &Value| value.clone().unwrap_or("~".to_owned());
        rows.map(|row| row.iter().map(shown).collect::<Vec<_>>().join("|"))
            .collect()
    }

    /// Somebody has emptied the table.
    pub fn emptied(&mut self, table: &str) {
        self.tables.remove(table);
        if table == "sales" {
            self.sales.clear();
        }
    }

    /// What a load leaves that has read these files: their names and texts, unpacked.
    pub fn load(&mut self, load: &Load, files: &[(String, String)], night: &Night) {
        if load.mode == "append" {
            for (name, text) in files {
                let all = night.in_table.as_ref().and_then(|files| files.get(name));
                self.append(load, text, all.copied().unwrap_or(usize::MAX));
            }
            return;
        }
        let records: Vec<Record> = files
            .iter()
            .flat_map(|(_, text)| load.records(text))
            .collect();
        let old = self.tables.remove(load.name).unwrap_or_default();
        let mut new = match load.mode {
            "upsert" | "ignore" => old.clone(),
            _ => Rows::new(),
        };
        for record in records.into_iter().flatten() {
            let mut row = vec![None; load.columns.len()];
            let key: Vec<Value> = (0..load.key)
                .map(|column| record[&column].clone())
                .collect();
            let there = new
                .get(&key)
                .or(old.get(&key).filter(|_| load.mode == "sync"));
            match there {
                Some(_) if load.mode == "ignore" => continue,
                Some(there)
                    if load.mode == "upsert" && there[CHANGED_AT] >= record[&CHANGED_AT] =>
                {
                    continue;
                }
                Some(there) => row.clone_from(there),
                None => {}
            }
            for (column, value) in record {
                row[column] = value;
            }
            new.insert(key, row);
        }
        self.tables.insert(load.name, new);
    }

    /// Each line counts once, and is judged once.
    fn append(&mut self, load: &Load, text: &str, records: usize) {
        let lines = text.lines().skip(1).map(str::to_owned).take(records);
        for (line, record) in lines.zip(load.records(text)) {
            if !self.sales.contains_key(&line) {
                let aside = !self.sold(load, record);
                self.sales.insert(line, aside);
            }
        }
    }

    /// Judges again what was put aside.
    pub fn replay(&mut self, load: &Load) {
        let names = load.columns.iter().map(|(name, _)| *name);
        let header = names.collect::<Vec<_>>().join(",");
        for (line, aside) in self.sales.clone() {
            let record = load.records(&format!("{header}\n{line}\n")).remove(0);
            if aside && self.sold(load, record) {
                self.sales.insert(line, false);
            }
        }
    }

    /// Whether a sale gets in: its customer must be there.
    fn sold(&mut self, load: &Load, record: Record) -> bool {
        let Ok(record) = record else { return false };
        let row: Vec<Value> = record.into_values().collect();
        let customers = self.tables.entry("customers").or_default();
        let known = customers.contains_key(&vec![row[CUSTOMER].clone()]);
        if known {
            let key = row[..load.key].to_vec();
            self.tables.entry("sales").or_default().insert(key, row);
        }
        known
    }
}

impl Load {
    /// The records of a file behind its header. No fixture has quotes.
    fn records(&self, text: &str) -> Vec<Record> {
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        let Some(header) = lines.next() else {
            return Vec::new();
        };
        let place = |name| {
            self.columns
                .iter()
                .position(|(column, _)| *column == name)
                .unwrap()
        };
        let places: Vec<usize> = header.split(self.delimiter).map(place).collect();
        lines.map(|line| self.record(&places, line)).collect()
    }

    fn record(&self, places: &[usize], line: &str) -> Record {
        let fields: Vec<&str> = line.split(self.delimiter).collect();
        if fields.len() != places.len() {
            return Err(());
        }
        let mut record = BTreeMap::new();
        for (place, field) in places.iter().zip(fields) {
            let value = (!field.is_empty()).then(|| self.mapped(*place, field));
            let fits = value.as_ref().map_or(*place >= self.required, |value| {
                self.columns[*place].1.takes(value)
            });
            if !fits {
                return Err(());
            }
            record.insert(*place, value);
        }
        Ok(record)
    }

    /// As the expressions of the job file have it.
    fn mapped(&self, place: usize, field: &str) -> String {
        match (self.name, self.columns[place].1) {
            ("readings", Day) => field.rsplit('.').collect::<Vec<_>>().join("-"),
            ("readings", Number) => field.replace(',', "."),
            _ => field.to_owned(),
        }
    }
}

impl Kind {
    fn takes(self, value: &str) -> bool {
        match self {
            Text => true,
            Int => value.parse::<i32>().is_ok(),
            Number => value.parse::<f64>().is_ok(),
            // There are 30 days in November, and 31 in October.
            Day => ["2026-10-", "2026-11-"]
                .iter()
                .zip([31, 30])
                .any(|(month, days)| {
                    let day = value
                        .strip_prefix(month)
                        .and_then(|day| day.parse::<u8>().ok());
                    day.is_some_and(|day| (1..=days).contains(&day))
                }),
        }
    }
}
