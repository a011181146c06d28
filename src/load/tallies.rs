//! The counts and durations of a load, and the account drawn from them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::plan::LoadPlan;
use crate::machine;
use crate::report::{Batches, Bottleneck, Counters, Latency, LatencyMillis, Rows, Summary};
use crate::table::Target;

/// What a load counts while it runs. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Tallies {
    /// Rows, batches, bytes.
    pub counters: Arc<Counters>,
    /// From BEGIN to the answer to COMMIT.
    pub latency: Arc<Latency>,
    /// From the first row of a batch to its commit.
    pub wait: Arc<Latency>,
}

/// What is known only at the end.
pub struct Measured {
    /// The import in the ledger.
    pub import_id: Option<String>,
    /// Bytes taken from the sources, as stored.
    pub bytes_read: u64,
    /// Wall-clock time of the load.
    pub elapsed: Duration,
    /// What bound it.
    pub bottleneck: Option<Bottleneck>,
}

impl Tallies {
    /// The account of the load.
    pub fn summary(&self, plan: &LoadPlan, target: &Target, measured: Measured) -> Summary {
        let Tallies {
            counters,
            latency,
            wait,
        } = self;
        let rows = Rows::of(counters);
        let seconds = measured.elapsed.as_secs_f64();
        Summary {
            import_id: measured.import_id,
            table: target.table.clone(),
            strategy: plan.strategy.name(),
            workers: plan.workers,
            balanced: rows.balanced(),
            rows,
            bytes_read: measured.bytes_read,
            elapsed_seconds: seconds,
            rows_per_second: if seconds > 0.0 {
                rows.loaded as f64 / seconds
            } else {
                0.0
            },
            batches: Batches::of(counters),
            commit_latency_ms: LatencyMillis::from(&**latency),
            wait_ms: LatencyMillis::from(&**wait),
            retries: counters.retries.load(Relaxed),
            peak_memory_bytes: machine::peak_memory_bytes(),
            bottleneck: measured.bottleneck,
        }
    }
}
