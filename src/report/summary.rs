//! The account of a finished load, as text and as JSON.

use std::fmt;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{Bottleneck, Counters, Latency};
use crate::window::FlushReason;
use std::sync::atomic::Ordering::Relaxed;

/// What a load did. The names of the fields are those of `--summary`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The import in the ledger; `null` without a ledger.
    pub import_id: Option<String>,
    /// Schema and table, quoted.
    pub table: String,
    /// The strategy.
    pub strategy: &'static str,
    /// Connections that wrote.
    pub workers: usize,
    /// Where every row read went.
    pub rows: Rows,
    /// Bytes taken from the sources, as stored.
    pub bytes_read: u64,
    /// Wall-clock time of the load.
    pub elapsed_seconds: f64,
    /// Rows loaded by this run a second.
    pub rows_per_second: f64,
    /// The batches.
    pub batches: Batches,
    /// From BEGIN to the answer to COMMIT.
    pub commit_latency_ms: LatencyMillis,
    /// From the first row of a batch to its commit.
    pub wait_ms: LatencyMillis,
    /// Transactions repeated.
    pub retries: u64,
    /// Most memory that was resident.
    pub peak_memory_bytes: u64,
    /// Whether every row read is accounted for.
    pub balanced: bool,
    /// What bound the load; `null` when it was too short to tell.
    pub bottleneck: Option<Bottleneck>,
}

/// Where every row read went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// Rows read.
    pub read: u64,
    /// Rows loaded by this run.
    pub loaded: u64,
    /// Rows put aside.
    pub rejected: u64,
    /// Rows that an earlier run had loaded.
    pub already_loaded: u64,
    /// Rows thrown away because the server was too slow.
    pub dropped: u64,
    /// Rows that a trigger or rule of the table kept out.
    pub suppressed: u64,
}

impl Rows {
    /// Reads the counts of a load.
    pub fn of(counters: &Counters) -> Self {
        Rows {
            read: counters
                .read
                .load(Relaxed)
                .saturating_sub(counters.abandoned.load(Relaxed)),
            loaded: counters.loaded.load(Relaxed),
            rejected: counters.rejected.load(Relaxed),
            already_loaded: counters.already_loaded.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            suppressed: counters.suppressed.load(Relaxed),
        }
    }

    /// Whether rows of the input are not in the table.
    pub fn incomplete(&self) -> bool {
        self.rejected + self.dropped + self.suppressed > 0
    }

    /// Whether every row read is accounted for.
    pub fn balanced(&self) -> bool {
        self.read
            == self.loaded + self.rejected + self.already_loaded + self.dropped + self.suppressed
    }
}

/// The batches of a load.
#[derive(Debug, Clone, Serialize)]
pub struct Batches {
    /// Batches committed.
    pub count: u64,
    /// Why they were closed.
    pub flush: Flushes,
    /// How full they were on average, 0 to 1 of the nearest limit.
    pub fill_mean: f64,
}

/// Batches by flush reason.
#[derive(Debug, Clone, Serialize)]
pub struct Flushes {
    /// `--batch-rows` reached.
    pub rows: u64,
    /// `--batch-bytes` reached.
    pub bytes: u64,
    /// `--max-wait` reached.
    pub wait: u64,
    /// End of a source.
    pub end: u64,
}

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
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

impl From<&Latency> for LatencyMillis {
    fn from(latency: &Latency) -> Self {
        LatencyMillis {
            p50: latency.millis_at(0.5),
            p90: latency.millis_at(0.9),
            p99: latency.millis_at(0.99),
            p999: latency.millis_at(0.999),
            max: latency.max_millis(),
        }
    }
}

impl Batches {
    /// Reads the counts of a finished load.
    pub fn of(counters: &Counters) -> Self {
        let count = counters.batches.load(Relaxed);
        let flush = |reason: FlushReason| {
            let index = FlushReason::ALL.iter().position(|other| *other == reason);
            index.map_or(0, |index| counters.flushes[index].load(Relaxed))
        };
        Batches {
            count,
            flush: Flushes {
                rows: flush(FlushReason::Rows),
                bytes: flush(FlushReason::Bytes),
                wait: flush(FlushReason::Wait),
                end: flush(FlushReason::End),
            },
            fill_mean: match count {
                0 => 0.0,
                _ => counters.fill_ppm.load(Relaxed) as f64 / 1e6 / count as f64,
            },
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rows {
            read,
            loaded,
            rejected,
            already_loaded,
            dropped,
            suppressed,
        } = self.rows;
        writeln!(
            f,
            "{} rows loaded into {} in {:.2?}: {} rows/s ({}, {} worker{})",
            HumanCount(loaded),
            self.table,
            Duration::from_secs_f64(self.elapsed_seconds),
            HumanCount(self.rows_per_second as u64),
            self.strategy,
            self.workers,
            if self.workers == 1 { "" } else { "s" },
        )?;
        write!(
            f,
            "  rows     {} read = {} loaded",
            HumanCount(read),
            HumanCount(loaded)
        )?;
        for (count, what) in [
            (already_loaded, "already loaded"),
            (rejected, "rejected"),
            (dropped, "dropped"),
            (suppressed, "kept out by a trigger or rule"),
        ] {
            if count > 0 {
                write!(f, " + {} {what}", HumanCount(count))?;
            }
        }
        writeln!(
            f,
            "{}",
            if self.balanced {
                ""
            } else {
                "  DOES NOT BALANCE"
            }
        )?;
        writeln!(f, "  read     {}", HumanBytes(self.bytes_read))?;
        if self.batches.count > 0 {
            let Flushes {
                rows,
                bytes,
                wait,
                end,
            } = self.batches.flush;
            writeln!(
                f,
                "  batches  {} (closed by rows {rows}, bytes {bytes}, wait {wait}, end {end}; {:.0} % full)",
                HumanCount(self.batches.count),
                self.batches.fill_mean * 100.0,
            )?;
            let LatencyMillis {
                p50,
                p99,
                p999,
                max,
                ..
            } = self.commit_latency_ms;
            writeln!(
                f,
                "  commit   p50 {p50:.1} ms, p99 {p99:.1} ms, p99.9 {p999:.1} ms, max {max:.1} ms; {} retr{}",
                self.retries,
                if self.retries == 1 { "y" } else { "ies" },
            )?;
            let LatencyMillis { p50, p99, .. } = self.wait_ms;
            writeln!(
                f,
                "  wait     p50 {p50:.1} ms, p99 {p99:.1} ms from the first row of a batch to its commit"
            )?;
        }
        write!(
            f,
            "  memory   {} at most",
            HumanBytes(self.peak_memory_bytes)
        )?;
        if let Some(bottleneck) = &self.bottleneck {
            write!(f, "\n  bound    {bottleneck}")?;
        }
        if let Some(import_id) = &self.import_id {
            write!(f, "\n  import   {import_id}")?;
        }
        Ok(())
    }
}
