//! Gives each source of a run its number in the import, and takes over what other imports know of
//! its content.

use serde_json::Value;
use tokio_postgres::Transaction;

use super::error::LedgerError;
use super::request::{Request, SourceIdentity, column_names};
use super::{outcome_columns, spans};

/// Finds or makes the number of each source, and whether it was read to its end before.
pub(super) async fn enrol(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
    epoch: i64,
) -> Result<Vec<(i32, bool)>, LedgerError> {
    let rows = transaction
        .query(
            "SELECT source, name, fingerprint, finished_at IS NOT NULL AS finished FROM pgrung.sources
             WHERE import_id = $1 ORDER BY source",
            &[&import_id],
        )
        .await?;
    let mut next = rows
        .iter()
        .map(|row| row.get::<_, i32>("source") + 1)
        .max()
        .unwrap_or(0);
    let mut numbers = Vec::new();
    for source in request.sources {
        let print = source
            .fingerprint
            .as_ref()
            .map(|print| serde_json::json!(print));
        // The fingerprint decides; only pipes go by their name.
        let known = rows.iter().find(|row| match &print {
            Some(print) => row.get::<_, Option<Value>>("fingerprint").as_ref() == Some(print),
            None => {
                row.get::<_, &str>("name") == source.name
                    && row.get::<_, Option<Value>>("fingerprint").is_none()
            }
        });
        if let Some(row) = known {
            if print.is_none() {
                check_checksums(transaction, request, import_id, row.get("source")).await?;
            }
            // Only its bytes tell whether a pipe brings the same rows again: they are read.
            numbers.push((
                row.get("source"),
                row.get::<_, bool>("finished") && print.is_some(),
            ));
            continue;
        }
        let renamed = rows
            .iter()
            .any(|row| row.get::<_, &str>("name") == source.name);
        if renamed {
            return Err(LedgerError::Changed(format!(
                "{}: the file has changed since import {import_id} loaded it or a part of it; --restart forgets the import and loads again",
                source.name
            )));
        }
        transaction
            .execute(
                "INSERT INTO pgrung.sources (import_id, source, name, fingerprint, epoch) VALUES ($1, $2, $3, $4, $5)",
                &[&import_id, &next, &source.name, &print, &epoch],
            )
            .await?;
        let copied = match &print {
            Some(print) if request.import_id.is_none() => {
                adopt(transaction, request, import_id, source, print, next).await?
            }
            _ => false,
        };
        numbers.push((next, copied));
        next += 1;
    }
    Ok(numbers)
}

/// A pipe brings the same rows again, or other ones: only checksums tell, and merged spans have
/// none.
async fn check_checksums(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
    source: i32,
) -> Result<(), LedgerError> {
    let spans = spans(request.table.unlogged);
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {spans} WHERE import_id = $1 AND source = $2 AND checksum IS NULL) AS merged"
    );
    let row = transaction.query_one(&sql, &[&import_id, &source]).await?;
    if row.get("merged") {
        return Err(LedgerError::Changed(format!(
            "import {import_id}: what it read from stdin was merged in the ledger, so nothing tells whether the same rows come again; leave --import-id out to load what comes now as a new import, or name a new one"
        )));
    }
    Ok(())
}

/// A file that another import into this table has loaded is loaded: its spans are taken over.
/// Returns whether there was one.
async fn adopt(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
    source: &SourceIdentity,
    print: &Value,
    number: i32,
) -> Result<bool, LedgerError> {
    let row = transaction
        .query_opt(
            "SELECT i.import_id, s.source, s.finished_at IS NOT NULL AS finished,
                    i.target_filenode IS NOT DISTINCT FROM $5 AS unchanged
             FROM pgrung.sources s JOIN pgrung.imports i USING (import_id)
             WHERE i.import_id <> $1 AND i.target_oid = $2 AND s.fingerprint = $3 AND i.columns = $4 AND i.reading = $6
             ORDER BY s.finished_at IS NULL, i.run_at DESC LIMIT 1",
            &[
                &import_id,
                &request.table.oid,
                print,
                &column_names(request.target),
                &request.table.filenode,
                &serde_json::json!(request.reading),
            ],
        )
        .await?;
    let Some(row) = row else { return Ok(false) };
    let (other, their_number): (String, i32) = (row.get("import_id"), row.get("source"));
    let way_out = "--import-id NAME loads it as another import";
    if !row.get::<_, bool>("unchanged") {
        return Err(LedgerError::Changed(format!(
            "{}: import {other} loaded this content, and the table was truncated or rewritten since; {way_out}",
            source.name
        )));
    }
    if !row.get::<_, bool>("finished") {
        return Err(LedgerError::Changed(format!(
            "{}: a part of this content was loaded by import {other}, which is not finished: --import-id {other} goes on with it; {way_out}",
            source.name
        )));
    }
    let spans = spans(request.table.unlogged);
    let sql = format!(
        "INSERT INTO {spans} (import_id, source, start_byte, end_byte, first_record, records, lines, checksum, {outcomes})
         SELECT $1, $2, start_byte, end_byte, first_record, records, lines, checksum, {outcomes}
         FROM {spans} WHERE import_id = $3 AND source = $4",
        outcomes = outcome_columns(|_, column| column.to_string()),
    );
    transaction
        .execute(&sql, &[&import_id, &number, &other, &their_number])
        .await?;
    transaction
        .execute(
            "UPDATE pgrung.sources SET finished_at = now() WHERE import_id = $1 AND source = $2",
            &[&import_id, &number],
        )
        .await?;
    (request.notify)(&format!(
        "{}: loaded by import {other} already",
        source.name
    ));
    Ok(true)
}
