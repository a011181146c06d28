//! What refused rows mean for the load: put aside, too many, or a fault that is not theirs.

use super::head::HEAD_ROWS;
use super::{Commit, DeliveryError, Job, OnError, RowError, Session};
use crate::batch::Batch;
use crate::merge::Share;
use crate::outcome::Outcome;
use crate::reject_file::Reason;
use crate::report::{Reasons, RejectReason};
use crate::strategy::{Refusal, Refused};

impl Job {
    fn row_error(&self, batch: &Batch, index: usize, refusal: &Refusal) -> Box<RowError> {
        let source = &self.sources[batch.source];
        RowError::new(source, &self.target, batch, index, refusal)
    }

    /// Whether the load goes on after bad rows among the first `judged` records of a batch.
    /// `uncommitted`: bad rows of earlier batches of the same transaction.
    pub(super) fn check_refused(
        &self,
        batch: &Batch,
        judged: usize,
        refused: &Refused,
        uncommitted: u64,
    ) -> Result<(), DeliveryError> {
        let all_refused = self.head.is_all_refused(batch, judged, refused);
        let Some((index, refusal)) = refused.iter().next() else {
            return Ok(());
        };
        let OnError::Reject(limit) = self.on_error else {
            return Err(DeliveryError::Row(self.row_error(batch, index, refusal)));
        };
        let first = || self.row_error(batch, index, refusal);
        if all_refused {
            return Err(DeliveryError::NothingButRejects {
                rows: HEAD_ROWS,
                example: first(),
            });
        }
        let before = self.counters.tally()[Outcome::Rejected];
        match limit {
            Some(Share::Rows(limit)) if before + uncommitted + refused.len() as u64 > limit => {
                Err(DeliveryError::RejectLimit {
                    limit,
                    first: first(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Takes back the rejects of the batches before `batch`, which is the last of the head: they are
    /// all that is committed. A load that its head stops leaves nothing, whatever its batches.
    ///
    /// # Errors
    /// When they cannot be taken back.
    pub(super) async fn withdraw_head(
        &self,
        session: &Session,
        batch: &Batch,
    ) -> Result<(), DeliveryError> {
        let records = batch.first_record - 1;
        // With a spill, the rejects are all that is left of what was on disk.
        if records == 0 || self.spilling.is_some() {
            return Ok(());
        }
        if let Some(file) = &self.reject_file
            && let Ok(mut file) = file.lock()
        {
            let path = file.path().to_path_buf();
            let cleared = file.clear();
            cleared.map_err(|source| DeliveryError::RejectFile { path, source })?;
        }
        // One transaction for the whole load is rolled back, and nothing of it was counted.
        if self.commit == Commit::Load {
            return Ok(());
        }
        if let Some(ledger) = &self.ledger {
            let withdrawn = ledger.withdraw(session.client(), records);
            session.answered(withdrawn).await.map_err(|failure| {
                DeliveryError::gave_up(failure, "taking back the rejects of the first rows")
            })?;
        }
        self.counters.withdraw_rejects(records);
        Ok(())
    }

    /// Why rows were refused, in groups.
    pub(super) fn reasons(&self, batch: &Batch, refused: &Refused) -> Vec<RejectReason> {
        let reasons = Reasons::default();
        for (index, refusal) in refused.iter() {
            let column = refusal.column_name(&self.target);
            reasons.count(&refusal.sqlstate, column, &refusal.message, || {
                format!("{}, {}", self.sources[batch.source], batch.position(index))
            });
        }
        reasons.all()
    }

    /// Without a ledger, bad rows go to a file once the good ones are committed.
    pub(super) fn write_reject_file(
        &self,
        batch: &Batch,
        refused: &Refused,
    ) -> Result<(), DeliveryError> {
        let Some(file) = self.reject_file.as_ref().filter(|_| !refused.is_empty()) else {
            return Ok(());
        };
        let Ok(mut file) = file.lock() else {
            return Ok(());
        };
        let path = file.path().to_path_buf();
        let failed = |source| DeliveryError::RejectFile { path, source };
        let mut push = || {
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
                file.push(batch.record(index), &reason)?;
            }
            file.flush()
        };
        push().map_err(failed)
    }
}
