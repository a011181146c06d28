//! Loads batches that an earlier run left on disk: each exactly once, because the ledger knows
//! which of them were committed.

use std::path::Path;
use std::sync::Arc;

use super::close::flush;
use super::plan::LoadPlan;
use super::start::Destination;
use super::switches::Switches;
use super::tallies::Tallies;
use crate::connect;
use crate::error::Error;
use crate::ledger;
use crate::report::{Console, Rows};
use crate::source::{Pool, RowParser};
use crate::spill::{self, Identity, Leftover};
use crate::stop::Stop;
use crate::table::{Table, Target};
use crate::worker::Worker;

/// Loads all leftovers in `dir`, oldest first, and removes them; returns how many of their records
/// are rejects.
///
/// # Errors
/// When the disk or the server refuses; what is committed stays committed, the rest stays on disk.
pub async fn load_leftovers(
    plan: &LoadPlan,
    dir: &Path,
    console: &Console,
    stop: &Arc<Stop>,
) -> Result<u64, Error> {
    let mut rejected = 0;
    for leftover in spill::leftovers(dir)? {
        let Some(identity) = leftover.identity().cloned() else {
            console.notice(&format!(
                "{}: run {} left files without a readable batch; they stay where they are",
                dir.display(),
                leftover.run(),
            ));
            continue;
        };
        // Whatever goes wrong with them is then not taken for a fault of this load.
        console.notice(&format!(
            "{}: an earlier run of import {} left batches for {}; they are loaded first",
            dir.display(),
            identity.import_id,
            identity.table,
        ));
        rejected += load_leftover(plan, dir, leftover, &identity, console, stop).await?;
    }
    Ok(rejected)
}

async fn load_leftover(
    plan: &LoadPlan,
    dir: &Path,
    leftover: Leftover,
    identity: &Identity,
    console: &Console,
    stop: &Arc<Stop>,
) -> Result<u64, Error> {
    let mut client = connect::connect(&plan.settings).await?;
    ledger::require(&mut client).await?;
    let resumed = ledger::resume(&mut client, identity).await?;
    let table = Table::find(&client, &identity.table).await?;
    let target = Arc::new(Target {
        table: table.quoted(),
        columns: table.pick(&resumed.columns)?,
    });
    let parser = RowParser::from_reading(&identity.reading, target.json_columns());
    let destination = Destination {
        table,
        target,
        connections: connect::pool(&plan.settings, 1)?,
        ledger: Some(resumed.ledger.clone()),
        names: identity
            .sources
            .iter()
            .map(|source| Arc::from(source.name.as_str()))
            .collect(),
    };
    let (tallies, switches) = (
        Tallies::default(),
        Switches {
            halt: stop.clone(),
            ..Switches::default()
        },
    );
    let job = Arc::new(destination.job(plan, None, None, &tallies, &switches, console));
    let buffers = Pool::new(2);
    let (full_in, full) = async_channel::bounded(1);
    let empty = buffers.empty.clone();
    let reading = tokio::task::spawn_blocking(move || hand_on(leftover, &full_in, &empty));
    let worker = Worker::new(job, parser).run(full, buffers.give_back);
    drop(buffers.empty);
    worker.await?;
    let leftover = reading
        .await
        .map_err(|panic| Error::Mismatch(format!("reading the spill failed: {panic}")))??;
    if stop.is_set() {
        return Err(Error::Interrupted(stop.signal().unwrap_or_default()));
    }
    let loss = leftover.loss();
    if loss.bytes > 0 {
        console.notice(&format!(
            "{} bytes at the end of the spill of import {} were being written when that run ended and are no batch",
            loss.bytes, identity.import_id,
        ));
    }
    if leftover.is_damaged() {
        return Err(Error::Mismatch(format!(
            "batches of import {} in {} are damaged: the disk does not give back what was written; the files stay. Load the missing rows from their source, then remove the files that begin with pgrung-spill-{}",
            identity.import_id,
            dir.display(),
            leftover.run(),
        )));
    }
    // The files are the only other copy, so the commits have to be durable first, and there.
    flush(plan).await?;
    let rows = Rows::of(&tallies.counters);
    let committed = resumed.ledger.records(&client).await;
    let committed = committed.map_err(|error| Error::Server {
        doing: "checking the ledger",
        error,
    })?;
    if committed < rows.read {
        return Err(Error::Lost {
            lost: rows.read - committed,
            read: rows.read,
        });
    }
    leftover.remove()?;
    console.notice(&format!(
        "what an earlier run of import {} left on disk is loaded: {} rows are in the table, {} are rejects",
        identity.import_id,
        rows.loaded, rows.rejected,
    ));
    Ok(rows.rejected)
}

/// Reads the batches in their order until the end, or until nobody takes them.
fn hand_on(
    mut leftover: Leftover,
    full: &async_channel::Sender<crate::batch::Batch>,
    empty: &async_channel::Receiver<crate::batch::Batch>,
) -> Result<Leftover, spill::SpillError> {
    while let Ok(mut batch) = empty.recv_blocking() {
        if !leftover.pop(&mut batch)? || full.send_blocking(batch).is_err() {
            break;
        }
    }
    Ok(leftover)
}
