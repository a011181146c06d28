//! Closes the import after its last batch, makes its commits durable, and exports its rejects.

use std::time::{Duration, Instant};

use super::control::{Control, ControlConnection};
use super::running::Running;
use crate::error::Error;
use crate::job::LoadSettings;
use crate::ledger::{Finish, LedgerError};
use crate::outcome::Outcome;
use crate::reject_file::RejectFile;
use crate::retry::{Failure, Pace, pause};
use crate::worker::DeliveryError;

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
    if running.finished {
        return Ok(());
    }
    let (limits, began) = (settings.retries, Instant::now());
    let mut tries = 0;
    loop {
        tries += 1;
        let closing = close_once(connection, running, settings, control);
        let (may_pass, error) = match tokio::time::timeout(limits.answer_timeout, closing).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => (error.may_pass(), error),
            Err(_) => {
                let failure = Failure::Timeout(limits.answer_timeout);
                (
                    true,
                    DeliveryError::gave_up(failure, "closing the import").into(),
                )
            }
        };
        connection.forget();
        let in_time = began.elapsed() < limits.delivery_timeout;
        if tries > limits.max_retries || !may_pass || !in_time {
            return Err(error);
        }
        tokio::time::sleep(pause(Pace::Backoff, tries)).await;
    }
}

async fn close_once(
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
    let place = match &running.before {
        Some(before) => {
            let client = connection.client().await?;
            Some(before.prove(client, rows, &control.console).await?)
        }
        None => None,
    };
    let Some(ledger) = &running.ledger else {
        return Ok(());
    };
    // Dropped rows were never to be in the ledger.
    let dropped = tally[Outcome::Dropped];
    let read = running.counters.read.get() - dropped;
    let client = connection.client().await?;
    let refused = Error::server("closing the import");
    // With --limit, or after drops, there is more to read: the import stays open.
    if settings.read.limit.is_some() || dropped > 0 {
        let found = ledger.records(client).await.map_err(&refused)?;
        check_lost(found, read)?;
        ledger.merge(client).await.map_err(&refused)?;
        return Ok(());
    }
    match ledger
        .finish(client, read, place.as_ref())
        .await
        .map_err(&refused)?
    {
        Finish::Done => Ok(()),
        Finish::TakenOver => Err(LedgerError::TakenOver(ledger.import_id.clone()).into()),
        Finish::Lost(found) => Ok(check_lost(found, read)?),
    }
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
    let sql = "BEGIN; SET LOCAL synchronous_commit = on; \
               SELECT pg_logical_emit_message(true, 'pgrung', ''); COMMIT";
    let client = connection.client().await?;
    let flushed = client.batch_execute(sql).await;
    flushed.map_err(Error::server("making the last commits durable"))
}

/// Exports the rejects of the import to the file that was asked for.
///
/// # Errors
/// What the server or the operating system says.
pub async fn export(
    connection: &mut ControlConnection,
    running: &Running,
    settings: &LoadSettings,
    control: &Control,
) -> Result<(), Error> {
    let (Some(path), Some(ledger)) = (&settings.rejects, &running.ledger) else {
        return Ok(());
    };
    let failed = |source| Error::Output {
        name: path.display().to_string(),
        source,
    };
    let mut file = RejectFile::create(path, running.reject_layout.clone()).map_err(failed)?;
    // Who has asked for an end does not want to wait for a server that is away.
    let limit = match control.stop.is_set() {
        true => settings.grace.max(LEAST_EXPORT),
        false => settings.retries.answer_timeout,
    };
    let client = connection.client().await?;
    ledger
        .each_open_reject(client, limit, |original, reason| {
            file.push(original, reason).map_err(failed)
        })
        .await?;
    file.flush().map_err(failed)?;
    let records = file.count();
    if records > 0 {
        let notice = format!("{records} rejects are in {}", path.display());
        control.console.notice(&notice);
    }
    Ok(())
}
