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
    /// Rows read from the sources and taken by a worker, known from an earlier run, or dropped.
    pub read: AtomicU64,
    /// Rows read and given up because the load stopped; they are in no table.
    pub abandoned: AtomicU64,
    /// Bytes of an unfinished record that was taken from a pipe when the load was stopped.
    pub cut_bytes: AtomicU64,
    /// Rows whose commit is known.
    pub loaded: AtomicU64,
    /// Rows that an earlier run had loaded.
    pub already_loaded: AtomicU64,
    /// Records put aside, by this run or an earlier one.
    pub rejected: AtomicU64,
    /// Of them, those that an earlier run had put aside.
    pub rejected_before: AtomicU64,
    /// Rows thrown away because the server was too slow.
    pub dropped: AtomicU64,
    /// Their bytes.
    pub dropped_bytes: AtomicU64,
    /// Rows that went to disk on their way.
    pub spilled: AtomicU64,
    /// Compressed bytes ever written to disk.
    pub spilled_bytes: AtomicU64,
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
    /// Time that readers waited for a buffer or for room in the queue, in microseconds, all
    /// readers together.
    pub reader_wait_micros: AtomicU64,
    /// Batches in the queue, added up over all hand-overs, and the number of these.
    pub queue_depths: AtomicU64,
    /// Hand-overs.
    pub hand_overs: AtomicU64,
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

    /// Notes that a reader waited for the workers.
    pub fn reader_waited(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.reader_wait_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Notes how many batches wait for a worker as another one is handed over.
    pub fn queue_depth(&self, batches: usize) {
        self.queue_depths
            .fetch_add(batches as u64, Ordering::Relaxed);
        self.hand_overs.fetch_add(1, Ordering::Relaxed);
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

/// Durations, with three significant digits from 1 microsecond to 1 hour: of all, and of those
/// since the last look.
#[derive(Debug)]
pub struct Latency(Mutex<Histograms>);

#[derive(Debug)]
struct Histograms {
    all: Histogram<u64>,
    recent: Histogram<u64>,
    sum_micros: u64,
}

impl Default for Latency {
    fn default() -> Self {
        Latency(Mutex::new(Histograms {
            all: empty_histogram(),
            recent: empty_histogram(),
            sum_micros: 0,
        }))
    }
}

fn empty_histogram() -> Histogram<u64> {
    // The bounds are constants that the constructor accepts.
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("constant bounds")
}

impl Latency {
    /// Notes one duration.
    pub fn record(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros())
            .unwrap_or(u64::MAX)
            .max(1);
        if let Ok(mut histograms) = self.0.lock() {
            histograms.all.saturating_record(micros);
            histograms.recent.saturating_record(micros);
            histograms.sum_micros = histograms.sum_micros.saturating_add(micros);
        }
    }

    /// Adds the durations of `other`.
    pub fn add(&self, other: &Latency) {
        if let (Ok(mut mine), Ok(theirs)) = (self.0.lock(), other.0.lock()) {
            // Both have the same bounds.
            let _ = mine.all.add(&theirs.all);
            mine.sum_micros = mine.sum_micros.saturating_add(theirs.sum_micros);
        }
    }

    /// The milliseconds below which `quantile` (0 to 1) of all durations stayed.
    pub fn millis_at(&self, quantile: f64) -> f64 {
        self.look(|histograms| histograms.all.value_at_quantile(quantile) as f64 / 1000.0)
    }

    /// The longest, in milliseconds.
    pub fn max_millis(&self) -> f64 {
        self.look(|histograms| histograms.all.max() as f64 / 1000.0)
    }

    /// Number of durations, and their sum in seconds.
    pub fn count_and_sum(&self) -> (u64, f64) {
        self.look(|histograms| (histograms.all.len(), histograms.sum_micros as f64 / 1e6))
    }

    /// Median and 99th percentile in milliseconds since the last call.
    pub fn take_recent(&self) -> (f64, f64) {
        self.0.lock().map_or((0.0, 0.0), |mut histograms| {
            let at = |quantile| histograms.recent.value_at_quantile(quantile) as f64 / 1000.0;
            let recent = (at(0.5), at(0.99));
            histograms.recent.reset();
            recent
        })
    }

    fn look<T: Default>(&self, look: impl FnOnce(&Histograms) -> T) -> T {
        self.0
            .lock()
            .map_or_else(|_| T::default(), |histograms| look(&histograms))
    }
}
