//! One load from end to end: prepare, read, write, close, account. It reads top to bottom.

mod close;
mod figures;
mod leftovers;
mod plan;
mod prepare;
mod readers;
mod sampler;
mod start;
mod switches;
mod tallies;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use self::close::{close, export, keep_small};
use self::figures::Figures;
use self::leftovers::load_leftovers;
use self::prepare::{Ready, prepare};
use self::sampler::sample;
use self::switches::Switches;
use self::tallies::{Measured, Tallies};
use crate::error::Error;
use crate::machine;
use crate::metrics::Info;
use crate::overflow::{Outlet, Overflow};
use crate::plan::verdict;
use crate::report::{Console, Observed, Progress};
use crate::source::{Pool, Shared};
use crate::stop::Stop;
use crate::worker::{Commit, Worker};

pub use plan::{Durability, LedgerUse, LoadPlan, Outcome};

/// Loads shorter than this say nothing about what bound them.
const WORTH_A_VERDICT: Duration = Duration::from_secs(2);

/// Loads. Committed rows stay committed whatever happens later; the outcome says how many.
pub async fn load(plan: &LoadPlan, console: &Console, stop: &Arc<Stop>) -> Outcome {
    let mut leftover_rejects = 0;
    let ready = tokio::select! {
        ready = async {
            if let Some((dir, _)) = &plan.spill {
                leftover_rejects = load_leftovers(plan, dir, console, stop).await?;
            }
            prepare(plan, console).await
        } => ready,
        () = stop.wait() => Err(Error::Interrupted(stop.signal().unwrap_or_default())),
    };
    match ready {
        Ok(ready) => Outcome {
            leftover_rejects,
            ..run(plan, ready, console, stop).await
        },
        Err(error) => error.into(),
    }
}

async fn run(plan: &LoadPlan, mut ready: Ready, console: &Console, stop: &Arc<Stop>) -> Outcome {
    let started = Instant::now();
    let tallies = Tallies::default();
    let switches = Switches::default();
    let reject_header = ready.reject_header();
    let reject_file = match ready.reject_file(plan, &reject_header) {
        Ok(file) => file,
        Err(error) => return error.into(),
    };
    let Ready {
        finished,
        ledger,
        target,
        taken,
        total,
        indexes,
        ..
    } = &ready;
    let (finished, indexes, total) = (*finished, *indexes, *total);
    let (ledger, target, taken) = (ledger.clone(), target.clone(), taken.clone());
    let logged = !ready.table.unlogged;
    // What came from a pipe cannot be read again; but a part is no whole load.
    let drain = total.is_none() && plan.commit != Commit::Load;

    let (full_in, full) = async_channel::bounded(plan.queue);
    let count = ready.readers(plan);
    // One more goes between disk and workers.
    let spare = usize::from(plan.spill.is_some());
    let buffers = Pool::new(count + plan.queue + plan.workers + spare);
    console.detail(&format!(
        "{} workers (default: one a core, at most 4), {count} readers; memory for batches: {} x {} bytes",
        plan.workers,
        count + plan.queue + plan.workers,
        plan.window.bytes,
    ));
    let parser = ready.parser();
    let stage = match ready.stage(plan, &tallies, console) {
        Ok(stage) => stage,
        Err(error) => return error.into(),
    };
    let job = ready.destination().job(
        plan,
        reject_file,
        stage.clone(),
        &tallies,
        &switches,
        console,
    );
    let job = Arc::new(job);
    let outlet = match (plan.overflow, &stage) {
        (_, Some(stage)) => {
            stage.start(full_in.clone(), buffers.empty.clone());
            Outlet::spill(
                full_in,
                stage.clone(),
                tallies.counters.clone(),
                console.clone(),
            )
        }
        (Overflow::Drop, None) => {
            Outlet::drop_newest(full_in, tallies.counters.clone(), console.clone())
        }
        _ => Outlet::block(full_in, tallies.counters.clone(), console.clone()),
    };
    let readers = ready.start_readers(
        plan,
        count,
        Shared {
            window: plan.window,
            empty: buffers.empty.clone(),
            outlet,
            counters: tallies.counters.clone(),
            stop: switches.halt.clone(),
            close: switches.close.clone(),
        },
    );

    let display = tokio::spawn(
        Progress {
            mode: plan.progress,
            every: plan.report_every,
            total,
            taken: taken.clone(),
            counters: tallies.counters.clone(),
            wait: tallies.wait.clone(),
            queue: full.clone(),
            done: switches.done.clone(),
            console: console.clone(),
        }
        .run(),
    );
    let figures = Figures {
        info: Info {
            version: env!("CARGO_PKG_VERSION").to_string(),
            import_id: ledger.as_ref().map(|ledger| ledger.import_id.clone()),
            table: target.table.clone(),
            strategy: plan.strategy.name().to_string(),
        },
        tallies: tallies.clone(),
        taken: taken.clone(),
        queue: full.clone(),
        stage: stage.clone(),
    };
    let publishing = match figures.publish(plan, &switches, console).await {
        Ok(publishing) => publishing,
        Err(error) => return error.into(),
    };
    let looks = tokio::spawn(sample(
        plan.settings.clone(),
        job.backends.clone(),
        switches.done.clone(),
    ));
    let merges = tokio::spawn(keep_small(
        plan.settings.clone(),
        ledger.clone(),
        tallies.clone(),
        switches.done.clone(),
    ));
    let watch = tokio::spawn(switches.clone().watch(stop.clone(), drain, plan.grace));
    let mut workers = JoinSet::new();
    for _ in 0..plan.workers {
        let worker = Worker::new(job.clone(), parser.clone());
        workers.spawn(worker.run(full.clone(), buffers.give_back.clone()));
    }
    drop(buffers);

    let mut error = wait_for_workers(workers, &switches, plan.grace).await.err();
    let writing = started.elapsed();
    // Batches that nobody has taken are as good as unread.
    full.close();
    watch.abort();
    let complete = !stop.is_set();
    if error.is_none() && complete {
        error = readers.finish().await.err();
    }
    merges.abort();
    if let Some(stage) = &stage {
        if let Some(failure) = stage.take_failure() {
            error.get_or_insert(failure.into());
        }
        let rows = stage.on_disk().rows;
        if rows > 0 {
            console.notice(&format!(
                "{rows} rows wait on disk; the next run with the same --spill-dir loads them"
            ));
        }
    }
    if error.is_none() && complete && !finished {
        // Dropped rows were never to be in the ledger.
        let counters = &tallies.counters;
        let read = counters.read.load(Relaxed) - counters.dropped.load(Relaxed);
        let dropped = counters.dropped.load(Relaxed) > 0;
        error = close(plan, ledger.as_ref(), read, dropped).await.err();
    }
    if let (Some(path), Some(ledger)) = (&plan.rejects, &ledger)
        && let Err(failure) = export(plan, ledger, reject_header, path, console).await
    {
        error.get_or_insert(failure);
    }
    switches.done.set();
    // Displays only read; if one died there is nothing to report.
    let _ = display.await;
    if let Some(publishing) = publishing {
        let _ = publishing.await;
    }
    if error.is_none()
        && let Some(signal) = stop.signal()
    {
        error = Some(Error::Interrupted(signal));
    }
    let observed = Observed {
        input: tallies.counters.idle_micros.load(Relaxed) as f64
            / (writing.as_micros() as f64 * plan.workers as f64).max(1.0),
        workers: plan.workers,
        cores: machine::cores(),
        indexes,
        logged,
        ..looks.await.unwrap_or_default()
    };
    console.detail(&verdict(&tallies.flow(plan, count, writing)).to_string());
    let cut = tallies.counters.cut_bytes.load(Relaxed);
    if cut > 0 {
        console.notice(&format!(
            "{cut} bytes of an unfinished record had been read and are not loaded"
        ));
    }
    let summary = tallies.summary(
        plan,
        &target,
        Measured {
            import_id: ledger.map(|ledger| ledger.import_id),
            bytes_read: taken.load(Relaxed),
            elapsed: started.elapsed(),
            bottleneck: observed.verdict().filter(|_| writing > WORTH_A_VERDICT),
        },
    );
    Outcome {
        summary: Some(summary),
        error,
        target: Some(target),
        latency: tallies.latency,
        leftover_rejects: 0,
    }
}

/// Waits for all workers; the first failure stops the others. Once everything is to stop, the
/// batches under way have `grace` to finish.
async fn wait_for_workers(
    mut workers: JoinSet<Result<(), Error>>,
    switches: &Switches,
    grace: Duration,
) -> Result<(), Error> {
    let mut first_error = None;
    let mut over = Box::pin(async {
        switches.halt.wait().await;
        tokio::time::sleep(grace).await;
    });
    loop {
        let joined = tokio::select! {
            joined = workers.join_next() => joined,
            () = &mut over => {
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
        switches.halt.set();
        first_error.get_or_insert(error);
    }
}
