//! Decides which columns of the table the fields of a record go to.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::error::Error;
use crate::job::{LoadSettings, SettingsError};
use crate::source::{FieldRules, Format, Records, Skipped, other_delimiter};
use crate::strategy::CopyFormat;
use crate::target::{self, Column, Map, MapError, Mapping, Table, TableError, Target, quote_name};

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

    /// The columns of `table` in the order of the fields, how fields become columns where they do not as
    /// they are, and what becomes of the other fields.
    ///
    /// # Errors
    /// When the names do not fit the table or each other.
    pub fn columns(
        &self,
        first: &Records,
        table: &Table,
        settings: &LoadSettings,
    ) -> Result<(Vec<Column>, Option<Mapping>, FieldRules), Error> {
        let fields = self.fields(first, table, settings)?;
        let null_in = &settings.read.null_in;
        let skip = match first.format() {
            Format::Ndjson if !null_in.is_empty() => {
                return Err(refused(format!(
                    "--null-in is for delimited text, and {} is JSON lines, which write null",
                    first.name()
                )));
            }
            Format::Ndjson => skipped_keys(&settings.read.skip),
            Format::Csv | Format::Tsv => skipped(&settings.read.skip, &fields)?,
        };
        let is_kept = |name: &&String| skip.iter().all(|skipped| skipped.name != **name);
        let names: Vec<String> = fields.iter().filter(is_kept).cloned().collect();
        let is_header = self.header.as_ref().is_some_and(|header| *header == fields);
        let unfit = |error| match is_header {
            true => unfit(&names, first, table, error),
            false => error.into(),
        };
        // The parser knows its fields by the names of what they are written to.
        let (columns, mapping, written) = match settings.maps.as_slice() {
            [] => {
                let columns = table.pick(&names).map_err(unfit)?;
                let written = columns.iter().map(|column| column.name.clone()).collect();
                (columns, None, written)
            }
            maps => {
                let mapping = Mapping::new(maps, names.clone(), table);
                let mapping = mapping.map_err(|error| match error {
                    MapError::Table(error) => unfit(error),
                    error => error.into(),
                })?;
                (mapping.columns(), Some(mapping), names.clone())
            }
        };
        let null_in = null_in.iter().map(|(name, text)| {
            let place = places(name, &names).into_iter().next();
            let place =
                place.ok_or_else(|| TableError::unknown_field("--null-in", name, &names))?;
            Ok((written[place].clone(), text.clone()))
        });
        let null_in = null_in.collect::<Result<_, TableError>>()?;
        Ok((columns, mapping, FieldRules { skip, null_in }))
    }

    /// The names of the fields in their order.
    fn fields(
        &self,
        first: &Records,
        table: &Table,
        settings: &LoadSettings,
    ) -> Result<Vec<String>, Error> {
        let skip = &settings.read.skip;
        Ok(match (&settings.read.columns, &self.header) {
            (Some(names), Some(header)) if names.len() != header.len() => {
                let mismatch = format!(
                    "--columns names {} columns, but the header of {} has {}",
                    names.len(),
                    first.name(),
                    header.len(),
                );
                return Err(refused(match divided(header, first) {
                    Some(advice) => format!("{mismatch}: {advice}"),
                    None => mismatch,
                }));
            }
            (Some(names), _) => names.clone(),
            (None, Some(header)) => header.clone(),
            (None, None) if first.format() == Format::Ndjson => {
                json_columns(table, &self.keys, &settings.maps, skip)?
            }
            (None, None) if !skip.is_empty() => {
                return Err(refused(
                    "--skip names fields of the input, and with --no-header they have names only with --columns"
                        .to_string(),
                ));
            }
            (None, None) => table.writable().map(|column| column.name.clone()).collect(),
        })
    }

    /// What is to be said of a header that `--columns` replaces: if it is no header, a row is lost.
    pub fn doubt(&self, first: &Records, settings: &LoadSettings) -> Option<String> {
        let replaced = self
            .header
            .as_ref()
            .filter(|_| settings.read.columns.is_some())?;
        is_like_data(replaced).then(|| {
            format!(
                "{}: the first line is taken as the header that --columns replaces, but looks like data: add --no-header if it is a row",
                first.name()
            )
        })
    }
}

/// The error of a header that names no columns, with what it says of how the file should be read.
fn unfit(header: &[String], first: &Records, table: &Table, error: TableError) -> Error {
    let known = |name: &String| table.pick(std::slice::from_ref(name)).is_ok();
    let name = first.name();
    if !matches!(error, TableError::UnknownColumn { .. }) {
        error.into()
    } else if let Some(advice) = divided(header, first) {
        refused(format!("{name}: {advice}"))
    } else if header.iter().any(known) {
        error.into()
    } else if is_like_data(header) {
        // What may be data is not shown.
        let quoted = table.writable().map(|column| quote_name(&column.name));
        let columns = quoted.collect::<Vec<_>>().join(", ");
        let table = table.quoted();
        refused(format!(
            "{name}: no name in the header is a column of {table}, and it looks like data: add --no-header if the first line is a row; the columns are {columns}; --columns names the fields otherwise"
        ))
    } else {
        refused(format!(
            "{name}: {error}; if the first line is data, add --no-header"
        ))
    }
}

/// The delimiter that a header seems to be written with, when it is another one than it is read
/// with.
fn divided(header: &[String], first: &Records) -> Option<String> {
    let flag = other_delimiter(header.concat().as_bytes(), first.delimiter()?)?;
    Some(format!(
        "a name in the header holds another delimiter: if that divides the fields, add --delimiter {flag}"
    ))
}

/// Whether a header has what names of columns hardly are: a number, or a date.
fn is_like_data(header: &[String]) -> bool {
    header.iter().any(|name| {
        let is_date = || {
            let shape = name
                .bytes()
                .map(|byte| if byte.is_ascii_digit() { b'9' } else { byte });
            shape.take(10).eq(*b"9999-99-99")
        };
        name.trim().parse::<f64>().is_ok_and(f64::is_finite) || is_date()
    })
}

fn refused(message: String) -> Error {
    Error::Settings(SettingsError(message))
}

/// The fields that `--skip` means: those of that very name, else the only one that differs in case.
fn skipped(skip: &[String], fields: &[String]) -> Result<Vec<Skipped>, TableError> {
    let mut is_skipped = vec![false; fields.len()];
    for name in skip {
        let places = places(name, fields);
        if places.is_empty() {
            return Err(TableError::unknown_field("--skip", name, fields));
        }
        for place in places {
            is_skipped[place] = true;
        }
    }
    let all = fields.iter().enumerate();
    let skipped = all.filter(|(field, _)| is_skipped[*field]);
    Ok(skipped
        .map(|(field, name)| Skipped {
            name: name.clone(),
            field,
        })
        .collect())
}

/// Where (0-based) the fields stand that `name` means, as a name means a column.
fn places(name: &str, fields: &[String]) -> Vec<usize> {
    let found = |fits: &dyn Fn(&String) -> bool| -> Vec<usize> {
        let all = fields.iter().enumerate();
        let fitting = all.filter(|(_, field)| fits(field));
        fitting.map(|(place, _)| place).collect()
    };
    let exact = found(&|field| field == name);
    if !exact.is_empty() {
        return exact;
    }
    let any_case = found(&|field| field.to_lowercase() == name.to_lowercase());
    if any_case.len() == 1 { any_case } else { exact }
}

/// The keys of JSON lines that `--skip` names; a later line may bring one that no line had so far.
fn skipped_keys(skip: &[String]) -> Vec<Skipped> {
    let keys = skip.iter().cloned();
    keys.map(|name| Skipped { name, field: 0 }).collect()
}

/// For JSON lines without `--columns`: all columns, but of those with a default only the ones
/// whose keys were seen, and none that is skipped. A record with an unknown key is a bad record; a
/// source without any known key is a wrong source. What `maps` use are keys too.
fn json_columns(
    table: &Table,
    seen: &[String],
    maps: &[Map],
    skip: &[String],
) -> Result<Vec<String>, Error> {
    let columns = |names: &[String]| -> Vec<Column> {
        let column = |name| table.pick(std::slice::from_ref(name)).ok()?.pop();
        names.iter().filter_map(column).collect()
    };
    let is_left = |name: &&String| places(name, skip).is_empty();
    let seen: Vec<String> = seen.iter().filter(is_left).cloned().collect();
    let (known, skipped) = (columns(&seen), columns(skip));
    if known.is_empty() && !seen.is_empty() && maps.is_empty() {
        table.pick(&seen)?;
    }
    let filled = match maps.is_empty() {
        true => Vec::new(),
        false => target::mapped(maps, table)?,
    };
    let columns = table
        .writable()
        .filter(|column| !column.has_default || known.contains(column) || filled.contains(column))
        .filter(|column| !skipped.contains(column));
    let mut names: Vec<String> = columns.map(|column| column.name.clone()).collect();
    for name in Mapping::fields_of(maps)? {
        let alike = |other: &&String| other.to_lowercase() == name.to_lowercase();
        // However it is written it is one key, unless the records have several.
        let is_apart = seen.contains(&name) && seen.iter().filter(alike).count() > 1;
        let is_there = names.contains(&name) || names.iter().any(|name| alike(&name)) && !is_apart;
        if !is_there {
            names.push(name);
        }
    }
    Ok(names)
}

/// What is written so that records with these fields land in `table`, and how they are mapped, if
/// `maps` are given; `sources` are the names of their sources.
///
/// # Errors
/// When the fields do not fit the table, or the server does not take an expression.
pub async fn mapped(
    client: &Client,
    table: &Table,
    fields: Vec<String>,
    maps: &[Map],
    sources: &[Arc<str>],
) -> Result<(Arc<Target>, Option<Mapping>), Error> {
    if maps.is_empty() {
        let target = Target::new(table.quoted(), table.pick(&fields)?);
        return Ok((Arc::new(target), None));
    }
    let mapping = Mapping::new(maps, fields, table)?;
    let target = Arc::new(Target::new(table.quoted(), mapping.columns()));
    let mapping = mapping.check(client, &target).await?;
    let target = Arc::new(mapping.onto(target, sources));
    Ok((target, Some(mapping)))
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
