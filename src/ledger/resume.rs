//! Takes imports up again for batches that an earlier run left on disk.

use tokio_postgres::Client;

use super::error::LedgerError;
use super::known::spans_of;
use super::{Ledger, LedgerSource, begin};
use crate::queue::Identity;
use crate::span::Known;
use crate::target::Place;

/// An import taken up again without its sources.
pub struct Resumed {
    pub ledger: Ledger,
    /// What is committed already, source by source.
    pub known: Vec<Known>,
    /// Names of the columns in the order of the fields.
    pub columns: Vec<String>,
}

/// Takes up the imports of batches that an earlier run left on disk.
///
/// # Errors
/// When the ledger does not know them, and what the server says.
pub async fn resume(client: &mut Client, identity: &Identity) -> Result<Resumed, LedgerError> {
    let transaction = begin(client).await?;
    let unknown = || {
        LedgerError::Unusable(format!(
            "the spill holds batches of import {}, which the ledger of this database does not know: load them where they belong, or remove the files",
            identity.import_id
        ))
    };
    let row = transaction
        .query_opt(
            "SELECT columns, target_oid, target_filenode, target_unlogged
             FROM pgrung.imports WHERE import_id = $1",
            &[&identity.import_id],
        )
        .await?
        .ok_or_else(unknown)?;
    let (unlogged, columns) = (row.get("target_unlogged"), row.get("columns"));
    let table = Place {
        name: identity.table.clone(),
        oid: row.get("target_oid"),
        filenode: row.get("target_filenode"),
        unlogged,
    };
    // It keeps its statement, which is to be gone before the transaction is.
    drop(row);
    let mut imports: Vec<&str> = identity
        .sources
        .iter()
        .map(|it| it.import_id.as_str())
        .collect();
    // In one order, whoever comes.
    imports.sort_unstable();
    imports.dedup();
    for import_id in imports {
        transaction
            .execute(
                "UPDATE pgrung.imports SET epoch = epoch + 1, run_at = now() WHERE import_id = $1",
                &[&import_id],
            )
            .await?;
    }
    let mut sources = Vec::new();
    let mut known = Vec::new();
    for source in &identity.sources {
        let row = transaction
            .query_opt(
                "UPDATE pgrung.sources s SET epoch = i.epoch FROM pgrung.imports i
                 WHERE i.import_id = $1 AND s.import_id = $1 AND s.source = $2 RETURNING s.epoch",
                &[&source.import_id, &source.number],
            )
            .await?
            .ok_or_else(unknown)?;
        let source = LedgerSource {
            import_id: source.import_id.clone(),
            number: source.number,
            epoch: row.get("epoch"),
        };
        known.push(spans_of(&transaction, &source, unlogged).await?);
        sources.push(source);
    }
    transaction.commit().await?;
    Ok(Resumed {
        ledger: Ledger {
            import_id: identity.import_id.clone(),
            sources,
            unlogged,
            table,
        },
        known,
        columns,
    })
}
