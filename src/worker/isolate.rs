//! Writes a batch of which some rows are bad: finds them by the server's hint, else by halving,
//! and stores the good ones.

use std::ops::Range;

use super::blame::Blame;
use super::head::LastOfHead;
use super::session::{Session, Written};
use crate::batch::Batch;
use crate::retry::{FOREIGN_KEY, Failure};
use crate::source::RowParser;
use crate::strategy::Refused;

/// Records tried at once right after a bad row, at least. The piece grows while rows are good, so
/// that a batch full of bad rows is not sent to the server again and again as a whole.
const LEAST_PIECE: usize = 16;

/// What to write and how.
pub struct Isolation<'a> {
    pub batch: &'a Batch,
    /// Most records of one statement; fewer after the server ran out of memory or time.
    pub piece: usize,
    /// Whether constraints may wait for COMMIT: they are made to speak after each piece.
    pub deferrable: bool,
    pub blame: Blame<'a>,
    /// Whether a row may be to blame for a fault that should have passed and did not.
    pub in_vain: bool,
    /// Whether the first bad row ends it all.
    pub stop_at_first: bool,
    /// If the batch completes the head of the load: once all of that is refused alike, it ends.
    pub last_of_head: Option<LastOfHead>,
    /// Whether a row that a foreign key refuses may get in once others of the batch are in.
    pub rows_need_each_other: bool,
}

/// Passes over rows that a foreign key refused, at most.
const MOST_PASSES: usize = 16;

impl Isolation<'_> {
    /// Writes the batch in the open transaction, each piece behind a savepoint, first records
    /// first. Bad rows are noted in `refused`. A hint is believed only if the row fails alone.
    ///
    /// # Errors
    /// A failure that is not about a row.
    pub async fn write(
        &self,
        session: &mut Session,
        parser: &mut RowParser,
        refused: &mut Refused,
    ) -> Result<Written, Failure> {
        let mut total = Written::default();
        // The head is judged first: the rest may be many times as long.
        let first = self
            .last_of_head
            .as_ref()
            .map_or(usize::MAX, |head| head.records);
        let mut piece = self.piece.min(first).max(1);
        let mut waiting: Vec<Range<usize>> = std::iter::once(0..self.batch.len()).collect();
        while let Some(mut range) = waiting.pop() {
            if range.len() > piece {
                waiting.push(range.start + piece..range.end);
                range.end = range.start + piece;
            }
            if range.len() == refused.within(range.clone()) {
                continue;
            }
            let failure = match self.attempt(session, range.clone(), parser, refused).await {
                Ok(written) => {
                    self.blame.doubts.clear();
                    total += written;
                    piece = piece.saturating_mul(2).min(self.piece.max(1));
                    continue;
                }
                Err(failure) if failure.may_be_a_row(self.in_vain) => failure,
                Err(failure) => return Err(failure),
            };
            let rows = range.len() - refused.within(range.clone());
            if rows == 1 {
                let index = range.clone().find(|index| !refused.contains(*index));
                let index = index.unwrap_or(range.start);
                let blame = self.blame;
                let judged = blame.refusal(session, self.batch, index, parser, &failure);
                let Some(refusal) = judged.await? else {
                    return Err(failure);
                };
                // A row that waits for another one of the batch may still get in.
                let waits = self.rows_need_each_other && failure.waits_for_a_row();
                refused.insert(index, refusal);
                let head = self.last_of_head.as_ref();
                let stop = self.stop_at_first || head.is_some_and(|head| head.is_refused(refused));
                if stop && !waits {
                    return Ok(total);
                }
                continue;
            }
            match failure.record_in(&range) {
                Some(record) => {
                    piece = (2 * (record - range.start))
                        .clamp(LEAST_PIECE, self.piece.max(LEAST_PIECE));
                    waiting.extend(non_empty([
                        record + 1..range.end,
                        record..record + 1,
                        range.start..record,
                    ]));
                }
                None => {
                    let middle = range.start + range.len() / 2;
                    waiting.extend(non_empty([middle..range.end, range.start..middle]));
                }
            }
        }
        if self.rows_need_each_other {
            self.second_chance(session, parser, refused, &mut total)
                .await?;
        }
        Ok(total)
    }

    /// Writes one piece behind a savepoint.
    async fn attempt(
        &self,
        session: &mut Session,
        range: Range<usize>,
        parser: &mut RowParser,
        refused: &mut Refused,
    ) -> Result<Written, Failure> {
        session.execute("SAVEPOINT pgrung").await?;
        let mut result = session
            .write(self.batch, range, true, parser, refused)
            .await;
        if self.deferrable && result.is_ok() {
            let checked = session
                .execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
                .await;
            if let Err(failure) = checked {
                result = Err(failure);
            }
        }
        match &result {
            Ok(_) => session.execute("RELEASE pgrung").await?,
            Err(failure) if failure.may_be_a_row(self.in_vain) => {
                session
                    .execute("ROLLBACK TO pgrung; RELEASE pgrung")
                    .await?;
            }
            Err(_) => {}
        }
        result
    }

    /// Tries rows again that a foreign key refused, until no more of them get in.
    async fn second_chance(
        &self,
        session: &mut Session,
        parser: &mut RowParser,
        refused: &mut Refused,
        total: &mut Written,
    ) -> Result<(), Failure> {
        // Chains of rows point forwards or backwards, so every other pass goes the other way. A
        // deeper tangle is given up: each pass costs a round trip a row.
        for pass in 0..MOST_PASSES {
            let mut again: Vec<usize> = refused
                .iter()
                .filter(|(_, refusal)| refusal.sqlstate == FOREIGN_KEY)
                .map(|(index, _)| index)
                .collect();
            if pass % 2 == 0 {
                again.reverse();
            }
            let before = refused.len();
            for index in again {
                let Some(refusal) = refused.remove(index) else {
                    continue;
                };
                match self
                    .attempt(session, index..index + 1, parser, refused)
                    .await
                {
                    Ok(written) => *total += written,
                    Err(failure) if failure.may_be_a_row(self.in_vain) => {
                        refused.insert(index, refusal);
                    }
                    Err(failure) => return Err(failure),
                }
            }
            if refused.len() == before {
                break;
            }
        }
        Ok(())
    }
}

/// What the server said about a row that failed alone.
fn non_empty<const N: usize>(ranges: [Range<usize>; N]) -> impl Iterator<Item = Range<usize>> {
    ranges.into_iter().filter(|range| !range.is_empty())
}
