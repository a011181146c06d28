//! Counts of a load while it runs, written by readers and workers, read by the display.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::ledger::{Span, Tally};
use crate::window::FlushReason;

/// What a load has counted so far. Rows are records of the sources.
#[derive(Debug, Default)]
pub struct Counters {
    /// Rows read from the sources.
    pub read: AtomicU64,
    /// Rows read and given up because the load stopped; they are in no table.
    pub abandoned: AtomicU64,
    /// Rows whose commit is known.
    pub loaded: AtomicU64,
    /// Rows that an earlier run had loaded.
    pub already_loaded: AtomicU64,
    /// Records put aside, by this run or an earlier one.
    pub rejected: AtomicU64,
    /// Of them, those that an earlier run had put aside.
    pub rejected_before: AtomicU64,
    /// Rows that a trigger or a rule of the table kept out.
    pub suppressed: AtomicU64,
    /// Batches whose commit is known.
    pub batches: AtomicU64,
    /// Batches closed, by reason, in the order of [`FlushReason::ALL`].
    pub flushes: [AtomicU64; 4],
    /// Sum over all batches of rows or bytes used, whichever was fuller, in parts per million of
    /// the window's limit.
    pub fill_ppm: AtomicU64,
    /// Transactions repeated.
    pub retries: AtomicU64,
    /// Time that workers waited for batches, in microseconds, all workers together.
    pub idle_micros: AtomicU64,
    /// Uncompressed bytes committed.
    pub bytes: AtomicU64,
}

impl Counters {
    /// Notes a committed batch.
    pub fn batch(&self, reason: FlushReason, fill: f64, tally: Tally, bytes: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        let index = FlushReason::ALL
            .iter()
            .position(|other| *other == reason)
            .unwrap_or(0);
        self.flushes[index].fetch_add(1, Ordering::Relaxed);
        self.fill_ppm
            .fetch_add((fill * 1e6) as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows(tally);
    }

    /// Notes committed rows.
    pub fn rows(&self, tally: Tally) {
        self.loaded.fetch_add(tally.loaded, Ordering::Relaxed);
        self.rejected.fetch_add(tally.rejected, Ordering::Relaxed);
        self.suppressed
            .fetch_add(tally.suppressed, Ordering::Relaxed);
    }

    /// Notes a stretch of a source that an earlier run has committed.
    pub fn known(&self, span: &Span) {
        self.read.fetch_add(span.records, Ordering::Relaxed);
        self.already_loaded
            .fetch_add(span.loaded, Ordering::Relaxed);
        self.rejected.fetch_add(span.rejected, Ordering::Relaxed);
        self.rejected_before
            .fetch_add(span.rejected, Ordering::Relaxed);
        self.suppressed
            .fetch_add(span.suppressed, Ordering::Relaxed);
    }
}

/// Commit latency: from BEGIN to the answer to COMMIT (for `--commit row`, of the row's own
/// statement). Three significant digits, 1 microsecond to 1 hour.
#[derive(Debug)]
pub struct Latency(Mutex<Histogram<u64>>);

impl Default for Latency {
    fn default() -> Self {
        Latency(Mutex::new(empty_histogram()))
    }
}

fn empty_histogram() -> Histogram<u64> {
    // The bounds are constants that the constructor accepts.
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("constant bounds")
}

impl Latency {
    /// Notes one transaction.
    pub fn record(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        if let Ok(mut histogram) = self.0.lock() {
            histogram.saturating_record(micros.max(1));
        }
    }

    /// Adds the transactions of `other`.
    pub fn add(&self, other: &Latency) {
        if let (Ok(mut mine), Ok(theirs)) = (self.0.lock(), other.0.lock()) {
            // Both have the same bounds.
            let _ = mine.add(&*theirs);
        }
    }

    /// The latency in milliseconds below which `quantile` (0 to 1) of the transactions stayed.
    pub fn millis_at(&self, quantile: f64) -> f64 {
        self.0.lock().map_or(0.0, |histogram| {
            histogram.value_at_quantile(quantile) as f64 / 1000.0
        })
    }

    /// The longest, in milliseconds.
    pub fn max_millis(&self) -> f64 {
        self.0
            .lock()
            .map_or(0.0, |histogram| histogram.max() as f64 / 1000.0)
    }
}
