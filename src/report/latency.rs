//! Durations of a load as histograms.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

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

#[expect(
    clippy::expect_used,
    reason = "the constructor accepts these constants"
)]
fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("constant bounds")
}

impl Latency {
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

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LatencyMillis {
    /// Median.
    pub p50: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl LatencyMillis {
    pub(crate) fn of(latency: &Latency) -> Self {
        LatencyMillis {
            p50: latency.millis_at(0.5),
            p90: latency.millis_at(0.9),
            p99: latency.millis_at(0.99),
            p999: latency.millis_at(0.999),
            max: latency.max_millis(),
        }
    }
}
