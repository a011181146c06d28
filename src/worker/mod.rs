//! A worker takes batches and makes each of them one commit: transaction, strategy, retry.

mod attempts;
mod autocommit;
mod blame;
mod error;
mod head;
mod isolate;
mod refusals;
mod session;
mod transaction;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::connect::Pool;
use serde::{Deserialize, Serialize};

use self::attempts::Next;
use self::session::Uncommitted;
use crate::batch::Batch;
use crate::ledger::{Backend, Lease, Ledger};
use crate::merge::{Merge, Share};
use crate::outcome::{Outcome, Tally};
use crate::queue::SpillQueue;
use crate::reject_file::RejectFile;
use crate::report::{Console, Counters, RejectReason};
use crate::retry::Failure;
use crate::source::RowParser;
use crate::stop::Stop;
use crate::strategy::StrategyFactory;
use crate::target::Target;
use crate::window::{FlushReason, Window};

pub use attempts::{Attempts, RetryLimits};
pub use blame::{Blame, Doubts};
pub use error::{DeliveryError, RowError};
pub use head::{HEAD_ROWS, Head};
pub use isolate::Isolation;
pub use session::Session;

/// What a commit covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Commit {
    /// One commit a batch.
    Batch,
    /// One commit a row: `insert` only.
    Row,
    /// One commit for the whole load: all or nothing, one worker.
    Load,
}

/// What happens to bad rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OnError {
    /// They are put aside, and the good ones go on; the load stops past this many, or at its end if
    /// they are more than this share. Without a limit it stops, with nothing loaded, if its first 100
    /// rows are all refused with one SQLSTATE.
    Reject(Option<Share>),
    /// The first one stops the load.
    Stop,
}

/// What all workers of a load share.
pub struct Job {
    /// Connections, at least one a worker.
    pub pool: Pool,
    pub target: Arc<Target>,
    /// How it is written.
    pub strategy: StrategyFactory,
    /// How each batch is merged into the table; `None`: it is written there.
    pub merge: Option<Arc<Merge>>,
    /// What a commit covers.
    pub commit: Commit,
    /// SQL that begins a transaction.
    pub begin: String,
    /// Where commits are noted; `None`: nowhere.
    pub ledger: Option<Ledger>,
    /// What must be ours at each commit; `None`: nothing.
    pub lease: Option<Lease>,
    /// What happens to bad rows.
    pub on_error: OnError,
    /// Where bad rows go without a ledger.
    pub reject_file: Option<Mutex<RejectFile>>,
    /// Batches on disk; a committed batch goes from there.
    pub spilling: Option<SpillQueue>,
    /// Whether the first rows are bad.
    pub head: Head,
    /// Rows blamed for faults that should have passed.
    pub doubts: Doubts,
    /// Whether a row that a foreign key refuses may get in once others of the batch are in.
    pub rows_need_each_other: bool,
    /// Whether constraints may wait for COMMIT.
    pub deferrable: bool,
    /// Whether COPY takes the table, whatever the strategy.
    pub can_copy: bool,
    /// Whether triggers may keep rows out.
    pub suppresses: bool,
    /// Whether a crash of the server takes batches with it whose commit was answered, although
    /// exit code 0 would promise them.
    pub volatile: bool,
    /// Limits of a batch, to tell how full one was.
    pub window: Window,
    /// Limits of the tries of a batch.
    pub limits: RetryLimits,
    /// Server processes of the workers.
    pub backends: Arc<Mutex<Vec<i32>>>,
    /// Names of the sources.
    pub sources: Vec<Arc<str>>,
    /// Counts of the load.
    pub counters: Arc<Counters>,
    /// Whether the load is to stop.
    pub stop: Arc<Stop>,
    pub console: Console,
}

/// Takes batches until there are no more.
pub struct Worker {
    job: Arc<Job>,
    parser: RowParser,
    session: Option<Session>,
    /// A transaction whose connection broke: it may still hold locks on the server.
    orphan: Option<Backend>,
    /// Batches of an open transaction that covers the whole load.
    uncommitted: Vec<(Receipt, InFlight)>,
}

/// Rows taken from the queue whose fate is not known; those left when it is dropped are counted
/// as abandoned, also when the worker is stopped in the middle.
struct InFlight {
    counters: Arc<Counters>,
    rows: u64,
}

impl InFlight {
    fn settle(&mut self, rows: u64) {
        self.rows -= rows.min(self.rows);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counters.abandoned.add(self.rows);
    }
}

/// What a batch became.
struct Receipt {
    fill: f64,
    reason: FlushReason,
    bytes: u64,
    opened: Instant,
    tally: Tally,
    reasons: Vec<RejectReason>,
}

impl Worker {
    /// A worker without a connection yet.
    pub fn new(job: Arc<Job>, parser: RowParser) -> Self {
        Worker {
            job,
            parser,
            session: None,
            orphan: None,
            uncommitted: Vec::new(),
        }
    }

    /// Delivers batches until the channel is empty and closed, or the load stops. Gives every
    /// buffer back.
    ///
    /// # Errors
    /// The failure that ends the load.
    pub async fn run(
        mut self,
        full: async_channel::Receiver<Batch>,
        give_back: async_channel::Sender<Batch>,
    ) -> Result<(), DeliveryError> {
        let job = self.job.clone();
        while !job.stop.is_set() {
            let _turn = job.head.turn().await;
            let waiting = Instant::now();
            let Ok(batch) = full.recv().await else { break };
            let idle = waiting.elapsed().as_micros() as u64;
            self.job.counters.idle_micros.add(idle);
            let rows = batch.len() as u64;
            self.job.counters.read.add(rows);
            let in_flight = InFlight {
                counters: self.job.counters.clone(),
                rows,
            };
            if self.job.stop.is_set() {
                break;
            }
            self.parser.begin(batch.bytes());
            self.deliver(&batch, in_flight).await?;
            // The readers may be done; then nobody needs the buffer.
            let _ = give_back.send(batch).await;
        }
        if !self.job.stop.is_set() {
            self.commit_load().await?;
        }
        Ok(())
    }

    /// Repeats the batch's transaction until it is committed or nothing more can be done.
    async fn deliver(
        &mut self,
        batch: &Batch,
        mut in_flight: InFlight,
    ) -> Result<(), DeliveryError> {
        let mut attempts = Attempts::new(self.job.limits, batch.len());
        loop {
            let failure = match self.transact(batch, &attempts, &mut in_flight).await {
                Ok(receipt) if self.job.commit == Commit::Load => {
                    self.job.counters.written_bytes.add(receipt.bytes);
                    self.uncommitted.push((receipt, in_flight));
                    return Ok(());
                }
                Ok(receipt) => {
                    self.job.count(&receipt, in_flight);
                    if let Some(spilling) = &self.job.spilling {
                        spilling.settle(batch);
                    }
                    return Ok(());
                }
                Err(Ended::Stopped(error)) => {
                    if let (DeliveryError::NothingButRejects { .. }, Some(session)) =
                        (&error, &self.session)
                    {
                        // Nobody is to take a batch when it is his turn.
                        self.job.stop.set();
                        if let Err(failed) = self.job.withdraw_head(session, batch).await {
                            self.job.console.notice(&failed.to_string());
                        }
                    }
                    return Err(error);
                }
                Err(Ended::Failed(failure)) => failure,
            };
            self.recover(&failure).await;
            if !self.uncommitted.is_empty() {
                return Err(DeliveryError::gave_up(failure, LOAD_LOST));
            }
            if self.job.ledger.is_none() && self.job.volatile && failure.may_be_a_crash() {
                return Err(DeliveryError::gave_up(
                    failure,
                    "without a ledger it is not known whether the server crashed and lost batches that it had committed: count the rows of the table",
                ));
            }
            let wait = match attempts.next(&failure) {
                Next::Again => continue,
                Next::GiveUp => return Err(DeliveryError::gave_up(failure, attempts.given_up())),
                Next::Wait(wait) => wait,
            };
            self.job.counters.retries.add(1);
            self.job.console.notice(&format!(
                "{}: records from {}: {failure}; trying again in {wait:.1?}",
                self.job.sources[batch.source], batch.first_record,
            ));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.job.stop.wait() => return Ok(()),
            }
        }
    }

    /// After a failed try: rolls back where the connection is good for it, else lets it go and
    /// remembers the transaction that the server may still hold open.
    async fn recover(&mut self, failure: &Failure) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        if crate::faults::sabotaged("discard") {
            // As it is: with what it holds open, and with what it has yet to say.
            self.session = Some(session);
            return;
        }
        if failure.keeps_connection() && session.rollback().await.is_ok() {
            self.session = Some(session);
        } else {
            self.orphan = session.discard().or(self.orphan);
        }
    }

    /// Commits the transaction that covers the whole load.
    async fn commit_load(&mut self) -> Result<(), DeliveryError> {
        let Some(session) = self
            .session
            .as_mut()
            .filter(|_| !self.uncommitted.is_empty())
        else {
            return Ok(());
        };
        let begun = Instant::now();
        if let Err(Uncommitted { failure, was_asked }) = session.commit().await {
            let what = match &self.job.ledger {
                _ if !was_asked => LOAD_LOST,
                Some(_) => "run the same command again: the ledger tells whether it was committed",
                None => {
                    "without a ledger it is not known whether it was committed: count the rows of the table"
                }
            };
            return Err(DeliveryError::gave_up(failure, what));
        }
        self.job.counters.commit.record(begun.elapsed());
        for (receipt, in_flight) in std::mem::take(&mut self.uncommitted) {
            self.job.count(&receipt, in_flight);
        }
        Ok(())
    }
}

/// What becomes of a load that is one transaction and lost its connection.
const LOAD_LOST: &str = "the transaction of the whole load is lost and rolled back";

impl Job {
    fn blame(&self) -> Blame<'_> {
        Blame {
            target: &self.target,
            can_copy: self.can_copy,
            doubts: &self.doubts,
        }
    }

    /// Notes a committed batch.
    fn count(&self, receipt: &Receipt, mut in_flight: InFlight) {
        let Receipt {
            fill,
            reason,
            bytes,
            opened,
            tally,
            reasons,
        } = receipt;
        for reason in self.counters.reasons.add(reasons) {
            self.console.detail(&format!("rejected {reason}"));
        }
        self.counters.wait.record(opened.elapsed());
        if tally[Outcome::Inserted] > 0 {
            self.doubts.clear();
        }
        in_flight.settle(tally.total());
        self.counters.batch(*reason, *fill, *tally, *bytes);
    }
}

/// How a try ended without a commit.
enum Ended {
    /// The try failed; another may succeed.
    Failed(Failure),
    Stopped(DeliveryError),
}

impl From<DeliveryError> for Ended {
    fn from(error: DeliveryError) -> Self {
        Ended::Stopped(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failed(failure)
    }
}
