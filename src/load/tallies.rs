//! The counts and durations of a load, and the account drawn from them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::plan::LoadPlan;
use crate::machine;
use crate::plan::Observed as Flow;
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
    /// What the load's `readers` and workers say about what held it up.
    pub fn flow(&self, plan: &LoadPlan, readers: usize, elapsed: Duration) -> Flow {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let counters = &self.counters;
        Flow {
            flush: [0, 1, 2, 3].map(|index| get(&counters.flushes[index])),
            fill_mean: Batches::of(counters).fill_mean,
            queue_mean: get(&counters.queue_depths) as f64
                / get(&counters.hand_overs).max(1) as f64,
            queue_capacity: plan.queue,
            readers,
            workers: plan.workers,
            elapsed,
            readers_waited: Duration::from_micros(get(&counters.reader_wait_micros)),
            workers_waited: Duration::from_micros(get(&counters.idle_micros)),
        }
    }

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
