//! One load from end to end: sources, table, readers, workers, account. It reads top to bottom.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool_postgres::Pool as Connections;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::batch::Batch;
use crate::connect::{self, ConnectSettings};
use crate::error::Error;
use crate::machine;
use crate::report::{
    Batches, Console, Counters, Latency, LatencyMillis, Progress, ProgressMode, Rows, Summary,
};
use crate::source::{Format, Input, InputError, Pool, ReadOptions, Reader, Shared};
use crate::stop::Stop;
use crate::strategy::StrategyKind;
use crate::table::{Column, Table, Target};
use crate::window::Window;
use crate::worker::{Commit, Job, Worker};

/// Batches that may wait between readers and workers. Two keep the workers busy while a reader
/// is held up for a moment; more only cost memory.
const QUEUE: usize = 2;

/// How long batches under way may take to finish after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// When a commit counts: what the server waits for before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// Nothing: the last moments may be lost if the server crashes.
    Off,
    /// The local disk.
    Local,
    /// The local disk and the synchronous standbys, as the server is configured.
    On,
    /// Synchronous standbys have received it.
    RemoteWrite,
    /// Synchronous standbys show it.
    RemoteApply,
}

impl Durability {
    /// The value of synchronous_commit.
    pub fn setting(self) -> &'static str {
        match self {
            Durability::Off => "off",
            Durability::Local => "local",
            Durability::On => "on",
            Durability::RemoteWrite => "remote_write",
            Durability::RemoteApply => "remote_apply",
        }
    }
}

/// A load as meant.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Where rows come from, in order; at least one.
    pub inputs: Vec<Input>,
    /// How they are read.
    pub read: ReadOptions,
    /// Where the server is.
    pub settings: ConnectSettings,
    /// The target as the user wrote it.
    pub table: String,
    /// How batches become statements.
    pub strategy: StrategyKind,
    /// Connections that write.
    pub workers: usize,
    /// When a batch closes.
    pub window: Window,
    /// What a commit covers.
    pub commit: Commit,
    /// When a commit counts.
    pub durability: Durability,
    /// Longest wait for one answer.
    pub answer_timeout: Duration,
    /// Longest time for one batch, retries included.
    pub delivery_timeout: Duration,
    /// Most repetitions of one transaction.
    pub max_retries: u32,
    /// How progress is shown.
    pub progress: ProgressMode,
    /// Between two plain lines of progress.
    pub report_every: Duration,
}

/// How a load ended.
pub struct Outcome {
    /// What was done, also when it was not all.
    pub summary: Option<Summary>,
    /// Why not all was done.
    pub error: Option<Error>,
    /// What was written, if it came to that.
    pub target: Option<Arc<Target>>,
    /// Commit latencies.
    pub latency: Arc<Latency>,
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Outcome {
            summary: None,
            error: Some(error),
            target: None,
            latency: Arc::default(),
        }
    }
}

/// Loads. Committed rows stay committed whatever happens later; the outcome says how many.
pub async fn load(plan: &LoadPlan, console: &Console, stop: &Arc<Stop>) -> Outcome {
    match prepare(plan, console).await {
        Ok(ready) => run(plan, ready, console, stop).await,
        Err(error) => error.into(),
    }
}

/// All that is known before the first row moves.
struct Ready {
    first: Reader,
    taken: Arc<AtomicU64>,
    total: Option<u64>,
    header: Option<Vec<String>>,
    table: Table,
    target: Arc<Target>,
    connections: Connections,
}

async fn prepare(plan: &LoadPlan, console: &Console) -> Result<Ready, Error> {
    let taken = Arc::new(AtomicU64::new(0));
    let input = plan.inputs.first().cloned().unwrap_or(Input::Stdin);
    let (options, counter) = (plan.read.clone(), taken.clone());
    let mut first = blocking(move || Reader::open(0, &input, &options, counter)).await?;
    let header = match first.format() {
        Format::Ndjson => None,
        _ if plan.read.header => {
            let (reader, names) = blocking(move || {
                let names = first.take_header();
                names.map(|names| (first, names))
            })
            .await?;
            first = reader;
            Some(names)
        }
        _ => None,
    };
    let total = stored_bytes(&first, &plan.inputs)?;

    let connections = connect::pool(&plan.settings, plan.workers)?;
    let client = connections
        .get()
        .await
        .map_err(|error| Error::Connect(error.into()))?;
    let table = Table::find(&client, &plan.table).await?;
    let (reader, columns) = columns(plan, first, &header, &table).await?;
    first = reader;
    let target = Arc::new(Target {
        table: table.quoted(),
        columns,
    });
    check_rights(&client, &target, plan.strategy).await?;
    console.detail(&format!(
        "{}: {}{}, columns {}",
        first.name(),
        first.format().name(),
        match first.compression().name() {
            "none" => String::new(),
            packed => format!(" in {packed}"),
        },
        target.column_list(),
    ));
    Ok(Ready {
        first,
        taken,
        total,
        header,
        table,
        target,
        connections,
    })
}

/// The columns that the fields of a record go to.
async fn columns(
    plan: &LoadPlan,
    mut first: Reader,
    header: &Option<Vec<String>>,
    table: &Table,
) -> Result<(Reader, Vec<Column>), Error> {
    let names = match (&plan.read.columns, header) {
        (Some(names), Some(header)) if names.len() != header.len() => {
            return Err(Error::Usage(format!(
                "--columns names {} columns, but the header of {} has {}",
                names.len(),
                first.name(),
                header.len(),
            )));
        }
        (Some(names), _) => names.clone(),
        (None, Some(header)) => header.clone(),
        (None, None) if first.format() == Format::Ndjson => {
            let (reader, seen) = blocking(move || {
                let seen = first.sample_keys();
                seen.map(|seen| (first, seen))
            })
            .await?;
            first = reader;
            // A record with an unknown key is a bad record; a source without any known key is a
            // wrong source.
            let known: Vec<Column> = seen
                .iter()
                .filter_map(|name| table.pick(std::slice::from_ref(name)).ok()?.pop())
                .collect();
            if known.is_empty() && !seen.is_empty() {
                table.pick(&seen)?;
            }
            table
                .writable()
                .filter(|column| !column.has_default || known.contains(column))
                .map(|column| column.name.clone())
                .collect()
        }
        (None, None) => table.writable().map(|column| column.name.clone()).collect(),
    };
    let columns = table.pick(&names)?;
    Ok((first, columns))
}

/// Stored bytes of all sources, where all are files; finds missing files before anything is
/// written.
fn stored_bytes(first: &Reader, inputs: &[Input]) -> Result<Option<u64>, Error> {
    let mut total = first.size();
    for input in inputs.iter().skip(1) {
        let size = Reader::size_of(input)?;
        total = total.zip(size).map(|(total, size)| total + size);
    }
    Ok(total)
}

/// A write of no rows in a transaction rolled back: finds missing rights, a read-only server and
/// tables that the strategy cannot write, before the first row.
async fn check_rights(
    client: &Client,
    target: &Target,
    strategy: StrategyKind,
) -> Result<(), Error> {
    let refused = |error| Error::Server {
        doing: "checking that the table can be written",
        error,
    };
    client.batch_execute("BEGIN").await.map_err(refused)?;
    let result = match strategy {
        StrategyKind::Discard => Ok(()),
        StrategyKind::Copy => copy_nothing(client, target).await,
        _ => {
            let nulls = vec!["NULL"; target.columns.len()].join(", ");
            let sql = format!("{} SELECT {nulls} WHERE false", target.insert_into());
            client.batch_execute(&sql).await
        }
    };
    if result.is_ok() {
        client.batch_execute("ROLLBACK").await.map_err(refused)?;
    }
    result.map_err(refused)
}

async fn copy_nothing(client: &Client, target: &Target) -> Result<(), tokio_postgres::Error> {
    let sql = format!(
        "COPY {} ({}) FROM STDIN",
        target.table,
        target.column_list()
    );
    let sink = client.copy_in::<_, bytes::Bytes>(&sql).await?;
    std::pin::pin!(sink).finish().await.map(|_| ())
}

async fn run(plan: &LoadPlan, ready: Ready, console: &Console, stop: &Arc<Stop>) -> Outcome {
    let started = Instant::now();
    let Ready {
        mut first,
        taken,
        total,
        header,
        table,
        target,
        connections,
    } = ready;
    let json: Vec<(String, bool)> = target
        .columns
        .iter()
        .map(|column| (column.name.clone(), column.is_json()))
        .collect();
    let parser = first.parser(&json);
    let counters = Arc::new(Counters::default());
    let latency = Arc::new(Latency::default());
    let readers = if plan.read.limit.is_some() {
        1
    } else {
        plan.workers.min(plan.inputs.len()).max(1)
    };
    let buffers = Pool::new(readers + QUEUE + plan.workers);
    console.detail(&format!(
        "{} workers, {} reader(s), memory {} x {} bytes for batches",
        plan.workers,
        readers,
        readers + QUEUE + plan.workers,
        plan.window.bytes,
    ));
    let (full_in, full) = async_channel::bounded(QUEUE);
    let queue = Arc::new(Sources {
        waiting: Mutex::new(plan.inputs.iter().cloned().enumerate().skip(1).collect()),
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
    });
    let reading = start_readers(readers, first, queue);

    let job = Arc::new(Job {
        pool: connections,
        begin: format!(
            "BEGIN; SET LOCAL synchronous_commit = {}",
            plan.durability.setting()
        ),
        deferrable: table.deferrable,
        suppresses: table.suppresses,
        target: target.clone(),
        strategy: plan.strategy,
        commit: plan.commit,
        window: plan.window,
        answer_timeout: plan.answer_timeout,
        delivery_timeout: plan.delivery_timeout,
        max_retries: plan.max_retries,
        sources: plan.inputs.iter().map(Input::name).collect(),
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
    let mut workers = JoinSet::new();
    for _ in 0..plan.workers {
        let worker = Worker::new(job.clone(), parser.clone());
        workers.spawn(worker.run(full.clone(), buffers.give_back.clone()));
    }
    drop(buffers);

    let mut error = wait_for_workers(workers, stop).await;
    abandon(&full, &counters);
    drop(full);
    if error.is_none() && !stop.is_set() {
        error = wait_for_readers(reading).await;
    }
    done.set();
    // The display only reads; if it died there is nothing to report.
    let _ = display.await;
    if error.is_none()
        && let Some(signal) = stop.signal()
    {
        error = Some(Error::Interrupted(signal));
    }
    let elapsed = started.elapsed();
    let summary = summarize(
        plan,
        &target,
        &counters,
        &latency,
        taken.load(Relaxed),
        elapsed,
    );
    Outcome {
        summary: Some(summary),
        error,
        target: Some(target),
        latency,
    }
}

/// Batches that were read and never written: the load was stopped before their turn.
fn abandon(full: &async_channel::Receiver<Batch>, counters: &Counters) {
    full.close();
    while let Ok(batch) = full.try_recv() {
        counters.abandoned.fetch_add(batch.len() as u64, Relaxed);
    }
}

/// Waits for all workers; the first failure stops the others. After a signal the batches under
/// way have [`GRACE`] to finish.
async fn wait_for_workers(
    mut workers: JoinSet<Result<(), Error>>,
    stop: &Arc<Stop>,
) -> Option<Error> {
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
        match joined {
            None => return first_error,
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => {
                stop.set();
                first_error.get_or_insert(error);
            }
            Some(Err(panic)) => {
                stop.set();
                first_error.get_or_insert(Error::Mismatch(format!("a worker failed: {panic}")));
            }
        }
    }
}

async fn wait_for_readers(
    reading: Vec<oneshot::Receiver<Result<(), InputError>>>,
) -> Option<Error> {
    let mut first_error = None;
    for reader in reading {
        // A reader that ends without a word has panicked.
        let result = reader.await.unwrap_or_else(|_| {
            Err(InputError::Read {
                name: Arc::from("reader"),
                source: std::io::Error::other("ended unexpectedly"),
            })
        });
        if let Err(error) = result {
            first_error.get_or_insert(Error::Input(error));
        }
    }
    first_error
}

/// Sources that wait for a reader, and what the readers share.
struct Sources {
    waiting: Mutex<VecDeque<(usize, Input)>>,
    first: First,
    options: ReadOptions,
    taken: Arc<AtomicU64>,
    shared: Shared,
}

/// What every further source must agree with.
struct First {
    name: Arc<str>,
    format: Format,
    header: Option<Vec<String>>,
    columns: usize,
}

fn start_readers(
    count: usize,
    first: Reader,
    sources: Arc<Sources>,
) -> Vec<oneshot::Receiver<Result<(), InputError>>> {
    let mut first = Some(first);
    (0..count)
        .map(|number| {
            let (answer, reading) = oneshot::channel();
            let (sources, first) = (sources.clone(), first.take());
            let thread = std::thread::Builder::new().name(format!("pgrung-read-{number}"));
            let started = thread.spawn(move || {
                let result = read_all(first, &sources);
                // Close the channel before the answer: the workers wait for its end.
                drop(sources);
                let _ = answer.send(result);
            });
            // Without a thread the answer is dropped, which is reported as a failure.
            drop(started);
            reading
        })
        .collect()
}

/// Reads one source after the other until none waits.
fn read_all(first: Option<Reader>, sources: &Sources) -> Result<(), InputError> {
    let mut limit = sources.options.limit;
    if let Some(first) = first {
        let read = first.run(&sources.shared)?;
        limit = limit.map(|limit| limit.saturating_sub(read));
    }
    while limit != Some(0) && !sources.shared.stop.is_set() {
        let next = sources
            .waiting
            .lock()
            .ok()
            .and_then(|mut waiting| waiting.pop_front());
        let Some((index, input)) = next else { break };
        let options = ReadOptions {
            limit,
            ..sources.options.clone()
        };
        let mut reader = Reader::open(index, &input, &options, sources.taken.clone())?;
        sources.first.check(&mut reader)?;
        let read = reader.run(&sources.shared)?;
        limit = limit.map(|limit| limit.saturating_sub(read));
    }
    Ok(())
}

impl First {
    fn check(&self, reader: &mut Reader) -> Result<(), InputError> {
        if reader.format() != self.format {
            return Err(InputError::OtherFormat {
                name: reader.name().clone(),
                format: reader.format(),
                first: self.format,
            });
        }
        if let Some(header) = &self.header
            && reader.take_header()? != *header
        {
            return Err(InputError::OtherHeader {
                name: reader.name().clone(),
                first: self.name.clone(),
            });
        }
        reader.expect_columns(self.columns);
        Ok(())
    }
}

fn summarize(
    plan: &LoadPlan,
    target: &Target,
    counters: &Counters,
    latency: &Latency,
    bytes_read: u64,
    elapsed: Duration,
) -> Summary {
    let loaded = counters.loaded.load(Relaxed);
    let rows = Rows {
        read: counters.read.load(Relaxed) - counters.abandoned.load(Relaxed),
        loaded,
        suppressed: counters.suppressed.load(Relaxed),
        ..Rows::default()
    };
    let seconds = elapsed.as_secs_f64();
    Summary {
        import_id: None,
        table: target.table.clone(),
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
        commit_latency_ms: LatencyMillis::from(latency),
        retries: counters.retries.load(Relaxed),
        peak_memory_bytes: machine::peak_memory_bytes(),
    }
}

/// Runs what may wait for a disk or a pipe beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, InputError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(panic) => Err(Error::Mismatch(format!("reading failed: {panic}"))),
    }
}
