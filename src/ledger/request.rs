//! What a run asks of the ledger.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::error::LedgerError;
use crate::connect::ConnectSettings;
use crate::source::{Input, ReadOptions, Reading};
use crate::target::{Map, Table, Target};

pub struct Request<'a> {
    pub import_id: Option<String>,
    /// What must not run twice at a time.
    pub job: Option<&'a str>,
    pub restart: bool,
    /// How each batch is merged, if that is so: mode, key and what is newer.
    pub merging: Option<&'a serde_json::Value>,
    pub table: &'a Table,
    pub target: &'a Target,
    /// How records are read.
    pub reading: &'a Reading,
    /// The names in the header of the first source.
    pub header: Option<&'a [String]>,
    /// How the sources are opened, to compare them.
    pub options: &'a ReadOptions,
    pub sources: &'a [SourceIdentity],
    /// SQL to run first, unless the table has rows of the inputs already.
    pub before: &'a [String],
    /// For a second connection that looks at who holds a lock.
    pub settings: &'a ConnectSettings,
    /// Longest wait for locks that others hold.
    pub patience: Duration,
    /// Takes what the user should know.
    pub notify: &'a (dyn Fn(&str) + Sync),
}

/// An input as the ledger sees it.
#[derive(Debug, Clone)]
pub struct SourceIdentity {
    /// Name, absolute for a file.
    pub name: String,
    pub input: Input,
    /// Checksum of its first bytes; `None` for a pipe.
    pub head: Option<u64>,
}

/// The expressions of an import of which `row` has the columns.
///
/// # Errors
/// When another version of pgrung wrote them.
pub(super) fn maps_of(import_id: &str, row: &Row) -> Result<Vec<Map>, LedgerError> {
    let Some(maps) = row.get("maps") else {
        return Ok(Vec::new());
    };
    serde_json::from_value(maps).map_err(|error| {
        LedgerError::Unusable(format!(
            "import {import_id} has maps that this pgrung does not know: {error}"
        ))
    })
}

impl Request<'_> {
    /// Names of the columns in the order of the fields.
    pub(super) fn columns(&self) -> Vec<&str> {
        let columns = self.target.inputs().iter();
        columns.map(|column| column.name.as_str()).collect()
    }

    /// The expressions that fields go through; `None`: there are none.
    pub(super) fn maps(&self) -> Option<serde_json::Value> {
        let maps = self.target.maps();
        (!maps.is_empty()).then(|| json!(maps))
    }

    /// Why an import, of which `row` has the columns of `pgrung.imports`, loads other rows of the same
    /// bytes; `None` if it does not.
    pub(super) fn misfit(&self, row: &Row) -> Option<String> {
        let known_columns: Vec<&str> = row.get("columns");
        if known_columns != self.columns() {
            return Some(format!(
                "its columns are {}, now they are {}",
                known_columns.join(", "),
                self.columns().join(", ")
            ));
        }
        let merging: Option<serde_json::Value> = row.get("merging");
        if merging.as_ref() != self.merging {
            return Some("its rows were merged in another way".to_string());
        }
        let shown = |maps: &Option<serde_json::Value>| match maps {
            Some(maps) => maps.to_string(),
            None => "none".to_string(),
        };
        let (then, now) = (row.get("maps"), self.maps());
        if then != now {
            return Some(format!(
                "its --map was {}, now it is {}",
                shown(&then),
                shown(&now)
            ));
        }
        let then: Value = row.get("reading");
        // With what an older pgrung did not know of.
        let then = Reading::deserialize(&then).map_or(then, |then| json!(then));
        let now = json!(self.reading);
        let keys = now.as_object().into_iter().flatten();
        let differences: Vec<String> = keys
            .filter(|(key, value)| then.get(key) != Some(value))
            .map(|(key, value)| {
                let then = then.get(key).unwrap_or(&Value::Null);
                format!("{key} was {then}, now it is {value}")
            })
            .collect();
        match differences.is_empty() {
            true => None,
            false => Some(format!(
                "the reading options differ: {}",
                differences.join(", ")
            )),
        }
    }
}
