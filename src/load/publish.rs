//! Shows a running load: to people as progress, to machines over HTTP and as a file.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::control::Control;
use super::running::Running;
use crate::job::LoadSettings;
use crate::metrics::{self, Info, Listener, Snapshot, Timing};
use crate::queue::SpillQueue;
use crate::report::{Console, Latency, Progress};
use crate::stop::{SetOnDrop, Stop};

/// The displays of a load.
pub struct Displays {
    over: SetOnDrop,
    tasks: Vec<JoinHandle<()>>,
}

impl Displays {
    /// Starts all that were asked for; `listener` is where the figures are served.
    pub fn start(
        running: &Running,
        listener: Option<Listener>,
        settings: &LoadSettings,
        control: &Control,
    ) -> Self {
        let over = Arc::<Stop>::default();
        let progress = Progress {
            mode: settings.progress,
            every: settings.report_every,
            // With --limit it is not known how far into them the last record stands.
            total: running.total.filter(|_| settings.read.limit.is_none()),
            known: running.known_bytes,
            taken: running.taken.clone(),
            counters: running.counters.clone(),
            queue: running.waiting.clone(),
            done: over.clone(),
            console: control.console.clone(),
        };
        let mut tasks = vec![tokio::spawn(progress.run())];
        let snapshot = snapshots(running, settings);
        if let Some(path) = settings.metrics_file.clone() {
            let (every, over) = (settings.report_every, over.clone());
            let console = control.console.clone();
            tasks.push(tokio::spawn(write(
                snapshot.clone(),
                path,
                every,
                over,
                console,
            )));
        }
        if let Some(listener) = listener {
            let address = listener.address();
            control
                .console
                .notice(&format!("metrics at http://{address}/metrics"));
            tasks.push(listener.serve(snapshot, over.clone()));
        }
        Displays {
            over: SetOnDrop(over),
            tasks,
        }
    }

    /// Ends them all with the last figures.
    pub async fn end(self) {
        drop(self.over);
        for task in self.tasks {
            // Displays only read; if one died there is nothing to report.
            let _ = task.await;
        }
    }
}

/// Takes all figures of a load at once, any time.
fn snapshots(running: &Running, settings: &LoadSettings) -> impl Fn() -> Snapshot + Clone + use<> {
    let info = Info {
        version: env!("CARGO_PKG_VERSION").to_string(),
        import_id: running
            .ledger
            .as_ref()
            .map(|ledger| ledger.import_id.clone()),
        table: running.target.table.clone(),
        strategy: settings.strategy_factory().name().to_string(),
    };
    let (counters, taken) = (running.counters.clone(), running.taken.clone());
    let (queue, spilling) = (running.waiting.clone(), running.spilling.clone());
    move || {
        let on_disk = spilling
            .as_ref()
            .map(SpillQueue::on_disk)
            .unwrap_or_default();
        let (rows, batches) = (counters.rows(), counters.batches());
        Snapshot {
            info: info.clone(),
            rows_read: rows.read,
            rows: rows
                .tally
                .iter()
                .map(|(outcome, rows)| (outcome.name(), rows))
                .collect(),
            batches: batches
                .flushes()
                .map(|(reason, batches)| (reason.name(), batches))
                .collect(),
            fill_mean: batches.fill_mean(),
            bytes_read: taken.load(Relaxed),
            bytes_committed: counters.bytes.get(),
            bytes_dropped: counters.dropped_bytes.get(),
            bytes_spilled: on_disk.total_bytes,
            retries: counters.retries.get(),
            queue_depth: queue.len() as u64,
            queue_capacity: queue.capacity().unwrap_or(0) as u64,
            spill_batches: on_disk.batches,
            spill_bytes: on_disk.bytes,
            commit: timing(&counters.commit),
            wait: timing(&counters.wait),
        }
    }
}

/// Writes the figures to `path` every so often, and once more at the end.
async fn write(
    snapshot: impl Fn() -> Snapshot,
    path: PathBuf,
    every: Duration,
    over: Arc<Stop>,
    console: Console,
) {
    loop {
        let is_over = over.within(every).await;
        if let Err(error) = metrics::write_textfile(&path, &snapshot()) {
            console.notice(&error.to_string());
        }
        if is_over {
            return;
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
