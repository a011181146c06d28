//! One load from end to end: prepare, read, write, close, account. It reads top to bottom.

mod plan;
mod prepare;
mod readers;
mod sampler;

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use self::prepare::{Ready, prepare};
use self::readers::{First, Readers, Sources, Waiting};
use self::sampler::{Backends, sample};
use crate::batch::Batch;
use crate::connect;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::machine;
use crate::rejects::{self, RejectFile};
use crate::report::{
    Batches, Bottleneck, Console, Counters, Latency, LatencyMillis, Observed, Progress, Rows,
    Summary,
};
use crate::source::{Input, Pool, Shared};
use crate::stop::Stop;
use crate::table::Target;
use crate::worker::{Job, OnError, Worker};

pub use plan::{Durability, LedgerUse, LoadPlan, Outcome};

/// Batches that may wait between readers and workers. Two keep the workers busy while a reader
/// is held up for a moment; more only cost memory.
const QUEUE: usize = 2;

/// Loads shorter than this say nothing about what bound them.
const WORTH_A_VERDICT: Duration = Duration::from_secs(2);

/// How long batches under way may take to finish after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// Loads. Committed rows stay committed whatever happens later; the outcome says how many.
pub async fn load(plan: &LoadPlan, console: &Console, stop: &Arc<Stop>) -> Outcome {
    match prepare(plan, console).await {
        Ok(ready) => run(plan, ready, console, stop).await,
        Err(error) => error.into(),
    }
}

async fn run(plan: &LoadPlan, ready: Ready, console: &Console, stop: &Arc<Stop>) -> Outcome {
    let started = Instant::now();
    let Ready {
        mut first,
        header,
        inputs,
        mut known,
        finished,
        taken,
        total,
        table,
        target,
        connections,
        ledger,
        indexes,
    } = ready;
    let counters = Arc::new(Counters::default());
    let latency = Arc::new(Latency::default());
    let names: Vec<Arc<str>> = inputs.iter().map(Input::name).collect();
    let parser = first.parser(&target.json_columns());
    let reject_header = header
        .as_ref()
        .map_or_else(Vec::new, |names| first.header_line(names));
    let reject_file = match (&plan.rejects, &ledger) {
        (Some(path), None) => match RejectFile::create(path, reject_header.clone()) {
            Ok(file) => Some(Mutex::new(file)),
            Err(source) => {
                return Error::Output {
                    name: path.display().to_string(),
                    source,
                }
                .into();
            }
        },
        _ => None,
    };

    let count = if plan.read.limit.is_some() {
        1
    } else {
        plan.workers.min(inputs.len()).max(1)
    };
    let buffers = Pool::new(count + QUEUE + plan.workers);
    console.detail(&format!(
        "{} workers, {count} readers; memory for batches: {} x {} bytes",
        plan.workers,
        count + QUEUE + plan.workers,
        plan.window.bytes,
    ));
    let (full_in, full) = async_channel::bounded(QUEUE);
    let readers = if finished {
        known.iter().flatten().for_each(|span| counters.known(span));
        drop(full_in);
        Readers::none()
    } else {
        first.skip(std::mem::take(&mut known[0]));
        let waiting = inputs.iter().cloned().zip(known).enumerate().skip(1);
        let sources = Sources {
            waiting: Mutex::new(
                waiting
                    .map(|(index, (input, known))| Waiting {
                        index,
                        input,
                        known,
                    })
                    .collect(),
            ),
            first: First {
                name: first.name().clone(),
                format: first.format(),
                header,
                columns: target.columns.len(),
            },
            options: plan.read.clone(),
            taken: taken.clone(),
            shared: Shared {
                window: plan.window,
                empty: buffers.empty.clone(),
                full: full_in,
                counters: counters.clone(),
                stop: stop.clone(),
            },
        };
        Readers::start(count, first, sources)
    };

    let backends = Backends::default();
    let job = Arc::new(Job {
        pool: connections,
        begin: plan.begin(),
        deferrable: table.deferrable,
        suppresses: table.suppresses,
        target: target.clone(),
        strategy: plan.strategy,
        copy_format: plan.copy_format,
        commit: plan.commit,
        on_error: match plan.on_error {
            // Nowhere to put them aside.
            OnError::Reject(_) if ledger.is_none() && reject_file.is_none() => OnError::Stop,
            on_error => on_error,
        },
        ledger: ledger.clone(),
        reject_file,
        window: plan.window,
        patience: plan.patience,
        backends: backends.clone(),
        sources: names,
        counters: counters.clone(),
        latency: latency.clone(),
        stop: stop.clone(),
        console: console.clone(),
    });
    let done = Arc::new(Stop::default());
    let display = tokio::spawn(
        Progress {
            mode: plan.progress,
            every: plan.report_every,
            total,
            taken: taken.clone(),
            counters: counters.clone(),
            done: done.clone(),
            console: console.clone(),
        }
        .run(),
    );
    let looks = tokio::spawn(sample(plan.settings.clone(), backends, done.clone()));
    let mut workers = JoinSet::new();
    for _ in 0..plan.workers {
        let worker = Worker::new(job.clone(), parser.clone());
        workers.spawn(worker.run(full.clone(), buffers.give_back.clone()));
    }
    drop(buffers);

    let mut error = wait_for_workers(workers, stop).await.err();
    let writing = started.elapsed();
    abandon(&full, &counters);
    if error.is_none() && !stop.is_set() {
        error = readers.finish().await.err();
    }
    if error.is_none() && !stop.is_set() && !finished {
        error = close(plan, ledger.as_ref()).await.err();
    }
    if let (Some(path), Some(ledger)) = (&plan.rejects, &ledger)
        && let Err(failure) = export(plan, ledger, reject_header, path, console).await
    {
        error.get_or_insert(failure);
    }
    done.set();
    // The display only reads; if it died there is nothing to report.
    let _ = display.await;
    if error.is_none()
        && let Some(signal) = stop.signal()
    {
        error = Some(Error::Interrupted(signal));
    }
    let observed = Observed {
        input: counters.idle_micros.load(Relaxed) as f64
            / (writing.as_micros() as f64 * plan.workers as f64).max(1.0),
        workers: plan.workers,
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        indexes,
        logged: !table.unlogged,
        ..looks.await.unwrap_or_default()
    };
    let import_id = ledger.map(|ledger| ledger.import_id);
    let account = Account {
        plan,
        import_id,
        target: &target,
        counters: &counters,
        latency: &latency,
    };
    let bottleneck = observed.verdict().filter(|_| writing > WORTH_A_VERDICT);
    let summary = account.summary(taken.load(Relaxed), started.elapsed(), bottleneck);
    Outcome {
        summary: Some(summary),
        error,
        target: Some(target),
        latency,
    }
}

/// Waits for all workers; the first failure stops the others. After a signal the batches under
/// way have [`GRACE`] to finish.
async fn wait_for_workers(
    mut workers: JoinSet<Result<(), Error>>,
    stop: &Arc<Stop>,
) -> Result<(), Error> {
    let mut first_error = None;
    let mut grace = Box::pin(async {
        stop.wait().await;
        tokio::time::sleep(GRACE).await;
    });
    loop {
        let joined = tokio::select! {
            joined = workers.join_next() => joined,
            () = &mut grace => {
                // Dropping the connections rolls back what they have open.
                workers.shutdown().await;
                None
            }
        };
        let error = match joined {
            None => return first_error.map_or(Ok(()), Err),
            Some(Ok(Ok(()))) => continue,
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => Error::Mismatch(format!("a worker failed: {panic}")),
        };
        stop.set();
        first_error.get_or_insert(error);
    }
}

/// Batches that were read and never written: the load was stopped before their turn.
fn abandon(full: &async_channel::Receiver<Batch>, counters: &Counters) {
    full.close();
    while let Ok(batch) = full.try_recv() {
        counters.abandoned.fetch_add(batch.len() as u64, Relaxed);
    }
}

/// After the last batch: closes the import and makes the last commits durable.
async fn close(plan: &LoadPlan, ledger: Option<&Ledger>) -> Result<(), Error> {
    let refused = |error| Error::Server {
        doing: "closing the import",
        error,
    };
    // With --limit there may be more to read, so the import stays open.
    if let Some(ledger) = ledger.filter(|_| plan.read.limit.is_none()) {
        let mut client = connect::connect(&plan.settings).await?;
        if !ledger.finish(&mut client).await.map_err(refused)? {
            return Err(Error::TakenOver(ledger.import_id.clone()));
        }
    } else if plan.durability == Durability::End {
        let client = connect::connect(&plan.settings).await?;
        // A commit waits for the log up to its own record only if it wrote one; this message is
        // the smallest.
        let sql = "BEGIN; SET LOCAL synchronous_commit = on; \
                   SELECT pg_logical_emit_message(true, 'pgrung', ''); COMMIT";
        client.batch_execute(sql).await.map_err(refused)?;
    }
    Ok(())
}

async fn export(
    plan: &LoadPlan,
    ledger: &Ledger,
    header: Vec<u8>,
    path: &Path,
    console: &Console,
) -> Result<(), Error> {
    let client = connect::connect(&plan.settings).await?;
    let records = rejects::export(&client, ledger, header, path).await?;
    if records > 0 {
        console.notice(&format!("{records} rejects are in {}", path.display()));
    }
    Ok(())
}

/// What the account of a load is drawn from.
struct Account<'a> {
    plan: &'a LoadPlan,
    import_id: Option<String>,
    target: &'a Target,
    counters: &'a Counters,
    latency: &'a Latency,
}

impl Account<'_> {
    fn summary(
        self,
        bytes_read: u64,
        elapsed: Duration,
        bottleneck: Option<Bottleneck>,
    ) -> Summary {
        let Account { plan, counters, .. } = self;
        let loaded = counters.loaded.load(Relaxed);
        let rows = Rows {
            read: counters
                .read
                .load(Relaxed)
                .saturating_sub(counters.abandoned.load(Relaxed)),
            loaded,
            rejected: counters.rejected.load(Relaxed),
            already_loaded: counters.already_loaded.load(Relaxed),
            dropped: 0,
            suppressed: counters.suppressed.load(Relaxed),
        };
        let seconds = elapsed.as_secs_f64();
        Summary {
            import_id: self.import_id,
            table: self.target.table.clone(),
            strategy: plan.strategy.name(),
            workers: plan.workers,
            balanced: rows.balanced(),
            rows,
            bytes_read,
            elapsed_seconds: seconds,
            rows_per_second: if seconds > 0.0 {
                loaded as f64 / seconds
            } else {
                0.0
            },
            batches: Batches::of(counters),
            commit_latency_ms: LatencyMillis::from(self.latency),
            retries: counters.retries.load(Relaxed),
            peak_memory_bytes: machine::peak_memory_bytes(),
            bottleneck,
        }
    }
}
