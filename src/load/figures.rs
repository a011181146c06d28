//! Gives the figures of a running load to machines: over HTTP and as a file.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::plan::LoadPlan;
use super::switches::Switches;
use super::tallies::Tallies;
use crate::batch::Batch;
use crate::error::Error;
use crate::metrics::{self, Info, Snapshot, Timing};
use crate::overflow::Stage;
use crate::report::{Batches, Console, Latency, Rows};
use crate::stop::Stop;
use crate::window::FlushReason;

/// Where the figures of a load come from.
#[derive(Clone)]
pub struct Figures {
    /// What the load is.
    pub info: Info,
    /// What it counts.
    pub tallies: Tallies,
    /// Stored bytes taken from the sources.
    pub taken: Arc<AtomicU64>,
    /// Batches between readers and workers.
    pub queue: async_channel::Receiver<Batch>,
    /// Batches on disk.
    pub stage: Option<Stage>,
}

impl Figures {
    /// All figures now.
    pub fn snapshot(&self) -> Snapshot {
        let Tallies {
            counters,
            latency,
            wait,
        } = &self.tallies;
        let on_disk = self.stage.as_ref().map(Stage::on_disk).unwrap_or_default();
        let rows = Rows::of(counters);
        Snapshot {
            info: self.info.clone(),
            rows_read: rows.read,
            rows: vec![
                ("loaded", rows.loaded),
                ("rejected", rows.rejected),
                ("already_loaded", rows.already_loaded),
                ("dropped", rows.dropped),
                ("suppressed", rows.suppressed),
            ],
            batches: FlushReason::ALL
                .iter()
                .zip(&counters.flushes)
                .map(|(reason, batches)| (reason.name(), batches.load(Relaxed)))
                .collect(),
            bytes_read: self.taken.load(Relaxed),
            bytes_committed: counters.bytes.load(Relaxed),
            bytes_dropped: counters.dropped_bytes.load(Relaxed),
            bytes_spilled: on_disk.total_bytes,
            retries: counters.retries.load(Relaxed),
            queue_depth: self.queue.len() as u64,
            queue_capacity: self.queue.capacity().unwrap_or(0) as u64,
            spill_batches: on_disk.batches,
            spill_bytes: on_disk.bytes,
            fill_mean: Batches::of(counters).fill_mean,
            commit: timing(latency),
            wait: timing(wait),
        }
    }

    /// Serves and writes the figures as the plan wants it; the task that writes them.
    ///
    /// # Errors
    /// When the address cannot be listened at.
    pub async fn publish(
        self,
        plan: &LoadPlan,
        switches: &Switches,
        console: &Console,
    ) -> Result<Option<JoinHandle<()>>, Error> {
        if let Some(address) = plan.metrics {
            let figures = self.clone();
            let listener = metrics::listen(address).await?;
            console.notice(&format!("metrics at http://{}/metrics", listener.address()));
            listener.serve(move || figures.snapshot(), switches.done.clone());
        }
        Ok(plan.metrics_file.clone().map(|path| {
            let (every, done, console) =
                (plan.report_every, switches.done.clone(), console.clone());
            tokio::spawn(async move { self.write(&path, every, done, console).await })
        }))
    }

    /// Writes the figures to `path` every so often, and once more at the end.
    async fn write(self, path: &Path, every: Duration, done: Arc<Stop>, console: Console) {
        loop {
            let over = tokio::time::timeout(every, done.wait()).await.is_ok();
            if let Err(error) = metrics::write_textfile(path, &self.snapshot()) {
                console.notice(&error.to_string());
            }
            if over {
                return;
            }
        }
    }
}

fn timing(latency: &Latency) -> Timing {
    let (count, sum_seconds) = latency.count_and_sum();
    Timing {
        count,
        sum_seconds,
        p50_seconds: latency.millis_at(0.5) / 1000.0,
        p99_seconds: latency.millis_at(0.99) / 1000.0,
    }
}
