//! Imports whose rows are staged first: their staging tables, the rejects that the merge finds, and
//! what is noted when it is done.

use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use super::error::{LedgerError, refused};
use super::lease::Lease;
use super::rejects::storable;
use super::{Ledger, LedgerSource, begin, rejects, spans, unsigned};
use crate::outcome::{Outcome, Tally};
use crate::server_error;
use crate::strategy::Refusal;
use crate::target::{Order, Place, STATE, quote_name, unique_index};

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
    /// Whether its rows are fully stamped.
    pub full: bool,
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
        Some(name) => {
            let ready = begin_anew(&transaction, &name, request.full).await;
            ready.map_err(refused)?;
            name
        }
        None => {
            let name = quote_name(&staging_name(request.table_name));
            let name = format!("\"pgrung\".{name}");
            let create = (request.create)(&name);
            transaction.batch_execute(&create).await.map_err(|error| {
                match error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
                    true => LedgerError::Unusable(format!(
                        "this role may not make a staging table ({}): grant it CREATE on schema pgrung",
                        server_error::describe(&error)
                    )),
                    false => refused(error),
                }
            })?;
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

/// What is known of a part of a merge.
pub enum PartState {
    New,
    /// This run has merged it: the answer to its COMMIT may have been lost.
    Merged(Tally),
    /// An earlier run has: the table may have other rows now.
    MergedEarlier(Tally),
}

/// Makes a staging table ready for more rows: what an earlier run found out when it began to merge
/// was about fewer of them, and about the table as it was.
async fn begin_anew(
    transaction: &Transaction<'_>,
    name: &str,
    full: bool,
) -> Result<(), tokio_postgres::Error> {
    if full {
        let state = quote_name(STATE);
        let sql = format!("UPDATE {name} SET {state} = NULL WHERE {state} IS NOT NULL");
        transaction.batch_execute(&sql).await?;
    }
    let drop = format!("DROP INDEX IF EXISTS \"pgrung\".{}", unique_index(name));
    transaction.batch_execute(&drop).await?;
    transaction
        .execute(
            "WITH parts AS (UPDATE pgrung.merged_parts SET earlier = true WHERE staging = $1)
             UPDATE pgrung.merges SET dropped = NULL, dropped_earlier = dropped_earlier + coalesce(dropped, 0)
             WHERE staging = $1",
            &[&name],
        )
        .await
        .map(|_| ())
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
    pub async fn dropped(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(Option<u64>, u64), tokio_postgres::Error> {
        let sql = "INSERT INTO pgrung.merges AS m (staging) VALUES ($1)
                   ON CONFLICT (staging) DO UPDATE SET staging = m.staging RETURNING dropped, dropped_earlier";
        let row = transaction.query_one(sql, &[&self.table.name]).await?;
        let dropped = row.get::<_, Option<i64>>("dropped").map(unsigned);
        Ok((dropped, unsigned(row.get("dropped_earlier"))))
    }

    /// Notes how many this run has found.
    pub async fn note_dropped(
        &self,
        transaction: &Transaction<'_>,
        dropped: u64,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "UPDATE pgrung.merges SET dropped = $2 WHERE staging = $1";
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.table.name, &dropped.cast_signed()];
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
