//! The transaction of a batch: fence and claim, write, rejects, constraints, settle, commit.

use std::ops::RangeInclusive;
use std::time::Instant;

use super::attempts::Attempts;
use super::isolate::Isolation;
use super::session::{Session, Uncommitted, Written};
use super::{Commit, DeliveryError, Ended, InFlight, Job, OnError, Receipt, Worker};
use crate::batch::Batch;
use crate::faults;
use crate::ledger::{Claim, Ledger, LedgerError, Settled};
use crate::outcome::{Outcome, Tally};
use crate::retry::Failure;
use crate::source::RowParser;
use crate::strategy::Refused;

impl Worker {
    /// One try: from BEGIN to the answer to COMMIT.
    pub(super) async fn transact(
        &mut self,
        batch: &Batch,
        attempts: &Attempts,
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
            return Err(Ended::Failed(Failure::Timeout(job.limits.answer_timeout)));
        };
        let mut refused = Refused::default();
        let tally = if job.strategy.sends_nothing() {
            let written = session
                .write(batch, 0..batch.len(), false, parser, &mut refused)
                .await?;
            job.check_refused(batch, batch.len(), &refused, 0)?;
            tally(written, &refused)
        } else if job.commit == Commit::Row && job.ledger.is_none() {
            job.autocommit(session, batch, parser, &mut refused, in_flight)
                .await?
        } else {
            let transaction = Transaction {
                job: &job,
                batch,
                attempts,
                opened: self.uncommitted.is_empty(),
                uncommitted: self
                    .uncommitted
                    .iter()
                    .map(|(receipt, _)| receipt.tally[Outcome::Rejected])
                    .sum(),
            };
            transaction.run(session, parser, &mut refused).await?
        };
        if let Err(error) = job.write_reject_file(batch, &refused) {
            // The good rows are committed, whatever becomes of the bad ones.
            if job.commit != Commit::Load {
                let stored = tally.without(Outcome::Rejected);
                job.counters.count(stored);
                in_flight.settle(stored.total());
            }
            return Err(Ended::Stopped(error));
        }
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
            reasons: job.reasons(batch, &refused),
        })
    }

    /// Makes sure there is a connection, and that no transaction of a broken one is left over.
    async fn connect(&mut self) -> Result<(), Failure> {
        if self.session.is_none() {
            let job = &self.job;
            let limit = job.limits.answer_timeout;
            let session = Session::open(&job.pool, &job.strategy, &job.target, limit).await?;
            let session = session.merging(job.merge.clone());
            // Behind a pooler there is none to look at: it serves others in between.
            if let (Some(process), Ok(mut backends)) = (session.process(), job.backends.lock()) {
                backends.push(process);
            }
            if let Some(orphan) = self.orphan {
                session.answered(orphan.terminate(session.client())).await?;
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
    attempts: &'a Attempts,
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
            if let Some(lease) = &job.lease
                && !session.answered(lease.hold(session.client())).await?
            {
                session.rollback().await?;
                return Err(Ended::Stopped(
                    LedgerError::TakenOver(lease.job().to_string()).into(),
                ));
            }
        }
        if let Some(ledger) = &job.ledger
            && let Some(tally) = self.claim(session, ledger).await?
        {
            return Ok(tally);
        }
        let written = step("write", self.write(session, parser, refused)).await?;
        job.check_count(written)?;
        if let Err(error) = job.check_refused(batch, batch.len(), refused, self.uncommitted) {
            session.rollback().await?;
            return Err(Ended::Stopped(error));
        }
        let tally = tally(written, refused);
        if let Some(ledger) = &job.ledger {
            if !refused.is_empty() {
                let stored = ledger.reject(session.client(), &job.target, batch, refused);
                step("rejects", session.answered(stored)).await?;
            }
            self.constraints(session).await?;
            if self.is_careful() {
                // Its span is then younger than any of its rows, however it came in.
                session.execute("SAVEPOINT pgrung_settle").await?;
            }
            let settled = session.settle(ledger, batch, tally);
            match step("settle", settled).await? {
                Settled::Here if self.is_careful() => {
                    session.execute("RELEASE pgrung_settle").await?;
                }
                Settled::Here => {}
                // Aborted behind our back; a COMMIT would roll back quietly.
                Settled::Vanished => return Err(Ended::Failed(Failure::Vanished)),
                Settled::Elsewhere => {
                    session.rollback().await?;
                    return Err(Ended::Stopped(
                        LedgerError::Elsewhere(job.target.table.clone()).into(),
                    ));
                }
            }
        } else {
            self.constraints(session).await?;
        }
        if job.commit != Commit::Load {
            self.commit(session).await?;
            job.counters.commit.record(begun.elapsed());
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
                    session.rollback().await?;
                }
                return Ok(Some(tally));
            }
            Claim::TakenOver => LedgerError::TakenOver(ledger.import_id.clone()),
            Claim::Conflict => LedgerError::Changed(format!(
                "import {}: the ledger has another span at byte {} of {}: the source differs from the one loaded before; --restart loads it anew",
                ledger.import_id, batch.start_byte, job.sources[batch.source],
            )),
        };
        session.rollback().await?;
        Err(Ended::Stopped(error.into()))
    }

    async fn write(
        &self,
        session: &mut Session,
        parser: &mut RowParser,
        refused: &mut Refused,
    ) -> Result<Written, Failure> {
        let Transaction {
            job,
            batch,
            attempts,
            ..
        } = *self;
        if self.is_careful() {
            let isolation = Isolation {
                batch,
                piece: attempts.piece,
                deferrable: job.deferrable,
                blame: job.blame(),
                in_vain: attempts.in_vain,
                stop_at_first: job.on_error == OnError::Stop,
                last_of_head: job.head.last_of(batch),
                rows_need_each_other: job.rows_need_each_other,
            };
            return isolation.write(session, parser, refused).await;
        }
        session
            .write(batch, 0..batch.len(), false, parser, refused)
            .await
    }

    /// Whether rows are written in pieces, each behind a savepoint: without one a bad row would end
    /// the transaction of the whole load.
    fn is_careful(&self) -> bool {
        self.attempts.careful || self.job.commit == Commit::Load
    }

    async fn constraints(&self, session: &Session) -> Result<(), Failure> {
        if self.job.deferrable {
            session.execute("SET CONSTRAINTS ALL IMMEDIATE").await?;
        }
        Ok(())
    }

    async fn commit(&self, session: &mut Session) -> Result<(), Ended> {
        let Transaction { job, batch, .. } = *self;
        let Err(Uncommitted { failure, was_asked }) = step("commit", session.commit()).await else {
            return Ok(());
        };
        match failure {
            // With a ledger the same transaction tells, run again. Without one, only a refusal
            // that comes before the commit proves that nothing is stored.
            failure if was_asked && job.ledger.is_none() && !refused_before_commit(&failure) => {
                let records = records(batch);
                Err(Ended::Stopped(DeliveryError::gave_up(
                    failure,
                    format!(
                        "the answer to COMMIT was lost and there is no ledger: it is not known whether records {} to {} of {} are stored",
                        records.start(),
                        records.end(),
                        job.sources[batch.source],
                    ),
                )))
            }
            failure => Err(Ended::Failed(failure)),
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

pub(super) fn tally(written: Written, refused: &Refused) -> Tally {
    let stored = match written.merged.total() {
        0 => Tally::of(Outcome::Inserted, written.stored),
        _ => written.merged,
    };
    stored.and(Outcome::Rejected, refused.len() as u64).and(
        Outcome::Suppressed,
        written.sent.saturating_sub(written.stored),
    )
}

/// Whether the answer to COMMIT says that nothing was committed: constraints and serialization
/// are judged before.
fn refused_before_commit(failure: &Failure) -> bool {
    failure
        .sqlstate()
        .is_some_and(|code| code.starts_with("23") || code.starts_with("40") && code != "40003")
}

impl Job {
    pub(super) fn check_count(&self, written: Written) -> Result<(), Failure> {
        let Written { sent, stored, .. } = written;
        let explained = self.suppresses && self.merge.is_none() && stored < sent;
        if stored == sent || explained || faults::sabotaged("count") {
            Ok(())
        } else {
            Err(Failure::Count { sent, stored })
        }
    }
}
