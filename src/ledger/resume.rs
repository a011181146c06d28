//! Takes imports up again for batches that an earlier run left on disk.

use tokio_postgres::{Client, Transaction};

use super::error::LedgerError;
use super::known::spans_of;
use super::request::maps_of;
use super::{Ledger, LedgerSource, begin, spans};
use crate::queue::Identity;
use crate::span::Known;
use crate::target::{Map, Place};

/// An import taken up again without its sources.
pub struct Resumed {
    pub ledger: Ledger,
    /// What is committed already, source by source; `None` of one that was forgotten.
    pub known: Vec<Option<Known>>,
    /// Names of the fields in their order.
    pub columns: Vec<String>,
    /// The expressions that they go through.
    pub maps: Vec<Map>,
}

/// Takes up the imports of batches that an earlier run left on disk; `None` if the ledger does not
/// know theirs.
///
/// # Errors
/// When rows of them may be in the table under another name, and what the server says.
pub async fn resume(
    client: &mut Client,
    identity: &Identity,
) -> Result<Option<Resumed>, LedgerError> {
    let transaction = begin(client).await?;
    let row = transaction
        .query_opt(
            "SELECT columns, maps, target_oid, target_filenode, target_unlogged
             FROM pgrung.imports WHERE import_id = $1",
            &[&identity.import_id],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let (unlogged, columns) = (row.get("target_unlogged"), row.get("columns"));
    let maps = maps_of(&identity.import_id, &row)?;
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
            .await?;
        let is_known = row.is_some();
        let resumed = LedgerSource {
            import_id: source.import_id.clone(),
            number: source.number,
            epoch: row.map_or(0, |row| row.get("epoch")),
        };
        known.push(match is_known {
            true => Some(spans_of(&transaction, &resumed, unlogged).await?),
            false => None,
        });
        if let Some(other) = namesake(&transaction, &resumed).await? {
            return Err(LedgerError::Changed(format!(
                "the spill holds batches of {}, which begins as {other} does, of which rows were loaded since: if they are one file under two names, remove the files of the spill; else load {} from its source, then remove them",
                source.name, source.name
            )));
        }
        sources.push(resumed);
    }
    transaction.commit().await?;
    Ok(Some(Resumed {
        ledger: Ledger {
            import_id: identity.import_id.clone(),
            sources,
            unlogged,
            table,
        },
        known,
        columns,
        maps,
    }))
}

/// The name of a source of the same table that begins as this one does and has rows in it: it may be
/// the same file, loaded again under another name while this one's batches were on disk.
async fn namesake(
    transaction: &Transaction<'_>,
    source: &LedgerSource,
) -> Result<Option<String>, LedgerError> {
    let sql = format!(
        "SELECT o.name
         FROM pgrung.sources s JOIN pgrung.imports i USING (import_id)
         JOIN pgrung.sources o ON o.heads && s.heads AND (o.import_id, o.source) <> (s.import_id, s.source)
         JOIN pgrung.imports oi ON oi.import_id = o.import_id AND oi.target_oid = i.target_oid
         WHERE s.import_id = $1 AND s.source = $2
           AND (EXISTS (SELECT FROM {} p WHERE (p.import_id, p.source) = (o.import_id, o.source) AND p.loaded > 0)
             OR EXISTS (SELECT FROM {} p WHERE (p.import_id, p.source) = (o.import_id, o.source) AND p.loaded > 0))
         LIMIT 1",
        spans(false),
        spans(true)
    );
    let row = transaction
        .query_opt(&sql, &[&source.import_id, &source.number])
        .await?;
    Ok(row.map(|row| row.get("name")))
}
