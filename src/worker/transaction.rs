//! The transaction of a batch: fence and claim, write, rejects, constraints, settle, commit.

use std::ops::RangeInclusive;
use std::time::Instant;

use super::isolate::{self, Isolation};
use super::session::{Session, Written};
use super::trial::Trial;
use super::{Commit, Ended, InFlight, Job, OnError, Receipt, Worker, gave_up};
use crate::batch::Batch;
use crate::error::Error;
use crate::faults;
use crate::ledger::{Claim, Ledger, Tally};
use crate::rejects::{self, Reason};
use crate::retry::{Action, Failure};
use crate::source::RowParser;
use crate::strategy::{Refused, StrategyKind};

/// If the first so many records of a load are all refused alike, the fault lies with the table or
/// the options, not with the rows.
const RAIL: usize = 100;

impl Worker {
    /// One try: from BEGIN to the answer to COMMIT.
    pub(super) async fn transact(
        &mut self,
        batch: &Batch,
        trial: &Trial,
        in_flight: &mut InFlight,
    ) -> Result<Receipt, Ended> {
        let job = self.job.clone();
        self.connect().await?;
        let Worker {
            session: Some(session),
            parser,
            ..
        } = self
        else {
            return Err(Ended::Failed(Failure::Timeout(job.patience.answer_timeout)));
        };
        let mut refused = Refused::default();
        let tally = if job.strategy == StrategyKind::Discard {
            let written = session
                .write(batch, 0..batch.len(), false, parser, &mut refused)
                .await?;
            job.check_refused(batch, &refused, 0)?;
            tally(written, &refused)
        } else if job.commit == Commit::Row && job.ledger.is_none() {
            job.autocommit(session, batch, parser, &mut refused, in_flight)
                .await?
        } else {
            let transaction = Transaction {
                job: &job,
                batch,
                trial,
                opened: self.uncommitted.is_empty(),
                uncommitted: self
                    .uncommitted
                    .iter()
                    .map(|(receipt, _)| receipt.tally.rejected)
                    .sum(),
            };
            transaction.run(session, parser, &mut refused).await?
        };
        job.write_reject_file(batch, &refused)?;
        if let Some(note) = session.take_note() {
            job.console.detail(&note);
        }
        Ok(Receipt {
            fill: (batch.len() as f64 / job.window.rows as f64)
                .max(batch.bytes().len() as f64 / job.window.bytes as f64)
                .min(1.0),
            reason: batch.reason,
            bytes: batch.bytes().len() as u64,
            opened: batch.opened,
            tally,
        })
    }

    /// Makes sure there is a connection, and that no transaction of a broken one is left over.
    async fn connect(&mut self) -> Result<(), Failure> {
        if self.session.is_none() {
            let job = &self.job;
            let strategy = job.strategy.build(job.target.clone(), job.copy_format);
            let session = Session::open(&job.pool, strategy, job.patience.answer_timeout).await?;
            let pid = session.pid().await?;
            if let Ok(mut backends) = job.backends.lock() {
                backends.push(pid);
            }
            if let Some(orphan) = self.orphan {
                orphan.terminate(session.client()).await?;
                self.orphan = None;
            }
            self.session = Some(session);
        }
        Ok(())
    }
}

/// One transaction of one batch, or one batch within the transaction of the whole load.
struct Transaction<'a> {
    job: &'a Job,
    batch: &'a Batch,
    trial: &'a Trial,
    /// Whether this batch begins the transaction.
    opened: bool,
    /// Bad rows of earlier batches of the transaction.
    uncommitted: u64,
}

impl Transaction<'_> {
    async fn run(
        &self,
        session: &mut Session,
        parser: &mut RowParser,
        refused: &mut Refused,
    ) -> Result<Tally, Ended> {
        let Transaction { job, batch, .. } = *self;
        let begun = Instant::now();
        if self.opened {
            step("begin", session.begin(&job.begin)).await?;
        }
        if let Some(ledger) = &job.ledger
            && let Some(tally) = self.claim(session, ledger).await?
        {
            return Ok(tally);
        }
        let written = step("write", self.write(session, parser, refused)).await?;
        job.check_count(written)?;
        if let Err(error) = job.check_refused(batch, refused, self.uncommitted) {
            session.execute("ROLLBACK").await?;
            return Err(Ended::Stopped(error));
        }
        let tally = tally(written, refused);
        if let Some(ledger) = &job.ledger {
            if !refused.is_empty() {
                let stored = rejects::store(session.client(), ledger, &job.target, batch, refused);
                step("rejects", session.answered(stored)).await?;
            }
            self.constraints(session).await?;
            let settled = session.settle(ledger, batch, tally);
            if !step("settle", settled).await? {
                // The transaction was aborted behind our back; a COMMIT would roll back quietly.
                return Err(Ended::Failed(Failure::Vanished));
            }
        } else {
            self.constraints(session).await?;
        }
        if job.commit != Commit::Load {
            self.commit(session).await?;
            job.latency.record(begun.elapsed());
        }
        Ok(tally)
    }

    /// Claims the batch's span; a tally if it turns out to be loaded already.
    async fn claim(&self, session: &mut Session, ledger: &Ledger) -> Result<Option<Tally>, Ended> {
        let Transaction { job, batch, .. } = *self;
        let claim = step("claim", session.claim(ledger, batch)).await?;
        let error = match claim {
            Claim::Ours => return Ok(None),
            Claim::Loaded(_) if faults::sabotaged("claim") => return Ok(None),
            Claim::Loaded(tally) => {
                if self.opened {
                    session.execute("ROLLBACK").await?;
                }
                return Ok(Some(tally));
            }
            Claim::TakenOver => Error::TakenOver(ledger.import_id.clone()),
            Claim::Conflict => Error::Changed(format!(
                "import {}: the ledger has another span at byte {} of {}: the source differs from the one loaded before; --restart loads it anew",
                ledger.import_id, batch.start_byte, job.sources[batch.source],
            )),
        };
        session.execute("ROLLBACK").await?;
        Err(Ended::Stopped(error))
    }

    async fn write(
        &self,
        session: &mut Session,
        parser: &mut RowParser,
        refused: &mut Refused,
    ) -> Result<Written, Failure> {
        let Transaction {
            job, batch, trial, ..
        } = *self;
        // Without a savepoint a bad row would end the transaction of the whole load.
        if trial.careful || job.commit == Commit::Load {
            let isolation = Isolation {
                batch,
                piece: trial.piece,
                deferrable: job.deferrable,
                target: &job.target,
                can_copy: job.can_copy,
                stop_at_first: job.on_error == OnError::Stop,
                rail: job.is_at_rail(batch).then_some(RAIL),
            };
            return isolation.write(session, parser, refused).await;
        }
        session
            .write(batch, 0..batch.len(), false, parser, refused)
            .await
    }

    async fn constraints(&self, session: &Session) -> Result<(), Failure> {
        if self.job.deferrable {
            session.execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
        }
        Ok(())
    }

    async fn commit(&self, session: &mut Session) -> Result<(), Ended> {
        let Transaction { job, batch, .. } = *self;
        match step("commit", session.execute("COMMIT")).await {
            Ok(()) => {
                session.settled();
                Ok(())
            }
            // With a ledger the same transaction tells, run again. Without one, only a refusal
            // that comes before the commit proves that nothing is stored.
            Err(failure) if job.ledger.is_none() && !refused_before_commit(&failure) => {
                let records = records(batch);
                Err(Ended::Stopped(gave_up(
                    failure,
                    format!(
                        "the answer to COMMIT was lost and there is no ledger: it is not known whether records {} to {} of {} are stored",
                        records.start(),
                        records.end(),
                        job.sources[batch.source],
                    ),
                )))
            }
            Err(failure) => Err(Ended::Failed(failure)),
        }
    }
}

/// One step of the transaction, with the places where a test may kill the process.
async fn step<T, E>(name: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    if cfg!(debug_assertions) {
        faults::point(&format!("before {name}"));
    }
    let result = work.await;
    if cfg!(debug_assertions) {
        faults::point(&format!("after {name}"));
    }
    result
}

fn records(batch: &Batch) -> RangeInclusive<u64> {
    batch.first_record..=batch.first_record + batch.len() as u64 - 1
}

fn tally(written: Written, refused: &Refused) -> Tally {
    Tally {
        loaded: written.stored,
        rejected: refused.len() as u64,
        suppressed: written.sent.saturating_sub(written.stored),
    }
}

/// Whether the answer to COMMIT says that nothing was committed: constraints and serialization
/// are judged before.
fn refused_before_commit(failure: &Failure) -> bool {
    failure
        .sqlstate()
        .is_some_and(|code| code.starts_with("23") || code.starts_with("40") && code != "40003")
}

/// Asks for the column at fault, in a transaction of its own.
async fn probe(
    session: &mut Session,
    job: &Job,
    batch: &Batch,
    index: usize,
    parser: &mut RowParser,
) -> Result<Option<String>, Failure> {
    session.execute("BEGIN").await?;
    let column = session
        .column_at_fault(&job.target, batch, index, parser)
        .await?;
    session.execute("ROLLBACK").await?;
    Ok(column)
}

impl Job {
    /// Each row a commit of its own.
    async fn autocommit(
        &self,
        session: &mut Session,
        batch: &Batch,
        parser: &mut RowParser,
        refused: &mut Refused,
        in_flight: &mut InFlight,
    ) -> Result<Tally, Ended> {
        let mut total = Written::default();
        for index in 0..batch.len() {
            let begun = Instant::now();
            match session
                .write(batch, index..index + 1, false, parser, refused)
                .await
            {
                Ok(written) => {
                    if let Err(failure) = self.check_count(written) {
                        self.committed(total, in_flight);
                        return Err(Ended::Stopped(gave_up(
                            failure,
                            "rows before it are committed",
                        )));
                    }
                    self.latency.record(begun.elapsed());
                    total += written;
                }
                Err(failure) if failure.action() == Action::FindRow => {
                    let mut refusal = isolate::refusal(&failure, &self.target.table);
                    if self.can_copy
                        && refusal.column.is_none()
                        && refusal.sqlstate.starts_with("22")
                    {
                        let probed = probe(session, self, batch, index, parser).await;
                        match probed {
                            Ok(column) => refusal.column = column,
                            // Rows before are committed: a repetition would double them.
                            Err(failure) => {
                                self.committed(total, in_flight);
                                let record = batch.first_record + index as u64;
                                return Err(Ended::Stopped(gave_up(
                                    failure,
                                    format!(
                                        "rows commit one by one; record {record} is refused, those after it are not loaded"
                                    ),
                                )));
                            }
                        }
                    }
                    refused.insert(index, refusal);
                }
                Err(failure) => {
                    self.committed(total, in_flight);
                    let record = batch.first_record + index as u64;
                    return Err(Ended::Stopped(gave_up(
                        failure,
                        format!(
                            "rows commit one by one and there is no ledger: it is not known whether record {record} is stored"
                        ),
                    )));
                }
            }
            if let Err(error) = self.check_refused(batch, refused, 0) {
                self.committed(total, in_flight);
                return Err(Ended::Stopped(error));
            }
            if self.stop.is_set() {
                break;
            }
        }
        Ok(tally(total, refused))
    }

    /// Notes rows that are committed although their batch fails.
    fn committed(&self, written: Written, in_flight: &mut InFlight) {
        self.counters.rows(tally(written, &Refused::default()));
        in_flight.settle(written.sent);
    }

    fn check_count(&self, written: Written) -> Result<(), Failure> {
        let Written { sent, stored } = written;
        let explained = self.suppresses && stored < sent;
        if stored == sent || explained || faults::sabotaged("count") {
            Ok(())
        } else {
            Err(Failure::Count { sent, stored })
        }
    }

    /// Whether so many bad rows are allowed.
    /// `uncommitted`: bad rows of earlier batches of the same transaction.
    fn check_refused(
        &self,
        batch: &Batch,
        refused: &Refused,
        uncommitted: u64,
    ) -> Result<(), Error> {
        let Some((index, refusal)) = refused.iter().next() else {
            return Ok(());
        };
        let OnError::Reject(limit) = self.on_error else {
            return Err(self.row_error(batch, index, refusal));
        };
        let derailed = self.is_at_rail(batch) && isolate::derailed(refused, RAIL);
        if derailed || self.all_alike(batch, refused, &refusal.sqlstate) {
            return Err(Error::Rail {
                records: RAIL,
                first: Box::new(self.row_error(batch, index, refusal)),
            });
        }
        let before = self
            .counters
            .rejected
            .load(std::sync::atomic::Ordering::Relaxed);
        match limit {
            Some(limit) if before + uncommitted + refused.len() as u64 > limit => {
                Err(Error::RejectLimit {
                    limit,
                    last: Box::new(self.row_error(batch, index, refusal)),
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether batches too small for the rail have brought as many bad rows alike, and no other.
    fn all_alike(&self, batch: &Batch, refused: &Refused, sqlstate: &str) -> bool {
        let Ok(mut alike) = self.alike.lock() else {
            return false;
        };
        let nothing_loaded = self
            .counters
            .loaded
            .load(std::sync::atomic::Ordering::Relaxed)
            == 0
            && self
                .counters
                .already_loaded
                .load(std::sync::atomic::Ordering::Relaxed)
                == 0;
        let all = refused.len() == batch.len()
            && refused
                .iter()
                .all(|(_, refusal)| refusal.sqlstate == sqlstate);
        if !nothing_loaded || !all || (!alike.0.is_empty() && alike.0 != sqlstate) {
            *alike = (String::new(), 0);
            return false;
        }
        *alike = (sqlstate.to_string(), alike.1 + refused.len());
        alike.1 >= RAIL
    }

    /// Whether this batch begins the load and nothing is loaded yet.
    fn is_at_rail(&self, batch: &Batch) -> bool {
        batch.first_record == 1
            && self
                .counters
                .loaded
                .load(std::sync::atomic::Ordering::Relaxed)
                == 0
    }

    /// Without a ledger, bad rows go to a file once the good ones are committed.
    fn write_reject_file(&self, batch: &Batch, refused: &Refused) -> Result<(), Error> {
        let Some(file) = self.reject_file.as_ref().filter(|_| !refused.is_empty()) else {
            return Ok(());
        };
        let Ok(mut file) = file.lock() else {
            return Ok(());
        };
        for (index, refusal) in refused.iter() {
            let (position, range) = (batch.position(index), batch.range(index));
            let reason = Reason {
                source: &self.sources[batch.source],
                record: position.record,
                line: position.line,
                start_byte: batch.start_byte + range.start as u64,
                end_byte: batch.start_byte + range.end as u64,
                sqlstate: &refusal.sqlstate,
                column: refusal.column_name(&self.target),
                constraint: refusal.constraint.as_deref(),
                message: &refusal.message,
            };
            let path = file.path().display().to_string();
            file.push(batch.record(index), &reason)
                .map_err(|source| Error::Output { name: path, source })?;
        }
        let path = file.path().display().to_string();
        file.flush()
            .map_err(|source| Error::Output { name: path, source })
    }
}
