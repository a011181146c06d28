//! The rows that a table and its inputs hold.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::{Column, Role, Row, Schema, Shape, quote};

impl Schema {
    /// The columns of the input.
    fn given(&self) -> impl Iterator<Item = &Column> {
        let is_given = |column: &&Column| self.has_key || !matches!(column.role, Role::Key(_));
        self.columns.iter().filter(is_given)
    }

    /// Names of the input's columns, quoted.
    pub fn inputs(&self) -> Vec<String> {
        self.given().map(|column| quote(&column.name)).collect()
    }

    /// A good row of key `n`.
    fn row(&self, rng: &mut Rng, n: u32) -> Row {
        self.given()
            .map(|column| self.field(rng, column.role, n))
            .collect()
    }

    fn field(&self, rng: &mut Rng, role: Role, n: u32) -> Option<String> {
        let some = match role {
            Role::Key(ty) => match ty.split(' ').next().unwrap() {
                "text" | "citext" => format!("Key \"{n}\""),
                "uuid" => format!("00000000-0000-4000-8000-{n:012x}"),
                _ => n.to_string(),
            },
            Role::Region => ["a", "b", "it's"][n as usize % 3].to_owned(),
            Role::Code => format!("code {n}"),
            Role::Room => format!("[{},{})", 10 * n, 10 * n + 5),
            Role::Parent => rng.u8(..5).to_string(),
            Role::Itself => {
                return self
                    .field(rng, self.columns[0].role, n)
                    .filter(|_| rng.bool());
            }
            Role::Plain(_) if rng.u8(..4) == 0 => return None,
            Role::Plain(ty) => {
                let n = rng.u32(..4);
                match ty {
                    "numeric(10,2)" => format!("{n}.50"),
                    "boolean" => (n > 1).to_string(),
                    "date" => format!("2024-02-{:02}", 26 + n),
                    "integer[]" => format!("{{{n},NULL,-1}}"),
                    "SCHEMA_.mood" => ["sad", "ok", "Very happy"][n as usize % 3].to_owned(),
                    "jsonb" => format!("{{\"a\": [{n}, null]}}"),
                    ty if ty.starts_with("text") || ty.starts_with("varchar") => {
                        ["", "a,b", "\"q\"\n\u{e9}", "\\N"][n as usize].to_owned()
                    }
                    _ => n.to_string(),
                }
            }
        };
        Some(some)
    }

    /// A row that the table does not take, in place of a good one of key `n`.
    fn bad_row(&self, rng: &mut Rng, n: u32) -> Option<Row> {
        let mut row = self.row(rng, n);
        let places: Vec<(usize, Option<&str>)> = self
            .given()
            .enumerate()
            .filter_map(|(place, column)| match column.role {
                Role::Key(_) => Some((place, None)),
                Role::Region => Some((place, Some("none"))),
                Role::Parent => Some((place, Some("99"))),
                Role::Plain("SCHEMA_.amount") => Some((place, Some("-1"))),
                Role::Plain("date") => Some((place, Some("2023-02-29"))),
                Role::Plain("SCHEMA_.mood") => Some((place, Some("OK"))),
                _ => None,
            })
            .collect();
        let (place, value) = *rng.choice(&places)?;
        row[place] = value.map(str::to_owned);
        Some(row)
    }

    /// Rows for the table to begin with, by their keys.
    pub fn old_rows(&self, rng: &mut Rng) -> BTreeMap<u32, Row> {
        let keys = (1..40).filter(|_| rng.bool()).collect::<Vec<u32>>();
        keys.into_iter().map(|n| (n, self.row(rng, n))).collect()
    }

    /// An input that has records for `needed` keys; the records in their order, the bad ones without
    /// a key.
    pub fn records(&self, rng: &mut Rng, needed: &[u32]) -> Vec<(Option<u32>, Row)> {
        let mut records: Vec<(Option<u32>, Row)> = Vec::new();
        for n in 1..40 {
            let times = match rng.u8(..10) {
                _ if !self.by_key && self.unlike => rng.usize(..2),
                0..4 => 0,
                4..8 => 1,
                _ => 2,
            };
            // Without a key the input's rows are all there, but not twice by a primary key.
            let most = if self.by_key || !self.is_keyed() || !self.has_key {
                2
            } else {
                1
            };
            let times = times.min(most).max(usize::from(needed.contains(&n)));
            for _ in 0..times {
                records.push((Some(n), self.row(rng, n)));
            }
            if rng.u8(..8) == 0
                && let Some(row) = self.bad_row(rng, n)
            {
                records.push((None, row));
            }
        }
        rng.shuffle(&mut records);
        records
    }

    /// SQL that puts rows into the table; of one with heirs, half of them into those.
    pub fn insert(&self, rows: &BTreeMap<u32, Row>) -> Vec<String> {
        let inputs = self.inputs().join(", ");
        let insert = |(n, row): (&u32, &Row)| {
            let table = match self.shape {
                Shape::Ancestor if n % 2 == 0 => format!("{}.heir", self.schema),
                _ => self.table.clone(),
            };
            let fields: Vec<String> = row.iter().map(literal).collect();
            format!(
                "INSERT INTO {table} ({inputs}) OVERRIDING SYSTEM VALUE VALUES ({})",
                fields.join(", ")
            )
        };
        rows.iter().map(insert).collect()
    }

    /// Key of the row as those that point to it have it.
    pub fn key_of(&self, row: &Row) -> Row {
        match self.shape {
            Shape::Partitioned(_) => row[..2].to_vec(),
            _ => row[..1].to_vec(),
        }
    }

    /// SQL for a child of the row.
    pub fn insert_child(&self, row: &Row) -> String {
        let key: Vec<String> = self.key_of(row).iter().map(literal).collect();
        format!(
            "INSERT INTO {}.children VALUES ({})",
            self.schema,
            key.join(", ")
        )
    }

    /// The columns of its children that point to it.
    pub fn pointing(&self) -> Vec<String> {
        self.key().split(", ").map(str::to_owned).collect()
    }
}

fn literal(field: &Option<String>) -> String {
    match field {
        Some(text) => format!("'{}'", text.replace('\'', "''")),
        None => "NULL".to_owned(),
    }
}
