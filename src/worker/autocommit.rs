//! Each row a commit of its own: the foot of the ladder.

use std::time::Instant;

use tokio_postgres::error::Severity;

use super::attempts::{Attempts, Next};
use super::isolate;
use super::session::{Session, Written};
use super::transaction::tally;
use super::{DeliveryError, Ended, InFlight, Job};
use crate::batch::Batch;
use crate::outcome::Tally;
use crate::retry::Failure;
use crate::source::RowParser;
use crate::strategy::Refused;

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

/// Whether the row is to blame, and not the statement with any row.
async fn is_the_rows(session: &Session, job: &Job, unwritten: &Unwritten) -> bool {
    let Unwritten { failure, in_vain } = unwritten;
    failure.may_be_a_row(*in_vain)
        && (failure.names_a_value() || session.execute(&job.target.insert_nothing()).await.is_ok())
}

/// Asks for the column at fault, in a transaction of its own.
async fn probe(
    session: &mut Session,
    job: &Job,
    batch: &Batch,
    index: usize,
    parser: &mut RowParser,
) -> Result<Option<String>, Failure> {
    session.begin("BEGIN").await?;
    let column = session
        .column_at_fault(&job.target, batch, index, parser)
        .await?;
    session.rollback().await?;
    Ok(column)
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
        Ok(_) => session.commit().await?,
        Err(failure) if failure.keeps_connection() => session.rollback().await?,
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
                    total += written;
                }
                Err(unwritten) if is_the_rows(session, self, &unwritten).await => {
                    let mut refusal = isolate::refusal(&unwritten.failure, &self.target.table);
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
                                return Err(Ended::Stopped(DeliveryError::gave_up(
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
                Err(Unwritten { failure, .. }) => {
                    self.committed(total, in_flight);
                    let record = batch.first_record + index as u64;
                    let what = match is_refused(&failure) {
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
