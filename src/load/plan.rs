//! A load as meant, and how it ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::connect::ConnectSettings;
use crate::error::Error;
use crate::overflow::Overflow;
use crate::report::{Latency, ProgressMode, Summary};
use crate::source::{Input, ReadOptions};
use crate::strategy::{CopyFormat, StrategyKind};
use crate::table::Target;
use crate::window::Window;
use crate::worker::{Commit, OnError, Patience};

/// When a commit counts: what the server waits for before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// Nothing: the last moments may be lost if the server crashes.
    Off,
    /// Nothing for each batch, the disk for the last commit: exit code 0 means durable.
    End,
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
    /// Every kind, from the least durable.
    pub const ALL: [Durability; 6] = [
        Self::Off,
        Self::End,
        Self::Local,
        Self::On,
        Self::RemoteWrite,
        Self::RemoteApply,
    ];

    /// The word used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Off => "off",
            Durability::End => "end",
            Durability::Local => "local",
            Durability::On => "on",
            Durability::RemoteWrite => "remote-write",
            Durability::RemoteApply => "remote-apply",
        }
    }

    /// The value of synchronous_commit for a batch.
    fn setting(self) -> &'static str {
        match self {
            Durability::Off | Durability::End => "off",
            Durability::Local => "local",
            Durability::On => "on",
            Durability::RemoteWrite => "remote_write",
            Durability::RemoteApply => "remote_apply",
        }
    }
}

/// Whether and how the ledger is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerUse {
    /// Not at all.
    Off,
    /// For this import.
    On {
        /// The import; `None`: from the table and the fingerprints of the sources.
        import_id: Option<String>,
        /// Whether to forget what the ledger knows of it first.
        restart: bool,
    },
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
    /// What `copy` sends.
    pub copy_format: CopyFormat,
    /// Connections that write.
    pub workers: usize,
    /// When a batch closes.
    pub window: Window,
    /// Batches that may wait between readers and workers.
    pub queue: usize,
    /// What happens when the server is slower than the source.
    pub overflow: Overflow,
    /// Where batches go with `--overflow spill`, and the most bytes of the files.
    pub spill: Option<(PathBuf, u64)>,
    /// Where the figures are served over HTTP.
    pub metrics: Option<SocketAddr>,
    /// Where the figures are written as a file.
    pub metrics_file: Option<PathBuf>,
    /// How long batches under way may take to finish after a signal.
    pub grace: Duration,
    /// What a commit covers.
    pub commit: Commit,
    /// When a commit counts.
    pub durability: Durability,
    /// Limits of the tries of a batch.
    pub patience: Patience,
    /// Whether and how the ledger is used.
    pub ledger: LedgerUse,
    /// What happens to bad rows.
    pub on_error: OnError,
    /// Where bad rows are exported to.
    pub rejects: Option<PathBuf>,
    /// How progress is shown.
    pub progress: ProgressMode,
    /// Between two plain lines of progress.
    pub report_every: Duration,
}

impl LoadPlan {
    /// SQL that begins a batch's transaction. All settings are LOCAL, so that a pooler may lend
    /// the connection to others between transactions.
    ///
    /// Not READ WRITE: a standby refuses those words with 0A000, which nothing would tell from a
    /// statement it does not know; the first write it refuses with 25006, which passes.
    pub fn begin(&self) -> String {
        let mut sql = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; \
             SET LOCAL synchronous_commit = {}; \
             SET LOCAL lock_timeout = '30s'; \
             SET LOCAL idle_in_transaction_session_timeout = {}",
            self.durability.setting(),
            // In one transaction for the whole load the source may pause as long as it likes.
            if self.commit == Commit::Load {
                "0"
            } else {
                "'60s'"
            },
        );
        if self.strategy != StrategyKind::Copy {
            // The statements are the same each time; planning a thousand rows anew costs more
            // than a plan made for their values could gain.
            sql.push_str("; SET LOCAL plan_cache_mode = force_generic_plan");
        }
        sql
    }
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
    /// Rejects among the batches that an earlier run had left on disk.
    pub leftover_rejects: u64,
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Outcome {
            summary: None,
            error: Some(error),
            target: None,
            latency: Arc::default(),
            leftover_rejects: 0,
        }
    }
}
