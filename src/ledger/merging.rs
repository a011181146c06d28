//! What is noted of a merge: how far it has come, part by part, and that it is done.

use serde_json::Value;
use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::error::LedgerError;
use super::{Ledger, rejects, spans, unsigned};
use crate::outcome::{Outcome, Tally};
use crate::target::Place;

/// What is known of a part of a merge.
pub enum PartState {
    New,
    /// This run has merged it: the answer to its COMMIT may have been lost.
    Merged(Tally),
    /// An earlier run has: the table may have other rows now.
    MergedEarlier(Tally),
}

impl Ledger {
    /// Whether the merge was done already, and what it did: the answer to its COMMIT may have been
    /// lost. Else locks out newer runs until the end of the transaction.
    ///
    /// # Errors
    /// When a newer run has taken over, rows are lost, and what the server says.
    pub async fn begin_merge(
        &self,
        transaction: &Transaction<'_>,
        records: u64,
    ) -> Result<Option<(Tally, u64)>, LedgerError> {
        let imports = "SELECT merged FROM pgrung.imports WHERE import_id = $1 FOR UPDATE";
        let row = transaction.query_opt(imports, &[&self.import_id]).await?;
        let Some(row) = row else {
            return Err(LedgerError::TakenOver(self.import_id.clone()));
        };
        if let Some(merged) = row.get::<_, Option<Value>>("merged") {
            return Ok(Some(of_json(&merged)));
        }
        for source in &self.sources {
            if !source.is_ours(transaction).await? {
                return Err(LedgerError::TakenOver(self.import_id.clone()));
            }
        }
        self.check_staged(transaction, records).await?;
        Ok(None)
    }

    /// The bounds of the parts into which the merge is divided, if it is.
    pub async fn bounds(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<Option<Vec<String>>, tokio_postgres::Error> {
        let sql = "SELECT bounds FROM pgrung.merges WHERE staging = $1";
        let row = transaction.query_opt(sql, &[&self.table.name]).await?;
        Ok(row.and_then(|row| row.get("bounds")))
    }

    /// Divides the merge into parts between these bounds.
    pub async fn divide(
        &self,
        transaction: &Transaction<'_>,
        bounds: &[String],
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "INSERT INTO pgrung.merges (staging, bounds) VALUES ($1, $2)
                   ON CONFLICT (staging) DO UPDATE SET bounds = excluded.bounds";
        let divided = transaction.execute(sql, &[&self.table.name, &bounds]).await;
        divided.map(|_| ())
    }

    /// How many records have lost to another one of their key: in this run, if it has looked for them,
    /// and in earlier ones. Nobody else looks for them until the end of the transaction.
    pub async fn losers(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(Option<u64>, u64), tokio_postgres::Error> {
        let sql = "INSERT INTO pgrung.merges AS m (staging) VALUES ($1)
                   ON CONFLICT (staging) DO UPDATE SET staging = m.staging RETURNING losers, losers_earlier";
        let row = transaction.query_one(sql, &[&self.table.name]).await?;
        let losers = row.get::<_, Option<i64>>("losers").map(unsigned);
        Ok((losers, unsigned(row.get("losers_earlier"))))
    }

    /// Notes how many this run has found.
    pub async fn note_losers(
        &self,
        transaction: &Transaction<'_>,
        losers: u64,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "UPDATE pgrung.merges SET losers = $2 WHERE staging = $1";
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.table.name, &losers.cast_signed()];
        transaction.execute(sql, &parameters).await.map(|_| ())
    }

    /// What is known of a part. Locks out newer runs until the end of the transaction.
    ///
    /// # Errors
    /// When a newer run has taken over, staged rows are lost, and what the server says.
    pub async fn begin_part(
        &self,
        transaction: &Transaction<'_>,
        part: i32,
        records: u64,
    ) -> Result<PartState, LedgerError> {
        if let Some(source) = self.sources.first()
            && !source.is_ours(transaction).await?
        {
            return Err(LedgerError::TakenOver(self.import_id.clone()));
        }
        self.check_staged(transaction, records).await?;
        let sql =
            "SELECT merged, earlier FROM pgrung.merged_parts WHERE staging = $1 AND part = $2";
        let row = transaction
            .query_opt(sql, &[&self.table.name, &part])
            .await?;
        Ok(match row {
            None => PartState::New,
            Some(row) => {
                let (tally, _) = of_json(&row.get("merged"));
                match row.get("earlier") {
                    true => PartState::MergedEarlier(tally),
                    false => PartState::Merged(tally),
                }
            }
        })
    }

    /// Whether all records that were staged, or put aside, still are.
    async fn check_staged(
        &self,
        transaction: &Transaction<'_>,
        records: u64,
    ) -> Result<(), LedgerError> {
        let found = self.records(transaction).await?;
        match records.checked_sub(found) {
            None | Some(0) => Ok(()),
            Some(lost) => Err(LedgerError::Lost {
                lost,
                read: records,
            }),
        }
    }

    /// Notes that a part is merged.
    pub async fn finish_part(
        &self,
        transaction: &Transaction<'_>,
        part: i32,
        tally: Tally,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "INSERT INTO pgrung.merged_parts (staging, part, merged) VALUES ($1, $2, $3)
                   ON CONFLICT (staging, part) DO UPDATE SET merged = excluded.merged, earlier = false";
        let merged = json(tally, 0);
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.table.name, &part, &merged];
        transaction.execute(sql, &parameters).await.map(|_| ())
    }

    /// Staged rows that earlier runs have put aside when they merged parts.
    pub async fn rejected_earlier(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<u64, tokio_postgres::Error> {
        let sql = "SELECT merged FROM pgrung.merged_parts WHERE staging = $1";
        let rows = transaction.query(sql, &[&self.table.name]).await?;
        let rejected = |row: &tokio_postgres::Row| of_json(&row.get("merged")).0[Outcome::Rejected];
        Ok(rows.iter().map(rejected).sum())
    }

    /// Notes that no other import of the table has rows in it any more, and keeps runs of them from
    /// committing more.
    pub async fn replace_others(
        &self,
        transaction: &Transaction<'_>,
        target: &Place,
    ) -> Result<(), tokio_postgres::Error> {
        transaction
            .execute(
                "WITH replaced AS (
                     UPDATE pgrung.imports SET replaced_at = now()
                     WHERE target_oid IN (WITH RECURSIVE tree AS (SELECT $1::oid AS oid UNION SELECT h.inhrelid
                                            FROM pg_inherits h JOIN tree ON tree.oid = h.inhparent) SELECT oid FROM tree)
                       AND import_id <> $2 AND replaced_at IS NULL RETURNING import_id, finished_at)
                 UPDATE pgrung.sources s SET epoch = s.epoch + 1 FROM replaced r
                 WHERE s.import_id = r.import_id AND r.finished_at IS NULL",
                &[&target.oid, &self.import_id],
            )
            .await
            .map(|_| ())
    }

    /// Closes the import in the transaction that has merged its rows, and drops their staging table.
    pub async fn finish_merge(
        &self,
        transaction: &Transaction<'_>,
        target: &Place,
        (tally, deleted): (Tally, u64),
    ) -> Result<(), tokio_postgres::Error> {
        if self.unlogged {
            // What is put aside outlives a crash that empties what is unlogged.
            let columns = "import_id, source, start_byte, end_byte, record, line, sqlstate, column_name, constraint_name, message, original, rejected_at";
            let moved = format!(
                "WITH gone AS (DELETE FROM {} WHERE import_id = $1 RETURNING *)
                 INSERT INTO {} ({columns}) SELECT {columns} FROM gone ORDER BY reject_id",
                rejects(true),
                rejects(false),
            );
            transaction.execute(&moved, &[&self.import_id]).await?;
        }
        let spans = format!(
            "WITH gone AS (DELETE FROM {} WHERE import_id = $1 RETURNING source, end_byte - start_byte AS bytes)
             UPDATE pgrung.sources s
             SET finished_at = now(), bytes = (SELECT coalesce(sum(bytes), 0) FROM gone WHERE gone.source = s.source)
             WHERE import_id = $1",
            spans(self.unlogged)
        );
        transaction.execute(&spans, &[&self.import_id]).await?;
        transaction
            .execute(
                "UPDATE pgrung.imports SET finished_at = now(), merged = $2, target = $3, target_oid = $4,
                                           target_filenode = $5, target_unlogged = false
                 WHERE import_id = $1",
                &[&self.import_id, &json(tally, deleted), &target.name, &target.oid, &target.filenode],
            )
            .await?;
        let staging = &self.table.name;
        transaction
            .execute("DELETE FROM pgrung.stagings WHERE staging = $1", &[staging])
            .await?;
        transaction
            .batch_execute(&format!("DROP TABLE {staging}"))
            .await
    }
}

fn json(tally: Tally, deleted: u64) -> Value {
    let counts = tally
        .iter()
        .map(|(outcome, rows)| (outcome.name().to_string(), rows.into()));
    let deleted = ("deleted".to_string(), deleted.into());
    Value::Object(counts.chain([deleted]).collect())
}

fn of_json(merged: &Value) -> (Tally, u64) {
    let number = |name: &str| merged.get(name).and_then(Value::as_u64).unwrap_or(0);
    let count = |tally: Tally, outcome: &Outcome| tally.and(*outcome, number(outcome.name()));
    let tally = Outcome::ALL.iter().fold(Tally::default(), count);
    (tally, number("deleted"))
}
