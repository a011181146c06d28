//! Forgets what is no longer true, and what is to be loaded again.

use tokio_postgres::Transaction;

use super::choice::Choice;
use super::error::LedgerError;
use super::known::{Kept, Proof, kept};
use super::request::Request;
use super::standing::is_empty;
use super::{LedgerSource, rejects, spans};
use crate::target::Place;

/// Forgets what imports have loaded whose rows are gone, in sources of this run and in others: it
/// is no longer true. What was put aside stays.
pub(super) async fn vacate(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    proofs: &[Proof],
) -> Result<(), LedgerError> {
    let mut vacated: Vec<&str> = Vec::new();
    for proof in proofs {
        let import_id = proof.known.key.import_id.as_str();
        let Some(gone) = proof
            .known
            .gone
            .as_ref()
            .filter(|_| !vacated.contains(&import_id))
        else {
            continue;
        };
        vacated.push(import_id);
        let rows = vacate_import(transaction, request, import_id).await?;
        (request.notify)(&format!(
            "import {import_id} had loaded {rows} rows, but {gone}: what it loaded is forgotten, and loaded again where it comes again"
        ));
    }
    vacate_others(transaction, request, &vacated).await
}

/// Marks finished imports as replaced whose sources are no inputs of this run and whose rows are gone:
/// they stay in the history, and what this run loads is not taken for their rows.
async fn vacate_others(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    vacated: &[&str],
) -> Result<(), LedgerError> {
    if !is_empty(transaction, &Place::from(request.table)).await? {
        return Ok(());
    }
    let finished = transaction
        .query(
            "SELECT import_id FROM pgrung.imports
             WHERE (target_oid = $1 OR target = $2) AND finished_at IS NOT NULL AND import_id <> ALL ($3)
               AND mode = 'append' AND replaced_at IS NULL",
            &[&request.table.oid, &request.target.table, &vacated],
        )
        .await?;
    let mut others = 0;
    for import in finished {
        let import_id = import.get("import_id");
        if let Kept::Gone(_) = kept(transaction, request, import_id).await? {
            // It stays in the history, and is no file's any more.
            let sql = "UPDATE pgrung.imports SET replaced_at = now() WHERE import_id = $1";
            transaction.execute(sql, &[&import_id]).await?;
            others += 1;
        }
    }
    if others > 0 {
        (request.notify)(&format!(
            "{} was emptied since: what {others} more finished imports had loaded into it is forgotten",
            request.target.table
        ));
    }
    Ok(())
}

/// Forgets the rows of one import; tells how many they were.
async fn vacate_import(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
) -> Result<i64, LedgerError> {
    let mut rows = 0;
    for spans in [spans(false), spans(true)] {
        let sql = format!(
            "WITH gone AS (DELETE FROM {spans} WHERE import_id = $1 RETURNING loaded)
             SELECT coalesce(sum(loaded), 0)::bigint AS rows FROM gone"
        );
        let row = transaction.query_one(&sql, &[&import_id]).await?;
        rows += row.get::<_, i64>("rows");
    }
    transaction
        .execute(
            "WITH sources AS (UPDATE pgrung.sources SET finished_at = NULL WHERE import_id = $1)
             UPDATE pgrung.imports
             SET finished_at = NULL, target = $2, target_oid = $3, target_filenode = $4, target_unlogged = $5
             WHERE import_id = $1",
            &[
                &import_id,
                &request.target.table,
                &request.table.oid,
                &request.table.filenode,
                &request.table.unlogged,
            ],
        )
        .await?;
    Ok(rows)
}

/// Forgets what was put aside of a source of which nothing is committed any more: all of its records
/// are read again, and what is still bad of them is put aside again.
pub(super) async fn forget_rejects(
    transaction: &Transaction<'_>,
    key: &LedgerSource,
) -> Result<(), LedgerError> {
    for rejects in [rejects(false), rejects(true)] {
        let sql = format!("DELETE FROM {rejects} WHERE import_id = $1 AND source = $2");
        transaction
            .execute(&sql, &[&key.import_id, &key.number])
            .await?;
    }
    Ok(())
}

/// Forgets sources, and imports of which nothing is left.
pub(super) async fn forget(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    choice: &Choice<'_>,
) -> Result<(), LedgerError> {
    let Choice::New { forgotten } = choice else {
        return Ok(());
    };
    for known in forgotten {
        let LedgerSource {
            import_id, number, ..
        } = &known.key;
        transaction
            .execute(
                "DELETE FROM pgrung.sources WHERE import_id = $1 AND source = $2",
                &[import_id, number],
            )
            .await?;
        transaction
            .execute(
                // An id that this run goes on with keeps its count of runs: older ones stay fenced off.
                "DELETE FROM pgrung.imports i WHERE import_id = $1 AND import_id IS DISTINCT FROM $2
                   AND NOT EXISTS (SELECT FROM pgrung.sources s WHERE s.import_id = i.import_id)",
                &[import_id, &request.import_id],
            )
            .await?;
        if known.gone.is_none() {
            (request.notify)(&format!(
                "{}: what import {import_id} knew of it is forgotten, with {} rows in the table",
                known.name,
                known.stored(),
            ));
        }
    }
    Ok(())
}
