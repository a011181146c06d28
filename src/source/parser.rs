//! Cuts the records of a batch into fields, whichever the format.

use super::csv::{self, Dialect};
use super::fields::{FieldError, FieldErrorKind, Fields};
use super::ndjson::{self, KeyColumn, Keys};
use super::reading::Reading;

/// Cuts records into the fields of rows; one for each worker.
#[derive(Debug)]
pub struct RowParser {
    format: Layout,
    columns: usize,
    fields: Fields,
    /// Whether all bytes of the batch are known to be UTF-8 without zero bytes.
    clean: bool,
}

#[derive(Debug, Clone)]
enum Layout {
    Delimited(Dialect),
    Ndjson(Keys),
}

impl Clone for RowParser {
    fn clone(&self) -> Self {
        RowParser {
            format: self.format.clone(),
            columns: self.columns,
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
        let count = columns.len();
        match reading.dialect(count) {
            Some(dialect) => Self::delimited(dialect, count),
            None => Self::ndjson(Keys::new(columns), count),
        }
    }

    fn new(format: Layout, columns: usize) -> Self {
        RowParser {
            format,
            columns,
            fields: Fields::default(),
            clean: false,
        }
    }

    /// Looks once at all bytes of the batch whose records come next.
    pub fn begin(&mut self, bytes: &[u8]) {
        self.clean = is_clean(bytes);
    }

    /// Cuts one record of the batch.
    ///
    /// # Errors
    /// When the record is no row of this load.
    #[inline]
    pub fn parse(&mut self, record: &[u8]) -> Result<(), FieldError> {
        if !self.clean && !is_clean(record) {
            return Err(dirt(record));
        }
        match &self.format {
            Layout::Delimited(dialect) => {
                csv::parse(dialect, record, &mut self.fields)?;
                let (found, expected) = (self.fields.len(), self.columns);
                if found != expected {
                    return Err(FieldError::record(if found < expected {
                        FieldErrorKind::TooFew { found, expected }
                    } else {
                        FieldErrorKind::TooMany { found, expected }
                    }));
                }
            }
            Layout::Ndjson(keys) => ndjson::parse(keys, record, &mut self.fields)?,
        }
        Ok(())
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

fn is_clean(bytes: &[u8]) -> bool {
    memchr::memchr(0, bytes).is_none() && std::str::from_utf8(bytes).is_ok()
}

fn dirt(record: &[u8]) -> FieldError {
    FieldError::record(if std::str::from_utf8(record).is_err() {
        FieldErrorKind::Utf8
    } else {
        FieldErrorKind::Nul
    })
}
