//! Collects the fields of rows as statement parameters in one buffer: binary where the column has
//! an encoder and the value is in canonical form, else text for the type's input function.
//!
//! A parameter's text is read without the column's modifier, which is applied to the value
//! afterwards. That is not what COPY does, and not always the same: `5` is five years in an
//! `interval year` and five seconds in an interval. So where a column has a modifier and a value no
//! binary form, the values go as JSON objects, from which the statement has them read as COPY reads
//! them ([`Column::read_from`]).

use std::error::Error;
use std::ops::Range;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

use super::rows::{Row, RowSlice};
use crate::encode::Encoder;
use crate::target::{Column, Target, Upsert};

/// The rows of a slice as parameters.
#[derive(Debug)]
pub struct Parameters {
    encoders: Vec<Option<Encoder>>,
    modified: Vec<bool>,
    /// Columns whose values are JSON objects in this slice.
    as_json: Vec<bool>,
    bytes: Vec<u8>,
    values: Vec<Value>,
    /// Index in the batch of each row's record.
    records: Vec<usize>,
}

/// One value in the buffer.
#[derive(Debug, Clone, Copy)]
struct Value {
    /// Behind its last byte; it begins where the one before ends.
    end: usize,
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
        let columns = target.columns.iter();
        Parameters {
            encoders: columns.clone().map(Column::encoder).collect(),
            modified: columns.map(|column| column.is_modified).collect(),
            as_json: Vec::new(),
            bytes: Vec::new(),
            values: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Takes all rows of `slice`, forgetting those taken before.
    pub fn fill(&mut self, mut slice: RowSlice<'_>) {
        let columns = self.encoders.iter().zip(&self.modified);
        self.as_json = columns
            .map(|(encoder, modified)| *modified && encoder.is_none())
            .collect();
        self.clear();
        let mut late = false;
        while let Some(row) = slice.next_row() {
            late |= self.push(&row);
        }
        if late {
            // Values before the first one without a binary form are not JSON yet.
            slice.restart_with(self.records.clone());
            self.clear();
            while let Some(row) = slice.next_row() {
                self.push(&row);
            }
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.values.clear();
        self.records.clear();
    }

    /// Whether a column turned out to be one of JSON.
    fn push(&mut self, row: &Row<'_>) -> bool {
        self.records.push(row.index);
        let mut late = false;
        for (column, field) in row.fields().enumerate() {
            let bytes = &mut self.bytes;
            let encoder = self.encoders[column].filter(|_| !self.as_json[column]);
            let form = match (field, encoder) {
                (None, _) => Form::Null,
                (Some(text), Some(encoder)) if encoder.encode(text, bytes) => Form::Binary,
                (Some(text), _) if self.modified[column] => {
                    late |= !self.as_json[column];
                    self.as_json[column] = true;
                    push_json(text, bytes);
                    Form::Text
                }
                (Some(text), _) => {
                    bytes.extend_from_slice(text);
                    Form::Text
                }
            };
            self.values.push(Value {
                end: self.bytes.len(),
                form,
            });
        }
        late
    }

    /// Columns whose values are JSON objects: which statement takes the rows.
    pub fn as_json(&self) -> &[bool] {
        &self.as_json
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
                bytes: &self.bytes[start..end],
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

/// Appends the JSON object that [`Column::read_from`] takes.
pub(super) fn push_json(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"v\":\"");
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            // JSON has no other way to write them. NUL is the server's to refuse, as in COPY.
            1..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.extend_from_slice(b"\"}");
}

/// `($1, $2), ($3, $4)`: parameters of `rows` rows, each read as its column wants it. `typed`: no
/// column around tells their types. `ordered`: each row ends with its number.
fn values(target: &Target, as_json: &[bool], rows: usize, typed: bool, ordered: bool) -> String {
    let columns = target.columns.len();
    let mut sql = String::with_capacity(rows * columns * 7);
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ", (" });
        for (index, (column, as_json)) in target.columns.iter().zip(as_json).enumerate() {
            if index > 0 {
                sql.push_str(", ");
            }
            let parameter = format!("${}", row * columns + index + 1);
            match as_json {
                true => sql.push_str(&column.read_from(&parameter)),
                // The other rows are as the first.
                false if typed && row == 0 => {
                    sql.push_str(&format!("{parameter}::{}", column.base_type_name));
                }
                false => sql.push_str(&parameter),
            }
        }
        if ordered {
            sql.push_str(&format!(", {row}"));
        }
        sql.push(')');
    }
    sql
}

/// The statement that brings `rows` rows.
pub(super) fn insert(target: &Target, as_json: &[bool], rows: usize) -> String {
    let Some(upsert) = &target.upsert else {
        let values = values(target, as_json, rows, false, false);
        return format!("{} VALUES {values}", target.insert_into());
    };
    let many = rows > 1;
    let values = values(target, as_json, rows, true, many);
    let relation = Upsert::relation(&format!("VALUES {values}"), target, many);
    let [before, behind] = if many { &upsert.many } else { &upsert.one };
    format!("{before}{relation}{behind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_value_is_its_text_whatever_it_holds() {
        let text = "é\"\\\u{1}\u{1f}\t\n\r /{}";
        let mut json = Vec::new();
        push_json(text.as_bytes(), &mut json);
        let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(read["v"], text);
    }
}
