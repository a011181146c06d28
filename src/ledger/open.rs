//! Opens a run of an import: finds or makes it, refuses what does not fit, takes over from older
//! runs, and reads what is already committed.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::{Ledger, SPAN_COLUMNS, Span, span_of};
use crate::connect::{self, ConnectSettings};
use crate::error::Error;
use crate::report::Console;
use crate::source::{Fingerprint, hash};
use crate::table::{Table, Target};

/// How long to wait for another run's batch before its transaction is ended.
const PATIENCE: Duration = Duration::from_secs(3);

/// An input as the ledger sees it.
#[derive(Debug, Clone)]
pub struct SourceIdentity {
    /// Name, absolute for a file.
    pub name: String,
    /// `None` for a pipe.
    pub fingerprint: Option<Fingerprint>,
    /// Where it is, if it is a file.
    pub path: Option<PathBuf>,
}

/// What to open.
pub struct Request<'a> {
    /// `--import-id`.
    pub import_id: Option<String>,
    /// `--restart`.
    pub restart: bool,
    /// The target table.
    pub table: &'a Table,
    /// The target columns.
    pub target: &'a Target,
    /// The reading options that shape rows.
    pub reading: Value,
    /// The inputs.
    pub sources: &'a [SourceIdentity],
    /// For a second connection that ends stuck transactions of an older run.
    pub settings: &'a ConnectSettings,
    /// Where notices go.
    pub console: &'a Console,
}

/// What is already committed of one source, in the order of its bytes.
pub type Known = Vec<Span>;

/// An opened run.
pub struct Opened {
    /// For the workers.
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
pub async fn open(client: &mut Client, request: &Request<'_>) -> Result<Opened, Error> {
    if request.restart {
        forget(client, request).await?;
    }
    let pid: i32 = client
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .map_err(refused)?
        .get(0);
    let transaction = client.transaction().await.map_err(refused)?;
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
    let loaded: u64 = known.iter().flatten().map(|span| span.loaded).sum();
    if loaded > 0 && is_empty(&transaction, &request.target.table).await? {
        return Err(Error::Changed(format!(
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
            .await
            .map_err(refused)?;
    }
    transaction.commit().await.map_err(refused)?;
    Ok(Opened {
        ledger,
        known,
        finished,
    })
}

pub(super) fn refused(error: tokio_postgres::Error) -> Error {
    Error::Server {
        doing: "opening the import in the ledger",
        error,
    }
}

enum Identity {
    Known(String),
    New(String),
}

/// The import that this run belongs to.
async fn identify(transaction: &Transaction<'_>, request: &Request<'_>) -> Result<Identity, Error> {
    let import_id = request
        .import_id
        .clone()
        .unwrap_or_else(|| derived_id(request));
    let found = transaction
        .query_opt(
            "SELECT 1 FROM pgrung.imports WHERE import_id = $1",
            &[&import_id],
        )
        .await
        .map_err(refused)?;
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
fn derived_id(request: &Request<'_>) -> String {
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
) -> Result<Option<String>, Error> {
    for source in request.sources {
        let (Some(path), Some(now)) = (&source.path, &source.fingerprint) else {
            continue;
        };
        let rows = transaction
            .query(
                "SELECT i.import_id, s.fingerprint, s.finished_at IS NOT NULL
                 FROM pgrung.sources s JOIN pgrung.imports i USING (import_id)
                 WHERE i.target = $1 AND s.name = $2 AND s.fingerprint IS NOT NULL
                 ORDER BY i.run_at DESC",
                &[&request.target.table, &source.name],
            )
            .await
            .map_err(refused)?;
        for row in rows {
            let (import_id, finished): (String, bool) = (row.get(0), row.get(2));
            let Ok(then) = serde_json::from_value::<Fingerprint>(row.get(1)) else {
                continue;
            };
            if then == *now {
                continue;
            }
            let grown = then.begins(path).unwrap_or(false);
            match (finished, grown) {
                (true, false) => {}
                (false, true) if request.sources.len() == 1 => {
                    request.console.notice(&format!(
                        "{}: the file has grown since import {import_id} was interrupted; its beginning is the same, so the import goes on",
                        source.name
                    ));
                    transaction
                        .execute(
                            "UPDATE pgrung.sources SET fingerprint = $3 WHERE import_id = $1 AND name = $2",
                            &[&import_id, &source.name, &serde_json::json!(now)],
                        )
                        .await
                        .map_err(refused)?;
                    return Ok(Some(import_id));
                }
                (finished, grown) => {
                    return Err(Error::Changed(format!(
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

async fn create(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
) -> Result<(), Error> {
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
                &request.reading,
            ],
        )
        .await
        .map_err(refused)?;
    Ok(())
}

fn column_names(target: &Target) -> Vec<&str> {
    target
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect()
}

/// Refuses a run that would not load the same rows into the same table.
async fn check(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
) -> Result<(), Error> {
    let row = transaction
        .query_one(
            "SELECT target, target_oid, target_filenode, target_unlogged, columns, reading
             FROM pgrung.imports WHERE import_id = $1",
            &[&import_id],
        )
        .await
        .map_err(refused)?;
    let Request {
        table,
        target,
        reading,
        ..
    } = request;
    let restart = "--restart forgets the import and loads again";
    let refuse = |what: String| {
        Err(Error::Changed(format!(
            "import {import_id}: {what}; {restart}"
        )))
    };
    let known_table: &str = row.get(0);
    if known_table != target.table {
        return refuse(format!("it loads {known_table}, not {}", target.table));
    }
    if row.get::<_, u32>(1) != table.oid {
        return refuse(format!(
            "table {known_table} was dropped and made anew since"
        ));
    }
    if row.get::<_, Option<u32>>(2) != table.filenode || row.get::<_, bool>(3) != table.unlogged {
        return refuse(format!(
            "table {known_table} was truncated or rewritten since"
        ));
    }
    let known_columns: Vec<&str> = row.get(4);
    if known_columns != column_names(target) {
        return refuse(format!(
            "its columns are {}, now they are {}",
            known_columns.join(", "),
            column_names(target).join(", ")
        ));
    }
    let known_reading: Value = row.get(5);
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
) -> Result<(i64, bool), Error> {
    let raise = async {
        let row = transaction
            .query_one(
                "UPDATE pgrung.imports i SET epoch = i.epoch + 1, run_at = now()
                 FROM (SELECT finished_at FROM pgrung.imports WHERE import_id = $1 FOR UPDATE) old
                 WHERE i.import_id = $1 RETURNING i.epoch, old.finished_at IS NOT NULL",
                &[&import_id],
            )
            .await?;
        let (epoch, finished): (i64, bool) = (row.get(0), row.get(1));
        transaction
            .execute(
                "UPDATE pgrung.sources SET epoch = $2 WHERE import_id = $1",
                &[&import_id, &epoch],
            )
            .await?;
        Ok((epoch, finished))
    };
    tokio::pin!(raise);
    loop {
        match tokio::time::timeout(PATIENCE, &mut raise).await {
            Ok(result) => return result.map_err(refused),
            Err(_) => {
                request.console.notice(&format!(
                    "another run of import {import_id} holds a transaction open; taking over"
                ));
                let second = connect::connect(request.settings).await?;
                second
                    .execute(
                        "SELECT pg_terminate_backend(pid) FROM unnest(pg_blocking_pids($1)) AS pid",
                        &[&pid],
                    )
                    .await
                    .map_err(refused)?;
            }
        }
    }
}

/// Finds or makes the number of each source, and whether it was read to its end before.
async fn enrol(
    transaction: &Transaction<'_>,
    request: &Request<'_>,
    import_id: &str,
    epoch: i64,
) -> Result<Vec<(i32, bool)>, Error> {
    let rows = transaction
        .query(
            "SELECT source, name, fingerprint, finished_at IS NOT NULL FROM pgrung.sources
             WHERE import_id = $1 ORDER BY source",
            &[&import_id],
        )
        .await
        .map_err(refused)?;
    let mut next = rows
        .iter()
        .map(|row| row.get::<_, i32>(0) + 1)
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
            Some(print) => row.get::<_, Option<Value>>(2).as_ref() == Some(print),
            None => {
                row.get::<_, &str>(1) == source.name && row.get::<_, Option<Value>>(2).is_none()
            }
        });
        if let Some(row) = known {
            if print.is_none() {
                check_checksums(transaction, request, import_id, row.get(0)).await?;
            }
            // Only its bytes tell whether a pipe brings the same rows again: they are read.
            numbers.push((row.get(0), row.get::<_, bool>(3) && print.is_some()));
            continue;
        }
        let renamed = rows.iter().any(|row| row.get::<_, &str>(1) == source.name);
        if renamed {
            return Err(Error::Changed(format!(
                "{}: the file has changed since import {import_id} loaded it or a part of it; --restart forgets the import and loads again",
                source.name
            )));
        }
        transaction
            .execute(
                "INSERT INTO pgrung.sources (import_id, source, name, fingerprint, epoch) VALUES ($1, $2, $3, $4, $5)",
                &[&import_id, &next, &source.name, &print, &epoch],
            )
            .await
            .map_err(refused)?;
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
) -> Result<(), Error> {
    let spans = if request.table.unlogged {
        "pgrung.unlogged_spans"
    } else {
        "pgrung.spans"
    };
    let sql = format!(
        "SELECT EXISTS (SELECT FROM {spans} WHERE import_id = $1 AND source = $2 AND checksum IS NULL)"
    );
    let row = transaction
        .query_one(&sql, &[&import_id, &source])
        .await
        .map_err(refused)?;
    if row.get(0) {
        return Err(Error::Changed(format!(
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
) -> Result<bool, Error> {
    let row = transaction
        .query_opt(
            "SELECT i.import_id, s.source, s.finished_at IS NOT NULL, i.target_filenode IS NOT DISTINCT FROM $5
             FROM pgrung.sources s JOIN pgrung.imports i USING (import_id)
             WHERE i.import_id <> $1 AND i.target_oid = $2 AND s.fingerprint = $3 AND i.columns = $4 AND i.reading = $6
             ORDER BY s.finished_at IS NULL, i.run_at DESC LIMIT 1",
            &[
                &import_id,
                &request.table.oid,
                print,
                &column_names(request.target),
                &request.table.filenode,
                &request.reading,
            ],
        )
        .await
        .map_err(refused)?;
    let Some(row) = row else { return Ok(false) };
    let (other, their_number): (String, i32) = (row.get(0), row.get(1));
    let way_out = "--import-id NAME loads it as another import";
    if !row.get::<_, bool>(3) {
        return Err(Error::Changed(format!(
            "{}: import {other} loaded this content, and the table was truncated or rewritten since; {way_out}",
            source.name
        )));
    }
    if !row.get::<_, bool>(2) {
        return Err(Error::Changed(format!(
            "{}: a part of this content was loaded by import {other}, which is not finished: --import-id {other} goes on with it; {way_out}",
            source.name
        )));
    }
    let spans = if request.table.unlogged {
        "pgrung.unlogged_spans"
    } else {
        "pgrung.spans"
    };
    let sql = format!(
        "INSERT INTO {spans} (import_id, source, start_byte, end_byte, first_record, records, lines, loaded, rejected, suppressed, checksum)
         SELECT $1, $2, start_byte, end_byte, first_record, records, lines, loaded, rejected, suppressed, checksum
         FROM {spans} WHERE import_id = $3 AND source = $4"
    );
    transaction
        .execute(&sql, &[&import_id, &number, &other, &their_number])
        .await
        .map_err(refused)?;
    transaction
        .execute(
            "UPDATE pgrung.sources SET finished_at = now() WHERE import_id = $1 AND source = $2",
            &[&import_id, &number],
        )
        .await
        .map_err(refused)?;
    request.console.notice(&format!(
        "{}: loaded by import {other} already",
        source.name
    ));
    Ok(true)
}

async fn spans(
    transaction: &Transaction<'_>,
    ledger: &Ledger,
    source: i32,
) -> Result<Known, Error> {
    let sql = format!(
        "SELECT {SPAN_COLUMNS} FROM {} p WHERE import_id = $1 AND source = $2 ORDER BY start_byte",
        ledger.spans()
    );
    let rows = transaction
        .query(&sql, &[&ledger.import_id, &source])
        .await
        .map_err(refused)?;
    Ok(rows.iter().filter_map(span_of).collect())
}

/// Whether the table holds no row at all; false where this role may not look.
async fn is_empty(transaction: &Transaction<'_>, table: &str) -> Result<bool, Error> {
    transaction
        .batch_execute("SAVEPOINT look")
        .await
        .map_err(refused)?;
    let sql = format!("SELECT NOT EXISTS (SELECT FROM {table})");
    match transaction.query_one(&sql, &[]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            transaction
                .batch_execute("ROLLBACK TO look")
                .await
                .map_err(refused)?;
            Ok(false)
        }
        Err(error) => Err(refused(error)),
    }
}

/// `--restart`: forgets this import, and imports into the table from files of the same names.
async fn forget(client: &mut Client, request: &Request<'_>) -> Result<(), Error> {
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
    let transaction = client.transaction().await.map_err(refused)?;
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
        .await
        .map_err(refused)?;
    for row in rows {
        let old: String = row.get(0);
        for table in [
            "spans",
            "rejects",
            "unlogged_spans",
            "unlogged_rejects",
            "imports",
        ] {
            let sql = format!("DELETE FROM pgrung.{table} WHERE import_id = $1");
            transaction.execute(&sql, &[&old]).await.map_err(refused)?;
        }
        request
            .console
            .notice(&format!("import {old} is forgotten"));
    }
    transaction.commit().await.map_err(refused)
}
