//! Removes from the ledger what is old and no later load needs.

use std::time::Duration;

use tokio_postgres::Client;

use super::begin;
use super::error::{LedgerError, refused};
use super::staging::drop_staging;
use super::{rejects, unsigned};

/// What was removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub imports: u64,
    pub rejects: u64,
    /// Tables with rows of unfinished imports.
    pub stagings: u64,
    /// Old imports that stay: by them the files that they have loaded are known.
    pub kept: u64,
}

/// Imports of which nothing new was heard since $1 seconds, and whether each may go: nothing that it
/// knows keeps a row from being loaded twice.
const OLD: &str = "
SELECT i.import_id, g.staging,
       i.mode <> 'append' OR i.replaced_at IS NOT NULL
         OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = i.target_oid)
         OR NOT EXISTS (SELECT FROM pgrung.spans p WHERE p.import_id = i.import_id)
            AND NOT EXISTS (SELECT FROM pgrung.unlogged_spans p WHERE p.import_id = i.import_id) AS may_go
FROM pgrung.imports i LEFT JOIN pgrung.stagings g USING (import_id)
WHERE greatest(i.run_at, i.finished_at, i.replaced_at) < now() - make_interval(secs => $1)
  AND NOT EXISTS (SELECT FROM pgrung.leases l WHERE l.job = i.job AND l.renewed_at > now() - interval '1 minute')";

/// Removes what is older than `age`: imports, but those of append whose rows are in their table, with
/// their staging tables; and rejects. `dry`: only counts them.
///
/// # Errors
/// What the server says.
pub async fn prune(client: &mut Client, age: Duration, dry: bool) -> Result<Pruned, LedgerError> {
    let refused = refused("pruning the ledger");
    let seconds = age.as_secs_f64();
    let transaction = begin(client).await.map_err(refused)?;
    let mut pruned = Pruned::default();
    let old = transaction.query(OLD, &[&seconds]).await.map_err(refused)?;
    let mut gone: Vec<&str> = Vec::new();
    for row in &old {
        if !row.get::<_, bool>("may_go") {
            pruned.kept += 1;
            continue;
        }
        gone.push(row.get("import_id"));
        if let Some(staging) = row.get::<_, Option<&str>>("staging") {
            drop_staging(&transaction, staging).await.map_err(refused)?;
            pruned.stagings += 1;
        }
    }
    // A run may have died before it had an import.
    let orphans = "SELECT staging FROM pgrung.stagings s
                   WHERE import_id IS NULL AND made_at < now() - make_interval(secs => $1)
                     AND NOT EXISTS (SELECT FROM pgrung.leases l WHERE l.job = s.job AND l.renewed_at > now() - interval '1 minute')";
    let orphans = transaction
        .query(orphans, &[&seconds])
        .await
        .map_err(refused)?;
    for row in orphans {
        drop_staging(&transaction, row.get("staging"))
            .await
            .map_err(refused)?;
        pruned.stagings += 1;
    }
    pruned.imports = gone.len() as u64;
    for rejects in [rejects(false), rejects(true)] {
        let sql = format!(
            "WITH gone AS (
                 DELETE FROM {rejects} r USING pgrung.imports i
                 WHERE i.import_id = r.import_id
                   AND (i.import_id = ANY ($2)
                        OR i.finished_at IS NOT NULL AND coalesce(r.replayed_at, r.rejected_at) < now() - make_interval(secs => $1))
                 RETURNING 1)
             SELECT count(*) AS rejects FROM gone"
        );
        let row = transaction
            .query_one(&sql, &[&seconds, &gone])
            .await
            .map_err(refused)?;
        pruned.rejects += unsigned(row.get("rejects"));
    }
    let imports = "DELETE FROM pgrung.imports WHERE import_id = ANY ($1)";
    transaction
        .execute(imports, &[&gone])
        .await
        .map_err(refused)?;
    let leases = "DELETE FROM pgrung.leases WHERE renewed_at = '-infinity' AND since < now() - make_interval(secs => $1)";
    transaction
        .execute(leases, &[&seconds])
        .await
        .map_err(refused)?;
    // The rows keep their statement, which is to be gone before the transaction is.
    drop(gone);
    drop(old);
    match dry {
        true => transaction.rollback().await,
        false => transaction.commit().await,
    }
    .map_err(refused)?;
    Ok(pruned)
}
