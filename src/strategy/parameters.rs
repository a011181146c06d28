//! Collects the fields of rows as statement parameters: one buffer for all values, sent as text so
//! that the server's input functions judge them as COPY would.

use std::error::Error;
use std::ops::Range;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use super::rows::RowSlice;

/// The rows of a slice as parameters.
#[derive(Debug, Default)]
pub struct Parameters {
    bytes: Vec<u8>,
    /// Exclusive end of each value in `bytes`, and whether it is NULL; row after row.
    values: Vec<(u32, bool)>,
    /// Index in the batch of each row's record.
    records: Vec<usize>,
}

impl Parameters {
    /// Takes all rows of `slice`, forgetting those taken before.
    pub fn fill(&mut self, mut slice: RowSlice<'_>) {
        self.bytes.clear();
        self.values.clear();
        self.records.clear();
        while let Some(row) = slice.next_row() {
            self.records.push(row.index);
            for field in row.fields() {
                if let Some(text) = field {
                    self.bytes.extend_from_slice(text);
                }
                self.values.push((self.bytes.len() as u32, field.is_none()));
            }
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.records.len()
    }

    /// Index in the batch of row `row` (0-based).
    pub fn record(&self, row: usize) -> usize {
        self.records[row]
    }

    /// The parameters of `rows`, row after row.
    pub fn of(&self, rows: Range<usize>) -> impl ExactSizeIterator<Item = Parameter<'_>> {
        let columns = self.values.len() / self.records.len().max(1);
        (rows.start * columns..rows.end * columns).map(|index| {
            let (end, null) = self.values[index];
            let start = match index {
                0 => 0,
                _ => self.values[index - 1].0,
            };
            Parameter((!null).then(|| &self.bytes[start as usize..end as usize]))
        })
    }
}

/// One parameter: NULL or text.
#[derive(Debug)]
pub struct Parameter<'a>(Option<&'a [u8]>);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match self.0 {
            None => IsNull::Yes,
            Some(text) => {
                out.extend_from_slice(text);
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}
