//! Rung 3: COPY FROM STDIN in text format, streamed.
//!
//! Line breaks, tabs and backslashes are always escaped, so the server's "line N" is the number of
//! the row.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt};
use tokio_postgres::{Client, Statement};

use super::{RowSlice, Strategy, WriteError};
use crate::server_error::copy_line;
use crate::table::Target;

/// Bytes sent in one piece. From 64 KiB to 1 MiB the speed is the same, below it falls.
pub(super) const PIECE_BYTES: usize = 128 * 1024;

/// COPY FROM STDIN in text format.
pub struct Copy {
    target: Arc<Target>,
    statement: Option<Statement>,
    /// Index in the batch of each row sent, so that the server's line number finds the record.
    sent: Vec<usize>,
}

impl Copy {
    pub(super) fn new(target: Arc<Target>) -> Self {
        Copy {
            target,
            statement: None,
            sent: Vec::new(),
        }
    }

    async fn write_rows(
        &mut self,
        client: &Client,
        mut rows: RowSlice<'_>,
    ) -> Result<u64, WriteError> {
        self.sent.clear();
        let statement = match &self.statement {
            Some(statement) => statement,
            None => {
                let statement = client.prepare(&self.target.copy_from()).await?;
                self.statement.insert(statement)
            }
        };
        let mut sink = std::pin::pin!(client.copy_in::<_, Bytes>(statement).await?);
        let mut piece = BytesMut::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        let mut lost = false;
        while let Some(row) = rows.next_row() {
            self.sent.push(row.index);
            encode_row(row.fields(), &mut piece);
            if piece.len() >= PIECE_BYTES {
                if sink.send(piece.split().freeze()).await.is_err() {
                    // The server has ended the COPY; `finish` tells why.
                    lost = true;
                    break;
                }
                piece.reserve(PIECE_BYTES + PIECE_BYTES / 8);
            }
        }
        if !lost && !piece.is_empty() {
            // As above: the reason comes from `finish`.
            let _ = sink.send(piece.freeze()).await;
        }
        sink.finish().await.map_err(|error| {
            let line = error
                .as_db_error()
                .and_then(|server| copy_line(server, &self.target.table));
            let record = line.and_then(|line| self.sent.get(line.checked_sub(1)?).copied());
            WriteError { error, record }
        })
    }
}

impl Strategy for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        self.write_rows(client, rows).boxed()
    }
}

/// Appends one row in COPY's text format.
#[inline]
pub(super) fn encode_row<'a>(fields: impl Iterator<Item = Option<&'a [u8]>>, out: &mut BytesMut) {
    let mut separator: &[u8] = b"";
    for field in fields {
        out.extend_from_slice(separator);
        separator = b"\t";
        match field {
            None => out.extend_from_slice(b"\\N"),
            Some(text) => escape(text, out),
        }
    }
    out.extend_from_slice(b"\n");
}

#[inline]
fn escape(text: &[u8], out: &mut BytesMut) {
    let special = |byte: &u8| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r');
    let mut rest = text;
    while let Some(at) = rest.iter().position(special) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            b'\\' => b"\\\\",
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            _ => b"\\r",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_whatever_it_holds() {
        let mut out = BytesMut::new();
        let fields = [
            None,
            Some(&b""[..]),
            Some(b"a\tb\\N\r\n"),
            Some("é".as_bytes()),
        ];
        encode_row(fields.into_iter(), &mut out);
        assert_eq!(out, "\\N\t\ta\\tb\\\\N\\r\\n\té\n".as_bytes());
    }
}
