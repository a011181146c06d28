//! Rejects: records that are no rows, or rows that the server refused, kept with their original
//! bytes so that they can be loaded again once the cause is mended.

use std::pin::pin;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::error::{LedgerError, refused};
use super::{Ledger, rejects, signed, unsigned};
use crate::batch::Batch;
use crate::reject_file::Reason;
use crate::strategy::Refused;
use crate::target::Target;

impl Ledger {
    /// Writes the refused records of a batch into the ledger, in the batch's own transaction.
    pub async fn reject(
        &self,
        client: &Client,
        target: &Target,
        batch: &Batch,
        refused: &Refused,
    ) -> Result<u64, tokio_postgres::Error> {
        let (mut starts, mut ends, mut records, mut lines) = (vec![], vec![], vec![], vec![]);
        let (mut states, mut columns, mut constraints) = (vec![], vec![], vec![]);
        let (mut messages, mut originals) = (vec![], vec![]);
        for (index, refusal) in refused.iter() {
            let range = batch.range(index);
            let position = batch.position(index);
            starts.push(signed(batch.start_byte + range.start as u64));
            ends.push(signed(batch.start_byte + range.end as u64));
            records.push(signed(position.record));
            lines.push(signed(position.line));
            states.push(refusal.sqlstate.as_str());
            columns.push(refusal.column_name(target));
            constraints.push(refusal.constraint.as_deref());
            messages.push(storable(&refusal.message));
            originals.push(batch.record(index));
        }
        let sql = format!(
            "INSERT INTO {} (import_id, source, start_byte, end_byte, record, line, sqlstate, column_name, constraint_name, message, original)
             SELECT $1, $2, * FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bytea[])",
            rejects(self.unlogged)
        );
        let source = self.source(batch);
        let parameters: [&(dyn ToSql + Sync); 11] = [
            &self.import_id,
            &source,
            &starts,
            &ends,
            &records,
            &lines,
            &states,
            &columns,
            &constraints,
            &messages,
            &originals,
        ];
        client.execute(&sql, &parameters).await
    }

    /// Shows the rejects that are not replayed to `look`, with their original bytes, in the order
    /// of the sources; waits `limit` for each answer.
    ///
    /// # Errors
    /// What the server says, or `look`.
    pub async fn each_open_reject<E: From<LedgerError>>(
        &self,
        client: &Client,
        limit: Duration,
        mut look: impl FnMut(&[u8], &Reason<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error| E::from(refused("exporting the rejects")(error));
        let sql = format!(
            "SELECT s.name, r.* FROM {} r JOIN pgrung.sources s USING (import_id, source)
             WHERE r.import_id = $1 AND r.replayed_at IS NULL
             ORDER BY r.source, r.start_byte",
            rejects(self.unlogged)
        );
        let import_id: &(dyn ToSql + Sync) = &self.import_id;
        let silent = |_| E::from(LedgerError::NoAnswer(limit));
        let asked = timeout(
            limit,
            client.query_typed_raw(&sql, [(import_id, Type::TEXT)]),
        )
        .await;
        let mut rows = pin!(asked.map_err(silent)?.map_err(failed)?);
        while let Some(row) = timeout(limit, rows.try_next())
            .await
            .map_err(silent)?
            .map_err(failed)?
        {
            let number = |column| unsigned(row.get(column));
            let reason = Reason {
                source: row.get("name"),
                record: number("record"),
                line: number("line"),
                start_byte: number("start_byte"),
                end_byte: number("end_byte"),
                sqlstate: row.get("sqlstate"),
                column: row.get("column_name"),
                constraint: row.get("constraint_name"),
                message: row.get("message"),
            };
            look(row.get("original"), &reason)?;
        }
        Ok(())
    }
}

/// A message can quote the row, and with it bytes that no text column takes.
pub(super) fn storable(message: &str) -> String {
    message.replace('\0', "\\0")
}
