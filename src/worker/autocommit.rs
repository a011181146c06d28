//! Each row a commit of its own: the foot of the ladder.

use std::time::Instant;

use tokio_postgres::error::Severity;

use super::attempts::{Attempts, Next};
use super::session::{Session, Written};
use super::transaction::tally;
use super::{DeliveryError, Ended, InFlight, Job};
use crate::batch::Batch;
use crate::outcome::Tally;
use crate::retry::Failure;
use crate::source::RowParser;
use crate::strategy::{Refusal, Refused};

/// Why a row is not written.
struct Unwritten {
    failure: Failure,
    /// Whether it was tried again until that was of no more use.
    in_vain: bool,
}

/// Whether the server has said that it stored nothing: an error that leaves the session open, but
/// for the two that speak of a doubt.
fn is_refused(failure: &Failure) -> bool {
    let Failure::Server { error, .. } = failure else {
        return false;
    };
    let refused = |server: &&tokio_postgres::error::DbError| {
        server.parsed_severity() == Some(Severity::Error)
            && !["40003", "08007"].contains(&server.code().code())
    };
    error.as_db_error().as_ref().is_some_and(refused)
}

/// What a row that failed is put aside with, found out in a transaction of its own.
///
/// # Errors
/// The row's failure if it is not to blame, or what stood in the way.
async fn judge(
    session: &mut Session,
    job: &Job,
    batch: &Batch,
    index: usize,
    parser: &mut RowParser,
    Unwritten { failure, in_vain }: Unwritten,
) -> Result<Refusal, Failure> {
    if !failure.may_be_a_row(in_vain) {
        return Err(failure);
    }
    session.begin("BEGIN").await?;
    let blame = job.blame();
    let judged = blame.refusal(session, batch, index, parser, &failure);
    let refusal = judged.await?;
    session.rollback().await?;
    refusal.ok_or(failure)
}

/// Writes one row and commits it. Behind a pooler a statement alone would be made on one server
/// connection and used on another, so that there it gets a transaction around it.
async fn write(
    session: &mut Session,
    job: &Job,
    batch: &Batch,
    index: usize,
    parser: &mut RowParser,
    refused: &mut Refused,
) -> Result<Written, Failure> {
    let row = index..index + 1;
    if session.process().is_some() {
        return session.write(batch, row, false, parser, refused).await;
    }
    session.begin(&job.begin).await?;
    let written = session.write(batch, row, false, parser, refused).await;
    match &written {
        Ok(_) => session.commit().await.map_err(|lost| lost.failure)?,
        Err(failure) if is_refused(failure) => session.rollback().await?,
        Err(_) => {}
    }
    written
}

impl Job {
    /// Writes one row. What may pass is tried again, as long as it is known that nothing is stored;
    /// `None` if the load is to stop meanwhile.
    async fn write_row(
        &self,
        session: &mut Session,
        batch: &Batch,
        index: usize,
        parser: &mut RowParser,
        refused: &mut Refused,
    ) -> Result<Option<Written>, Unwritten> {
        let mut attempts = Attempts::new(self.limits, 1);
        loop {
            let written = write(session, self, batch, index, parser, refused).await;
            let failure = match written {
                Ok(written) => return Ok(Some(written)),
                Err(failure) => failure,
            };
            let next = match is_refused(&failure) && !failure.may_be_a_row(false) {
                true => attempts.next(&failure),
                false => Next::GiveUp,
            };
            let Next::Wait(wait) = next else {
                let in_vain = attempts.in_vain;
                return Err(Unwritten { failure, in_vain });
            };
            self.counters.retries.add(1);
            self.console.notice(&format!(
                "{}: record {}: {failure}; trying again in {wait:.1?}",
                self.sources[batch.source],
                batch.first_record + index as u64,
            ));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.wait() => return Ok(None),
            }
        }
    }

    /// Each row a commit of its own.
    pub(super) async fn autocommit(
        &self,
        session: &mut Session,
        batch: &Batch,
        parser: &mut RowParser,
        refused: &mut Refused,
        in_flight: &mut InFlight,
    ) -> Result<Tally, Ended> {
        session.look().await?;
        let mut total = Written::default();
        for index in 0..batch.len() {
            let begun = Instant::now();
            match self.write_row(session, batch, index, parser, refused).await {
                Ok(None) => break,
                Ok(Some(written)) => {
                    if let Err(failure) = self.check_count(written) {
                        self.committed(total, in_flight);
                        return Err(Ended::Stopped(DeliveryError::gave_up(
                            failure,
                            "rows before it are committed",
                        )));
                    }
                    self.counters.commit.record(begun.elapsed());
                    self.doubts.clear();
                    total += written;
                }
                Err(unwritten) => {
                    let is_known = is_refused(&unwritten.failure);
                    match judge(session, self, batch, index, parser, unwritten).await {
                        Ok(refusal) => refused.insert(index, refusal),
                        // Rows before are committed: a repetition would double them.
                        Err(failure) => {
                            self.committed(total, in_flight);
                            let record = batch.first_record + index as u64;
                            let what = match is_known {
                                true => format!(
                                    "rows commit one by one; record {record} and those after it are not loaded"
                                ),
                                false => format!(
                                    "rows commit one by one and there is no ledger: it is not known whether record {record} is stored"
                                ),
                            };
                            return Err(Ended::Stopped(DeliveryError::gave_up(failure, what)));
                        }
                    }
                }
            }
            if let Err(error) = self.check_refused(batch, index + 1, refused, 0) {
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
        self.counters.count(tally(written, &Refused::default()));
        in_flight.settle(written.sent);
    }
}
