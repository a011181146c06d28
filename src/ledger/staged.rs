//! Imports whose rows are staged first: their staging tables, the rejects that the merge finds, and
//! what is noted when it is done.

use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use super::error::{LedgerError, refused};
use super::lease::Lease;
use super::rejects::storable;
use super::{Ledger, LedgerSource, begin, rejects, spans, unsigned};
use crate::outcome::{Outcome, Tally};
use crate::strategy::Refusal;
use crate::target::{Order, Place, quote_name};

/// What a staging table is for.
pub struct StagingRequest<'a> {
    /// The lease of the job, which must not run twice at a time.
    pub lease: &'a Lease,
    /// Where its rows go.
    pub target: &'a Place,
    /// The name of that table, unquoted and without its schema.
    pub table_name: &'a str,
    /// What its rows are; of another shape, it is another table.
    pub shape: &'a Value,
    /// SQL that makes it, by its name.
    pub create: &'a (dyn Fn(&str) -> String + Sync),
}

/// The staging table of a job, quoted: the one that an unfinished run has left, if it has this
/// shape, else a new one. Those of another shape are dropped.
///
/// # Errors
/// What the server says.
pub async fn staging(
    client: &mut Client,
    request: &StagingRequest<'_>,
    anew: bool,
) -> Result<String, LedgerError> {
    let refused = refused("making the staging table");
    let transaction = begin(client).await.map_err(refused)?;
    let job = request.lease.job();
    if !request.lease.hold(&transaction).await.map_err(refused)? {
        return Err(LedgerError::TakenOver(job.to_string()));
    }
    let left = transaction
        .query(
            "SELECT staging, target_oid = $2 AND shape = $3 AS fits, to_regclass(staging) IS NOT NULL AS there
             FROM pgrung.stagings WHERE job = $1 ORDER BY made_at DESC FOR UPDATE",
            &[&job, &request.target.oid, &request.shape],
        )
        .await
        .map_err(refused)?;
    let mut found = None;
    for row in left {
        let name: String = row.get("staging");
        if found.is_none() && !anew && row.get("fits") && row.get("there") {
            found = Some(name);
        } else {
            drop_staging(&transaction, &name).await.map_err(refused)?;
        }
    }
    let name = match found {
        Some(name) => name,
        None => {
            let name = quote_name(&staging_name(request.table_name));
            let name = format!("\"pgrung\".{name}");
            let create = (request.create)(&name);
            transaction.batch_execute(&create).await.map_err(refused)?;
            transaction
                .execute(
                    "INSERT INTO pgrung.stagings (staging, job, target, target_oid, shape) VALUES ($1, $2, $3, $4, $5)",
                    &[&name, &job, &request.target.name, &request.target.oid, &request.shape],
                )
                .await
                .map_err(refused)?;
            name
        }
    };
    transaction.commit().await.map_err(refused)?;
    Ok(name)
}

/// A name that tells in messages of the server whose rows are staged; names have 63 bytes.
fn staging_name(table: &str) -> String {
    let mut end = table.len().min(40);
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_staging_{:08x}", &table[..end], fastrand::u32(..))
}

/// Drops a staging table, with all that is known of its rows.
pub(super) async fn drop_staging(
    transaction: &Transaction<'_>,
    name: &str,
) -> Result<(), tokio_postgres::Error> {
    transaction
        .execute(
            "DELETE FROM pgrung.imports i USING pgrung.stagings s
             WHERE s.staging = $1 AND i.import_id = s.import_id AND i.finished_at IS NULL",
            &[&name],
        )
        .await?;
    transaction
        .execute("DELETE FROM pgrung.stagings WHERE staging = $1", &[&name])
        .await?;
    transaction
        .batch_execute(&format!("DROP TABLE IF EXISTS {name}"))
        .await
}

/// Forgets a finished import of the name that a run of another mode than append is given: the name
/// is that of the nightly job.
///
/// # Errors
/// What the server says.
pub async fn forget_finished(client: &Client, import_id: &str) -> Result<(), LedgerError> {
    let sql = "DELETE FROM pgrung.imports WHERE import_id = $1 AND finished_at IS NOT NULL AND mode <> 'append'";
    let forgotten = client.execute_typed(sql, &[(&import_id, Type::TEXT)]).await;
    forgotten
        .map(|_| ())
        .map_err(refused("forgetting the import of the last run"))
}

impl Ledger {
    /// Whether the staging table holds rows of the sources of this run and of no others, and each has
    /// the number of its place: the order of staged records is made of it. Notes whose it is.
    pub async fn owns(&self, client: &Client, mode: &str) -> Result<bool, tokio_postgres::Error> {
        let in_order = (0..)
            .zip(&self.sources)
            .all(|(number, source)| source.number == number);
        if !in_order || !self.is_one() {
            return Ok(false);
        }
        let sql = "SELECT count(*) AS others FROM pgrung.sources s JOIN pgrung.imports i USING (import_id)
                   WHERE i.target_oid = $1 AND (i.import_id <> $2 OR s.source >= $3)";
        let count = i32::try_from(self.sources.len()).unwrap_or(i32::MAX);
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.table.oid, Type::OID),
            (&self.import_id, Type::TEXT),
            (&count, Type::INT4),
        ];
        if client
            .query_typed_one(sql, &parameters)
            .await?
            .get::<_, i64>("others")
            > 0
        {
            return Ok(false);
        }
        let sql = "WITH staging AS (UPDATE pgrung.stagings SET import_id = $1 WHERE staging = $2)
                   UPDATE pgrung.imports SET mode = $3 WHERE import_id = $1";
        let parameters: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.import_id, Type::TEXT),
            (&self.table.name, Type::TEXT),
            (&mode, Type::TEXT),
        ];
        client.execute_typed(sql, &parameters).await?;
        Ok(true)
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
             SELECT $1, $2, s.\"pgrung.start_byte\", s.\"pgrung.start_byte\" + length(s.\"pgrung.original\"), $3, s.\"pgrung.line\",
                    $4, $5, $6, $7, s.\"pgrung.original\"
             FROM {staging} s WHERE s.\"pgrung.order\" = $8
             RETURNING line",
            rejects(self.unlogged)
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

    /// Part of a statement: keeps the staged records in `losers`, each with its winner, as rejects.
    pub fn keep_losers(&self, staging: &str) -> String {
        let import_id = self.import_id.replace('\'', "''");
        format!(
            "kept AS (
                 INSERT INTO {} (import_id, source, start_byte, end_byte, record, line, sqlstate, message, original)
                 SELECT '{import_id}', (s.\"pgrung.order\" >> 40)::int, s.\"pgrung.start_byte\",
                        s.\"pgrung.start_byte\" + length(s.\"pgrung.original\"), s.\"pgrung.order\" & ((1::bigint << 40) - 1),
                        s.\"pgrung.line\", '{SUPERSEDED}',
                        format('superseded by record %s of %s', losers.winner & ((1::bigint << 40) - 1), w.name),
                        s.\"pgrung.original\"
                 FROM losers JOIN {staging} s ON s.\"pgrung.order\" = losers.lost
                 LEFT JOIN pgrung.sources w ON w.import_id = '{import_id}' AND w.source = (losers.winner >> 40)::int)",
            rejects(self.unlogged)
        )
    }

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
            let fence = "SELECT 1 FROM pgrung.sources WHERE import_id = $1 AND source = $2 AND epoch = $3 FOR SHARE";
            let ours = transaction
                .query_opt(fence, &[&source.import_id, &source.number, &source.epoch])
                .await?;
            if ours.is_none() {
                return Err(LedgerError::TakenOver(self.import_id.clone()));
            }
        }
        let found = self.records(transaction).await?;
        match records.checked_sub(found) {
            None | Some(0) => Ok(None),
            Some(lost) => Err(LedgerError::Lost {
                lost,
                read: records,
            }),
        }
    }

    /// The bounds of the parts into which an earlier run has divided the merge.
    pub async fn bounds(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<Option<Vec<String>>, tokio_postgres::Error> {
        let sql = "SELECT bounds FROM pgrung.stagings WHERE staging = $1";
        Ok(transaction
            .query_one(sql, &[&self.table.name])
            .await?
            .get("bounds"))
    }

    /// Divides the merge into parts between these bounds.
    pub async fn divide(
        &self,
        transaction: &Transaction<'_>,
        bounds: &[String],
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "UPDATE pgrung.stagings SET bounds = $2 WHERE staging = $1";
        transaction
            .execute(sql, &[&self.table.name, &bounds])
            .await
            .map(|_| ())
    }

    /// How many records have lost to another one of their key, if that was found out.
    pub async fn dropped(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<Option<u64>, tokio_postgres::Error> {
        let sql = "SELECT dropped FROM pgrung.stagings WHERE staging = $1 FOR UPDATE";
        let row = transaction.query_one(sql, &[&self.table.name]).await?;
        Ok(row.get::<_, Option<i64>>("dropped").map(unsigned))
    }

    /// Notes how many.
    pub async fn note_dropped(
        &self,
        transaction: &Transaction<'_>,
        dropped: u64,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "UPDATE pgrung.stagings SET dropped = $2 WHERE staging = $1";
        transaction
            .execute(sql, &[&self.table.name, &dropped.cast_signed()])
            .await
            .map(|_| ())
    }

    /// Whether a part is merged already, and what that did. Else locks out newer runs until the end of
    /// the transaction.
    ///
    /// # Errors
    /// When a newer run has taken over, and what the server says.
    pub async fn begin_part(
        &self,
        transaction: &Transaction<'_>,
        part: i32,
    ) -> Result<Option<(Tally, u64)>, LedgerError> {
        let fence = "SELECT 1 FROM pgrung.sources WHERE import_id = $1 AND source = $2 AND epoch = $3 FOR SHARE";
        if let Some(LedgerSource {
            import_id,
            number,
            epoch,
        }) = self.sources.first()
            && transaction
                .query_opt(fence, &[import_id, number, epoch])
                .await?
                .is_none()
        {
            return Err(LedgerError::TakenOver(self.import_id.clone()));
        }
        let sql = "SELECT merged FROM pgrung.merged_parts WHERE staging = $1 AND part = $2";
        let row = transaction
            .query_opt(sql, &[&self.table.name, &part])
            .await?;
        Ok(row.map(|row| of_json(&row.get("merged"))))
    }

    /// Notes that a part is merged.
    pub async fn finish_part(
        &self,
        transaction: &Transaction<'_>,
        part: i32,
        (tally, deleted): (Tally, u64),
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "INSERT INTO pgrung.merged_parts (staging, part, merged) VALUES ($1, $2, $3)";
        let merged = json(tally, deleted);
        transaction
            .execute(sql, &[&self.table.name, &part, &merged])
            .await
            .map(|_| ())
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
                     WHERE target_oid = $1 AND import_id <> $2 AND replaced_at IS NULL RETURNING import_id, finished_at)
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

    /// Drops the staging table and forgets the import: a guard has stopped it.
    ///
    /// # Errors
    /// What the server says.
    pub async fn abandon(&self, client: &mut Client) -> Result<(), tokio_postgres::Error> {
        let transaction = begin(client).await?;
        drop_staging(&transaction, &self.table.name).await?;
        transaction.commit().await
    }
}

/// The code of a record that another one of its key has superseded; no server's.
pub const SUPERSEDED: &str = "PGR01";

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
