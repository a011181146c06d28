//! Cuts the records of a batch into fields, whichever the format.

use super::csv::{self, Dialect};
use super::encoding::Encoding;
use super::fields::{FieldError, FieldErrorKind, Fields, text};
use super::ndjson::{self, KeyColumn, Keys};
use super::reading::Reading;

/// Cuts records into the fields of rows; one for each worker.
#[derive(Debug)]
pub struct RowParser {
    format: Layout,
    encoding: Encoding,
    /// Fields of a record.
    count: usize,
    fields: Fields,
    /// Whether all bytes of the batch are known to be plain text.
    clean: bool,
}

#[derive(Debug, Clone)]
enum Layout {
    Delimited(Dialect),
    /// Delimited text whose fields are not all alike.
    Unlike(Dialect, Unlike),
    Ndjson(Keys),
}

/// What sets the fields of delimited text apart.
#[derive(Debug, Clone)]
struct Unlike {
    /// Of each field, whether it goes to a column; empty if all do.
    kept: Vec<bool>,
    /// What is NULL in each field; empty: what the dialect says, in all of them.
    nulls: Vec<Vec<Vec<u8>>>,
}

impl Unlike {
    /// Cuts a record of `count` fields, and leaves those that go to columns.
    fn cut(
        &self,
        dialect: &Dialect,
        count: usize,
        record: &[u8],
        fields: &mut Fields,
    ) -> Result<(), FieldError> {
        let cut = match self.nulls.is_empty() {
            true => csv::parse(dialect, record, fields),
            false => csv::cut(dialect, record, fields, |place, text| {
                let nulls = self.nulls.get(place);
                nulls.is_some_and(|nulls| nulls.iter().any(|null| null == text))
            }),
        };
        cut.map_err(|error| error.among(&self.kept))?;
        check_count(fields.len(), count)?;
        if !self.kept.is_empty() {
            fields.keep(&self.kept);
        }
        Ok(())
    }
}

#[inline]
fn check_count(found: usize, expected: usize) -> Result<(), FieldError> {
    if found == expected {
        return Ok(());
    }
    Err(FieldError::record(if found < expected {
        FieldErrorKind::TooFew { found, expected }
    } else {
        FieldErrorKind::TooMany { found, expected }
    }))
}

impl Clone for RowParser {
    fn clone(&self) -> Self {
        RowParser {
            format: self.format.clone(),
            encoding: self.encoding,
            count: self.count,
            fields: Fields::default(),
            clean: false,
        }
    }
}

impl RowParser {
    /// A parser of delimited text into exactly `columns` fields.
    pub fn delimited(dialect: Dialect, columns: usize) -> Self {
        Self::new(Layout::Delimited(dialect), columns)
    }

    /// A parser of JSON lines into the columns of `keys`.
    pub fn ndjson(keys: Keys, columns: usize) -> Self {
        Self::new(Layout::Ndjson(keys), columns)
    }

    /// A parser of records that are read so, into these columns.
    pub(crate) fn of(reading: &Reading, columns: Vec<KeyColumn>) -> Self {
        let count = reading.field_count(columns.len());
        let parser = match reading.dialect(count) {
            Some(dialect) => {
                let names: Vec<String> = columns.into_iter().map(|column| column.name).collect();
                let (kept, nulls) = (reading.kept(count), reading.nulls(&names));
                let layout = match kept.is_empty() && nulls.is_empty() {
                    true => Layout::Delimited(dialect),
                    false => Layout::Unlike(dialect, Unlike { kept, nulls }),
                };
                Self::new(layout, count)
            }
            None => Self::ndjson(Keys::new(columns).skipping(reading.skipped_keys()), count),
        };
        let encoding = reading.encoding();
        RowParser { encoding, ..parser }
    }

    fn new(format: Layout, count: usize) -> Self {
        RowParser {
            format,
            encoding: Encoding::UTF_8,
            count,
            fields: Fields::default(),
            clean: false,
        }
    }

    /// Looks once at all bytes of the batch whose records come next.
    pub fn begin(&mut self, bytes: &[u8]) {
        self.clean = self.encoding.is_plain(bytes);
    }

    /// Cuts one record of the batch.
    ///
    /// # Errors
    /// When the record is no row of this load.
    #[inline]
    pub fn parse(&mut self, record: &[u8]) -> Result<(), FieldError> {
        match &self.format {
            Layout::Delimited(dialect) if self.clean => {
                csv::parse(dialect, record, &mut self.fields)?;
                check_count(self.fields.len(), self.count)
            }
            _ => self.parse_otherwise(record),
        }
    }

    /// Cuts a record that is not plain delimited text; apart, so that the usual way stays short.
    fn parse_otherwise(&mut self, record: &[u8]) -> Result<(), FieldError> {
        let clean = self.clean || self.encoding.is_plain(record);
        match &self.format {
            Layout::Delimited(dialect) => {
                csv::parse(dialect, record, &mut self.fields)?;
                check_count(self.fields.len(), self.count)?;
            }
            Layout::Unlike(dialect, unlike) => {
                unlike.cut(dialect, self.count, record, &mut self.fields)?;
            }
            Layout::Ndjson(keys) if clean => {
                return ndjson::parse(keys, self.encoding, record, &mut self.fields);
            }
            Layout::Ndjson(keys) => {
                let text = text(self.encoding, record).map_err(FieldError::record)?;
                ndjson::parse(keys, self.encoding, text.as_bytes(), &mut self.fields)?;
                self.fields.own(text.as_bytes());
                return Ok(());
            }
        }
        if clean {
            return Ok(());
        }
        self.fields.decode(self.encoding, record)
    }

    /// The fields of `record`, which was parsed last; `None` is NULL.
    pub fn fields_of<'a>(&'a self, record: &'a [u8]) -> impl Iterator<Item = Option<&'a [u8]>> {
        (0..self.fields.len()).map(|index| self.fields.get(record, index))
    }

    /// The fields of the record parsed last.
    #[inline]
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The same, to put more behind them.
    pub(crate) fn fields_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }
}
