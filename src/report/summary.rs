//! The account of a load, as text and as JSON.

use std::fmt;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{Batches, Bottleneck, LatencyMillis, RejectReason};
use crate::outcome::{Outcome, Rows};
use crate::server_error::one_line;
use crate::window::FlushReason;

/// Reasons for rejects that people are shown; `--summary` has more of them.
const SHOWN_REASONS: usize = 5;

/// What a load did. The names of the fields are those of `--summary`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// The import in the ledger; `null` without a ledger.
    pub import_id: Option<String>,
    /// Schema and table, quoted.
    pub table: String,
    /// What the table was to hold.
    pub mode: &'static str,
    /// The strategy.
    pub strategy: &'static str,
    /// Whether the strategy sends nothing, so that no row is loaded.
    #[serde(skip)]
    pub sends_nothing: bool,
    /// Connections that wrote.
    pub workers: usize,
    /// Where every row read went.
    pub rows: Rows,
    /// Why rows were rejected by this run, the commonest reason first.
    pub reject_reasons: Vec<RejectReason>,
    /// Bytes taken from the sources, as stored.
    pub bytes_read: u64,
    /// Wall-clock time of the load.
    pub elapsed_seconds: f64,
    /// Rows loaded by this run a second; with a strategy that sends nothing, rows encoded; with a mode
    /// other than append, rows read.
    pub rows_per_second: f64,
    /// How long other writers of the table had to wait for the merge; `null` without one that keeps
    /// them waiting. Readers never wait.
    pub writers_waited_seconds: Option<f64>,
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

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = self.rows.tally;
        let table = one_line(&self.table);
        let staged = tally[Outcome::Staged] > 0;
        let (rows, what) = match self.mode {
            _ if self.sends_nothing => (tally.passed(), "read and encoded, none sent,".to_string()),
            _ if staged => (tally.passed(), format!("staged for {table}, none merged,")),
            "append" => (tally.passed(), format!("loaded into {table}")),
            mode => (self.rows.read, format!("merged into {table} ({mode})")),
        };
        writeln!(
            f,
            "{} rows {what} in {:.2?}: {} rows/s ({}, {} worker{})",
            HumanCount(rows),
            Duration::from_secs_f64(self.elapsed_seconds),
            HumanCount(self.rows_per_second as u64),
            self.strategy,
            self.workers,
            if self.workers == 1 { "" } else { "s" },
        )?;
        self.write_outcome(f)?;
        if self.batches.count() > 0 {
            self.write_batches(f)?;
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

impl Summary {
    /// Writes what became of the rows, and why some were rejected.
    ///
    /// # Errors
    /// What `f` says.
    pub fn write_outcome(&self, f: &mut impl fmt::Write) -> fmt::Result {
        self.write_rows(f)?;
        for reason in self.reject_reasons.iter().take(SHOWN_REASONS) {
            writeln!(f, "  rejected {reason}")?;
        }
        let rest = self.reject_reasons.len().saturating_sub(SHOWN_REASONS);
        if rest > 0 {
            writeln!(f, "  rejected for {rest} other reasons as well")?;
        }
        writeln!(f, "  read     {}", HumanBytes(self.bytes_read))
    }

    fn write_rows(&self, f: &mut impl fmt::Write) -> fmt::Result {
        write!(f, "  rows     {} read =", HumanCount(self.rows.read))?;
        let mut plus = "";
        for (outcome, rows) in self.rows.tally.iter() {
            let always = match self.sends_nothing {
                true => Outcome::Discarded,
                false => Outcome::Inserted,
            };
            if rows > 0 || outcome == always {
                write!(f, "{plus} {} {}", HumanCount(rows), outcome.words())?;
                plus = " +";
            }
        }
        let balance = if self.balanced {
            ""
        } else {
            "  DOES NOT BALANCE"
        };
        writeln!(f, "{balance}")?;
        if self.rows.deleted > 0 {
            let s = if self.rows.deleted == 1 { "" } else { "s" };
            let deleted = HumanCount(self.rows.deleted);
            writeln!(f, "  deleted  {deleted} row{s} of the table")?;
        }
        if let Some(seconds) = self.writers_waited_seconds {
            let time = Duration::from_secs_f64(seconds);
            writeln!(
                f,
                "  locked   {time:.2?} for other writers of the table; readers did not wait"
            )?;
        }
        Ok(())
    }

    fn write_batches(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |(reason, batches): (FlushReason, u64)| format!("{} {batches}", reason.name());
        let flushes: Vec<String> = self.batches.flushes().map(told).collect();
        writeln!(
            f,
            "  batches  {} (closed by {}; {:.0} % full)",
            HumanCount(self.batches.count()),
            flushes.join(", "),
            self.batches.fill_mean() * 100.0,
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
        )
    }
}
