//! What refused rows mean for the load: put aside, too many, or a fault that is not theirs.

use super::isolate;
use super::{DeliveryError, Job, OnError, RowError};
use crate::batch::Batch;
use crate::outcome::Outcome;
use crate::reject_file::Reason;
use crate::report::{Reasons, RejectReason};
use crate::strategy::{Refusal, Refused};

/// If the first so many records of a load are all refused alike, the fault lies with the table or
/// the options, not with the rows.
pub const MOST_ALIKE: usize = 100;

impl Job {
    fn row_error(&self, batch: &Batch, index: usize, refusal: &Refusal) -> Box<RowError> {
        let source = &self.sources[batch.source];
        RowError::new(source, &self.target, batch, index, refusal)
    }

    /// Whether so many bad rows are allowed.
    /// `uncommitted`: bad rows of earlier batches of the same transaction.
    pub(super) fn check_refused(
        &self,
        batch: &Batch,
        refused: &Refused,
        uncommitted: u64,
    ) -> Result<(), DeliveryError> {
        let Some((index, refusal)) = refused.iter().next() else {
            return Ok(());
        };
        let OnError::Reject(limit) = self.on_error else {
            return Err(DeliveryError::Row(self.row_error(batch, index, refusal)));
        };
        let first = || self.row_error(batch, index, refusal);
        let starts_alike = self.is_at_start(batch) && isolate::starts_alike(refused, MOST_ALIKE);
        if starts_alike || self.are_all_alike(batch, refused, &refusal.sqlstate) {
            return Err(DeliveryError::NothingButRejects {
                rows: MOST_ALIKE,
                first: first(),
            });
        }
        let before = self.counters.tally()[Outcome::Rejected];
        match limit {
            Some(limit) if before + uncommitted + refused.len() as u64 > limit => {
                Err(DeliveryError::RejectLimit {
                    limit,
                    first: first(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether batches too small for [`MOST_ALIKE`] have brought as many bad rows alike, and no
    /// other row.
    fn are_all_alike(&self, batch: &Batch, refused: &Refused, sqlstate: &str) -> bool {
        let Ok(mut alike) = self.alike.lock() else {
            return false;
        };
        let all = refused.len() == batch.len()
            && refused
                .iter()
                .all(|(_, refusal)| refusal.sqlstate == sqlstate);
        let same = alike.0.is_empty() || alike.0 == sqlstate;
        if self.has_loaded() || !all || !same {
            *alike = (String::new(), 0);
            return false;
        }
        *alike = (sqlstate.to_string(), alike.1 + refused.len());
        alike.1 >= MOST_ALIKE
    }

    /// Whether rows are in the table, by this run or an earlier one.
    fn has_loaded(&self) -> bool {
        let tally = self.counters.tally();
        tally[Outcome::Inserted] + tally[Outcome::AlreadyLoaded] > 0
    }

    /// Whether this batch begins the load and nothing is loaded yet.
    pub(super) fn is_at_start(&self, batch: &Batch) -> bool {
        batch.first_record == 1 && self.counters.tally().loaded() == 0
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
