//! The window decides when a batch closes: at a number of rows, at a number of bytes, or when its
//! first row has waited long enough, whichever comes first.

use std::time::{Duration, Instant};

/// Why a batch was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushReason {
    /// `--batch-rows` was reached.
    Rows,
    /// The next record would have passed `--batch-bytes`.
    Bytes,
    /// The first row had waited `--max-wait`.
    Wait,
    /// The source, or the run of bytes still to load, ended.
    End,
}

impl FlushReason {
    /// Every reason, in the order of the report.
    pub const ALL: [FlushReason; 4] = [Self::Rows, Self::Bytes, Self::Wait, Self::End];

    /// The word used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Wait => "wait",
            Self::End => "end",
        }
    }
}

/// Limits of a batch. It measures; the batch stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Most rows of a batch; at least 1.
    pub rows: usize,
    /// Most bytes of a batch. The first record always fits, however long it is.
    pub bytes: usize,
    /// Longest time the first row waits for company; `None`: as long as it takes.
    pub wait: Option<Duration>,
}

/// What a batch holds so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    pub rows: usize,
    pub bytes: usize,
    /// When the first record came; `None` while empty.
    pub opened: Option<Instant>,
}

impl Window {
    /// Whether a batch filled so far must close before a record of `next` bytes.
    pub fn closes_before(&self, fill: &Fill, next: usize) -> Option<FlushReason> {
        (fill.rows > 0 && fill.bytes.saturating_add(next) > self.bytes)
            .then_some(FlushReason::Bytes)
    }

    /// Whether a batch filled so far is full.
    pub fn closes_after(&self, fill: &Fill) -> Option<FlushReason> {
        if fill.rows >= self.rows.max(1) {
            Some(FlushReason::Rows)
        } else if fill.bytes >= self.bytes && fill.rows > 0 {
            Some(FlushReason::Bytes)
        } else {
            None
        }
    }

    /// When the first row will have waited long enough; `None` while empty or without a limit.
    pub fn deadline(&self, fill: &Fill) -> Option<Instant> {
        fill.opened?.checked_add(self.wait?)
    }

    /// Whether the first row has waited long enough at `now`.
    pub fn is_due(&self, fill: &Fill, now: Instant) -> bool {
        self.deadline(fill).is_some_and(|deadline| now >= deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pushes records of the given lengths and pauses through the window with a clock that only
    /// the test moves; returns the batches as (lengths, reason).
    fn run(window: Window, records: &[(usize, u64)]) -> Vec<(Vec<usize>, FlushReason)> {
        let mut now = Instant::now();
        let mut done = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut fill = Fill::default();
        let mut close = |open: &mut Vec<usize>, fill: &mut Fill, reason| {
            done.push((std::mem::take(open), reason));
            *fill = Fill::default();
        };
        for &(length, pause) in records {
            let arrival = now + Duration::from_millis(pause);
            if let Some(deadline) = window.deadline(&fill)
                && deadline <= arrival
            {
                assert!(window.is_due(&fill, deadline));
                close(&mut open, &mut fill, FlushReason::Wait);
            }
            now = arrival;
            if let Some(reason) = window.closes_before(&fill, length) {
                close(&mut open, &mut fill, reason);
            }
            open.push(length);
            fill.rows += 1;
            fill.bytes += length;
            fill.opened.get_or_insert(now);
            if let Some(reason) = window.closes_after(&fill) {
                close(&mut open, &mut fill, reason);
            }
        }
        if !open.is_empty() {
            close(&mut open, &mut fill, FlushReason::End);
        }
        done
    }

    fn window(rows: usize, bytes: usize, wait: u64) -> Window {
        Window {
            rows,
            bytes,
            wait: Some(Duration::from_millis(wait)),
        }
    }

    /// Limits, records as (length, pause), and the batches expected as (rows, reason).
    type Case<'a> = (Window, &'a [(usize, u64)], &'a [(usize, FlushReason)]);

    #[test]
    fn each_limit_closes_a_batch_with_its_own_reason() {
        use FlushReason::{Bytes, End, Rows, Wait};
        let table: [Case<'_>; 5] = [
            (window(2, 100, 50), &[(1, 0); 3], &[(2, Rows), (1, End)]),
            (window(9, 10, 50), &[(6, 0); 2], &[(1, Bytes), (1, End)]),
            (
                window(9, 10, 50),
                &[(99, 0), (1, 0)],
                &[(1, Bytes), (1, End)],
            ),
            (
                window(9, 10, 50),
                &[(1, 0), (1, 49), (1, 1)],
                &[(2, Wait), (1, End)],
            ),
            (
                window(9, 10, 50),
                &[(5, 0), (5, 0), (1, 0)],
                &[(2, Bytes), (1, End)],
            ),
        ];
        for (window, records, expected) in table {
            let got: Vec<_> = run(window, records)
                .iter()
                .map(|(lengths, reason)| (lengths.len(), *reason))
                .collect();
            assert_eq!(got, expected, "{window:?} {records:?}");
        }
    }

    proptest! {
        #[test]
        fn the_window_loses_nothing_reorders_nothing_and_keeps_its_limits(
            rows in 1usize..20,
            bytes in 1usize..200,
            wait in 1u64..50,
            records in prop::collection::vec((1usize..80, 0u64..30), 0..200),
        ) {
            let batches = run(window(rows, bytes, wait), &records);
            let lengths: Vec<usize> = records.iter().map(|record| record.0).collect();
            let flat: Vec<usize> = batches.iter().flat_map(|batch| batch.0.clone()).collect();
            prop_assert_eq!(flat, lengths);
            for (lengths, reason) in &batches {
                prop_assert!(!lengths.is_empty());
                prop_assert!(lengths.len() <= rows);
                prop_assert!(lengths.len() == 1 || lengths.iter().sum::<usize>() <= bytes);
                if *reason == FlushReason::Rows {
                    prop_assert_eq!(lengths.len(), rows);
                }
            }
        }
    }
}
