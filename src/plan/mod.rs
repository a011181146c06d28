//! Computes what a load will do from how fast rows arrive and what the server takes for a commit:
//! which trigger of the window fires, how long rows wait, what each strategy can carry, what a
//! crash costs (`pgrung plan`).
//!
//! # The model
//!
//! Rows of one size arrive evenly, so nothing queues as long as the workers keep up; [`HEADROOM`]
//! is what real arrivals need on top. The transaction of a batch takes
//!
//! ```text
//! round trips x round trip + commit + rows x cost of a row
//! ```
//!
//! with the round trips that [`cost`] counts off the code of the worker and the strategies. Costs
//! of a row are rough, and differ between tables by more than the strategies do between machines:
//! measure yours with `pgrung bench` and give them. Workers are taken not to slow each other down;
//! a server with fewer free cores than workers carries less.

mod arrival;
mod basis;
mod cost;
mod measure;
mod recommend;
mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

use crate::job::Durability;
use crate::strategy::StrategyKind;
use crate::window::Window;

use self::arrival::Arrival;
use self::cost::PIECES_UNDER_WAY;

pub use basis::{Basis, Figure, Origin};
pub use cost::Costs;
pub use measure::ServerTimes;
pub use recommend::Recommendation;

/// Share of the workers' time that may be planned for. Arrivals are never even: above it the queue
/// is full more often than empty.
pub const HEADROOM: f64 = 0.8;

/// Asynchronous commits that a server crash may lose are younger than this many times
/// wal_writer_delay (PostgreSQL documentation, "Asynchronous Commit").
const WAL_WRITER_ROUNDS: u32 = 3;

/// How exactly a number of rows is searched for.
const ROW_SLACK: f64 = 1e-3;

/// wal_writer_delay unless the server is configured otherwise.
pub const WAL_WRITER_DELAY: Duration = Duration::from_millis(200);

/// Bytes that a reader holds before they are in a batch: two chunks of 128 KiB.
const READER_BYTES: f64 = 256.0 * 1024.0;

#[derive(Debug, Clone)]
pub struct Request {
    /// Rows that arrive in a second; more than 0.
    pub rows_per_second: f64,
    /// Mean bytes of a row in the source, its line end included; more than 0.
    pub row_bytes: f64,
    /// Longest time from the arrival of a row to its commit, where there is one to keep.
    pub latency: Option<Duration>,
    /// From sending a message to the server to its answer; what the server needs for COMMIT, the
    /// round trip not counted (where the latency is a promise, give the 99th percentile, not the
    /// mean); and wal_writer_delay of the server.
    pub basis: Basis,
    /// When a batch closes.
    pub window: Window,
    /// How batches become statements; not `discard`.
    pub strategy: StrategyKind,
    /// Connections that write; at least 1.
    pub workers: usize,
    /// Batches that may wait for a worker.
    pub queue: usize,
    /// Whether the ledger is used: two more round trips a batch.
    pub ledger: bool,
    /// What a row costs.
    pub costs: Costs,
}

/// A request that cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A number that must be more than 0 is not.
    #[error("{0} must be more than 0")]
    NotPositive(&'static str),
    /// The strategy sends nothing.
    #[error("discard sends nothing to a server: name another --strategy")]
    NoServer,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Rows that arrive in a second.
    pub rows_per_second: f64,
    pub strategy: &'static str,
    pub workers: usize,
    /// The batch that the window makes.
    pub batch: PlannedBatch,
    /// Whether the workers keep up.
    pub pace: Pace,
    /// Share of the workers' time that the arrivals need; above 1 they need more than there is.
    pub utilisation: f64,
    /// From BEGIN to the answer to COMMIT, in milliseconds.
    pub transaction_ms: f64,
    /// From arrival to commit; `None` if it grows without end.
    pub wait_ms: Option<WaitMillis>,
    /// What each strategy can carry with these workers and full batches.
    pub ceilings: Vec<Ceiling>,
    /// Memory, whatever the size of the input.
    pub memory: Memory,
    /// What a crash costs.
    pub loss: Losses,
    pub recommendation: Recommendation,
    /// What all this rests on.
    pub basis: Basis,
}

/// The batch that the window makes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedBatch {
    /// The trigger that fires first: rows, bytes or wait.
    pub trigger: &'static str,
    pub because: String,
    pub rows: u64,
    pub bytes: u64,
    /// How full it is, in percent of the nearest limit.
    pub fill_percent: f64,
    /// From its first row to its closing, in milliseconds.
    pub fill_ms: f64,
    pub per_second: f64,
}

/// Whether the workers keep up with the arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pace {
    /// Every batch finds a free worker.
    KeepsUp,
    /// Batches of this window come too fast, but while they wait they grow until the workers keep
    /// up: all buffers are always under way.
    Saturated,
    /// Full batches come too fast as well: the source is stalled, or rows overflow.
    Overloaded,
}

/// From the arrival of a row to its commit, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WaitMillis {
    /// Half of the rows wait less.
    pub p50: f64,
    /// 99 of 100 rows wait less.
    pub p99: f64,
    /// The first row of a batch: the longest, and what the metrics line calls wait.
    pub first_row: f64,
}

/// What a strategy can carry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ceiling {
    pub strategy: &'static str,
    /// What a commit covers: `row` or `batch`.
    pub commit: &'static str,
    pub rows_per_second: f64,
    /// Whether that is at least what arrives.
    pub enough: bool,
}

/// Memory in bytes. A record longer than the window's bytes takes more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Memory {
    /// Batch buffers: one reader, the queue, the workers.
    pub buffers: u64,
    /// Their bytes: whole windows and 4 bytes a row.
    pub buffer_bytes: u64,
    /// Of them, those that batches as planned ever touch.
    pub touched_bytes: u64,
    /// What the strategies encode rows into.
    pub encode_bytes: u64,
    /// Buffers and encoding and reading.
    pub total_bytes: u64,
}

/// What a crash costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Losses {
    /// The server crashes: commits that it had answered and then does not know.
    pub server_crash: Vec<ServerCrash>,
    /// The loader crashes and its source is a pipe.
    pub loader_crash: LoaderCrash,
}

/// Committed rows lost in a crash of the server. The ledger's spans are lost with them, so the next
/// run loads the rows of a file again; those of a pipe are gone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ServerCrash {
    pub durability: &'static str,
    /// Age of the oldest commit that may be lost, in milliseconds.
    pub milliseconds: f64,
    pub rows: u64,
}

/// Rows of a pipe that are read and not committed when the loader dies. Rows of a file are read
/// again; batches in a spill are found again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LoaderCrash {
    /// On average (Little's law: arrivals times mean wait); `None` if the workers do not keep up.
    pub typical_rows: Option<u64>,
    /// With all buffers full.
    pub most_rows: u64,
    /// The time in which so many arrive, in milliseconds.
    pub most_milliseconds: f64,
}

impl Request {
    fn round_trip(&self) -> Duration {
        self.basis.round_trip.time
    }

    fn commit(&self) -> Duration {
        self.basis.commit.time
    }

    /// Rows of a batch that is full by rows or bytes.
    fn full_rows(&self) -> f64 {
        Arrival::of(self).full_rows()
    }

    /// Batch buffers with one reader.
    fn buffers(&self) -> usize {
        1 + self.queue + self.workers
    }

    fn check(&self) -> Result<(), PlanError> {
        let positive = |number: f64| number.is_finite() && number > 0.0;
        for (what, good) in [
            ("rows per second", positive(self.rows_per_second)),
            ("row bytes", positive(self.row_bytes)),
            ("workers", self.workers > 0),
            ("batch rows", self.window.rows > 0),
            ("batch bytes", self.window.bytes > 0),
        ] {
            if !good {
                return Err(PlanError::NotPositive(what));
            }
        }
        if self.strategy == StrategyKind::Discard {
            return Err(PlanError::NoServer);
        }
        Ok(())
    }
}

/// Computes the plan.
///
/// # Errors
/// When a number is not what it must be.
pub fn plan(request: &Request) -> Result<Plan, PlanError> {
    request.check()?;
    let arrival = Arrival::of(request);
    let batch = arrival.batch();
    let rows = batch.rows as f64;
    let seconds = cost::transaction(request, request.strategy, rows);
    let utilisation = utilisation(request, request.strategy, request.workers, rows);
    let (pace, wait) = if utilisation < 1.0 {
        (Pace::KeepsUp, Some(arrival.wait(seconds)))
    } else {
        match saturated_rows(request, rows) {
            Some(rows) => (Pace::Saturated, Some(saturated_wait(request, rows))),
            None => (Pace::Overloaded, None),
        }
    };
    let full_rows = request.full_rows();
    Ok(Plan {
        rows_per_second: request.rows_per_second,
        strategy: request.strategy.name(),
        workers: request.workers,
        pace,
        utilisation,
        transaction_ms: seconds * 1e3,
        wait_ms: wait,
        ceilings: ceilings(request, full_rows),
        memory: memory(request, rows.min(full_rows)),
        loss: losses(request, &batch, wait),
        recommendation: recommend::recommend(request, utilisation, wait),
        basis: request.basis,
        batch,
    })
}

/// Share of the time of `workers` that batches of `rows` rows need.
fn utilisation(request: &Request, strategy: StrategyKind, workers: usize, rows: f64) -> f64 {
    let batches_per_second = request.rows_per_second / rows;
    batches_per_second * cost::transaction(request, strategy, rows) / workers as f64
}

/// Rows of the smallest batch with which the workers keep up: while all are busy, rows pile up in
/// the pipe and the next batch is larger, which costs less a row. `None` if even a full batch is
/// too small.
fn saturated_rows(request: &Request, from: f64) -> Option<f64> {
    let keeps_up = |rows: f64| utilisation(request, request.strategy, request.workers, rows) <= 1.0;
    let (mut low, mut high) = (from, request.full_rows());
    if !keeps_up(high) {
        return None;
    }
    while high - low > ROW_SLACK {
        let middle = f64::midpoint(low, high);
        if keeps_up(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some((high - ROW_SLACK).ceil())
}

/// With all buffers always under way, a row waits as long as it takes to fill them all (Little).
fn saturated_wait(request: &Request, rows: f64) -> WaitMillis {
    let one = rows / request.rows_per_second * 1e3;
    let all = one * request.buffers() as f64;
    WaitMillis {
        p50: all - one * 0.5,
        p99: all - one * 0.01,
        first_row: all,
    }
}

fn ceilings(request: &Request, full_rows: f64) -> Vec<Ceiling> {
    let workers = request.workers as f64;
    let ceiling = |strategy: &'static str, commit, each: f64| Ceiling {
        strategy,
        commit,
        rows_per_second: workers * each,
        enough: workers * each >= request.rows_per_second,
    };
    let mut ceilings = vec![ceiling(
        StrategyKind::Insert.name(),
        "row",
        1.0 / cost::autocommit(request),
    )];
    for strategy in StrategyKind::ALL {
        if strategy != StrategyKind::Discard {
            let each = full_rows / cost::transaction(request, strategy, full_rows);
            ceilings.push(ceiling(strategy.name(), "batch", each));
        }
    }
    ceilings
}

fn memory(request: &Request, rows: f64) -> Memory {
    let buffers = request.buffers() as f64;
    let window = (request.window.bytes as f64).max(request.row_bytes);
    let batch = rows * request.row_bytes;
    let ends = 4.0;
    let buffer_bytes = buffers * (window + request.full_rows() * ends);
    let encode = match request.strategy {
        StrategyKind::Copy => PIECES_UNDER_WAY,
        // The parameters of the whole batch, and the messages made of them.
        _ => 2.0 * request.full_rows() * request.row_bytes,
    };
    let encode_bytes = encode * request.workers as f64;
    Memory {
        buffers: request.buffers() as u64,
        buffer_bytes: buffer_bytes as u64,
        touched_bytes: (buffers * (batch + rows * ends)) as u64,
        encode_bytes: encode_bytes as u64,
        total_bytes: (buffer_bytes + encode_bytes + READER_BYTES) as u64,
    }
}

fn losses(request: &Request, batch: &PlannedBatch, wait: Option<WaitMillis>) -> Losses {
    let unsynced = (request.basis.wal_writer_delay.time * WAL_WRITER_ROUNDS).as_secs_f64();
    // Commits are points in time: so many fit into any stretch of that length.
    let commits = (unsynced * batch.per_second).floor() + 1.0;
    let server_crash = Durability::ALL
        .iter()
        .map(|durability| match durability {
            Durability::Off | Durability::End => ServerCrash {
                durability: durability.name(),
                milliseconds: unsynced * 1e3,
                rows: (commits * batch.rows as f64) as u64,
            },
            Durability::Local
            | Durability::On
            | Durability::RemoteWrite
            | Durability::RemoteApply => ServerCrash {
                durability: durability.name(),
                milliseconds: 0.0,
                rows: 0,
            },
        })
        .collect();
    let most = request.buffers() as f64 * request.full_rows() + READER_BYTES / request.row_bytes;
    Losses {
        server_crash,
        loader_crash: LoaderCrash {
            // The waits of a batch's rows are evenly spread: their mean is their median.
            typical_rows: wait.map(|wait| (request.rows_per_second * wait.p50 / 1e3).ceil() as u64),
            most_rows: most as u64,
            most_milliseconds: most / request.rows_per_second * 1e3,
        },
    }
}
