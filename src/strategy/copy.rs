//! Rung 3: COPY FROM STDIN, streamed.
//!
//! Rows go as binary where every column has an encoder and every value is in canonical form. The
//! other rows follow, unchanged, in a text COPY of the same transaction: the server's own input
//! functions judge them, so binary never changes what is accepted or stored. In text, line breaks,
//! tabs and backslashes are always escaped; in either format the server's "line N" is the number
//! of the row.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt};
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, CopyInSink, Statement};

use super::binary::{HEADER, RowEncoder, TRAILER};
use super::{Pulse, RowSlice, Strategy, WriteError};
use crate::server_error::copy_line;
use crate::target::Target;

/// Bytes sent in one piece. From 64 KiB to 1 MiB the speed is the same, below it falls; the
/// smallest of them stays in the cache and below the allocator's mmap threshold.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// What COPY sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyFormat {
    /// Binary where every column has a binary form, text else.
    Auto,
    /// Binary; an error if a column has no binary form.
    Binary,
    /// Text.
    Text,
}

pub struct Copy {
    target: Arc<Target>,
    /// `None`: all rows go as text.
    binary: Option<RowEncoder>,
    /// Whether to stop trying binary where most rows have no binary form.
    may_give_up: bool,
    binary_statement: Option<Statement>,
    text_statement: Option<Statement>,
    /// Index in the batch of each row sent, so that the server's line number finds the record.
    sent: Vec<usize>,
    /// Records that have no binary form.
    declined: Vec<usize>,
    note: Option<String>,
}

impl Copy {
    pub(super) fn new(target: Arc<Target>, format: CopyFormat) -> Self {
        Copy {
            binary: match format {
                CopyFormat::Auto | CopyFormat::Binary => RowEncoder::new(&target),
                CopyFormat::Text => None,
            },
            may_give_up: format == CopyFormat::Auto,
            target,
            binary_statement: None,
            text_statement: None,
            sent: Vec::new(),
            declined: Vec::new(),
            note: None,
        }
    }

    async fn write_rows(
        &mut self,
        client: &Client,
        mut rows: RowSlice<'_>,
    ) -> Result<u64, WriteError> {
        // Rows of two COPYs would change places, and with them which of two equal keys is first.
        let Some(encoder) = self.binary.clone().filter(|_| !rows.in_order()) else {
            return self.write_text(client, rows).await;
        };
        let all = rows.remaining();
        let mut copy = self.begin(client, true, rows.pulse()).await?;
        self.declined.clear();
        while let Some(row) = rows.next_row() {
            if encoder.encode(&row, &mut copy.piece) {
                self.sent.push(row.index);
                if !copy.send_if_full().await {
                    break;
                }
            } else {
                self.declined.push(row.index);
            }
        }
        copy.piece.extend_from_slice(TRAILER);
        let mut count = self.finish(client, copy).await?;
        if !self.declined.is_empty() {
            let declined = std::mem::take(&mut self.declined);
            if self.may_give_up && declined.len() * 2 > all {
                self.binary = None;
                self.note = Some(format!(
                    "{} of {all} rows have no binary form: COPY goes on as text on this connection",
                    declined.len()
                ));
            }
            rows.restart_with(declined);
            count += self.write_text(client, rows).await?;
        }
        Ok(count)
    }

    async fn write_text(
        &mut self,
        client: &Client,
        mut rows: RowSlice<'_>,
    ) -> Result<u64, WriteError> {
        let mut copy = self.begin(client, false, rows.pulse()).await?;
        while let Some(row) = rows.next_row() {
            self.sent.push(row.index);
            encode_text(row.fields(), &mut copy.piece);
            if !copy.send_if_full().await {
                break;
            }
        }
        self.finish(client, copy).await
    }

    async fn begin(
        &mut self,
        client: &Client,
        binary: bool,
        pulse: Pulse,
    ) -> Result<Stream, WriteError> {
        self.sent.clear();
        let slot = if binary {
            &mut self.binary_statement
        } else {
            &mut self.text_statement
        };
        let statement = match slot {
            Some(statement) => statement,
            None => {
                let mut sql = self.target.copy_from();
                if binary {
                    sql.push_str(" (FORMAT binary)");
                }
                slot.insert(client.prepare(&sql).await?)
            }
        };
        let begun = client.copy_in::<_, Bytes>(statement).await;
        let sink = Box::pin(begun.map_err(|error| WriteError {
            error,
            record: None,
            before_rows: true,
        })?);
        let mut piece = new_piece();
        if binary {
            piece.extend_from_slice(HEADER);
        }
        pulse.beat();
        Ok(Stream { sink, piece, pulse })
    }

    /// Ends the COPY and finds the record that the server's error names.
    async fn finish(&self, client: &Client, mut stream: Stream) -> Result<u64, WriteError> {
        if !stream.piece.is_empty() {
            // If the server has ended the COPY, `finish` tells why.
            let _ = stream.sink.send(stream.piece.into()).await;
        }
        let error = match stream.sink.as_mut().finish().await {
            Ok(count) => return Ok(count),
            Err(error) => error,
        };
        let server = error.as_db_error();
        let line = server.and_then(|server| copy_line(server, self.target.relation()));
        let before_rows = server.is_some() && line.is_none() && has_answered_early(client).await;
        Err(WriteError {
            record: line.and_then(|line| self.sent.get(line.checked_sub(1)?).copied()),
            before_rows,
            error,
        })
    }
}

/// Whether the server refused a COPY before it had read a byte of it, as a trigger for the
/// statement may: then it has answered twice, to the Sync behind Execute and to the one behind the
/// rows, and every further answer is that to the question before. In step it refuses the question,
/// because the transaction is aborted, or answers it.
async fn has_answered_early(client: &Client) -> bool {
    matches!(client.simple_query("SELECT 1").await, Ok(answer) if answer.is_empty())
}

impl Strategy for Copy {
    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>> {
        self.write_rows(client, rows).boxed()
    }

    fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }
}

/// A COPY under way.
struct Stream {
    sink: std::pin::Pin<Box<CopyInSink<Bytes>>>,
    piece: Vec<u8>,
    pulse: Pulse,
}

impl Stream {
    /// Sends the piece once it is large enough; false if the server has ended the COPY.
    #[inline]
    async fn send_if_full(&mut self) -> bool {
        if self.piece.len() < PIECE_BYTES {
            return true;
        }
        let piece = std::mem::replace(&mut self.piece, new_piece());
        let taken = self.sink.send(piece.into()).await.is_ok();
        self.pulse.beat();
        taken
    }
}

/// Room for a piece and most rows that go past its end.
fn new_piece() -> Vec<u8> {
    Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8)
}

/// Appends one row in COPY's text format.
#[inline]
pub(super) fn encode_text<'a>(fields: impl Iterator<Item = Option<&'a [u8]>>, out: &mut Vec<u8>) {
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
fn escape(text: &[u8], out: &mut Vec<u8>) {
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
        let mut out = Vec::new();
        let fields = [
            None,
            Some(&b""[..]),
            Some(b"a\tb\\N\r\n"),
            Some("é".as_bytes()),
        ];
        encode_text(fields.into_iter(), &mut out);
        assert_eq!(out, "\\N\t\ta\\tb\\\\N\\r\\n\té\n".as_bytes());
    }
}
