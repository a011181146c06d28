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
    Delimited {
        dialect: Dialect,
        /// Of each field, whether it goes to a column; empty if all do.
        kept: Vec<bool>,
        /// What is NULL in each field; empty: what the dialect says, in all of them.
        nulls: Vec<Vec<Vec<u8>>>,
    },
    Ndjson(Keys),
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
        let layout = Layout::Delimited {
            dialect,
            kept: Vec::new(),
            nulls: Vec::new(),
        };
        Self::new(layout, columns)
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
                let layout = Layout::Delimited {
                    dialect,
                    kept: reading.kept(count),
                    nulls: reading.nulls(&names),
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
        let clean = self.clean || self.encoding.is_plain(record);
        match &self.format {
            Layout::Delimited {
                dialect,
                kept,
                nulls,
            } => {
                let fields = &mut self.fields;
                let cut = match nulls.is_empty() {
                    true => csv::parse(dialect, record, fields),
                    false => csv::cut(dialect, record, fields, |place, text| {
                        let nulls = nulls.get(place);
                        nulls.is_some_and(|nulls| nulls.iter().any(|null| null == text))
                    }),
                };
                cut.map_err(|error| error.among(kept))?;
                let (found, expected) = (self.fields.len(), self.count);
                if found != expected {
                    return Err(FieldError::record(if found < expected {
                        FieldErrorKind::TooFew { found, expected }
                    } else {
                        FieldErrorKind::TooMany { found, expected }
                    }));
                }
                if !kept.is_empty() {
                    self.fields.keep(kept);
                }
                if !clean {
                    self.fields.decode(self.encoding, record)?;
                }
            }
            Layout::Ndjson(keys) if clean => {
                ndjson::parse(keys, self.encoding, record, &mut self.fields)?;
            }
            Layout::Ndjson(keys) => {
                let text = text(self.encoding, record).map_err(FieldError::record)?;
                ndjson::parse(keys, self.encoding, text.as_bytes(), &mut self.fields)?;
                self.fields.own(text.as_bytes());
            }
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
