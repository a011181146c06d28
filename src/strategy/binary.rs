//! Encodes whole rows as COPY's binary format, where every value has a binary form.

use super::rows::Row;
use crate::encode::Encoder;
use crate::target::Target;

/// Signature, flags and extension length: what a binary COPY begins with (PostgreSQL manual,
/// COPY, "Binary Format").
pub const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// A field count of -1 ends a binary COPY.
pub const TRAILER: &[u8; 2] = &(-1i16).to_be_bytes();

/// NULL is a length of -1.
const NULL: &[u8; 4] = &(-1i32).to_be_bytes();

/// Encodes rows of one target.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    columns: Vec<Encoder>,
}

impl RowEncoder {
    /// `None` if a column's type has no binary form.
    pub fn new(target: &Target) -> Option<Self> {
        let columns: Option<Vec<Encoder>> = target
            .columns
            .iter()
            .map(|column| column.encoder())
            .collect();
        // The field count has 16 bits; a table has at most 1,600 columns.
        columns.map(|columns| RowEncoder { columns })
    }

    /// Appends one row and returns true; appends nothing and returns false if a value is not in
    /// canonical form.
    #[inline]
    pub fn encode(&self, row: &Row<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.extend_from_slice(&(self.columns.len() as i16).to_be_bytes());
        for (encoder, field) in self.columns.iter().zip(row.fields()) {
            let encoded = match field {
                None => {
                    out.extend_from_slice(NULL);
                    true
                }
                Some(text) => encoder.encode_with_length(text, out),
            };
            if !encoded {
                out.truncate(start);
                return false;
            }
        }
        true
    }
}
