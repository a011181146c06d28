//! Closes the import after its last batch, makes its commits durable, and exports its rejects.

use std::time::Duration;

use tokio_postgres::Client;

use super::connection::ControlConnection;
use super::control::Control;
use super::rejects::{go_through, told};
use super::running::Running;
use crate::error::Error;
use crate::job::LoadSettings;
use crate::ledger::{Finish, LedgerError, WAIT_FOR_THE_DISK, run_sql};
use crate::merge::{Guard, Share};
use crate::outcome::Outcome;
use crate::worker::OnError;

/// Least time for an answer when rejects are exported after a signal.
const LEAST_EXPORT: Duration = Duration::from_secs(1);

/// After the last batch: closes the import and makes the last commits durable.
///
/// # Errors
/// What the server says, that the rows are not in the table, or that a newer run has taken over.
pub async fn close(
    connection: &mut ControlConnection,
    running: &Running,
    settings: &LoadSettings,
    control: &Control,
) -> Result<(), Error> {
    if running.durable_at_end {
        flush(connection).await?;
    }
    let tally = running.counters.tally();
    let rows = tally[Outcome::Inserted] + tally[Outcome::AlreadyLoaded];
    guard(
        settings,
        rows,
        tally[Outcome::Rejected],
        running.counters.read.get(),
    )?;
    let place = match &running.before {
        Some(before) => {
            let prove = |client: Client| async {
                let place = before.prove(&client, rows, &control.console).await?;
                Ok((client, Some(place)))
            };
            let doing = "looking whether the rows are in the table";
            connection.ask(doing, prove).await?
        }
        None => None,
    };
    let Some(ledger) = &running.ledger else {
        return match running.before {
            Some(_) => alone(connection, "--after", &settings.after).await,
            None => Ok(()),
        };
    };
    // Dropped rows were never to be in the ledger.
    let dropped = tally[Outcome::Dropped];
    let read = running.counters.read.get() - dropped;
    // With --limit, or after drops, there is more to read: the import stays open.
    let stays_open = settings.read.limit.is_some() || dropped > 0;
    let (doing, place) = ("closing the import", place.as_ref());
    let close = |mut client: Client| async {
        let refused = Error::server(doing);
        if stays_open {
            let found = ledger.records(&client).await.map_err(&refused)?;
            check_lost(found, read)?;
            ledger.compact(&mut client).await.map_err(&refused)?;
            return Ok((client, ()));
        }
        let after = &settings.after;
        let finished = ledger.finish(&mut client, read, place, after).await;
        let finished = finished.map_err(|error| match error {
            LedgerError::Server { error, .. } => refused(error),
            error => error.into(),
        });
        match finished? {
            Finish::Done => Ok((client, ())),
            Finish::TakenOver => Err(LedgerError::TakenOver(ledger.import_id.clone()).into()),
            Finish::Lost(found) => Ok((client, check_lost(found, read)?)),
        }
    };
    connection.ask(doing, close).await
}

/// Whether the rows that are in the table, and those that are not, are as many as is allowed.
fn guard(settings: &LoadSettings, rows: u64, rejected: u64, read: u64) -> Result<(), Error> {
    let held = match settings.on_error {
        // Any number was looked at with each batch.
        OnError::Reject(Some(limit @ Share::Percent(_))) if limit.is_passed(rejected, read) => {
            Err(Guard::Rejects {
                rejected,
                read,
                limit,
            })
        }
        _ => settings.guards.rows(rows),
    };
    held.map_err(|guard| Error::Guard {
        guard,
        consequence: "the good rows are in the table",
    })
}

/// Runs SQL of the user's in a transaction of its own: without a ledger there is no other.
///
/// # Errors
/// What the server says.
pub async fn alone(
    connection: &mut ControlConnection,
    flag: &'static str,
    statements: &[String],
) -> Result<(), Error> {
    if statements.is_empty() {
        return Ok(());
    }
    let run = |mut client: Client| async {
        let transaction = client.transaction().await.map_err(Error::server(flag))?;
        run_sql(&transaction, flag, statements).await?;
        transaction.commit().await.map_err(Error::server(flag))?;
        Ok((client, ()))
    };
    // It takes as long as it takes.
    connection.ask_within(Duration::MAX, flag, run).await
}

/// Whether the ledger has `found` as many records as were committed.
pub fn check_lost(found: u64, read: u64) -> Result<(), LedgerError> {
    match read.checked_sub(found) {
        None | Some(0) => Ok(()),
        Some(lost) => Err(LedgerError::Lost { lost, read }),
    }
}

/// Makes all commits before durable, also those that did not wait for the disk.
pub async fn flush(connection: &mut ControlConnection) -> Result<(), Error> {
    // A commit waits for the log up to its own record only if it wrote one; this message is the
    // smallest.
    let sql = format!(
        "BEGIN; {WAIT_FOR_THE_DISK}; SELECT pg_logical_emit_message(true, 'pgrung', ''); COMMIT"
    );
    let doing = "making the last commits durable";
    let flush = |client: Client| async {
        let flushed = client.batch_execute(&sql).await;
        flushed.map_err(Error::server(doing))?;
        Ok((client, ()))
    };
    connection.ask(doing, flush).await
}

/// Exports the rejects of the import to the file that was asked for. `again`: a fault that passes is
/// waited out.
///
/// # Errors
/// What the server or the operating system says.
pub async fn export(
    connection: &mut ControlConnection,
    running: &Running,
    settings: &LoadSettings,
    control: &Control,
    again: bool,
) -> Result<(), Error> {
    let (Some(path), Some(ledger)) = (&settings.rejects, &running.ledger) else {
        return Ok(());
    };
    // Who has asked for an end does not want to wait for a server that is away.
    let limit = match control.stop.is_set() {
        true => settings.grace.max(LEAST_EXPORT),
        false => settings.retries.answer_timeout,
    };
    let layout = &running.reject_layout;
    let export = |client: Client| async {
        let export = Some((path.as_path(), layout));
        let found = go_through(&client, &ledger.open_rejects(), export, limit).await?;
        Ok((client, found))
    };
    let doing = "exporting the rejects";
    // The limit is for one answer, not for all the rejects.
    let found = match again {
        true => connection.ask_within(Duration::MAX, doing, export).await?,
        false => connection.once(limit, export).await?,
    };
    if found.count > 0 {
        control.console.notice(&told(found.count, path));
    }
    Ok(())
}
