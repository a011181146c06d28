//! A worker takes batches and makes each of them one commit: transaction, strategy, retry.

mod isolate;
mod session;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;

use self::isolate::Isolation;
use self::session::{Session, Written};
use crate::batch::Batch;
use crate::error::{Error, RowError};
use crate::report::{Console, Counters, Latency};
use crate::retry::{Action, Failure, Pace, advice, pause};
use crate::source::RowParser;
use crate::stop::Stop;
use crate::strategy::{Refusal, Refused, StrategyKind};
use crate::table::Target;
use crate::window::Window;

/// What a commit covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Commit {
    /// One commit a batch.
    Batch,
    /// One commit a row: `insert` only.
    Row,
    /// One commit for the whole load: all or nothing, one worker.
    Load,
}

/// What all workers of a load share.
pub struct Job {
    /// Connections, at least one a worker.
    pub pool: Pool,
    /// What is written.
    pub target: Arc<Target>,
    /// How it is written.
    pub strategy: StrategyKind,
    /// What a commit covers.
    pub commit: Commit,
    /// SQL that begins a transaction.
    pub begin: String,
    /// Whether constraints may wait for COMMIT.
    pub deferrable: bool,
    /// Whether triggers or rules may keep rows out.
    pub suppresses: bool,
    /// Limits of a batch, to tell how full one was.
    pub window: Window,
    /// Longest wait for one answer of the server.
    pub answer_timeout: Duration,
    /// Longest time to deliver one batch, retries included.
    pub delivery_timeout: Duration,
    /// Most repetitions of one transaction.
    pub max_retries: u32,
    /// Names of the sources.
    pub sources: Vec<Arc<str>>,
    /// Counts of the load.
    pub counters: Arc<Counters>,
    /// Commit latencies of the load.
    pub latency: Arc<Latency>,
    /// Whether the load is to stop.
    pub stop: Arc<Stop>,
    /// Where notices go.
    pub console: Console,
}

/// Takes batches until there are no more.
pub struct Worker {
    job: Arc<Job>,
    parser: RowParser,
    session: Option<Session>,
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
        self.counters
            .abandoned
            .fetch_add(self.rows, Ordering::Relaxed);
    }
}

/// What a batch became.
struct Receipt {
    fill: f64,
    reason: crate::window::FlushReason,
    bytes: u64,
    written: Written,
}

impl Worker {
    /// A worker without a connection yet.
    pub fn new(job: Arc<Job>, parser: RowParser) -> Self {
        Worker {
            job,
            parser,
            session: None,
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
    ) -> Result<(), Error> {
        while !self.job.stop.is_set() {
            let Ok(batch) = full.recv().await else { break };
            if self.job.stop.is_set() {
                break;
            }
            let in_flight = InFlight {
                counters: self.job.counters.clone(),
                rows: batch.len() as u64,
            };
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
    async fn deliver(&mut self, batch: &Batch, mut in_flight: InFlight) -> Result<(), Error> {
        let mut trial = Trial::new(batch.len());
        loop {
            let failure = match self.transact(batch, &trial, &mut in_flight).await {
                Ok(receipt) => {
                    self.account(receipt, in_flight);
                    return Ok(());
                }
                Err(Ended::Stopped(error)) => return Err(error),
                Err(Ended::Failed(failure)) => failure,
            };
            self.recover(&failure).await;
            if self.job.commit == Commit::Load && !self.uncommitted.is_empty() {
                return Err(self.gave_up(failure, "the transaction of the whole load is lost"));
            }
            let Some(wait) = trial.next(&failure, &self.job) else {
                return Err(self.gave_up(failure, "no more retries"));
            };
            if let Some((pace, wait)) = wait {
                self.job.counters.retries.fetch_add(1, Ordering::Relaxed);
                self.job.console.notice(&format!(
                    "{failure}; trying again{}",
                    if pace == Pace::AtOnce {
                        String::new()
                    } else {
                        format!(" in {wait:.1?}")
                    }
                ));
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.job.stop.wait() => return Ok(()),
                }
            }
        }
    }

    /// One try: from BEGIN to the answer to COMMIT.
    async fn transact(
        &mut self,
        batch: &Batch,
        trial: &Trial,
        in_flight: &mut InFlight,
    ) -> Result<Receipt, Ended> {
        let job = self.job.clone();
        let session = match &mut self.session {
            Some(session) => session,
            none => {
                let strategy = job.strategy.build(job.target.clone());
                none.insert(Session::open(&job.pool, strategy, job.answer_timeout).await?)
            }
        };
        let mut refused = Refused::default();
        let written = if job.strategy == StrategyKind::Discard {
            session
                .write(batch, 0..batch.len(), &mut self.parser, &mut refused)
                .await?
        } else if job.commit == Commit::Row {
            autocommit(
                &job,
                session,
                batch,
                &mut self.parser,
                &mut refused,
                in_flight,
            )
            .await?
        } else {
            let begun = Instant::now();
            if self.uncommitted.is_empty() {
                session.execute(&job.begin).await?;
            }
            let careful = trial.careful || job.commit == Commit::Load;
            let written = if careful {
                let isolation = Isolation {
                    batch,
                    piece: trial.piece,
                    deferrable: job.deferrable,
                    table: &job.target.table,
                    stop_at_first: true,
                };
                isolation
                    .write(session, &mut self.parser, &mut refused)
                    .await?
            } else {
                session
                    .write(batch, 0..batch.len(), &mut self.parser, &mut refused)
                    .await?
            };
            check_count(&job, written)?;
            if let Some(error) = first_refusal(&job, batch, &refused) {
                session.execute("ROLLBACK").await?;
                return Err(Ended::Stopped(error));
            }
            if job.commit == Commit::Batch {
                if job.deferrable {
                    session.execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
                }
                session.execute("COMMIT").await?;
                job.latency.record(begun.elapsed());
            }
            written
        };
        if let Some(error) = first_refusal(&job, batch, &refused) {
            return Err(Ended::Stopped(error));
        }
        Ok(Receipt {
            fill: (batch.len() as f64 / job.window.rows as f64)
                .max(batch.bytes().len() as f64 / job.window.bytes as f64)
                .min(1.0),
            reason: batch.reason,
            bytes: batch.bytes().len() as u64,
            written,
        })
    }

    /// After a failed try: rolls back where the connection is good for it, else lets it go.
    async fn recover(&mut self, failure: &Failure) {
        let Some(session) = self.session.take() else {
            return;
        };
        if failure.keeps_connection() && session.execute("ROLLBACK").await.is_ok() {
            self.session = Some(session);
        } else {
            session.discard();
        }
    }

    fn account(&mut self, receipt: Receipt, in_flight: InFlight) {
        if self.job.commit == Commit::Load {
            self.uncommitted.push((receipt, in_flight));
        } else {
            self.job.count(&receipt, in_flight);
        }
    }

    /// Commits the transaction that covers the whole load.
    async fn commit_load(&mut self) -> Result<(), Error> {
        if self.uncommitted.is_empty() {
            return Ok(());
        }
        if let Some(session) = &self.session {
            let begun = Instant::now();
            if let Err(failure) = session.execute("COMMIT").await {
                return Err(self.gave_up(failure, "the transaction of the whole load is lost"));
            }
            self.job.latency.record(begun.elapsed());
        }
        for (receipt, in_flight) in std::mem::take(&mut self.uncommitted) {
            self.job.count(&receipt, in_flight);
        }
        Ok(())
    }

    fn gave_up(&self, failure: Failure, what: &'static str) -> Error {
        let advice = failure.sqlstate().and_then(advice);
        Error::Delivery {
            failure,
            what,
            advice,
        }
    }
}

impl Job {
    fn row_error(&self, batch: &Batch, index: usize, refusal: &Refusal) -> Error {
        let source = &self.sources[batch.source];
        Error::Row(Box::new(RowError::new(
            source,
            &self.target,
            batch,
            index,
            refusal,
        )))
    }

    fn count(&self, receipt: &Receipt, mut in_flight: InFlight) {
        let Receipt {
            fill,
            reason,
            bytes,
            written,
        } = receipt;
        in_flight.settle(written.sent);
        self.counters.batch(*reason, *fill, written.stored, *bytes);
        let suppressed = written.sent - written.stored;
        self.counters
            .suppressed
            .fetch_add(suppressed, Ordering::Relaxed);
    }
}

/// How often and how carefully a batch was tried.
struct Trial {
    began: Instant,
    retries: u32,
    /// Tries of the latest kind of failure that allows only a few.
    few: u32,
    /// Whether to look for bad rows.
    careful: bool,
    /// Most records of one statement.
    piece: usize,
    records: usize,
}

impl Trial {
    fn new(records: usize) -> Self {
        Trial {
            began: Instant::now(),
            retries: 0,
            few: 0,
            careful: false,
            piece: records,
            records,
        }
    }

    /// What to do after `failure`: `None`: give up; else the pause before the next try, if any.
    fn next(&mut self, failure: &Failure, job: &Job) -> Option<Option<(Pace, Duration)>> {
        let pace = match failure.action() {
            Action::Stop => return None,
            // The careful way sorts bad rows out itself, so a second time means it cannot.
            Action::FindRow if self.careful => return None,
            Action::FindRow => {
                self.careful = true;
                return Some(None);
            }
            Action::RetrySmaller(most) => {
                self.careful = true;
                self.piece = (self.records >> (2 * (self.few + 1))).max(1);
                Pace::Few(most)
            }
            Action::Retry(pace) => pace,
        };
        self.retries += 1;
        if let Pace::Few(most) = pace {
            self.few += 1;
            if self.few > most {
                return None;
            }
        }
        let wait = pause(pace, self.retries);
        let in_time = self.began.elapsed() + wait < job.delivery_timeout;
        (self.retries <= job.max_retries && in_time).then_some(Some((pace, wait)))
    }
}

/// Each row a commit of its own.
async fn autocommit(
    job: &Job,
    session: &mut Session,
    batch: &Batch,
    parser: &mut RowParser,
    refused: &mut Refused,
    in_flight: &mut InFlight,
) -> Result<Written, Ended> {
    let mut total = Written::default();
    for index in 0..batch.len() {
        let begun = Instant::now();
        let written = match session
            .write(batch, index..index + 1, parser, refused)
            .await
        {
            Ok(written) => written,
            Err(failure) => {
                // These rows are committed, whatever becomes of the batch.
                job.counters
                    .loaded
                    .fetch_add(total.stored, Ordering::Relaxed);
                in_flight.settle(total.sent);
                return Err(Ended::Stopped(match failure.action() {
                    Action::FindRow => row_error(job, batch, index, &failure),
                    _ => Error::Delivery {
                        advice: failure.sqlstate().and_then(advice),
                        failure,
                        what: "rows commit one by one without a ledger, so it is not known whether this one is stored",
                    },
                }));
            }
        };
        check_count(job, written)?;
        job.latency.record(begun.elapsed());
        total += written;
        if job.stop.is_set() {
            break;
        }
    }
    Ok(total)
}

fn check_count(job: &Job, written: Written) -> Result<(), Failure> {
    let Written { sent, stored } = written;
    if stored == sent || (job.suppresses && stored < sent) {
        Ok(())
    } else {
        Err(Failure::Count { sent, stored })
    }
}

fn row_error(job: &Job, batch: &Batch, index: usize, failure: &Failure) -> Error {
    let refusal = isolate::refusal(failure, &job.target.table);
    job.row_error(batch, index, &refusal)
}

fn first_refusal(job: &Job, batch: &Batch, refused: &Refused) -> Option<Error> {
    let (index, refusal) = refused.iter().next()?;
    Some(job.row_error(batch, index, refusal))
}

enum Ended {
    /// The try failed; another may succeed.
    Failed(Failure),
    /// The load ends.
    Stopped(Error),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failed(failure)
    }
}
