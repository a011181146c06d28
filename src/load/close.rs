//! Keeps the ledger small while a load runs, closes the import after its last batch, and exports
//! its rejects.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::plan::{Durability, LoadPlan};
use super::tallies::Tallies;
use crate::connect::{self, ConnectSettings};
use crate::error::Error;
use crate::ledger::{Finish, Ledger};
use crate::rejects;
use crate::report::Console;
use crate::retry::{Failure, Pace, pause};
use crate::stop::Stop;

/// Between two looks whether spans are worth merging.
const MERGE_EVERY: Duration = Duration::from_secs(30);

/// Batches since the last merge that make another one worth the wait.
const MERGE_BATCHES: u64 = 500;

/// Merges the spans of a long load now and then. A merge that fails is tried again later: the
/// spans are right either way.
pub async fn keep_small(
    settings: ConnectSettings,
    ledger: Option<Ledger>,
    tallies: Tallies,
    done: Arc<Stop>,
) {
    let Some(ledger) = ledger else { return };
    let mut merged = 0;
    while tokio::time::timeout(MERGE_EVERY, done.wait())
        .await
        .is_err()
    {
        let batches = tallies.counters.batches.load(Relaxed);
        if batches - merged < MERGE_BATCHES {
            continue;
        }
        if let Ok(mut client) = connect::connect(&settings).await
            && ledger.merge(&mut client).await.is_ok()
        {
            merged = batches;
        }
    }
}

/// After the last batch: closes the import of `read` records and makes the last commits durable.
///
/// # Errors
/// What the server says, or that a newer run has taken over.
pub async fn close(
    plan: &LoadPlan,
    ledger: Option<&Ledger>,
    read: u64,
    dropped: bool,
) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let closing = close_once(plan, ledger, read, dropped);
        let limited = tokio::time::timeout(plan.patience.answer_timeout, closing).await;
        let error = match limited {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => timed_out(plan),
        };
        if tries > plan.patience.max_retries || !error.may_pass() {
            return Err(error);
        }
        tokio::time::sleep(pause(Pace::Backoff, tries)).await;
    }
}

fn timed_out(plan: &LoadPlan) -> Error {
    let failure = Failure::Timeout(plan.patience.answer_timeout);
    Error::Delivery {
        failure,
        what: "closing the import".to_string(),
        advice: None,
    }
}

async fn close_once(
    plan: &LoadPlan,
    ledger: Option<&Ledger>,
    read: u64,
    dropped: bool,
) -> Result<(), Error> {
    let refused = |error| Error::Server {
        doing: "closing the import",
        error,
    };
    if plan.durability == Durability::End {
        flush(plan).await?;
    }
    let Some(ledger) = ledger else { return Ok(()) };
    // With --limit, or after drops, there is more to read: the import stays open.
    if plan.read.limit.is_some() || dropped {
        let mut client = connect::connect(&plan.settings).await?;
        let found = ledger.records(&client).await.map_err(refused)?;
        if found < read {
            return Err(Error::Lost {
                lost: read - found,
                read,
            });
        }
        ledger.merge(&mut client).await.map_err(refused)?;
    } else {
        let mut client = connect::connect(&plan.settings).await?;
        match ledger.finish(&mut client, read).await.map_err(refused)? {
            Finish::Done => {}
            Finish::TakenOver => return Err(Error::TakenOver(ledger.import_id.clone())),
            Finish::Lost(found) => {
                return Err(Error::Lost {
                    lost: read - found,
                    read,
                });
            }
        }
    }
    Ok(())
}

/// Makes all commits before durable, also those that did not wait for the disk.
///
/// # Errors
/// What the server says.
pub async fn flush(plan: &LoadPlan) -> Result<(), Error> {
    let client = connect::connect(&plan.settings).await?;
    // A commit waits for the log up to its own record only if it wrote one; this message is the
    // smallest.
    let sql = "BEGIN; SET LOCAL synchronous_commit = on; \
               SELECT pg_logical_emit_message(true, 'pgrung', ''); COMMIT";
    client
        .batch_execute(sql)
        .await
        .map_err(|error| Error::Server {
            doing: "making the last commits durable",
            error,
        })
}

/// Exports the rejects of the import to the file that was asked for.
///
/// # Errors
/// What the server or the operating system says.
pub async fn export(
    plan: &LoadPlan,
    ledger: &Ledger,
    header: Vec<u8>,
    path: &Path,
    console: &Console,
) -> Result<(), Error> {
    let client = connect::connect(&plan.settings).await?;
    let records = rejects::export(&client, ledger, header, path).await?;
    if records > 0 {
        console.notice(&format!("{records} rejects are in {}", path.display()));
    }
    Ok(())
}
