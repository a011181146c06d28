//! The statements of a merge. In all of them `s` is the staging table, `t` the table.

use super::{Merge, Mode, Newer, Part};
use crate::target::{Column, Operators, Order, STATE, quote_name, unique_index};

/// Statements on some of the staged rows.
pub struct Sql<'a> {
    merge: &'a Merge,
    part: Part,
    /// Which of the part, as a condition on `s`.
    condition: String,
    /// Whether a row that is other goes and comes again, instead of being updated.
    anew: bool,
}

impl<'a> Sql<'a> {
    /// On the rows of a part that win.
    pub fn new(merge: &'a Merge, part: Part) -> Self {
        Sql {
            merge,
            part,
            condition: match merge.full {
                true => format!("s.{} IS NULL", quote_name(STATE)),
                false => "true".to_string(),
            },
            anew: false,
        }
    }

    /// The same, but rows that are other go before any comes: they may have to swap unique values.
    pub fn anew(mut self) -> Self {
        self.anew = true;
        self
    }

    /// Whether rows that are other are deleted and inserted.
    pub fn is_anew(&self) -> bool {
        self.anew
    }

    /// On others of the part.
    pub fn with(&self, condition: &str) -> Self {
        Sql {
            merge: self.merge,
            part: self.part.clone(),
            condition: condition.to_string(),
            anew: self.anew,
        }
    }

    /// The same on fewer rows.
    pub fn and(&self, condition: &str) -> Self {
        self.with(&format!("{} AND {condition}", self.condition))
    }

    fn filter(&self) -> String {
        format!("{} AND {}", self.part_of("s"), self.condition)
    }

    /// Whether a row of table `of` is in the part.
    fn part_of(&self, of: &str) -> String {
        let Part { from, to, .. } = &self.part;
        let Some((first, operators)) = self.keys().next() else {
            return "true".to_string();
        };
        let name = quote_name(&first.name);
        let bound = |sign: &str, bound: &Option<String>| {
            let bound = bound.as_ref()?.replace('\\', r"\\").replace('\'', "''");
            Some(format!(
                "{of}.{name} {sign} E'{bound}'::{}",
                first.base_type_name
            ))
        };
        let from = bound(&operators.greater_or_equal, from);
        let bounds: Vec<String> = [from, bound(&operators.less, to)]
            .into_iter()
            .flatten()
            .collect();
        match bounds.is_empty() {
            true => "true".to_string(),
            false => bounds.join(" AND "),
        }
    }

    /// Rows of both tables with the same key, in the part.
    fn join(&self) -> String {
        format!("{} AND {}", self.same_key("t", "s"), self.part_of("t"))
    }

    fn table(&self) -> &str {
        &self.merge.target.table
    }

    /// How many there are, as `rows`.
    pub fn count(&self) -> String {
        let Merge { staging, .. } = self.merge;
        format!(
            "SELECT count(*) AS rows FROM {staging} s WHERE {}",
            self.filter()
        )
    }

    /// The orders of the first so many of them.
    pub fn orders(&self, most: i64) -> String {
        let (staging, order) = (&self.merge.staging, order("s"));
        let filter = self.filter();
        format!("SELECT {order} AS o FROM {staging} s WHERE {filter} ORDER BY o LIMIT {most}")
    }

    /// Columns of the table that the input does not fill, though it could, as `rows`.
    pub fn count_left_out(&self) -> String {
        let inputs = self.merge.target.inputs().len();
        let table = self.table().replace('\'', "''");
        format!(
            "SELECT count(*) - {inputs} AS rows FROM pg_attribute
             WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
        )
    }

    /// Rows of the table, as `rows`.
    pub fn count_table(&self) -> String {
        format!("SELECT count(*) AS rows FROM {}", self.table())
    }

    /// The records that lose to another one of their key, as `lost`.
    fn losers(&self) -> String {
        let Merge { staging, .. } = self.merge;
        let (key, order, filter) = (self.key("s"), order("s"), self.filter());
        format!(
            "SELECT lost
             FROM (SELECT {order} AS lost, row_number() OVER (PARTITION BY {key} ORDER BY {}) AS place
                   FROM {staging} s
                   JOIN (SELECT {key} FROM {staging} s WHERE {filter} GROUP BY {key} HAVING count(*) > 1) d ON {}
                   WHERE {filter}) all_of_key
             WHERE place > 1",
            self.best_first(),
            self.same_key("s", "d"),
        )
    }

    /// Takes them out of the rows that win.
    pub fn drop_losers(&self) -> String {
        let Merge { staging, full, .. } = self.merge;
        let (order, losers) = (quote_name(Order::COLUMN), self.losers());
        match full {
            // One of them may win yet, if the table refuses the winner.
            true => format!(
                "UPDATE {staging} l SET {} = 'l' FROM ({losers}) losers WHERE l.{order} = losers.lost",
                quote_name(STATE)
            ),
            false => format!(
                "DELETE FROM {staging} l USING ({losers}) losers WHERE l.{order} = losers.lost"
            ),
        }
    }

    /// Makes the server prove that no two rows have one key; the index is of use for what follows.
    pub fn unique(&self) -> String {
        let Merge { staging, .. } = self.merge;
        let (index, key) = (unique_index(staging), self.key_list());
        format!("CREATE UNIQUE INDEX {index} ON {staging} ({key})")
    }

    /// Of each record that has lost the one that has won, as `lost` and `winner`.
    pub fn lost_to(&self) -> String {
        let Merge { staging, .. } = self.merge;
        let (order, state) = (quote_name(Order::COLUMN), quote_name(STATE));
        format!(
            "SELECT l.{order} AS lost, w.{order} AS winner FROM {staging} l JOIN {staging} w ON {}
             WHERE l.{state} = 'l' AND w.{state} IS DISTINCT FROM 'l'",
            self.same_key("l", "w"),
        )
    }

    /// Values of the first column of the key that divide the rows into so many parts of about the same
    /// size, as `bounds`; from a sample.
    pub fn bounds(&self, parts: usize) -> Option<String> {
        // The bounds are an array of its type.
        let (first, operators) = self
            .keys()
            .next()
            .filter(|(first, _)| first.array_type != 0)?;
        let (first, less) = (quote_name(&first.name), &operators.less);
        let shares: Vec<String> = (1..parts)
            .map(|part| format!("{}", part as f64 / parts as f64))
            .collect();
        let Merge { staging, .. } = self.merge;
        Some(format!(
            "SELECT coalesce((percentile_disc(ARRAY[{}]::float8[]) WITHIN GROUP (ORDER BY s.{first} USING {less}))::text[], '{{}}') AS bounds
             FROM {staging} s TABLESAMPLE SYSTEM ((SELECT least(100, 100 * 300.0 / greatest(relpages, 1))
                                                   FROM pg_class WHERE oid = '{}'::regclass))",
            shares.join(", "),
            staging.replace('\'', "''"),
        ))
    }

    /// Which of the records of a key wins comes first.
    pub fn best_first(&self) -> String {
        match (&self.merge.newer, self.merge.mode) {
            (Some(newer), _) => {
                let newer = quote_name(&newer.column);
                format!("s.{newer} DESC NULLS LAST, {}", order("s"))
            }
            (None, Mode::Ignore) => order("s"),
            (None, _) => format!("{} DESC", order("s")),
        }
    }

    /// Deletes all rows of the table.
    pub fn delete_all(&self) -> String {
        match self.merge.truncates {
            true => format!("TRUNCATE {}", self.table()),
            false => format!("DELETE FROM {}", self.table()),
        }
    }

    /// Deletes the rows of the table whose key is not staged.
    pub fn delete_missing(&self) -> String {
        format!(
            "DELETE FROM {} t WHERE NOT EXISTS (SELECT FROM {} s WHERE {})",
            self.table(),
            self.merge.staging,
            self.same_key("t", "s")
        )
    }

    /// What is to be expected: rows that are `missing` in the table, those that are `other` there,
    /// and those that are other there and `stale` here.
    pub fn expect(&self) -> String {
        let missing = match self.merge.key.as_ref().and_then(|key| key.columns.first()) {
            Some(first) => format!("t.{} IS NULL", quote_name(&first.name)),
            None => "true".to_string(),
        };
        format!(
            "SELECT count(*) FILTER (WHERE {missing}) AS missing,
                    count(*) FILTER (WHERE NOT {missing} AND {differs} AND {wins}) AS other,
                    count(*) FILTER (WHERE NOT {missing} AND {differs} AND NOT {wins}) AS stale
             FROM {} s LEFT JOIN {} t ON {} WHERE {}",
            self.merge.staging,
            self.table(),
            self.join(),
            self.filter(),
            differs = self.differs("s"),
            wins = self.wins("s"),
        )
    }

    /// Makes the rows of the table that are other as they are staged, or deletes them for others that
    /// are inserted; `None`: there is nothing that could be other.
    pub fn update(&self) -> Option<String> {
        let (table, staging, set) = (self.table(), &self.merge.staging, self.set("s")?);
        let statement = match self.anew {
            true => format!("DELETE FROM {table} AS t USING {staging} s"),
            false => format!("UPDATE {table} AS t SET {set} FROM {staging} s"),
        };
        Some(format!(
            "{statement} WHERE {} AND {} AND {} AND {}",
            self.join(),
            self.differs("s"),
            self.wins("s"),
            self.filter()
        ))
    }

    /// Inserts the rows that are not in the table.
    pub fn insert_missing(&self) -> String {
        format!(
            "{} WHERE NOT EXISTS (SELECT FROM {} t WHERE {}) AND {}",
            self.insert_from(),
            self.table(),
            self.join(),
            self.filter(),
        )
    }

    /// The same, prepared for other writers who bring their keys just then; `None`: there are none.
    pub fn insert_missing_beside_others(&self) -> Option<String> {
        let on_conflict = self.on_conflict()?;
        Some(format!("{} {on_conflict}", self.insert_missing()))
    }

    /// Updates and inserts in one statement, which looks each key up once; `None`: there is nothing that could be
    /// other.
    pub fn merge_in(&self) -> Option<String> {
        let set = self.set("s")?;
        let target = &self.merge.target;
        // `INSERT INTO table (columns) OVERRIDING ...`
        let insert = target
            .insert_into()
            .replacen(&format!("INTO {} ", target.table), "", 1);
        Some(format!(
            "MERGE INTO {} AS t USING (SELECT * FROM {} s WHERE {}) AS s ON {}
             WHEN MATCHED AND {} AND {} THEN UPDATE SET {set}
             WHEN NOT MATCHED THEN {insert} VALUES ({})",
            self.table(),
            self.merge.staging,
            self.filter(),
            self.join(),
            self.differs("s"),
            self.wins("s"),
            list(target.inputs().iter().map(|column| &column.name), "s"),
        ))
    }

    /// Rows that this transaction has inserted into the table so far, those of statements that failed
    /// among them, as `rows`.
    pub fn count_inserted(&self) -> String {
        format!(
            "SELECT pg_stat_get_xact_tuples_inserted('{}'::regclass) AS rows",
            self.table().replace('\'', "''")
        )
    }

    /// Inserts the rows that the table does not have as they are, and makes others of it as they are;
    /// `None`: it has no index for that. `ordered`: the rows have an order, by which those of `ignore`
    /// come in: what are two keys as they are written may be one in the table, as `1.004` and `1.00`.
    pub fn insert_changed(&self, ordered: bool) -> Option<String> {
        let same = match self.merge.mode {
            Mode::Ignore => String::new(),
            _ => format!(" AND NOT ({})", self.differs("s")),
        };
        let by_order = match (ordered, self.merge.mode) {
            (true, Mode::Ignore) => format!(" ORDER BY {}", order("s")),
            _ => String::new(),
        };
        Some(format!(
            "{} WHERE NOT EXISTS (SELECT FROM {} t WHERE {}{same}){by_order} {}",
            self.insert_from(),
            self.table(),
            self.same_key("t", "s"),
            self.on_conflict()?,
        ))
    }

    /// Whether the table has no row: 1 or 0, as `rows`.
    pub fn is_table_empty(&self) -> String {
        format!(
            "SELECT (NOT EXISTS (SELECT FROM {}))::int::bigint AS rows",
            self.table()
        )
    }

    /// Inserts all rows.
    pub fn insert_all(&self) -> String {
        format!("{} WHERE {}", self.insert_from(), self.filter())
    }

    fn insert_from(&self) -> String {
        let target = &self.merge.target;
        let into = target.insert_into();
        // Its alias goes behind its name, of which there is one.
        let into = into.replacen(&target.table, &format!("{} AS t", target.table), 1);
        format!(
            "{into} SELECT {} FROM {} s",
            list(target.inputs().iter().map(|column| &column.name), "s"),
            self.merge.staging
        )
    }

    /// What becomes of a row whose key another writer has brought meanwhile.
    fn on_conflict(&self) -> Option<String> {
        // Of a table that is to be exactly the input nobody else writes.
        let key = self.merge.key.as_ref();
        key.filter(|key| key.arbiter && !self.merge.is_exact())?;
        let columns = self.key_list();
        Some(
            match self
                .set("excluded")
                .filter(|_| self.merge.mode == Mode::Upsert)
            {
                Some(set) => format!(
                    "ON CONFLICT ({columns}) DO UPDATE SET {set} WHERE {} AND {}",
                    self.differs("excluded"),
                    self.wins("excluded")
                ),
                None => format!("ON CONFLICT ({columns}) DO NOTHING"),
            },
        )
    }

    /// The columns of the key, of table `of`.
    pub fn key(&self, of: &str) -> String {
        list(self.keys().map(|(column, _)| &column.name), of)
    }

    fn key_list(&self) -> String {
        let names = self.keys().map(|(column, _)| quote_name(&column.name));
        names.collect::<Vec<_>>().join(", ")
    }

    /// The columns of the key, and how each is compared.
    fn keys(&self) -> impl Iterator<Item = (&Column, &Operators)> {
        let key = self.merge.key.iter();
        key.flat_map(|key| key.columns.iter().zip(&key.operators))
    }

    pub fn same_key(&self, one: &str, other: &str) -> String {
        let same = self.keys().map(|(column, operators)| {
            let (name, equal) = (quote_name(&column.name), &operators.equal);
            format!("{one}.{name} {equal} {other}.{name}")
        });
        same.collect::<Vec<_>>().join(" AND ")
    }

    /// The columns in which rows of one key may differ.
    fn others(&self) -> impl Iterator<Item = &Column> {
        let columns = self.merge.target.inputs().iter();
        let key = self.merge.key.as_ref();
        columns.filter(move |it| {
            key.is_none_or(|key| {
                let is_key = key.columns.iter().any(|column| column.name == it.name);
                !is_key || key.loose.contains(&it.name)
            })
        })
    }

    /// Whether the row of the table is another one than that of `source`, to the byte: what is equal
    /// may look other (`1.0` and `1.00`), and not every type knows what is equal.
    fn differs(&self, source: &str) -> String {
        match self.others().next() {
            None => "false".to_string(),
            Some(_) => format!(
                "ROW({})::record OPERATOR(pg_catalog.*<>) ROW({})::record",
                self.values("t"),
                self.values(source)
            ),
        }
    }

    /// The columns in which rows of one key may differ, of table `of`. Those of a domain as its base type:
    /// a parameter is none of a domain, and records of other types cannot be compared.
    fn values(&self, of: &str) -> String {
        let value = |column: &Column| {
            let name = quote_name(&column.name);
            match column.is_domain {
                true => format!("{of}.{name}::{}", column.base_type_name),
                false => format!("{of}.{name}"),
            }
        };
        self.others().map(value).collect::<Vec<_>>().join(", ")
    }

    /// Whether the record may win over the row of the table.
    fn wins(&self, source: &str) -> String {
        match &self.merge.newer {
            None => "true".to_string(),
            Some(Newer { column, less }) => {
                let newer = quote_name(column);
                format!(
                    "(t.{newer} IS NULL AND {source}.{newer} IS NOT NULL OR coalesce(t.{newer} {less} {source}.{newer}, false))"
                )
            }
        }
    }

    fn set(&self, source: &str) -> Option<String> {
        let set: Vec<String> = self
            .others()
            .map(|column| {
                let name = quote_name(&column.name);
                format!("{name} = {source}.{name}")
            })
            .collect();
        (!set.is_empty()).then(|| set.join(", "))
    }
}

/// The column of the order, of table `of`.
pub fn order(of: &str) -> String {
    format!("{of}.{}", quote_name(Order::COLUMN))
}

fn list<'a>(names: impl Iterator<Item = &'a String>, of: &str) -> String {
    let names: Vec<String> = names
        .map(|name| format!("{of}.{}", quote_name(name)))
        .collect();
    names.join(", ")
}
