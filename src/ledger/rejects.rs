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
use crate::strategy::{Refusal, Refused};
use crate::target::{Order, Stamp, Target, quote_name};

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
            &source.import_id,
            &source.number,
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

    /// Puts a staged row aside that the table refuses; the line on which its record begins.
    pub async fn reject_staged(
        &self,
        client: &Client,
        staging: &str,
        order: Order,
        refusal: &Refusal,
    ) -> Result<u64, tokio_postgres::Error> {
        let sql = format!(
            "INSERT INTO {} (import_id, source, start_byte, end_byte, record, line, sqlstate, column_name, constraint_name, message, original)
             SELECT $1, $2, s.{start}, s.{start} + length(s.{original}), $3, s.{line}, $4, $5, $6, $7, s.{original}
             FROM {staging} s WHERE s.{order} = $8
             RETURNING line",
            rejects(self.unlogged),
            order = quote_name(Order::COLUMN),
            line = quote_name(Stamp::LINE),
            start = quote_name(Stamp::START_BYTE),
            original = quote_name(Stamp::ORIGINAL),
        );
        let message = storable(&refusal.message);
        let (source, record) = (order.source(), order.record().cast_signed());
        let row = client
            .query_typed_one(
                &sql,
                &[
                    (&self.import_id, Type::TEXT),
                    (&source, Type::INT4),
                    (&record, Type::INT8),
                    (&refusal.sqlstate, Type::TEXT),
                    (&refusal.column, Type::TEXT),
                    (&refusal.constraint, Type::TEXT),
                    (&message, Type::TEXT),
                    (&order.0, Type::INT8),
                ],
            )
            .await?;
        Ok(unsigned(row.get("line")))
    }

    /// Keeps staged records with the rejects that have lost to another one of their key; `lost_to` is a
    /// query of their orders, `lost`, and that of each one's `winner`.
    pub async fn keep_losers(
        &self,
        client: &Client,
        staging: &str,
        lost_to: &str,
    ) -> Result<u64, tokio_postgres::Error> {
        let sql = format!(
            "INSERT INTO {} (import_id, source, start_byte, end_byte, record, line, sqlstate, message, original)
             SELECT $1, {source}, s.{start}, s.{start} + length(s.{original}), {record}, s.{line}, '{SUPERSEDED}',
                    format('superseded by record %s of %s', {winner}, w.name), s.{original}
             FROM ({lost_to}) losers JOIN {staging} s ON s.{order} = losers.lost
             LEFT JOIN pgrung.sources w ON w.import_id = $1 AND w.source = {winners}",
            rejects(self.unlogged),
            source = Order::source_of("losers.lost"),
            record = Order::record_of("losers.lost"),
            winner = Order::record_of("losers.winner"),
            winners = Order::source_of("losers.winner"),
            order = quote_name(Order::COLUMN),
            line = quote_name(Stamp::LINE),
            start = quote_name(Stamp::START_BYTE),
            original = quote_name(Stamp::ORIGINAL),
        );
        client
            .execute_typed(&sql, &[(&self.import_id, Type::TEXT)])
            .await
    }

    /// Takes back the first records of the first source, which are all rejects: they are as if never
    /// read. Nothing happens if a newer run has taken over, or if one of them is loaded.
    pub async fn withdraw(
        &self,
        client: &Client,
        records: u64,
    ) -> Result<u64, tokio_postgres::Error> {
        let sql = format!(
            "WITH ours AS (
                 SELECT import_id, source FROM pgrung.sources
                 WHERE import_id = $1 AND source = $2 AND epoch = $3 FOR SHARE
             ), spans AS (
                 DELETE FROM {spans} p USING ours
                 WHERE p.import_id = ours.import_id AND p.source = ours.source
                   AND p.first_record <= $4 AND p.rejected = p.records
             )
             DELETE FROM {rejects} r USING ours
             WHERE r.import_id = ours.import_id AND r.source = ours.source AND r.record <= $4",
            spans = self.spans(),
            rejects = rejects(self.unlogged),
        );
        let Some(first) = self.sources.first() else {
            return Ok(0);
        };
        let records = signed(records);
        let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
            (&first.import_id, Type::TEXT),
            (&first.number, Type::INT4),
            (&first.epoch, Type::INT8),
            (&records, Type::INT8),
        ];
        client.execute_typed(&sql, &parameters).await
    }

    /// The rejects of the sources of this run that are not replayed.
    pub fn open_rejects(&self) -> OpenRejects<'_> {
        let (imports, sources) = self.keys();
        OpenRejects {
            imports,
            sources: Some(sources),
            unlogged: self.unlogged,
        }
    }
}

/// The code of a record that another one of its key has superseded; no server's.
pub const SUPERSEDED: &str = "PGR01";

/// Rejects that are not replayed.
pub struct OpenRejects<'a> {
    pub(super) imports: Vec<&'a str>,
    /// Numbers of the sources, one for each of `imports`; `None`: all.
    pub(super) sources: Option<Vec<i32>>,
    pub(super) unlogged: bool,
}

impl OpenRejects<'_> {
    /// Shows each of them to `look`, with its original bytes, in the order of the sources; waits
    /// `limit` for each answer.
    ///
    /// # Errors
    /// What the server says, or `look`.
    pub async fn each<E: From<LedgerError>>(
        &self,
        client: &Client,
        limit: Duration,
        mut look: impl FnMut(&[u8], &Reason<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let failed = |error| E::from(refused("reading the rejects")(error));
        let sql = format!(
            "SELECT s.name, r.*
             FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS mine (import_id, source, place)
             JOIN pgrung.sources s ON s.import_id = mine.import_id AND s.source = coalesce(mine.source, s.source)
             JOIN {} r ON r.import_id = s.import_id AND r.source = s.source
             WHERE r.replayed_at IS NULL
             ORDER BY mine.place, r.source, r.start_byte",
            rejects(self.unlogged)
        );
        let keys: [(&(dyn ToSql + Sync), Type); 2] = [
            (&self.imports, Type::TEXT_ARRAY),
            (&self.sources, Type::INT4_ARRAY),
        ];
        let silent = |_| E::from(LedgerError::NoAnswer(limit));
        let asked = timeout(limit, client.query_typed_raw(&sql, keys)).await;
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
