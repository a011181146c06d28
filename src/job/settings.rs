//! The settings of a load as meant, their defaults, and what they must keep to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::Durability;
use super::units::Time;
use crate::machine;
use crate::merge::{Guards, MergeAt, Mode, Superseded};
use crate::queue::Overflow;
use crate::report::ProgressMode;
use crate::source::{Input, ReadOptions};
use crate::strategy::{CopyFormat, OwnStrategy, StrategyFactory, StrategyKind};
use crate::target::Map;
use crate::window::Window;
use crate::worker::{Commit, OnError, RetryLimits};

/// Most workers that one load may have.
const MOST_WORKERS: usize = 256;

/// Most batches that may wait: beyond it only memory is gained.
const MOST_QUEUE: usize = 10_000;

/// Most bytes of a batch or a record: what PostgreSQL takes in one value, and well below what 32
/// bits count.
const MOST_BYTES: usize = 1 << 30;

/// Least time between two lines of progress.
const LEAST_REPORT_EVERY: Duration = Duration::from_millis(10);

/// A load as meant. [`LoadSettings::default`] is what the command line begins with, but for inputs
/// and table.
#[derive(Debug, Clone)]
pub struct LoadSettings {
    /// Where rows come from, in order; at least one.
    pub inputs: Vec<Input>,
    /// How they are read.
    pub read: ReadOptions,
    /// The target as SQL names it: `[schema.]table`.
    pub table: String,
    /// Columns that are expressions.
    pub maps: Vec<Map>,
    /// What it holds afterwards.
    pub mode: Mode,
    /// When rows are merged.
    pub merge: MergeAt,
    /// Whether all is done and then rolled back.
    pub rehearses: bool,
    /// Columns by which rows are the same; none: the primary key.
    pub key: Vec<String>,
    /// A record wins only over a smaller value of this column.
    pub newer: Option<String>,
    /// What happens to records that another one of their key has superseded.
    pub superseded: Superseded,
    /// What stops the load before it is to be seen.
    pub guards: Guards,
    /// SQL that runs before the rows are in, in their transaction where there is one for all of them.
    pub before: Vec<String>,
    /// SQL that runs when they are in, likewise.
    pub after: Vec<String>,
    /// Longest wait for other writers of the table.
    pub lock_wait: Duration,
    /// What must not run twice at a time; `None`: for modes other than append, the table.
    pub job: Option<String>,
    /// What happens if it does.
    pub overlap: Overlap,
    /// How batches become statements.
    pub strategy: StrategyKind,
    /// What `copy` sends.
    pub copy_format: CopyFormat,
    /// A strategy that is not on the ladder, instead of `strategy`, whose batches and checks it
    /// keeps.
    pub own_strategy: Option<OwnStrategy>,
    /// Connections that write; `None`: one a core, at most 4, and 1 where rows stay in order, as with
    /// [`Commit::Load`] and [`MergeAt::Batch`].
    pub workers: Option<usize>,
    /// Rows that close a batch; `None`: what suits the strategy.
    pub batch_rows: Option<usize>,
    /// Bytes that close a batch.
    pub batch_bytes: usize,
    /// Longest time the first row of a batch waits for more; `None`: as long as it takes.
    pub max_wait: Option<Duration>,
    /// Batches that may wait for a worker.
    pub queue: usize,
    /// What a commit covers.
    pub commit: Commit,
    /// What the server waits for at a commit; `None`: as it is configured.
    pub durability: Option<Durability>,
    /// Limits of the tries of a batch.
    pub retries: RetryLimits,
    /// Whether and how the ledger is used.
    pub ledger: LedgerUse,
    /// What happens to bad rows.
    pub on_error: OnError,
    /// Where bad rows are exported to.
    pub rejects: Option<PathBuf>,
    /// What happens when the server is slower than the source.
    pub overflow: Overflow,
    /// Where batches go with [`Overflow::Spill`].
    pub spill_dir: Option<PathBuf>,
    /// Most bytes of the files there.
    pub spill_limit: usize,
    /// How long batches under way may take to finish after a signal.
    pub grace: Duration,
    /// How progress is shown.
    pub progress: ProgressMode,
    /// Between two plain lines of progress.
    pub report_every: Duration,
    /// Where the figures are served over HTTP.
    pub metrics: Option<SocketAddr>,
    /// Where the figures are written as a file.
    pub metrics_file: Option<PathBuf>,
}

/// What a run does that finds another one of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// Waits for its end, so long at most.
    Wait(Option<Duration>),
    /// Ends at once.
    Fail,
    /// Goes on in its place; the other one ends.
    TakeOver,
}

impl FromStr for Overlap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wait" => Ok(Overlap::Wait(None)),
            "fail" => Ok(Overlap::Fail),
            "take-over" => Ok(Overlap::TakeOver),
            _ => match text.strip_prefix("wait=") {
                Some(time) => time.parse().map(|Time(time)| Overlap::Wait(Some(time))),
                None => Err("wait, wait=TIME, fail or take-over is needed".to_string()),
            },
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
        /// Its name; `None`: from the table and the content of the files, new for a pipe.
        import_id: Option<String>,
        /// Whether what the ledger knows of it is forgotten first.
        restart: bool,
    },
}

impl Default for LoadSettings {
    fn default() -> Self {
        LoadSettings {
            inputs: vec![Input::Stdin],
            read: ReadOptions::default(),
            table: String::new(),
            maps: Vec::new(),
            mode: Mode::Append,
            merge: MergeAt::End,
            rehearses: false,
            key: Vec::new(),
            newer: None,
            superseded: Superseded::Count,
            guards: Guards::default(),
            before: Vec::new(),
            after: Vec::new(),
            lock_wait: Duration::from_secs(300),
            job: None,
            overlap: Overlap::Wait(None),
            strategy: StrategyKind::Copy,
            copy_format: CopyFormat::Auto,
            own_strategy: None,
            workers: None,
            batch_rows: None,
            batch_bytes: 4 << 20,
            max_wait: Some(Duration::from_secs(1)),
            queue: 2,
            commit: Commit::Batch,
            durability: None,
            retries: RetryLimits {
                answer_timeout: Duration::from_secs(300),
                delivery_timeout: Duration::from_secs(600),
                max_retries: 20,
            },
            ledger: LedgerUse::On {
                import_id: None,
                restart: false,
            },
            on_error: OnError::Reject(None),
            rejects: None,
            overflow: Overflow::Block,
            spill_dir: None,
            spill_limit: 1 << 30,
            grace: Duration::from_secs(10),
            progress: ProgressMode::Auto,
            report_every: Duration::from_secs(10),
            metrics: None,
            metrics_file: None,
        }
    }
}

/// A setting that cannot be, named by its flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

impl LoadSettings {
    /// Connections that write.
    pub fn workers(&self) -> usize {
        match self.workers {
            Some(workers) => workers,
            None if self.commit == Commit::Load || self.merges_batches() => 1,
            None => machine::cores().min(4),
        }
    }

    /// When a batch closes.
    pub(crate) fn window(&self) -> Window {
        let rows = self.batch_rows;
        Window {
            rows: match (self.commit, &self.ledger) {
                // A commit covers one row and its place in the ledger.
                (Commit::Row, LedgerUse::On { .. }) => 1,
                _ => rows.unwrap_or(self.strategy.default_batch_rows()),
            },
            bytes: self.batch_bytes,
            wait: self.max_wait,
        }
    }

    /// What makes the strategy of each connection.
    pub(crate) fn strategy_factory(&self) -> StrategyFactory {
        StrategyFactory {
            kind: self.strategy,
            format: self.copy_format,
            own: self.own_strategy.clone(),
        }
    }

    /// Whether rows are put aside until the server follows, and where.
    pub(crate) fn spills_to(&self) -> Option<&PathBuf> {
        let spills = self.overflow == Overflow::Spill;
        self.spill_dir.as_ref().filter(|_| spills)
    }

    /// SQL that begins a batch's transaction. All settings are LOCAL, so that a pooler may lend
    /// the connection to others between transactions.
    ///
    /// Not READ WRITE: a standby refuses those words with 0A000, which nothing would tell from a
    /// statement it does not know; the first write it refuses with 25006, which passes.
    pub(crate) fn begin(&self) -> String {
        let mut sql =
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '30s'".to_string();
        if let Some(durability) = self.durability {
            sql.push_str("; SET LOCAL synchronous_commit = ");
            sql.push_str(durability.setting());
        }
        // In one transaction for the whole load the source may pause as long as it likes.
        sql.push_str(match self.commit {
            Commit::Load => "; SET LOCAL idle_in_transaction_session_timeout = 0",
            _ => "; SET LOCAL idle_in_transaction_session_timeout = '60s'",
        });
        if self.strategy != StrategyKind::Copy {
            // The statements are the same each time; planning a thousand rows anew costs more
            // than a plan made for their values could gain.
            sql.push_str("; SET LOCAL plan_cache_mode = force_generic_plan");
        }
        sql
    }

    /// Whether each row is a transaction without BEGIN, of which nothing is noted.
    pub(crate) fn commits_alone(&self) -> bool {
        self.commit == Commit::Row && self.ledger == LedgerUse::Off
    }

    /// Checks every limit, and what contradicts what.
    ///
    /// # Errors
    /// The first setting that cannot be, named by its flag.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.retries.check()?;
        let workers = self.workers();
        let broken = [
            (self.table.is_empty(), "--table: name the table to load"),
            (
                self.inputs.is_empty(),
                "INPUT: name at least one file, or - for stdin",
            ),
            (
                !(1..=MOST_WORKERS).contains(&workers),
                "--workers: 1 to 256 connections",
            ),
            (
                !(1..=MOST_QUEUE).contains(&self.queue),
                "--queue: at least 1 and at most 10000 batches may wait",
            ),
            (
                self.batch_rows == Some(0),
                "--batch-rows: a batch has at least 1 row",
            ),
            (
                !(1..=MOST_BYTES).contains(&self.batch_bytes),
                "--batch-bytes: at most 1GiB, the most that PostgreSQL takes in one value",
            ),
            (
                !(1..=MOST_BYTES).contains(&self.read.max_record_bytes),
                "--max-record-bytes: PostgreSQL takes no row above 1GiB",
            ),
            (
                self.report_every < LEAST_REPORT_EVERY,
                "--report-every: at least 10ms",
            ),
            (
                self.commit == Commit::Row && self.strategy != StrategyKind::Insert,
                "--commit row needs --strategy insert: the other strategies send many rows at once",
            ),
            (
                self.commit == Commit::Load && workers > 1,
                "--commit load is one transaction and takes one worker",
            ),
            (
                self.commits_alone() && !self.maps.is_empty(),
                "--map needs a transaction for the expressions: leave out --no-ledger or --commit row",
            ),
        ];
        let spilling = [
            (
                self.spill_dir.is_none(),
                "--overflow spill needs --spill-dir DIR",
            ),
            (
                self.ledger == LedgerUse::Off,
                "--overflow spill needs the ledger: it alone tells which batches on disk were committed",
            ),
            (
                self.commit != Commit::Batch,
                "--overflow spill needs --commit batch",
            ),
        ];
        let spilling = spilling.iter().filter(|_| self.overflow == Overflow::Spill);
        let modes = self.broken_modes();
        match broken
            .iter()
            .chain(spilling)
            .chain(&modes)
            .find(|(broken, _)| *broken)
        {
            Some((_, message)) => Err(SettingsError((*message).to_string())),
            None => super::outputs::check(self),
        }
    }
}

impl LoadSettings {
    /// Whether rows are staged, and merged into the table once they are all there.
    pub fn is_staged(&self) -> bool {
        (self.rehearses || self.mode != Mode::Append && self.merge == MergeAt::End)
            && !self.strategy_factory().sends_nothing()
    }

    /// Whether each batch is merged into the table.
    pub fn merges_batches(&self) -> bool {
        self.mode != Mode::Append
            && self.merge == MergeAt::Batch
            && !self.rehearses
            && !self.strategy_factory().sends_nothing()
    }

    /// What contradicts the mode.
    fn broken_modes(&self) -> [(bool, &'static str); 12] {
        let append = self.mode == Mode::Append;
        let exact = matches!(self.mode, Mode::Replace | Mode::Sync);
        let Guards {
            max_shrink,
            max_delete,
            ..
        } = self.guards;
        [
            (
                append && !self.key.is_empty(),
                "--key says by what rows are the same: it needs --mode ignore, upsert, replace or sync",
            ),
            (
                self.newer.is_some() && matches!(self.mode, Mode::Append | Mode::Ignore),
                "--newer says which of two rows wins: it needs --mode upsert, replace or sync",
            ),
            (
                append && self.superseded == Superseded::Reject,
                "--superseded: with --mode append no record supersedes another",
            ),
            (
                exact && self.merge == MergeAt::Batch,
                "--merge batch goes with --mode ignore and upsert: replace and sync have to know all rows",
            ),
            (
                self.merges_batches() && self.workers() > 1,
                "--merge batch keeps to the order of the input, and takes one worker",
            ),
            (
                self.merges_batches() && self.superseded == Superseded::Reject,
                "--superseded reject goes with --merge end: a batch knows of its own rows only",
            ),
            (
                self.merges_batches() && self.own_strategy.is_some(),
                "a strategy of your own goes with --merge end",
            ),
            (
                max_shrink.is_some() && !exact,
                "--max-shrink: only --mode replace and sync let a table shrink",
            ),
            (
                max_delete.is_some() && !exact,
                "--max-delete: only --mode replace and sync delete rows",
            ),
            (
                self.is_staged() && self.ledger == LedgerUse::Off,
                "--no-ledger goes with --mode append and --merge batch: what is staged resumes and finishes by the ledger",
            ),
            (
                !append && self.overflow != Overflow::Block,
                "--overflow drop and spill go with --mode append: what is missing would be taken for deleted, or come too late",
            ),
            (
                self.is_staged() && self.commit == Commit::Row,
                "--commit row goes with --mode append and --merge batch: what is staged commits when all rows are there",
            ),
        ]
    }
}

impl RetryLimits {
    /// Checks what commands share with a load.
    ///
    /// # Errors
    /// When there is no time for an answer.
    pub fn check(&self) -> Result<(), SettingsError> {
        match self.answer_timeout.is_zero() {
            true => Err(SettingsError(
                "--answer-timeout: no answer comes in no time".to_string(),
            )),
            false => Ok(()),
        }
    }
}
