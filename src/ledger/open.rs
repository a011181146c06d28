//! Opens a run of an import: finds or makes it, refuses what does not fit, takes over from older
//! runs, and reads what is already committed.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::{Client, Transaction};

use super::enrol::enrol;
use super::error::LedgerError;
use super::identify::{Identity, derived_id, identify};
use super::request::{Request, column_names};
use super::standing::{Remembered, Standing};
use super::{Ledger, span_columns, span_of};
use crate::connect;
use crate::span::Known;
use crate::target::Place;

/// How long to wait for another run's batch before its transaction is ended.
const PATIENCE: Duration = Duration::from_secs(3);

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
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid() AS pid", &[])
        .await?
        .get("pid");
    let transaction = client.transaction().await?;
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
        table: Place::from(request.table),
    };
    let mut known = Vec::new();
    for source in &ledger.sources {
        known.push(spans(&transaction, &ledger, *source).await?);
    }
    let loaded: u64 = known.iter().flatten().map(|span| span.tally.loaded()).sum();
    if recall(&transaction, request, &ledger.import_id).await? {
        transaction.commit().await?;
        return Ok(Opened {
            known: vec![Known::new(); ledger.sources.len()],
            ledger,
            finished: false,
        });
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
            "SELECT target, target_oid, columns, reading
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
    // Another table may have other columns: then it is the table that is to be told.
    let known_table: &str = row.get("target");
    if row.get::<_, u32>("target_oid") != table.oid && known_table != target.table {
        return refuse(format!("it loads {known_table}, not {}", target.table));
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
    tokio::pin!(raise);
    loop {
        match tokio::time::timeout(PATIENCE, &mut raise).await {
            Ok(result) => return result,
            Err(_) => {
                (request.notify)(&format!(
                    "another run of import {import_id} holds a transaction open; taking over"
                ));
                let second = connect::connect(request.settings)
                    .await
                    .map_err(LedgerError::Connect)?;
                second
                    .execute(
                        "SELECT pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS pid",
                        &[&pid],
                    )
                    .await?;
            }
        }
    }
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

/// Looks whether the rows of the import are still in the table. True: somebody has emptied it since
/// the import was finished, so that what the ledger knows is forgotten.
async fn recall(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
) -> Result<bool, LedgerError> {
    let Some(then) = Remembered::of(transaction, import_id).await? else {
        return Ok(false);
    };
    let now = Place::from(request.table);
    let name = &now.name;
    let refuse = |what: String| {
        Err(LedgerError::Changed(format!(
            "import {import_id}: {what}; --restart forgets the import and loads again"
        )))
    };
    let standing = then.standing(transaction, &now).await?;
    match standing {
        Standing::Same => return Ok(false),
        Standing::Renamed | Standing::Moved => {}
        Standing::Emptied if then.finished => {
            (request.notify)(&format!(
                "{name} was emptied since import {import_id} loaded {} rows into it: it is loaded again",
                then.rows
            ));
            for table in ["spans", "rejects", "unlogged_spans", "unlogged_rejects"] {
                let sql = format!("DELETE FROM pgrung.{table} WHERE import_id = $1");
                transaction.execute(&sql, &[&import_id]).await?;
            }
            for table in ["sources", "imports"] {
                let sql =
                    format!("UPDATE pgrung.{table} SET finished_at = NULL WHERE import_id = $1");
                transaction.execute(&sql, &[&import_id]).await?;
            }
        }
        Standing::Emptied => {
            return refuse(format!(
                "it was interrupted when {} rows were in {name}, and now the table is empty",
                then.rows
            ));
        }
        Standing::Missing { found } => {
            return refuse(format!(
                "{name} was truncated or rewritten since, and holds {found} of {} rows",
                then.rows
            ));
        }
        Standing::Unseen => {
            return refuse(format!(
                "{name} was truncated or rewritten since, and this role may not read it to tell which: a role that may can go on with the import"
            ));
        }
        Standing::Relogged => {
            return refuse(format!("{name} was made logged or unlogged since"));
        }
        Standing::Another => {
            return refuse(format!(
                "it loads {}, which is not the table that is now called {name}: that was dropped and made anew, or renamed",
                then.place.name
            ));
        }
    }
    transaction
        .execute(
            "UPDATE pgrung.imports SET target = $2, target_filenode = $3 WHERE import_id = $1",
            &[&import_id, &now.name, &now.filenode],
        )
        .await?;
    Ok(standing == Standing::Emptied)
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
    let rows = transaction
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
    for row in rows {
        let old: String = row.get("import_id");
        for table in [
            "spans",
            "rejects",
            "unlogged_spans",
            "unlogged_rejects",
            "imports",
        ] {
            let sql = format!("DELETE FROM pgrung.{table} WHERE import_id = $1");
            transaction.execute(&sql, &[&old]).await?;
        }
        (request.notify)(&format!("import {old} is forgotten"));
    }
    Ok(transaction.commit().await?)
}
