//! Loads batches that an earlier run left on disk: each exactly once, because the ledger knows
//! which of them were committed.

use std::path::Path;
use std::sync::Arc;

use tokio_postgres::Client;

use super::close::{check_lost, flush};
use super::columns::mapped;
use super::connection::ControlConnection;
use super::control::Control;
use super::running::Running;
use super::workers::Destination;
use crate::batch::Batch;
use crate::connect;
use crate::error::Error;
use crate::job::LoadSettings;
use crate::ledger;
use crate::outcome::Outcome;
use crate::queue::{self, Identity, Leftover, Queue, SpillError};
use crate::report::Counters;
use crate::source::{RowParser, checksum};
use crate::span::{Known, Span};
use crate::target::Table;
use crate::worker::Worker;

/// Loads all leftovers in the directory of the spill, oldest first, and removes them; returns how
/// many of their records are rejects.
///
/// # Errors
/// When the disk or the server refuses; what is committed stays committed, the rest stays on disk.
pub async fn load_leftovers(
    settings: &LoadSettings,
    connection: &mut ControlConnection,
    control: &Control,
) -> Result<u64, Error> {
    let Some(dir) = settings.spills_to() else {
        return Ok(0);
    };
    let mut rejected = 0;
    for leftover in queue::leftovers(dir)? {
        let Some(identity) = leftover.identity().cloned() else {
            control.console.notice(&format!(
                "{}: run {} left files without a readable batch; they stay where they are",
                dir.display(),
                leftover.run(),
            ));
            continue;
        };
        // Whatever goes wrong with them is then not taken for a fault of this load.
        control.console.notice(&format!(
            "{}: an earlier run of import {} left batches for {}; they are loaded first",
            dir.display(),
            identity.import_id,
            identity.table,
        ));
        let Some((running, destination, known)) = take_up(&identity, connection).await? else {
            control.console.notice(&format!(
                "the ledger of this database does not know import {}: it was forgotten (--restart), or belongs to another database; the files that begin with pgrung-spill-{} stay where they are",
                identity.import_id,
                leftover.run(),
            ));
            continue;
        };
        for (source, _) in identity
            .sources
            .iter()
            .zip(&known)
            .filter(|(_, it)| it.is_none())
        {
            control.console.notice(&format!(
                "{}: what import {} knew of it is forgotten (--restart), and its batches in {} with it",
                source.name,
                source.import_id,
                dir.display(),
            ));
        }
        let before: u64 = known
            .iter()
            .flatten()
            .flatten()
            .map(|span| span.records)
            .sum();
        let (leftover, passed) = deliver(
            leftover,
            &identity,
            &running,
            (destination, known),
            settings,
            control,
        )
        .await?;
        check_loss(&leftover, &identity, dir, control)?;
        rejected += settle(
            leftover,
            &identity,
            &running,
            before - passed,
            connection,
            control,
        )
        .await?;
    }
    Ok(rejected)
}

/// Takes the import up again: where its batches go, and what is committed of its sources.
async fn take_up(
    identity: &Identity,
    connection: &mut ControlConnection,
) -> Result<Option<(Running, Destination, Vec<Option<Known>>)>, Error> {
    let pool = connect::pool(connection.server(), 1)?;
    connection.require_ledger().await?;
    let take_up = |mut client: Client| async {
        let resumed = ledger::resume(&mut client, identity).await?;
        let Some(resumed) = resumed else {
            return Ok((client, None));
        };
        let table = Table::find(&client, &identity.table).await?;
        let names = identity.sources.iter().map(|source| source.name.as_str());
        let names: Vec<Arc<str>> = names.map(Arc::from).collect();
        let fields = resumed.columns.clone();
        let (target, _) = mapped(&client, &table, fields, &resumed.maps, &names).await?;
        Ok((client, Some((resumed, table, target, names))))
    };
    let taken_up = connection.ask("taking up the import", take_up).await?;
    let Some((resumed, table, target, names)) = taken_up else {
        return Ok(None);
    };
    let destination = Destination {
        names,
        table,
        target: target.clone(),
        merge: None,
        lease: None,
        pool,
        ledger: Some(resumed.ledger.clone()),
        reject_file: None,
        fresh: false,
    };
    let running = Running::unseen(target, resumed.ledger);
    Ok(Some((running, destination, resumed.known)))
}

/// Delivers the batches with one worker: their order is that of the source.
async fn deliver(
    leftover: Leftover,
    identity: &Identity,
    running: &Running,
    (destination, known): (Destination, Vec<Option<Known>>),
    settings: &LoadSettings,
    control: &Control,
) -> Result<(Leftover, u64), Error> {
    let parser = RowParser::of(&identity.reading, destination.target.key_columns());
    let job = Arc::new(destination.job(settings, running, &control.stop, control));
    let queue = Queue::new(1, 2);
    let (full, empty) = (queue.full, queue.empty.clone());
    let counters = running.counters.clone();
    let reading =
        tokio::task::spawn_blocking(move || hand_on(leftover, &known, &counters, &full, &empty));
    let worker = Worker::new(job, parser).run(queue.waiting, queue.give_back);
    drop(queue.empty);
    worker.await?;
    let read = reading.await.map_err(Error::panic("reading the spill"))??;
    if control.stop.is_set() {
        return Err(Error::interrupted(&control.stop));
    }
    Ok(read)
}

/// Reads the batches in their order until the end, or until nobody takes them. Of a batch that
/// another run has loaded in part, in batches of its own, only the rest. Tells how many of the
/// records were committed before.
fn hand_on(
    mut leftover: Leftover,
    known: &[Option<Known>],
    counters: &Counters,
    full: &async_channel::Sender<Batch>,
    empty: &async_channel::Receiver<Batch>,
) -> Result<(Leftover, u64), SpillError> {
    let mut batch = Batch::with_capacity(0);
    let mut passed = 0;
    while leftover.pop(&mut batch)? {
        // What was forgotten has been loaded anew, or will be.
        let Some(known) = known.get(batch.source).and_then(Option::as_deref) else {
            continue;
        };
        let all = 0..batch.len();
        let is_this = |span: &&Span| {
            (span.start..span.end) == batch.span() && span.checksum == Some(checksum(batch.bytes()))
        };
        if let Some(span) = known.iter().find(is_this) {
            counters.known(span);
            passed += span.records;
            continue;
        }
        // What is other than that, or overlaps it, is a conflict, which the worker finds.
        let is_other = |span: &Span| {
            let within = batch.within(span.start..span.end);
            within.is_some_and(|bytes| span.checksum != Some(checksum(bytes)))
        };
        let parts = batch.outside(known).filter(|_| !known.iter().any(is_other));
        for part in parts.unwrap_or_else(|| vec![all]) {
            let Ok(mut buffer) = empty.recv_blocking() else {
                return Ok((leftover, passed));
            };
            batch.copy(part, &mut buffer);
            if full.send_blocking(buffer).is_err() {
                return Ok((leftover, passed));
            }
        }
    }
    Ok((leftover, passed))
}

/// Says what of the files is no batch.
fn check_loss(
    leftover: &Leftover,
    identity: &Identity,
    dir: &Path,
    control: &Control,
) -> Result<(), Error> {
    let loss = leftover.loss();
    if loss.bytes > 0 {
        control.console.notice(&format!(
            "{} bytes at the end of the spill of import {} were being written when that run ended and are no batch",
            loss.bytes, identity.import_id,
        ));
    }
    if leftover.is_damaged() {
        return Err(Error::Leftover(format!(
            "batches of import {} in {} are damaged: the disk does not give back what was written; the files stay. Load the missing rows from their source, then remove the files that begin with pgrung-spill-{}",
            identity.import_id,
            dir.display(),
            leftover.run(),
        )));
    }
    Ok(())
}

/// Removes the files once their rows are durable: they are the only other copy. `elsewhere`: records
/// of the same sources that were committed before and are not among them. Returns how many of the
/// rows are rejects.
async fn settle(
    leftover: Leftover,
    identity: &Identity,
    running: &Running,
    elsewhere: u64,
    connection: &mut ControlConnection,
    control: &Control,
) -> Result<u64, Error> {
    flush(connection).await?;
    let rows = running.counters.rows();
    if let Some(ledger) = &running.ledger {
        let doing = "checking the ledger";
        let count = |client: Client| async {
            let committed = ledger.records(&client).await;
            Ok((client, committed.map_err(Error::server(doing))?))
        };
        check_lost(connection.ask(doing, count).await?, elsewhere + rows.read)?;
    }
    leftover.remove()?;
    let rejected = rows.tally[Outcome::Rejected];
    control.console.notice(&format!(
        "what an earlier run of import {} left on disk is loaded: {} rows are in the table, {rejected} are rejects",
        identity.import_id,
        rows.tally.loaded() + rows.tally[Outcome::AlreadyLoaded],
    ));
    Ok(rejected)
}
