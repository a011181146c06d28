//! The table that is loaded, and what of it is written.

mod expression;
mod key;
mod mapping;
mod near;
mod place;
mod staging;
mod table;
mod upsert;

use std::sync::Arc;

use crate::source::KeyColumn;

pub use key::{Key, KeyError, Operators};
pub use mapping::{Landing, Map, MapError, Mapping, mapped};
pub use near::nearest;
pub use place::Place;
pub use staging::{Order, STATE, Staging, Stamp, index_staged, unique_index};
pub use table::{Column, Table, TableError};
pub use upsert::Upsert;

/// `name` as SQL takes it, always quoted: no name is a reserved word then, and none is folded.
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What the strategies write: one table, some of its columns, in the order of the fields.
#[derive(Debug, Clone)]
pub struct Target {
    /// Schema and name, quoted.
    pub table: String,
    /// The columns in the order of the fields, then those of the stamp.
    pub columns: Vec<Column>,
    /// What each row is stamped with behind its fields: the table is a staging table.
    pub(crate) stamp: Option<Stamp>,
    /// How rows get into the table, if they are written elsewhere first: `columns` are then the
    /// fields as text.
    pub(crate) landing: Option<Arc<Landing>>,
    /// SQL that makes the temporary table from which each batch is merged into the table, if that is
    /// so.
    pub(crate) batches: Option<Arc<str>>,
    /// How statements with rows merge them into the table, if that is so.
    pub(crate) upsert: Option<Arc<Upsert>>,
}

/// SQL that empties temporary tables.
#[derive(Debug, Clone)]
pub struct Clear {
    /// Of few rows.
    pub few: String,
    /// Of many.
    pub many: String,
}

/// The temporary table from which a batch is merged.
pub(crate) const BATCH: &str = r#""pg_temp"."pgrung_batch""#;

impl Target {
    /// Columns of the table `table`, quoted, as the input has them.
    pub(crate) fn new(table: String, columns: Vec<Column>) -> Self {
        Target {
            table,
            columns,
            stamp: None,
            landing: None,
            batches: None,
            upsert: None,
        }
    }

    /// The columns that the input fills.
    pub fn inputs(&self) -> &[Column] {
        let stamped = self.stamp.map_or(0, |stamp| stamp.columns().len());
        &self.columns[..self.columns.len() - stamped]
    }

    /// What the strategies write: the table, or a temporary one.
    pub(crate) fn relation(&self) -> &str {
        match (&self.landing, &self.batches) {
            (Some(_), _) => mapping::RAW,
            (None, Some(_)) => BATCH,
            (None, None) => &self.table,
        }
    }

    /// The expressions that fields go through.
    pub(crate) fn maps(&self) -> &[Map] {
        self.landing.as_ref().map_or(&[], |landing| &landing.maps)
    }

    /// `begin`, and the temporary tables that rows go through.
    pub(crate) fn begin(&self, begin: &str) -> String {
        let mut sql = begin.to_string();
        if let Some(landing) = &self.landing {
            sql = landing.into.begin(&format!("{sql}; {}", landing.create));
        }
        if let Some(create) = &self.batches {
            sql = format!("{sql}; {create}");
        }
        sql
    }

    /// SQL that empties them; `None`: there are none.
    pub(crate) fn clear(&self) -> Option<Clear> {
        let raw = self.landing.as_ref().map(|_| mapping::RAW);
        let into = self.landing.as_ref().map(|landing| &landing.into);
        let batches = into.map_or(&self.batches, |into| &into.batches);
        let batch = batches.as_ref().map(|_| BATCH);
        let tables: Vec<&str> = raw.into_iter().chain(batch).collect();
        (!tables.is_empty()).then(|| Clear {
            few: format!("DELETE FROM {}", tables.join("; DELETE FROM ")),
            many: format!("TRUNCATE {}", tables.join(", ")),
        })
    }

    /// The quoted column names, separated by commas.
    pub fn column_list(&self) -> String {
        if self.landing.is_some() {
            return Landing::raw_columns(self);
        }
        self.columns
            .iter()
            .map(|column| quote_name(&column.name))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// An INSERT that brings no row.
    pub(crate) fn insert_nothing(&self) -> String {
        if let Some(landing) = &self.landing {
            return landing.into.insert_nothing();
        }
        if self.batches.is_some() {
            let columns = self.inputs().to_vec();
            return Target::new(self.table.clone(), columns).insert_nothing();
        }
        let nulls = vec!["NULL"; self.columns.len()].join(", ");
        format!("{} SELECT {nulls} WHERE false", self.insert_into())
    }

    /// The columns as keys of JSON find them.
    pub fn key_columns(&self) -> Vec<KeyColumn> {
        let columns = self.inputs().iter().enumerate();
        let keys = columns.map(|(at, column)| KeyColumn {
            name: column.name.clone(),
            json: match &self.landing {
                Some(landing) => landing.json[at],
                None => column.is_json(),
            },
            any_case: column.any_case,
        });
        keys.collect()
    }

    /// `COPY table (columns) FROM STDIN`, in text format.
    pub fn copy_from(&self) -> String {
        format!(
            "COPY {} ({}) FROM STDIN",
            self.relation(),
            self.column_list()
        )
    }

    /// `INSERT INTO table (columns)`, ready for a source of rows. Identity columns take the
    /// input's values, as COPY lets them.
    pub fn insert_into(&self) -> String {
        // A temporary table has no identity.
        let has_identity = self.relation() == self.table;
        let overriding = if has_identity && self.columns.iter().any(|it| it.identity_always) {
            " OVERRIDING SYSTEM VALUE"
        } else {
            ""
        };
        format!(
            "INSERT INTO {} ({}){overriding}",
            self.relation(),
            self.column_list()
        )
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_quote_in_a_name_is_doubled() {
        assert_eq!(super::quote_name("a\"b"), "\"a\"\"b\"");
    }
}
