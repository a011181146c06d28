//! Opens a run of an import: finds or makes it, refuses what does not fit, takes over from older
//! runs, and reads what is already committed.

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::enrol::enrol;
use super::error::LedgerError;
use super::identify::{Identity, derived_id, identify};
use super::request::{Request, column_names};
use super::take_over::past_other_runs;
use super::{Ledger, span_columns, span_of};
use crate::span::Known;

pub struct Opened {
    pub ledger: Ledger,
    /// For the readers, source by source.
    pub known: Vec<Known>,
    /// Whether an earlier run has finished the import: nothing is left to read.
    pub finished: bool,
}

/// Opens the run.
///
/// # Errors
/// When the inputs, the table or the options differ from what the ledger knows, and what the
/// server says.
pub async fn open(client: &mut Client, request: &Request<'_>) -> Result<Opened, LedgerError> {
    if request.restart {
        forget(client, request).await?;
    }
    let transaction = client.transaction().await?;
    let pid = process(&transaction).await?;
    let import_id = match identify(&transaction, request).await? {
        Identity::Known(import_id) => import_id,
        Identity::New(import_id) => {
            create(&transaction, request, &import_id).await?;
            import_id
        }
    };
    check(&transaction, request, &import_id).await?;
    let (epoch, finished) = take_over(&transaction, request, &import_id, pid).await?;
    let sources = enrol(&transaction, request, &import_id, epoch).await?;
    let ledger = Ledger {
        import_id,
        epoch,
        mergeable: sources
            .iter()
            .zip(request.sources)
            .filter(|(_, source)| request.import_id.is_none() || source.fingerprint.is_some())
            .map(|((number, _), _)| *number)
            .collect(),
        sources: sources.iter().map(|(number, _)| *number).collect(),
        unlogged: request.table.unlogged,
    };
    let mut known = Vec::new();
    for source in &ledger.sources {
        known.push(spans(&transaction, &ledger, *source).await?);
    }
    let loaded: u64 = known.iter().flatten().map(|span| span.tally.loaded()).sum();
    if loaded > 0 && is_empty(&transaction, &request.target.table).await? {
        return Err(LedgerError::Changed(format!(
            "import {}: the ledger knows of {loaded} rows in {}, but the table is empty: it was emptied since; --restart forgets the import and loads again",
            ledger.import_id, request.target.table
        )));
    }
    // After a server crash the spans of an unlogged target are gone, and its rows with them.
    let finished = finished
        && sources.iter().all(|(_, finished)| *finished)
        && !(ledger.unlogged && loaded == 0);
    if !finished {
        transaction
            .execute(
                "UPDATE pgrung.imports SET finished_at = NULL WHERE import_id = $1",
                &[&ledger.import_id],
            )
            .await?;
    }
    transaction.commit().await?;
    Ok(Opened {
        ledger,
        known,
        finished,
    })
}

async fn create(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
) -> Result<(), LedgerError> {
    let Request { table, target, .. } = request;
    transaction
        .execute(
            "INSERT INTO pgrung.imports (import_id, target, target_oid, target_filenode, target_unlogged, columns, reading, epoch)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0) ON CONFLICT DO NOTHING",
            &[
                &import_id,
                &target.table,
                &table.oid,
                &table.filenode,
                &table.unlogged,
                &column_names(target),
                &json!(request.reading),
            ],
        )
        .await?;
    Ok(())
}

/// Refuses a run that would not load the same rows into the same table.
async fn check(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
) -> Result<(), LedgerError> {
    let row = transaction
        .query_one(
            "SELECT target, target_oid, target_filenode, target_unlogged, columns, reading
             FROM pgrung.imports WHERE import_id = $1",
            &[&import_id],
        )
        .await?;
    let Request {
        table,
        target,
        reading,
        ..
    } = request;
    let restart = "--restart forgets the import and loads again";
    let refuse = |what: String| {
        Err(LedgerError::Changed(format!(
            "import {import_id}: {what}; {restart}"
        )))
    };
    let known_table: &str = row.get("target");
    if known_table != target.table {
        return refuse(format!("it loads {known_table}, not {}", target.table));
    }
    if row.get::<_, u32>("target_oid") != table.oid {
        return refuse(format!(
            "table {known_table} was dropped and made anew since"
        ));
    }
    if row.get::<_, Option<u32>>("target_filenode") != table.filenode
        || row.get::<_, bool>("target_unlogged") != table.unlogged
    {
        return refuse(format!(
            "table {known_table} was truncated or rewritten since"
        ));
    }
    let known_columns: Vec<&str> = row.get("columns");
    if known_columns != column_names(target) {
        return refuse(format!(
            "its columns are {}, now they are {}",
            known_columns.join(", "),
            column_names(target).join(", ")
        ));
    }
    let known_reading: Value = row.get("reading");
    let reading = json!(reading);
    let keys = reading.as_object().into_iter().flatten();
    let differences: Vec<String> = keys
        .filter(|(key, value)| known_reading.get(key) != Some(value))
        .map(|(key, value)| {
            format!(
                "{key} was {}, now it is {value}",
                known_reading.get(key).unwrap_or(&Value::Null)
            )
        })
        .collect();
    if !differences.is_empty() {
        return refuse(format!(
            "the reading options differ: {}",
            differences.join(", ")
        ));
    }
    Ok(())
}

/// Raises the epoch: from now on no transaction of an older run can commit. Waits for batches of
/// such a run that are in the middle of a transaction, and ends them if they do not end soon.
async fn take_over(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
    pid: i32,
) -> Result<(i64, bool), LedgerError> {
    let raise = async {
        let row = transaction
            .query_one(
                "UPDATE pgrung.imports i SET epoch = i.epoch + 1, run_at = now()
                 FROM (SELECT finished_at FROM pgrung.imports WHERE import_id = $1 FOR UPDATE) old
                 WHERE i.import_id = $1 RETURNING i.epoch, old.finished_at IS NOT NULL AS finished",
                &[&import_id],
            )
            .await?;
        let (epoch, finished): (i64, bool) = (row.get("epoch"), row.get("finished"));
        transaction
            .execute(
                "UPDATE pgrung.sources SET epoch = $2 WHERE import_id = $1",
                &[&import_id, &epoch],
            )
            .await?;
        Ok::<_, LedgerError>((epoch, finished))
    };
    let ids = [import_id.to_string()];
    let (settings, notify) = (request.settings, request.notify);
    past_other_runs(raise, pid, &ids, settings, notify, request.patience).await
}

/// The server process of a transaction.
async fn process(transaction: &Transaction<'_>) -> Result<i32, LedgerError> {
    let sql = "SELECT pg_backend_pid() AS pid";
    Ok(transaction.query_one(sql, &[]).await?.get("pid"))
}

async fn spans(
    transaction: &Transaction<'_>,
    ledger: &Ledger,
    source: i32,
) -> Result<Known, LedgerError> {
    let sql = format!(
        "SELECT {} FROM {} p WHERE import_id = $1 AND source = $2 ORDER BY start_byte",
        span_columns(),
        ledger.spans()
    );
    let rows = transaction
        .query(&sql, &[&ledger.import_id, &source])
        .await?;
    Ok(rows.iter().map(span_of).collect())
}

/// Whether the table holds no row at all; false where this role may not look.
async fn is_empty(transaction: &Transaction<'_>, table: &str) -> Result<bool, LedgerError> {
    transaction.batch_execute("SAVEPOINT look").await?;
    let sql = format!("SELECT NOT EXISTS (SELECT FROM {table}) AS empty");
    match transaction.query_one(&sql, &[]).await {
        Ok(row) => Ok(row.get("empty")),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            transaction.batch_execute("ROLLBACK TO look").await?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// `--restart`: forgets this import, and imports into the table from files of the same names.
async fn forget(client: &mut Client, request: &Request<'_>) -> Result<(), LedgerError> {
    let names: Vec<&str> = request
        .sources
        .iter()
        .filter(|source| source.path.is_some())
        .map(|source| source.name.as_str())
        .collect();
    let import_id = request
        .import_id
        .clone()
        .unwrap_or_else(|| derived_id(request));
    let transaction = client.transaction().await?;
    // Rows keep their statement, which is to be gone before the transaction is.
    let old = transaction
        .query(
            "SELECT import_id FROM pgrung.imports WHERE import_id = $1
             UNION
             SELECT i.import_id FROM pgrung.imports i JOIN pgrung.sources s USING (import_id)
             WHERE i.target = $2 AND s.name = ANY ($3) AND $4",
            &[
                &import_id,
                &request.target.table,
                &names,
                &request.import_id.is_none(),
            ],
        )
        .await?;
    let old: Vec<String> = old.into_iter().map(|row| row.get("import_id")).collect();
    let pid = process(&transaction).await?;
    let forget = async {
        for table in [
            "spans",
            "rejects",
            "unlogged_spans",
            "unlogged_rejects",
            "imports",
        ] {
            let sql = format!("DELETE FROM pgrung.{table} WHERE import_id = ANY ($1)");
            transaction.execute(&sql, &[&old]).await?;
        }
        Ok(())
    };
    let (settings, notify) = (request.settings, request.notify);
    past_other_runs(forget, pid, &old, settings, notify, request.patience).await?;
    for import_id in &old {
        notify(&format!("import {import_id} is forgotten"));
    }
    Ok(transaction.commit().await?)
}
