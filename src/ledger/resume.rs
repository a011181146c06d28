//! Takes an import up again for batches that an earlier run left on disk.

use tokio_postgres::Client;

use super::Ledger;
use super::error::LedgerError;
use crate::queue::Identity;
use crate::target::Place;

/// An import taken up again without its sources.
pub struct Resumed {
    pub ledger: Ledger,
    /// Names of the columns in the order of the fields.
    pub columns: Vec<String>,
}

/// Takes up the import of batches that an earlier run left on disk.
///
/// # Errors
/// When the ledger does not know it, and what the server says.
pub async fn resume(client: &mut Client, identity: &Identity) -> Result<Resumed, LedgerError> {
    let transaction = client.transaction().await?;
    let row = transaction
        .query_opt(
            "UPDATE pgrung.imports SET epoch = epoch + 1, run_at = now() WHERE import_id = $1
             RETURNING epoch, columns, target_oid, target_filenode, target_unlogged",
            &[&identity.import_id],
        )
        .await?
        .ok_or_else(|| {
            LedgerError::Unusable(format!(
                "the spill holds batches of import {}, which the ledger of this database does not know: load them where they belong, or remove the files",
                identity.import_id
            ))
        })?;
    let epoch: i64 = row.get("epoch");
    transaction
        .execute(
            "UPDATE pgrung.sources SET epoch = $2 WHERE import_id = $1",
            &[&identity.import_id, &epoch],
        )
        .await?;
    transaction.commit().await?;
    Ok(Resumed {
        ledger: Ledger {
            import_id: identity.import_id.clone(),
            epoch,
            // Spilling needs a ledger, so every source has its number.
            sources: identity
                .sources
                .iter()
                .map(|source| source.ledger_source.unwrap_or(-1))
                .collect(),
            mergeable: Vec::new(),
            unlogged: row.get("target_unlogged"),
            table: Place {
                name: identity.table.clone(),
                oid: row.get("target_oid"),
                filenode: row.get("target_filenode"),
                unlogged: row.get("target_unlogged"),
            },
        },
        columns: row.get("columns"),
    })
}
