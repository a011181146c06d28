//! The floor: reads, parses and encodes as COPY does, and sends nothing.

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Client;

use super::binary::RowEncoder;
use super::copy::{CopyFormat, PIECE_BYTES, encode_text};
use super::{RowSlice, Strategy, WriteError};
use crate::target::Target;

/// Encodes and throws away: the client's own cost, which no server can beat.
pub struct Discard {
    binary: Option<RowEncoder>,
    piece: Vec<u8>,
}

impl Discard {
    pub(super) fn new(target: &Target, format: CopyFormat) -> Self {
        let binary = RowEncoder::new(target).filter(|_| format != CopyFormat::Text);
        Discard {
            binary,
            piece: Vec::new(),
        }
    }
}

impl Strategy for Discard {
    fn write<'a>(
        &'a mut self,
        _: &'a Client,
        mut rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        async move {
            let mut count = 0;
            while let Some(row) = rows.next_row() {
                count += 1;
                let encoded = self
                    .binary
                    .as_ref()
                    .is_some_and(|encoder| encoder.encode(&row, &mut self.piece));
                if !encoded {
                    encode_text(row.fields(), &mut self.piece);
                }
                if self.piece.len() >= PIECE_BYTES {
                    std::hint::black_box(&self.piece);
                    self.piece.clear();
                }
            }
            Ok(count)
        }
        .boxed()
    }
}
