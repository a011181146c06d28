//! The floor: reads, parses and encodes as COPY does, and sends nothing.

use bytes::BytesMut;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::Client;

use super::copy::{PIECE_BYTES, encode_row};
use super::{RowSlice, Strategy, WriteError};

/// Encodes and throws away: the client's own cost, which no server can beat.
#[derive(Default)]
pub struct Discard {
    piece: BytesMut,
}

impl Strategy for Discard {
    fn name(&self) -> &'static str {
        "discard"
    }

    fn write<'a>(
        &'a mut self,
        _: &'a Client,
        mut rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        async move {
            let mut count = 0;
            while let Some(row) = rows.next_row() {
                count += 1;
                encode_row(row.fields(), &mut self.piece);
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
