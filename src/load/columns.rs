//! Decides which columns of the table the fields of a record go to.

use crate::error::Error;
use crate::job::{LoadSettings, SettingsError};
use crate::source::{Format, Records};
use crate::strategy::CopyFormat;
use crate::target::{Column, Table, TableError, Target};

/// What the first source says of its columns.
pub struct Named {
    /// The names in its header.
    pub header: Option<Vec<String>>,
    /// The keys of its first JSON lines, where they decide.
    pub keys: Vec<String>,
}

impl Named {
    /// Takes the header of `first`, or the keys of its first lines. May wait for the source.
    ///
    /// # Errors
    /// When the source cannot be read, or has no header where one is due.
    pub fn take(first: &mut Records, settings: &LoadSettings) -> Result<Self, Error> {
        let delimited = first.format() != Format::Ndjson;
        let header = match delimited && settings.read.header {
            true => Some(first.take_header()?),
            false => None,
        };
        let keys = match delimited || settings.read.columns.is_some() {
            true => Vec::new(),
            false => first.sample_keys()?,
        };
        Ok(Named { header, keys })
    }

    /// The columns of `table` in the order of the fields.
    ///
    /// # Errors
    /// When the names do not fit the table or each other.
    pub fn columns(
        &self,
        first: &Records,
        table: &Table,
        settings: &LoadSettings,
    ) -> Result<Vec<Column>, Error> {
        let names = match (&settings.read.columns, &self.header) {
            (Some(names), Some(header)) if names.len() != header.len() => {
                return Err(refused(format!(
                    "--columns names {} columns, but the header of {} has {}",
                    names.len(),
                    first.name(),
                    header.len(),
                )));
            }
            (Some(names), _) => names.clone(),
            (None, Some(header)) => header.clone(),
            (None, None) if first.format() == Format::Ndjson => json_columns(table, &self.keys)?,
            (None, None) => table.writable().map(|column| column.name.clone()).collect(),
        };
        Ok(table.pick(&names)?)
    }
}

fn refused(message: String) -> Error {
    Error::Settings(SettingsError(message))
}

/// For JSON lines without `--columns`: all columns, but of those with a default only the ones
/// whose keys were seen. A record with an unknown key is a bad record; a source without any known
/// key is a wrong source.
fn json_columns(table: &Table, seen: &[String]) -> Result<Vec<String>, TableError> {
    let known: Vec<Column> = seen
        .iter()
        .filter_map(|name| table.pick(std::slice::from_ref(name)).ok()?.pop())
        .collect();
    if known.is_empty() && !seen.is_empty() {
        table.pick(seen)?;
    }
    Ok(table
        .writable()
        .filter(|column| !column.has_default || known.contains(column))
        .map(|column| column.name.clone())
        .collect())
}

/// Refuses `--copy-format binary` where a column has no binary form.
///
/// # Errors
/// The first such column.
pub fn check_copy_format(target: &Target, format: CopyFormat) -> Result<(), Error> {
    let without = |column: &&Column| column.encoder().is_none();
    match target.columns.iter().find(without) {
        Some(column) if format == CopyFormat::Binary => Err(refused(format!(
            "--copy-format binary: column \"{}\" is of type {}, which has no binary encoder; use auto or text",
            column.name, column.base_type_name
        ))),
        _ => Ok(()),
    }
}
