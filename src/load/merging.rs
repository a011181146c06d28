//! The last step of a load whose rows are staged: guards, the merge, and what goes with it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::connection::ControlConnection;
use super::control::Control;
use super::running::Running;
use super::staging::Staged;
use crate::error::Error;
use crate::faults;
use crate::job::LoadSettings;
use crate::ledger::{Lease, Ledger, LedgerError, PartState, WAIT_FOR_THE_DISK, run_sql};
use crate::merge::{Guard, Merge, MergeError, Merged, Part, Step, Superseded};
use crate::outcome::{Outcome, Tally};
use crate::report::{Console, Reasons, Rehearsal};
use crate::target::index_staged;
use crate::worker::{Commit, OnError};

/// Merges the staged rows into their table, once.
///
/// # Errors
/// When a guard holds, when a newer run has taken over, and what the server says.
pub async fn merge(
    connection: &mut ControlConnection,
    running: &Running,
    staged: &Staged,
    lease: &Lease,
    settings: &LoadSettings,
    control: &Control,
) -> Result<(), Error> {
    let Some(ledger) = &running.ledger else {
        return Ok(());
    };
    let merging = Merging {
        staged,
        ledger,
        lease,
        settings,
        running,
        records: running.counters.read.get(),
    };
    running.counters.merging.set(1);
    faults::point("before merge");
    // Opened when they are needed.
    let workers = settings.workers();
    let mut beside: Vec<_> = (0..workers).map(|_| connection.another()).collect();
    let merged = tokio::select! {
        merged = merging.merge(connection, &mut beside, control) => merged,
        () = control.stop.wait() => {
            // Whoever connects again ends what is left of the merge.
            let all = beside.iter_mut().chain([connection]);
            let ending = all.map(|connection| async {
                connection.forget();
                let _ = tokio::time::timeout(settings.grace, connection.client()).await;
            });
            futures::future::join_all(ending).await;
            Err(Error::interrupted(&control.stop))
        }
    };
    let Merged {
        tally,
        deleted,
        locked,
        ..
    } = merged?;
    let counters = &running.counters;
    counters.merged(tally, deleted);
    counters.locked_micros.set(locked.as_micros() as u64);
    Ok(())
}

const DOING: &str = "merging the staged rows";

/// A transaction of the merge, unless that is done.
enum Opened<'a> {
    Transaction(Transaction<'a>),
    Merged(Merged),
}

/// Into which parts the merge is divided, unless it is done.
enum Divided {
    Into(Vec<Part>),
    Merged(Merged),
}

/// Drops what a guard has stopped, with its staging table: nothing of it is to be gone on with.
///
/// # Errors
/// What the server says.
pub async fn abandon(connection: &mut ControlConnection, running: &Running) -> Result<(), Error> {
    let (Some(_), Some(ledger)) = (&running.staged, &running.ledger) else {
        return Ok(());
    };
    let doing = "dropping the staging table";
    let abandon = |mut client: Client| async {
        let abandoned = ledger.abandon(&mut client).await;
        abandoned.map_err(Error::server(doing))?;
        Ok((client, ()))
    };
    connection.ask(doing, abandon).await
}

struct Merging<'a> {
    staged: &'a Staged,
    ledger: &'a Ledger,
    lease: &'a Lease,
    settings: &'a LoadSettings,
    running: &'a Running,
    /// Records of the sources that are staged or put aside.
    records: u64,
}

impl Merging<'_> {
    async fn merge(
        &self,
        connection: &mut ControlConnection,
        beside: &mut [ControlConnection],
        control: &Control,
    ) -> Result<Merged, Error> {
        let tally = self.running.counters.tally();
        let rows = tally[Outcome::Inserted] + tally[Outcome::AlreadyLoaded];
        self.guards(rows, tally[Outcome::Rejected])?;
        let table = &self.staged.merge.target.table;
        let console = &control.console;
        console.detail(&format!("merging {rows} staged rows into {table}"));
        if self.is_one_transaction() {
            let reasons = Reasons::default();
            let one = |mut client: Client| async {
                let merged = self.whole(&mut client, &reasons).await?;
                Ok((client, merged))
            };
            // A merge takes as long as it takes.
            let merged = connection.ask_within(Duration::MAX, DOING, one).await?;
            self.tell(&reasons, console);
            return Ok(merged);
        }
        let most = beside.len();
        let divide = |mut client: Client| async {
            let divided = self.divide(&mut client, most).await?;
            Ok((client, divided))
        };
        let parts = match connection.ask_within(Duration::MAX, DOING, divide).await? {
            Divided::Into(parts) => parts,
            Divided::Merged(merged) => return Ok(merged),
        };
        let mut total = Merged::default();
        // An earlier run may have made more parts than this one has workers.
        let merging = parts.chunks(parts.len().div_ceil(most)).zip(beside);
        let merging = merging.map(|(parts, connection)| async move {
            let mut total = Merged::default();
            for part in parts {
                let reasons = Reasons::default();
                total += self.merge_part(connection, part, &reasons).await?;
                self.tell(&reasons, console);
            }
            Ok::<_, Error>(total)
        });
        for merged in futures::future::try_join_all(merging).await? {
            total += merged;
        }
        let close = |mut client: Client| async {
            let merged = self.close(&mut client, total).await?;
            Ok((client, merged))
        };
        connection.ask_within(Duration::MAX, DOING, close).await
    }

    /// Counts why rows were put aside, once that is so.
    fn tell(&self, reasons: &Reasons, console: &Console) {
        for reason in self.running.counters.reasons.add(&reasons.all()) {
            console.detail(&format!("rejected {reason}"));
        }
    }

    /// Merges a part on a connection of its own.
    async fn merge_part(
        &self,
        connection: &mut ControlConnection,
        part: &Part,
        reasons: &Reasons,
    ) -> Result<Merged, Error> {
        let new = |mut client: Client| async {
            let merged = self.part(&mut client, part, true, reasons).await?;
            Ok((client, merged))
        };
        if let Some(merged) = connection.ask_within(Duration::MAX, DOING, new).await? {
            return Ok(merged);
        }
        let failed = Error::server(DOING);
        let drop_losers = |mut client: Client| async {
            let transaction = begin(&mut client, self.settings).await.map_err(&failed)?;
            self.hold(&transaction).await?;
            self.drop_losers(&transaction).await?;
            transaction.commit().await.map_err(&failed)?;
            Ok((client, ()))
        };
        connection
            .ask_within(Duration::MAX, DOING, drop_losers)
            .await?;
        let all = |mut client: Client| async {
            let merged = self.part(&mut client, part, false, reasons).await?;
            Ok((client, merged.unwrap_or_default()))
        };
        connection.ask_within(Duration::MAX, DOING, all).await
    }

    /// Whether what is merged is to be seen all at once.
    fn is_one_transaction(&self) -> bool {
        let settings = self.settings;
        settings.rehearses
            || !self.staged.merge.is_divisible()
            // It is looked at again when the table has judged the rows.
            || self.staged.merge.full && settings.guards.min_rows > 0
            || settings.commit == Commit::Load
            || !settings.before.is_empty()
            || !settings.after.is_empty()
            || matches!(settings.on_error, OnError::Reject(Some(_)) | OnError::Stop)
    }

    /// What is known before anything is merged.
    fn guards(&self, rows: u64, rejected: u64) -> Result<(), Error> {
        let read = self.records;
        let limit = match self.settings.on_error {
            OnError::Reject(Some(limit)) if limit.is_passed(rejected, read) => Some(limit),
            _ => None,
        };
        let held = match limit {
            Some(limit) => Err(Guard::Rejects {
                rejected,
                read,
                limit,
            }),
            None => self.staged.merge.guards.rows(rows),
        };
        held.map_err(untouched)
    }

    /// The whole merge in one transaction.
    async fn whole(&self, client: &mut Client, reasons: &Reasons) -> Result<Merged, Error> {
        let failed = Error::server(DOING);
        let transaction = match self.open(client).await? {
            Opened::Transaction(transaction) => transaction,
            Opened::Merged(merged) => return Ok(merged),
        };
        reasons.clear();
        let Staged { merge, place, .. } = self.staged;
        if let Some(rehearsal) = &self.running.rehearsal {
            let mut seen = told(rehearsal);
            let looked = seen.look_at_rows(transaction.client(), &merge.staging, &merge.target);
            looked.await.map_err(&failed)?;
            keep(rehearsal, seen);
        }
        if merge.is_exact() {
            // Before their locks are waited for: who loads rows that are to go does not get in the way.
            let replaced = self.ledger.replace_others(&transaction, place).await;
            replaced.map_err(&failed)?;
        }
        self.analyze(&transaction).await?;
        run_sql(&transaction, "--before", &self.settings.before).await?;
        let (step, all) = (self.step(&transaction), Part::default());
        let mut merged = match step.run_new(&all).await.map_err(error)? {
            Some(merged) => merged,
            None => {
                self.drop_losers(&transaction).await?;
                step.run(&all, reasons).await.map_err(error)?
            }
        };
        let earlier = self.ledger.rejected_earlier(&transaction).await;
        merged.tally = merged
            .tally
            .and(Outcome::Rejected, earlier.map_err(&failed)?);
        let began = Instant::now();
        run_sql(&transaction, "--after", &self.settings.after).await?;
        let mut merged = self.finish(transaction, merged).await?;
        if merge.is_exact() {
            merged.locked += began.elapsed();
        }
        Ok(merged)
    }

    /// Leaves of the records of each key the one that wins, unless that is done.
    async fn drop_losers(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let failed = Error::server(DOING);
        if let (Some(_), _) = self.ledger.losers(transaction).await.map_err(&failed)? {
            return Ok(());
        }
        let losers = self.step(transaction).drop_losers().await;
        let noted = self.ledger.note_losers(transaction, losers.map_err(error)?);
        noted.await.map_err(&failed)
    }

    /// Divides the merge into so many parts, or fewer, unless an earlier run has divided it.
    async fn divide(&self, client: &mut Client, most: usize) -> Result<Divided, Error> {
        let failed = Error::server(DOING);
        let transaction = match self.open(client).await? {
            Opened::Transaction(transaction) => transaction,
            Opened::Merged(merged) => return Ok(Divided::Merged(merged)),
        };
        self.analyze(&transaction).await?;
        let bounds = match self.ledger.bounds(&transaction).await.map_err(&failed)? {
            Some(bounds) => bounds,
            None => {
                let bounds = self.step(&transaction).bounds(most).await.map_err(error)?;
                let divided = self.ledger.divide(&transaction, &bounds).await;
                divided.map_err(&failed)?;
                bounds
            }
        };
        if self.staged.merge.full {
            // Parts in which rows are bad could not make it beside each other.
            let index = index_staged(&self.staged.merge.staging);
            transaction.batch_execute(&index).await.map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(Divided::Into(Part::between(&bounds)))
    }

    /// One part, in a transaction of its own. `new`: only if the table has none of its rows, and no two
    /// of them have one key.
    async fn part(
        &self,
        client: &mut Client,
        part: &Part,
        new: bool,
        reasons: &Reasons,
    ) -> Result<Option<Merged>, Error> {
        let failed = Error::server(DOING);
        let transaction = begin(client, self.settings).await.map_err(&failed)?;
        self.hold(&transaction).await?;
        let begun = self
            .ledger
            .begin_part(&transaction, part.number, self.records);
        let earlier = match begun.await? {
            PartState::Merged(tally) => {
                return Ok(Some(Merged {
                    tally,
                    ..Merged::default()
                }));
            }
            PartState::MergedEarlier(tally) => Some(tally),
            PartState::New => None,
        };
        reasons.clear();
        let step = self.step(&transaction);
        let merged = match new {
            true => step.run_new(part).await,
            false => step.run(part, reasons).await.map(Some),
        };
        let Some(mut merged) = merged.map_err(error)? else {
            return Ok(None);
        };
        if let Some(earlier) = earlier {
            merged.tally = net(earlier, merged.tally);
        }
        let finished = self
            .ledger
            .finish_part(&transaction, part.number, merged.tally);
        finished.await.map_err(&failed)?;
        faults::point("before part commit");
        transaction.commit().await.map_err(&failed)?;
        faults::point("after part commit");
        Ok(Some(merged))
    }

    /// Closes the import after its last part.
    async fn close(&self, client: &mut Client, merged: Merged) -> Result<Merged, Error> {
        match self.open(client).await? {
            Opened::Transaction(transaction) => self.finish(transaction, merged).await,
            Opened::Merged(merged) => Ok(merged),
        }
    }

    /// Begins a transaction that keeps newer runs out, unless the merge is done already: the answer to
    /// its COMMIT may have been lost.
    async fn open<'a>(&self, client: &'a mut Client) -> Result<Opened<'a>, Error> {
        let transaction = begin(client, self.settings)
            .await
            .map_err(Error::server(DOING))?;
        self.hold(&transaction).await?;
        Ok(
            match self.ledger.begin_merge(&transaction, self.records).await? {
                None => Opened::Transaction(transaction),
                Some((tally, deleted)) => Opened::Merged(Merged {
                    tally,
                    deleted,
                    ..Merged::default()
                }),
            },
        )
    }

    /// Makes sure that the lease is ours until the end of the transaction.
    async fn hold(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        match self
            .lease
            .hold(transaction)
            .await
            .map_err(Error::server(DOING))?
        {
            true => Ok(()),
            false => Err(LedgerError::TakenOver(self.ledger.import_id.clone()).into()),
        }
    }

    async fn analyze(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let analyze = self.staged.merge.analyze();
        transaction
            .batch_execute(&analyze)
            .await
            .map_err(Error::server(DOING))
    }

    /// Closes the import in its last transaction.
    async fn finish(
        &self,
        transaction: Transaction<'_>,
        mut merged: Merged,
    ) -> Result<Merged, Error> {
        let failed = Error::server(DOING);
        let (losers, earlier) = self.ledger.losers(&transaction).await.map_err(&failed)?;
        let losers = losers.unwrap_or(0) + earlier;
        let superseded = self.step(&transaction).superseded(losers).await;
        let superseded = superseded.map_err(error)?;
        let before = self.running.counters.tally()[Outcome::Rejected];
        merged.tally = merged
            .tally
            .and(Outcome::Rejected, before)
            .and(Outcome::Superseded, superseded);
        let rejected = merged.tally[Outcome::Rejected];
        self.guards(merged.tally.total() - rejected, rejected)?;
        if let Some(rehearsal) = &self.running.rehearsal {
            let mut seen = told(rehearsal);
            let looked = seen.look_at_locks(transaction.client()).await;
            looked.map_err(&failed)?;
            keep(rehearsal, seen);
            transaction.rollback().await.map_err(&failed)?;
            return Ok(merged);
        }
        let place = &self.staged.place;
        let counts = (merged.tally, merged.deleted);
        let finished = self.ledger.finish_merge(&transaction, place, counts);
        finished.await.map_err(&failed)?;
        faults::point("before merge commit");
        transaction.commit().await.map_err(&failed)?;
        faults::point("after merge commit");
        Ok(merged)
    }

    fn step<'a>(&'a self, transaction: &'a Transaction<'_>) -> Step<'a> {
        Step {
            merge: &self.staged.merge,
            client: transaction.client(),
            ledger: self.ledger,
            sources: &self.running.sources,
            keep_losers: self.settings.superseded == Superseded::Reject,
            lock_wait: self.settings.lock_wait,
            stop_at_first: self.settings.on_error == OnError::Stop,
        }
    }
}

fn told(rehearsal: &Mutex<Rehearsal>) -> Rehearsal {
    rehearsal.lock().map(|it| it.clone()).unwrap_or_default()
}

fn keep(rehearsal: &Mutex<Rehearsal>, seen: Rehearsal) {
    if let Ok(mut rehearsal) = rehearsal.lock() {
        *rehearsal = seen;
    }
}

/// Begins the transaction of a merge.
async fn begin<'a>(
    client: &'a mut Client,
    settings: &LoadSettings,
) -> Result<Transaction<'a>, tokio_postgres::Error> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await?;
    transaction
        .batch_execute(&format!(
            "SET LOCAL lock_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL statement_timeout = 0; {}",
            Merge::plan()
        ))
        .await?;
    match settings.durability {
        // One commit, and exit code 0 promises that it is durable.
        Some(durability) if !durability.setting().eq("off") => {
            let set = format!("SET LOCAL synchronous_commit = {}", durability.setting());
            transaction.batch_execute(&set).await?;
        }
        _ => transaction.batch_execute(WAIT_FOR_THE_DISK).await?,
    }
    Ok(transaction)
}

/// What became of the records of a part that an earlier run had merged, and this one again: if nothing
/// was left to do, what the earlier one did.
fn net(earlier: Tally, again: Tally) -> Tally {
    let rejected = earlier[Outcome::Rejected];
    let changed = again.loaded() + again[Outcome::Rejected];
    match changed == 0 && earlier.total() - rejected == again.total() {
        true => earlier,
        false => again.and(Outcome::Rejected, rejected),
    }
}

fn untouched(guard: Guard) -> Error {
    Error::Guard {
        guard,
        consequence: "the table is as it was",
    }
}

fn error(error: MergeError) -> Error {
    match error {
        MergeError::Guard(guard) => untouched(guard),
        error => Error::Merge(error),
    }
}
