//! The table that is loaded, and what of it is written.

mod key;
mod near;
mod place;
mod staging;
mod table;

use crate::source::KeyColumn;

pub use key::{Key, KeyError, Operators};
pub use near::nearest;
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
}

impl Target {
    /// Columns of the table `table`, quoted, as the input has them.
    pub(crate) fn new(table: String, columns: Vec<Column>) -> Self {
        Target {
            table,
            columns,
            stamp: None,
        }
    }

    /// The columns that the input fills.
    pub fn inputs(&self) -> &[Column] {
        let stamped = self.stamp.map_or(0, |stamp| stamp.columns().len());
        &self.columns[..self.columns.len() - stamped]
    }

    /// The quoted column names, separated by commas.
    pub fn column_list(&self) -> String {
        self.columns
            .iter()
            .map(|column| quote_name(&column.name))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// An INSERT that brings no row.
    pub(crate) fn insert_nothing(&self) -> String {
        let nulls = vec!["NULL"; self.columns.len()].join(", ");
        format!("{} SELECT {nulls} WHERE false", self.insert_into())
    }

    /// The columns as keys of JSON find them.
    pub fn key_columns(&self) -> Vec<KeyColumn> {
        let columns = self.inputs().iter().map(|column| KeyColumn {
            name: column.name.clone(),
            json: column.is_json(),
            any_case: column.any_case,
        });
        columns.collect()
    }

    /// `COPY table (columns) FROM STDIN`, in text format.
    pub fn copy_from(&self) -> String {
        format!("COPY {} ({}) FROM STDIN", self.table, self.column_list())
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
            self.table,
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
