//! A load while it runs: what the displays, the watch and the close look at, and the account drawn
//! from it at the end.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::control::Control;
use super::proof::Before;
use super::staging::Staged;
use crate::batch::Batch;
use crate::error::Error;
use crate::job::LoadSettings;
use crate::ledger::Ledger;
use crate::machine;
use crate::queue::SpillQueue;
use crate::reject_file::RejectLayout;
use crate::report::{Counters, LatencyMillis, Looks, Observed, Rehearsal, Summary};
use crate::target::Target;
use crate::window::FlushReason;

/// Loads shorter than this say nothing about what bound them.
const WORTH_A_VERDICT: Duration = Duration::from_secs(2);

/// A load that runs.
pub struct Running {
    pub target: Arc<Target>,
    /// The table that is written when the load began; `None` where nothing is sent to it.
    pub before: Option<Before>,
    /// How staged rows go on; `None`: they are in their table.
    pub staged: Option<Staged>,
    /// What is found out before all is rolled back, if it is to be.
    pub rehearsal: Option<Mutex<Rehearsal>>,
    /// Names of the sources.
    pub sources: Vec<Arc<str>>,
    /// Where commits are noted.
    pub ledger: Option<Ledger>,
    pub counters: Arc<Counters>,
    /// Stored bytes taken from the sources.
    pub taken: Arc<AtomicU64>,
    /// Stored bytes of all sources, where known.
    pub total: Option<u64>,
    /// Uncompressed bytes that earlier runs have settled.
    pub known_bytes: u64,
    /// Batches between readers and workers.
    pub waiting: async_channel::Receiver<Batch>,
    pub spilling: Option<SpillQueue>,
    /// Server processes of the workers.
    pub backends: Arc<Mutex<Vec<i32>>>,
    /// Indexes of the table.
    pub indexes: i64,
    /// Whether the table writes to the log.
    pub logged: bool,
    /// Whether commits are answered before they are durable, and made so at the end.
    pub durable_at_end: bool,
    /// How a file of rejects is written.
    pub reject_layout: RejectLayout,
}

/// How a load ended.
#[derive(Debug, Default)]
pub struct LoadEnd {
    /// What was done, also when it was not all; `None` if nothing had begun.
    pub summary: Option<Summary>,
    /// Why not all was done.
    pub error: Option<Error>,
    /// What was written, if it came to that.
    pub(crate) target: Option<Arc<Target>>,
    pub(crate) counters: Arc<Counters>,
    /// Rejects among the batches that an earlier run had left on disk.
    pub leftover_rejects: u64,
    /// What a check has found out beside the counts.
    pub rehearsal: Option<Rehearsal>,
}

impl Running {
    /// A load that nobody looks at.
    pub fn unseen(target: Arc<Target>, ledger: Ledger) -> Self {
        Running {
            target,
            before: None,
            staged: None,
            rehearsal: None,
            sources: Vec::new(),
            ledger: Some(ledger),
            counters: Arc::default(),
            taken: Arc::default(),
            total: None,
            known_bytes: 0,
            waiting: async_channel::bounded(1).1,
            spilling: None,
            backends: Arc::default(),
            indexes: 0,
            logged: true,
            durable_at_end: false,
            reject_layout: RejectLayout::default(),
        }
    }

    /// What ended the spill early.
    ///
    /// # Errors
    /// What the disk said.
    pub fn check_spill(&self) -> Result<(), Error> {
        match self.spilling.as_ref().and_then(SpillQueue::take_failure) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// What is put aside of merged rows is where that of a logged table is.
    pub fn settle_staged(&mut self, merged: &Result<(), Error>) {
        if let (Some(_), Some(ledger), Ok(())) = (&self.staged, &mut self.ledger, merged) {
            ledger.unlogged = false;
        }
    }

    /// Says what was read and is in no table.
    pub fn tell(&self, control: &Control) {
        let rows = self
            .spilling
            .as_ref()
            .map_or(0, |spilling| spilling.on_disk().rows);
        if rows > 0 {
            control.console.notice(&format!(
                "{rows} rows wait on disk; the next run with the same --spill-dir loads them"
            ));
        }
        let cut = self.counters.cut_bytes.get();
        if cut > 0 {
            control.console.notice(&format!(
                "{cut} bytes of an unfinished record had been read and are not loaded"
            ));
        }
    }

    /// The account of the load. `writing`: until the last worker ended.
    pub fn summary(
        &self,
        settings: &LoadSettings,
        elapsed: Duration,
        writing: Duration,
        looks: Looks,
    ) -> Summary {
        let counters = &self.counters;
        let (rows, batches) = (counters.rows(), counters.batches());
        let seconds = elapsed.as_secs_f64();
        let observed = self.observed(settings, writing, looks);
        Summary {
            import_id: self.ledger.as_ref().map(|ledger| ledger.import_id.clone()),
            table: self.target.table.clone(),
            mode: settings.mode.name(),
            strategy: settings.strategy_factory().name(),
            sends_nothing: settings.strategy_factory().sends_nothing(),
            workers: settings.workers(),
            balanced: rows.balanced(),
            rows,
            reject_reasons: counters.reasons.all(),
            bytes_read: self.taken.load(Relaxed),
            elapsed_seconds: seconds,
            rows_per_second: match settings.is_staged() || settings.merges_batches() {
                true => rows.read as f64 / seconds.max(f64::EPSILON),
                false => rows.tally.passed() as f64 / seconds.max(f64::EPSILON),
            },
            writers_waited_seconds: Some(counters.locked_micros.get())
                .filter(|micros| *micros > 0)
                .map(|micros| micros as f64 / 1e6),
            batches,
            commit_latency_ms: LatencyMillis::of(&counters.commit),
            wait_ms: LatencyMillis::of(&counters.wait),
            retries: counters.retries.get(),
            peak_memory_bytes: machine::peak_memory_bytes(),
            bottleneck: observed.verdict().filter(|_| writing > WORTH_A_VERDICT),
        }
    }

    fn observed(&self, settings: &LoadSettings, writing: Duration, looks: Looks) -> Observed {
        let workers = settings.workers();
        let batches = self.counters.batches();
        let by_timer = batches
            .flushes()
            .find(|(reason, _)| *reason == FlushReason::Wait)
            .map_or(0, |(_, batches)| batches);
        let idle = self.counters.idle_micros.get() as f64;
        Observed {
            looks,
            input: idle / (writing.as_micros() as f64 * workers as f64).max(1.0),
            timer: by_timer as f64 / batches.count().max(1) as f64,
            workers,
            cores: machine::cores(),
            indexes: self.indexes,
            logged: self.logged,
        }
    }
}
