//! Staging tables: made for a job, found again after a run that did not finish, dropped.

use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};

use super::error::{LedgerError, refused};
use super::lease::Lease;
use super::{Ledger, begin};
use crate::server_error;
use crate::target::{Place, STATE, quote_name, unique_index};

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
             UPDATE pgrung.merges SET losers = NULL, losers_earlier = losers_earlier + coalesce(losers, 0)
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
    /// Forgets the imports of a mode other than append to which the sources of this run belong.
    ///
    /// # Errors
    /// What the server says.
    pub async fn forget_merged(&self, client: &Client) -> Result<(), LedgerError> {
        let sql = "DELETE FROM pgrung.imports WHERE import_id = ANY ($1) AND mode <> 'append'";
        let imports = self.keys().0;
        let forgotten = client
            .execute_typed(sql, &[(&imports, Type::TEXT_ARRAY)])
            .await;
        forgotten
            .map(|_| ())
            .map_err(refused("forgetting the import of the last run"))
    }

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
