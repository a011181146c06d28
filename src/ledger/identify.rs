//! Tells which import a run belongs to: by its id, by the content of its files, or by the name of a
//! file that has changed.

use tokio_postgres::Transaction;

use super::error::LedgerError;
use super::request::Request;
use crate::source::{Fingerprint, hash};

pub(super) enum Identity {
    Known(String),
    New(String),
}

/// The import that this run belongs to.
pub(super) async fn identify(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
) -> Result<Identity, LedgerError> {
    let import_id = request
        .import_id
        .clone()
        .unwrap_or_else(|| derived_id(request));
    let found = transaction
        .query_opt(
            "SELECT 1 FROM pgrung.imports WHERE import_id = $1",
            &[&import_id],
        )
        .await?;
    if found.is_some() {
        return Ok(Identity::Known(import_id));
    }
    if request.import_id.is_none()
        && let Some(other) = same_name(transaction, request).await?
    {
        return Ok(Identity::Known(other));
    }
    Ok(Identity::New(import_id))
}

/// From the table and the fingerprints; random where a source has none.
pub(super) fn derived_id(request: &Request<'_>) -> String {
    let prints: Option<Vec<&Fingerprint>> = request
        .sources
        .iter()
        .map(|source| source.fingerprint.as_ref())
        .collect();
    match prints {
        Some(prints) => {
            let mut text: Vec<String> = prints
                .iter()
                .map(|print| serde_json::json!(print).to_string())
                .collect();
            // The same files in another order are the same import.
            text.sort();
            text.insert(0, request.target.table.clone());
            hash(text.join("\n").as_bytes())[..16].to_string()
        }
        None => format!("{:016x}", fastrand::u64(..)),
    }
}

/// An import whose file of the same name has other bytes now: continued if the file has grown and
/// the import is not finished, refused if a part of the old file is loaded.
async fn same_name(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
) -> Result<Option<String>, LedgerError> {
    for source in request.sources {
        let (Some(path), Some(now)) = (&source.path, &source.fingerprint) else {
            continue;
        };
        let rows = transaction
            .query(
                "SELECT i.import_id, s.fingerprint, s.finished_at IS NOT NULL AS finished
                 FROM pgrung.sources s JOIN pgrung.imports i USING (import_id)
                 WHERE i.target = $1 AND s.name = $2 AND s.fingerprint IS NOT NULL
                 ORDER BY i.run_at DESC",
                &[&request.target.table, &source.name],
            )
            .await?;
        for row in rows {
            let (import_id, finished): (String, bool) = (row.get("import_id"), row.get("finished"));
            let Ok(then) = serde_json::from_value::<Fingerprint>(row.get("fingerprint")) else {
                continue;
            };
            if then == *now {
                continue;
            }
            let grown = then.begins(path).unwrap_or(false);
            match (finished, grown) {
                (true, false) => {}
                (false, true) if request.sources.len() == 1 => {
                    (request.notify)(&format!(
                        "{}: the file has grown since import {import_id} was interrupted; its beginning is the same, so the import goes on",
                        source.name
                    ));
                    transaction
                        .execute(
                            "UPDATE pgrung.sources SET fingerprint = $3 WHERE import_id = $1 AND name = $2",
                            &[&import_id, &source.name, &serde_json::json!(now)],
                        )
                        .await?;
                    return Ok(Some(import_id));
                }
                (finished, grown) => {
                    return Err(LedgerError::Changed(format!(
                        "{}: the file {} since {} import {import_id}: --restart forgets that import and loads the file anew (rows loaded before stay in the table); --import-id NAME loads it as another import",
                        source.name,
                        if grown { "has grown" } else { "has changed" },
                        if finished {
                            "it was loaded as"
                        } else {
                            "a part of it was loaded by the unfinished"
                        },
                    )));
                }
            }
        }
    }
    Ok(None)
}
