//! Collects the fields of rows as statement parameters in one buffer: binary where the column has
//! an encoder and the value is in canonical form, else text for the server's input function.

use std::error::Error;
use std::ops::Range;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use super::rows::RowSlice;
use crate::encode::Encoder;
use crate::target::Target;

/// The rows of a slice as parameters.
#[derive(Debug)]
pub struct Parameters {
    encoders: Vec<Option<Encoder>>,
    bytes: Vec<u8>,
    values: Vec<Value>,
    /// Index in the batch of each row's record.
    records: Vec<usize>,
}

/// One value in the buffer.
#[derive(Debug, Clone, Copy)]
struct Value {
    /// Behind its last byte; it begins where the one before ends.
    end: u32,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Null,
    Text,
    Binary,
}

impl Parameters {
    pub fn new(target: &Target) -> Self {
        Parameters {
            encoders: target
                .columns
                .iter()
                .map(|column| column.encoder())
                .collect(),
            bytes: Vec::new(),
            values: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Takes all rows of `slice`, forgetting those taken before.
    pub fn fill(&mut self, mut slice: RowSlice<'_>) {
        self.bytes.clear();
        self.values.clear();
        self.records.clear();
        while let Some(row) = slice.next_row() {
            self.records.push(row.index);
            for (encoder, field) in self.encoders.iter().zip(row.fields()) {
                let form = match (field, encoder) {
                    (None, _) => Form::Null,
                    (Some(text), Some(encoder)) if encoder.encode(text, &mut self.bytes) => {
                        Form::Binary
                    }
                    (Some(text), _) => {
                        self.bytes.extend_from_slice(text);
                        Form::Text
                    }
                };
                self.values.push(Value {
                    end: self.bytes.len() as u32,
                    form,
                });
            }
        }
    }

    pub fn rows(&self) -> usize {
        self.records.len()
    }

    /// Index in the batch of row `row` (0-based).
    pub fn record(&self, row: usize) -> usize {
        self.records[row]
    }

    /// The parameters of `rows`, row after row.
    pub fn of(&self, rows: Range<usize>) -> impl ExactSizeIterator<Item = Parameter<'_>> {
        let columns = self.encoders.len();
        (rows.start * columns..rows.end * columns).map(|index| {
            let Value { end, form } = self.values[index];
            let start = match index {
                0 => 0,
                _ => self.values[index - 1].end,
            };
            Parameter {
                bytes: &self.bytes[start as usize..end as usize],
                form,
            }
        })
    }
}

#[derive(Debug)]
pub struct Parameter<'a> {
    bytes: &'a [u8],
    form: Form,
}

impl ToSql for Parameter<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match self.form {
            Form::Null => IsNull::Yes,
            Form::Text | Form::Binary => {
                out.extend_from_slice(self.bytes);
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self.form {
            Form::Binary => Format::Binary,
            Form::Null | Form::Text => Format::Text,
        }
    }

    tokio_postgres::types::to_sql_checked!();
}
