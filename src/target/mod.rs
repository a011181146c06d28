//! The table that is loaded, and what of it is written.

mod expression;
mod key;
mod mapping;
mod near;
mod place;
mod staging;
mod table;

use std::sync::Arc;

use crate::source::KeyColumn;

pub use key::{Key, KeyError, Operators};
pub use mapping::{Landing, Map, MapError, Mapping, mapped};
pub use place::Place;
pub use staging::{Order, STATE, Staging, Stamp, index_staged, unique_index};
pub use table::{Column, Table, TableError};

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
}

impl Target {
    /// Columns of the table `table`, quoted, as the input has them.
    pub(crate) fn new(table: String, columns: Vec<Column>) -> Self {
        Target {
            table,
            columns,
            stamp: None,
            landing: None,
        }
    }

    /// The columns that the input fills.
    pub fn inputs(&self) -> &[Column] {
        let stamped = self.stamp.map_or(0, |stamp| stamp.columns().len());
        &self.columns[..self.columns.len() - stamped]
    }

    /// What the strategies write: the table, or a temporary one.
    pub(crate) fn relation(&self) -> &str {
        match self.landing {
            Some(_) => mapping::RAW,
            None => &self.table,
        }
    }

    /// The expressions that fields go through.
    pub(crate) fn maps(&self) -> &[Map] {
        self.landing.as_ref().map_or(&[], |landing| &landing.maps)
    }

    /// `begin`, and what rows are written into first, if there is such a thing.
    pub(crate) fn begin(&self, begin: &str) -> String {
        match &self.landing {
            Some(landing) => format!("{begin}; {}", landing.create),
            None => begin.to_string(),
        }
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
        let overriding = if self.columns.iter().any(|column| column.identity_always) {
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
