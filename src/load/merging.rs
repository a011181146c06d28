//! The last step of a load whose rows are staged: guards, the merge, and what goes with it.

use std::time::{Duration, Instant};

use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::connection::ControlConnection;
use super::control::Control;
use super::running::Running;
use super::staging::Staged;
use crate::error::Error;
use crate::job::LoadSettings;
use crate::ledger::{Lease, Ledger, LedgerError, WAIT_FOR_THE_DISK};
use crate::merge::{Guard, MergeError, Merged, Part, Step, Superseded};
use crate::outcome::Outcome;
use crate::worker::OnError;

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
    let merged = tokio::select! {
        merged = merging.merge(connection, control) => merged,
        () = control.stop.wait() => {
            // Whoever connects again ends what is left of the merge.
            connection.forget();
            let _ = tokio::time::timeout(settings.grace, connection.client()).await;
            Err(Error::interrupted(&control.stop))
        }
    };
    if let Err(Error::Guard { .. }) = &merged {
        // Nothing of it is to be gone on with.
        let abandon = |mut client: Client| async {
            let abandoned = ledger.abandon(&mut client).await;
            abandoned.map_err(Error::server("dropping the staging table"))?;
            Ok((client, ()))
        };
        connection
            .ask("dropping the staging table", abandon)
            .await?;
    }
    let Merged {
        tally,
        deleted,
        locked,
        ..
    } = merged?;
    running.counters.merged(tally, deleted);
    running
        .counters
        .locked_micros
        .set(locked.as_micros() as u64);
    Ok(())
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
        control: &Control,
    ) -> Result<Merged, Error> {
        let tally = self.running.counters.tally();
        let rows = tally[Outcome::Inserted] + tally[Outcome::AlreadyLoaded];
        self.guards(rows, tally[Outcome::Rejected])?;
        let table = &self.staged.merge.target.table;
        control
            .console
            .detail(&format!("merging {rows} staged rows into {table}"));
        let doing = "merging the staged rows";
        let one = |mut client: Client| async {
            let merged = self.once(&mut client).await?;
            Ok((client, merged))
        };
        // A merge takes as long as it takes.
        connection.ask_within(Duration::MAX, doing, one).await
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
    async fn once(&self, client: &mut Client) -> Result<Merged, Error> {
        let Merging {
            staged,
            ledger,
            settings,
            ..
        } = self;
        let failed = Error::server("merging the staged rows");
        let transaction = begin(client, settings).await.map_err(&failed)?;
        if !self.lease.hold(&transaction).await.map_err(&failed)? {
            return Err(LedgerError::TakenOver(ledger.import_id.clone()).into());
        }
        if let Some((tally, deleted)) = ledger.begin_merge(&transaction, self.records).await? {
            return Ok(Merged {
                tally,
                deleted,
                ..Merged::default()
            });
        }
        let analyze = format!("ANALYZE {}", staged.merge.staging);
        transaction.batch_execute(&analyze).await.map_err(&failed)?;
        run_sql(&transaction, "--before", &settings.before).await?;
        let step = self.step(&transaction);
        let mut merged = step.run(Part::WHOLE).await.map_err(error)?;
        let began = Instant::now();
        run_sql(&transaction, "--after", &settings.after).await?;
        let exact = staged.merge.is_exact();
        let rejected = self.running.counters.tally()[Outcome::Rejected];
        self.check_rejects(rejected + merged.tally[Outcome::Rejected])?;
        let noted = merged.tally.and(Outcome::Rejected, rejected);
        let finished =
            ledger.finish_merge(&transaction, &staged.place, (noted, merged.deleted), exact);
        finished.await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        if exact {
            merged.locked += began.elapsed();
        }
        merged.tally = noted;
        Ok(merged)
    }

    fn step<'a>(&'a self, transaction: &'a Transaction<'_>) -> Step<'a> {
        Step {
            merge: &self.staged.merge,
            client: transaction.client(),
            ledger: self.ledger,
            reasons: &self.running.counters.reasons,
            sources: &self.running.sources,
            keep_losers: self.settings.superseded == Superseded::Reject,
            lock_wait: self.settings.lock_wait,
        }
    }

    fn check_rejects(&self, rejected: u64) -> Result<(), Error> {
        match self.settings.on_error {
            OnError::Reject(Some(limit)) if limit.is_passed(rejected, self.records) => {
                Err(untouched(Guard::Rejects {
                    rejected,
                    read: self.records,
                    limit,
                }))
            }
            _ => Ok(()),
        }
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
        .batch_execute("SET LOCAL lock_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '60s'; SET LOCAL statement_timeout = 0")
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

/// Runs SQL of the user's in the transaction, which is to be the same one afterwards.
async fn run_sql(
    transaction: &Transaction<'_>,
    flag: &'static str,
    statements: &[String],
) -> Result<(), Error> {
    let of_user = |error| Error::Sql { flag, error };
    let current = "SELECT pg_current_xact_id()::text AS id";
    for sql in statements {
        let before = transaction
            .query_typed_one(current, &[])
            .await
            .map_err(of_user)?;
        transaction.batch_execute(sql).await.map_err(of_user)?;
        let after = transaction
            .query_typed_one(current, &[])
            .await
            .map_err(of_user)?;
        if before.get::<_, &str>("id") != after.get::<_, &str>("id") {
            return Err(Error::Ended(flag));
        }
    }
    Ok(())
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
