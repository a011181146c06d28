//! The head of a load, its first rows: if all of them are refused alike, the table or the mapping
//! is to blame and not the rows, and the load stops before it has loaded any.
//!
//! So that it is the same with any size of batches and any number of workers, one batch at a time
//! is delivered until a row of the head is known to be good, or to be refused for another reason.
//! As a rule the first batch tells.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::batch::Batch;
use crate::strategy::Refused;

/// Rows of the head: so many alike are no chance, and it takes no time to see them.
pub const HEAD_ROWS: u64 = 100;

/// What is known of the head.
#[derive(Debug, Default)]
pub struct Head {
    over: AtomicBool,
    turn: tokio::sync::Mutex<()>,
    alike: Mutex<Alike>,
}

/// The first so many records of the load are refused with this SQLSTATE.
#[derive(Debug, Clone, Default)]
struct Alike {
    sqlstate: String,
    records: u64,
}

/// Records at the start of a batch that complete the head, where all before them are refused alike.
#[derive(Debug, Clone)]
pub struct LastOfHead {
    pub records: usize,
    /// The SQLSTATE of those before; empty if there are none.
    sqlstate: String,
}

impl Head {
    /// The head of a load whose first rows tell nothing: an earlier run has loaded some, or the
    /// user says himself how many bad ones are too many.
    pub fn passed() -> Self {
        let head = Head::default();
        head.pass();
        head
    }

    /// Waits until it is this worker's turn to take a batch; `None`: all may take them.
    pub async fn turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if self.is_passed() {
            return None;
        }
        let turn = self.turn.lock().await;
        (!self.is_passed()).then_some(turn)
    }

    /// The end of the head, if `batch` holds it and nothing good came before.
    pub fn last_of(&self, batch: &Batch) -> Option<LastOfHead> {
        let before = self.alike();
        let records = usize::try_from(HEAD_ROWS - before.records).unwrap_or(usize::MAX);
        let follows = !self.is_passed() && batch.source == 0;
        let completes = batch.first_record == before.records + 1 && batch.len() >= records;
        (follows && completes).then_some(LastOfHead {
            records,
            sqlstate: before.sqlstate,
        })
    }

    /// Whether the head is complete with the first `judged` records of `batch`, and all of it is
    /// refused alike. Notes what the batch tells otherwise; asked again, it tells the same.
    pub fn is_all_refused(&self, batch: &Batch, judged: usize, refused: &Refused) -> bool {
        if self.is_passed() {
            return false;
        }
        let mut alike = self.alike();
        let follows = batch.source == 0 && batch.first_record <= alike.records + 1;
        let before = batch.first_record - 1;
        if batch.first_record == 1 {
            alike.sqlstate.clear();
        }
        let records = usize::try_from(HEAD_ROWS.saturating_sub(before)).unwrap_or(usize::MAX);
        let records = records.min(judged);
        if !follows || !are_alike(refused, records, &alike.sqlstate) {
            self.pass();
            return false;
        }
        if let Some((_, first)) = refused.iter().next() {
            alike.sqlstate.clone_from(&first.sqlstate);
        }
        alike.records = before + records as u64;
        let complete = alike.records >= HEAD_ROWS;
        if !complete && let Ok(mut known) = self.alike.lock() {
            *known = alike;
        }
        complete
    }

    fn pass(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    fn is_passed(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn alike(&self) -> Alike {
        self.alike
            .lock()
            .map(|alike| alike.clone())
            .unwrap_or_default()
    }
}

impl LastOfHead {
    /// Whether all of it is refused as those before it.
    pub fn is_refused(&self, refused: &Refused) -> bool {
        are_alike(refused, self.records, &self.sqlstate)
    }
}

/// Whether the first `records` of a batch are all refused with one SQLSTATE, the given one if there
/// is one.
fn are_alike(refused: &Refused, records: usize, sqlstate: &str) -> bool {
    let Some((_, first)) = refused.iter().next() else {
        return records == 0;
    };
    let sqlstate = if sqlstate.is_empty() {
        &first.sqlstate
    } else {
        sqlstate
    };
    refused.within(0..records) == records
        && refused
            .iter()
            .take(records)
            .all(|(_, refusal)| refusal.sqlstate == *sqlstate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Position;
    use crate::strategy::Refusal;
    use proptest::prelude::*;

    fn batch(first_record: u64, records: usize) -> Batch {
        let mut batch = Batch::with_capacity(0);
        let position = Position {
            record: first_record,
            ..Position::START
        };
        batch.restart(0, &position, b'\n', 0);
        for _ in 0..records {
            batch.push_run(b"\n", &[1]);
        }
        batch
    }

    /// Whether a load of these rows, each good or refused with a code, is stopped.
    fn stops(fates: &[Option<&str>], batch_rows: usize) -> bool {
        let head = Head::default();
        let mut first_record = 1;
        for fates in fates.chunks(batch_rows) {
            let batch = batch(first_record, fates.len());
            let mut refused = Refused::default();
            for (index, fate) in fates.iter().enumerate() {
                if let Some(sqlstate) = fate {
                    refused.insert(index, refusal(sqlstate));
                }
            }
            let early = head
                .last_of(&batch)
                .is_some_and(|last| last.is_refused(&refused));
            // A transaction whose answer was lost is judged twice.
            for _ in 0..2 {
                assert_eq!(head.is_all_refused(&batch, batch.len(), &refused), early);
            }
            if early {
                return true;
            }
            first_record += fates.len() as u64;
        }
        false
    }

    fn refusal(sqlstate: &str) -> Refusal {
        Refusal {
            sqlstate: sqlstate.to_string(),
            field: None,
            column: None,
            constraint: None,
            message: String::new(),
        }
    }

    proptest! {
        #[test]
        fn the_size_of_batches_decides_nothing(
            odd in 0usize..130,
            fate in prop::sample::select(vec![None, Some("23505")]),
            batch_rows in 1usize..250,
            rows in 90usize..200,
        ) {
            let mut fates = vec![Some("22P02"); rows];
            if let Some(odd) = fates.get_mut(odd) {
                *odd = fate;
            }
            prop_assert_eq!(stops(&fates, batch_rows), rows >= 100 && odd >= 100);
        }
    }
}
