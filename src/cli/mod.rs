//! The command line: flags as typed, turned into plans as meant.

mod profile;
mod units;

use self::profile::{Profile, Settings};

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::BenchPlan;
use crate::connect::ConnectSettings;
use crate::error::Error;
use crate::load::{Durability, LedgerUse, LoadPlan};
use crate::machine;
use crate::overflow::Overflow;
use crate::plan::{Costs, Measured, Request};
use crate::rejects::reasons_path;
use crate::report::{LogFormat, ProgressMode};
use crate::source::{Compression, Format, Input, ReadOptions};
use crate::strategy::{CopyFormat, StrategyKind};
use crate::window::Window;
use crate::worker::{Commit, OnError, Patience};

/// Most batches that may wait: beyond it only memory is gained.
const MOST_QUEUE: usize = 10_000;

/// Most bytes of a batch: what PostgreSQL takes in one value, and well below what 32 bits count.
const MOST_BATCH_BYTES: usize = 1 << 30;

/// Least time between two lines of progress.
const LEAST_REPORT_EVERY: Duration = Duration::from_millis(10);

const EXIT_CODES: &str = "\
Exit codes:
  0    every row read is loaded (now or by an earlier run)
  1    stopped by an error
  2    wrong usage or configuration
  3    finished, some rows rejected, dropped, or kept out by a trigger
  4    reject limit reached
  5    cannot connect or log in
  6    input unreadable, truncated, or changed since the ledger knew it
  130  interrupted (Ctrl-C); 143 terminated (SIGTERM)";

/// Loads rows from files or stdin into PostgreSQL, and compares the ways to do it.
#[derive(Debug, Parser)]
#[command(name = "pgrung", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load rows from files or stdin into a table
    #[command(after_help = EXIT_CODES)]
    Load(Box<LoadArgs>),
    /// Compute which window, strategy and durability fit a stream, before it runs
    #[command(after_help = EXIT_CODES)]
    Plan(Box<PlanArgs>),
    /// Show what the ledger knows: imports, progress, gaps, rejects
    #[command(after_help = EXIT_CODES)]
    Status(Box<StatusArgs>),
    /// Load the rejects of an import again, once their cause is mended
    #[command(after_help = EXIT_CODES)]
    Replay(Box<ReplayArgs>),
    /// Create or update the ledger's tables, for roles that may not do so when they load
    #[command(after_help = EXIT_CODES)]
    Migrate(Box<MigrateArgs>),
    /// Put the same rows through every strategy and compare them
    #[command(after_help = EXIT_CODES)]
    Bench(Box<BenchArgs>),
}

/// Where the server is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Connection URI or key=value string [default: DATABASE_URL, then PGHOST, PGPORT, PGUSER ...]
    #[arg(long, value_name = "DSN")]
    pub dsn: Option<String>,
    /// Start a private server from installed programs; with DIR its data is kept there [default: off]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with = "dsn")]
    pub embedded: Option<Option<PathBuf>>,
}

/// How sources are read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Input")]
pub struct InputArgs {
    /// How records are written [default: by the file's name, else its first byte]
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true)]
    pub format: FormatArg,
    /// Byte between two fields, "tab" for a tab [default: comma, tab for TSV]
    #[arg(long, value_name = "BYTE", value_parser = one_byte)]
    pub delimiter: Option<u8>,
    /// Byte around fields, "none" for no quotes
    #[arg(long, value_name = "BYTE", default_value = "\"", value_parser = one_byte_or_none)]
    pub quote: ByteOrNone,
    /// Byte before a quote within quotes [default: the quote]
    #[arg(long, value_name = "BYTE", value_parser = one_byte)]
    pub escape: Option<u8>,
    /// Unquoted field that means NULL
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub null: String,
    /// The first record is data, not column names [default: off]
    #[arg(long)]
    pub no_header: bool,
    /// Columns of the fields in their order, as a CSV list [default: the header, else all columns]
    #[arg(long, value_name = "LIST", value_parser = column_list)]
    pub columns: Option<ColumnList>,
    /// How the input is packed [default: by its first bytes]
    #[arg(long, value_enum, default_value = "auto", hide_default_value = true)]
    pub compression: CompressionArg,
    /// Longest record; a longer one is an error
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = units::bytes)]
    pub max_record_bytes: usize,
    /// Read at most this many records [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// Arguments of `pgrung load`.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Files or quoted globs; "-" or none: stdin
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// Target table, as in SQL: [schema.]table, '"Mixed"' to keep upper case
    #[arg(long, short, value_name = "TABLE")]
    pub table: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub input: InputArgs,
    /// What kind of load this is; sets the flags marked * [default: none]
    #[arg(long, value_enum, help_heading = "Strategy")]
    pub profile: Option<Profile>,
    /// How batches become statements
    #[arg(
        long,
        short,
        value_enum,
        default_value = "copy",
        help_heading = "Strategy"
    )]
    pub strategy: StrategyKind,
    /// What copy sends: binary where every column has a binary form, or text
    #[arg(long, value_enum, default_value = "auto", help_heading = "Strategy")]
    pub copy_format: CopyFormat,
    /// Connections that write at the same time [default: one a core, at most 4; 1 with --commit load]
    #[arg(long, short = 'j', value_name = "N", help_heading = "Strategy", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: Option<u16>,
    /// Rows that close a batch * [default: 1000; copy and discard: no limit]
    #[arg(long, value_name = "N", help_heading = "Strategy", value_parser = positive)]
    pub batch_rows: Option<usize>,
    /// Bytes that close a batch * [default: 4MiB]
    #[arg(long, value_name = "SIZE", help_heading = "Strategy", value_parser = units::bytes)]
    pub batch_bytes: Option<usize>,
    /// Longest time the first row of a batch waits for more * [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = "Strategy", value_parser = units::time)]
    pub max_wait: Option<Duration>,
    /// Batches that may wait for a worker; memory grows by --batch-bytes for each
    #[arg(long, value_name = "N", default_value = "2", help_heading = "Strategy", value_parser = positive)]
    pub queue: usize,
    /// What happens when the server is slower than the source * [default: block]
    #[arg(long, value_enum, help_heading = "Stream")]
    pub overflow: Option<Overflow>,
    /// Directory for batches on disk with --overflow spill [default: none]
    #[arg(long, value_name = "DIR", help_heading = "Stream")]
    pub spill_dir: Option<PathBuf>,
    /// Most bytes of the files in --spill-dir; then the source waits
    #[arg(long, value_name = "SIZE", default_value = "1GiB", help_heading = "Stream", value_parser = units::bytes)]
    pub spill_limit: usize,
    /// Time that batches under way have to finish after Ctrl-C or SIGTERM
    #[arg(long, value_name = "TIME", default_value = "10s", help_heading = "Stream", value_parser = units::time)]
    pub grace: Duration,
    /// What a commit covers; "row" needs --strategy insert * [default: batch]
    #[arg(long, value_enum, help_heading = "Strategy")]
    pub commit: Option<Commit>,
    /// Name of this load in the ledger [default: from the table and the content of the files; new for stdin]
    #[arg(long, value_name = "ID", help_heading = "Safety", value_parser = import_id)]
    pub import_id: Option<String>,
    /// Forget what the ledger knows of this load and load again [default: off]
    #[arg(long, help_heading = "Safety")]
    pub restart: bool,
    /// Note nothing in the server: no resume, no rights needed beyond INSERT [default: off]
    #[arg(long, help_heading = "Safety", conflicts_with_all = ["import_id", "restart"])]
    pub no_ledger: bool,
    /// What the server waits for at a commit (its synchronous_commit) * [default: on]
    #[arg(long, value_enum, help_heading = "Safety")]
    pub durability: Option<Durability>,
    /// Most repetitions of one transaction
    #[arg(long, value_name = "N", default_value = "20", help_heading = "Safety")]
    pub max_retries: u32,
    /// Longest wait for one answer of the server; then the connection is given up
    #[arg(long, value_name = "TIME", default_value = "5m", help_heading = "Safety", value_parser = units::time)]
    pub answer_timeout: Duration,
    /// Longest time to deliver one batch, retries included
    #[arg(long, value_name = "TIME", default_value = "10m", help_heading = "Safety", value_parser = units::time)]
    pub delivery_timeout: Duration,
    /// What happens to bad rows: put aside, or stop at the first
    #[arg(long, value_enum, default_value = "reject", help_heading = "Rejects")]
    pub on_error: OnErrorArg,
    /// Export bad rows to this file, in the format of the source [default: in the ledger only]
    #[arg(long, value_name = "FILE", help_heading = "Rejects")]
    pub rejects: Option<PathBuf>,
    /// Stop with exit code 4 when more rows than this are bad [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Rejects")]
    pub reject_limit: Option<u64>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub output: OutputArgs,
}

/// `--on-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum OnErrorArg {
    Reject,
    Stop,
}

/// What a load shows.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// How progress is shown on stderr
    #[arg(long, value_enum, default_value = "auto")]
    pub progress: ProgressMode,
    /// Time between two plain lines of progress
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::time)]
    pub report_every: Duration,
    /// Write the summary as JSON to this file as well [default: none]
    #[arg(long, value_name = "FILE")]
    pub summary: Option<PathBuf>,
    /// Say what was decided and why [default: off]
    #[arg(long, short, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Serve the figures to Prometheus at this address; a port alone means loopback [default: off]
    #[arg(long, value_name = "ADDR", value_parser = crate::metrics::address)]
    pub metrics: Option<SocketAddr>,
    /// Write the figures to this file for node_exporter's textfile collector [default: off]
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// How notices on stderr are written
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Errors only: no progress, no notices, no summary on stdout [default: off]
    #[arg(long, short)]
    pub quiet: bool,
}

/// Arguments of `pgrung plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Rows that arrive in a second
    #[arg(long, value_name = "N")]
    pub rows_per_second: f64,
    /// Bytes of a row in the source, its line end included
    #[arg(long, value_name = "N")]
    pub row_bytes: f64,
    /// Longest time from a row's arrival to its commit [default: none to keep]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub latency: Option<Duration>,
    /// Time from a message to its answer [default: measured where a server is named, else 0.1ms]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub round_trip: Option<Duration>,
    /// Time that the server needs for COMMIT [default: measured where a server is named, else 2ms]
    #[arg(long, value_name = "TIME", value_parser = units::time)]
    pub commit_time: Option<Duration>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// How batches become statements
    #[arg(long, short, value_enum, default_value = "copy")]
    pub strategy: StrategyKind,
    /// Connections that write at the same time
    #[arg(long, short = 'j', value_name = "N", default_value = "2", value_parser = positive)]
    pub workers: usize,
    /// Rows that close a batch [default: 1000; copy: no limit]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch_rows: Option<usize>,
    /// Bytes that close a batch
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = units::bytes)]
    pub batch_bytes: usize,
    /// Longest time the first row of a batch waits for more
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = units::time)]
    pub max_wait: Duration,
    /// Batches that may wait for a worker
    #[arg(long, value_name = "N", default_value = "2", value_parser = positive)]
    pub queue: usize,
    /// As of load: two round trips a batch fewer [default: off]
    #[arg(long)]
    pub no_ledger: bool,
    /// Print JSON [default: off]
    #[arg(long)]
    pub json: bool,
}

impl PlanArgs {
    /// The request, with times that are given or were `measured`.
    pub fn request(&self, measured: Option<Measured>) -> Request {
        let measured = measured.unwrap_or_default();
        Request {
            rows_per_second: self.rows_per_second,
            row_bytes: self.row_bytes,
            latency: self.latency,
            round_trip: self.round_trip.unwrap_or(measured.round_trip),
            commit: self.commit_time.unwrap_or(measured.commit),
            window: Window {
                rows: self
                    .batch_rows
                    .unwrap_or(self.strategy.default_batch_rows()),
                bytes: self.batch_bytes,
                wait: Some(self.max_wait),
            },
            strategy: self.strategy,
            workers: self.workers,
            queue: self.queue,
            ledger: !self.no_ledger,
            wal_writer_delay: measured.wal_writer_delay,
            costs: Costs::default(),
        }
    }
}

/// Arguments of `pgrung status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Only this import
    pub import_id: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// Print JSON [default: off]
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `pgrung replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// The import whose rejects are loaded
    pub import_id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// How batches become statements
    #[arg(long, short, value_enum, default_value = "copy")]
    pub strategy: StrategyKind,
    /// Longest wait for one answer of the server
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = units::time)]
    pub answer_timeout: Duration,
}

/// Arguments of `pgrung migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
}

/// Arguments of `pgrung bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
    /// Rows of TPC-H lineitem to make
    #[arg(long, value_name = "N", default_value = "100000", value_parser = positive, conflicts_with = "inputs")]
    pub rows: usize,
    /// Your own rows instead: a file; needs --table [default: TPC-H lineitem]
    #[arg(long = "input", value_name = "FILE", requires = "table")]
    pub inputs: Option<PathBuf>,
    /// Your own table: copies of it are loaded, never the table itself [default: lineitem]
    #[arg(long, short, value_name = "TABLE", requires = "inputs")]
    pub table: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub input: InputArgs,
    /// Strategies to compare, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub strategies: Vec<StrategyKind>,
    /// Rounds; every strategy runs once in each
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    pub rounds: usize,
    /// Longest time of one run; a slower rung stops there and says how many rows it did
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::time)]
    pub max_seconds: Duration,
    /// Rows that close a batch [default: 1000; copy and discard: no limit]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch_rows: Option<usize>,
    /// Connections that write at the same time
    #[arg(long, short = 'j', value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Round trips to put between client and server as well, separated by commas [default: none]
    #[arg(long = "rtt", value_name = "LIST", value_delimiter = ',', value_parser = units::time)]
    pub round_trips: Vec<Duration>,
    /// Print the results as JSON [default: off]
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print the table as Markdown [default: off]
    #[arg(long)]
    pub markdown: bool,
    /// No notices while it runs [default: off]
    #[arg(long, short)]
    pub quiet: bool,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum FormatArg {
    Auto,
    Csv,
    Tsv,
    Ndjson,
}

/// `--compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum CompressionArg {
    Auto,
    None,
    Gzip,
    Zstd,
    Lz4,
    Bzip2,
    Xz,
}

/// `--quote`: a byte, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteOrNone(Option<u8>);

/// `--columns`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnList(Vec<String>);

fn one_byte(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if matches!(text, "tab" | "\\t") => Ok(b'\t'),
        [byte] if *byte != b'\n' && *byte != b'\r' && byte.is_ascii() => Ok(*byte),
        _ => Err("one ASCII character is needed, or \"tab\"".to_string()),
    }
}

fn one_byte_or_none(text: &str) -> Result<ByteOrNone, String> {
    match text {
        "none" | "" => Ok(ByteOrNone(None)),
        _ => one_byte(text).map(|byte| ByteOrNone(Some(byte))),
    }
}

/// A list of names written as one CSV record, so that a name may hold a comma.
fn column_list(text: &str) -> Result<ColumnList, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut records = reader.records();
    match (records.next(), records.next()) {
        (Some(Ok(record)), None) => Ok(ColumnList(record.iter().map(str::to_string).collect())),
        _ => Err("a list of column names separated by commas is needed".to_string()),
    }
}

fn import_id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("an id is needed".to_string()),
        _ if text.chars().any(char::is_control) => {
            Err("an id takes no control characters".to_string())
        }
        _ => Ok(text.to_string()),
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse::<usize>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("a number above 0 is needed".to_string()),
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl ConnectionArgs {
    /// Whether anything says which server to use.
    pub fn names_a_server(&self) -> bool {
        ConnectSettings::is_named(self.dsn.as_deref(), &environment)
    }

    /// The directory of the embedded server: `Some(None)` for a temporary one, `None` if no
    /// embedded server is wanted.
    pub fn embedded_dir(&self) -> Option<Option<PathBuf>> {
        self.embedded.clone()
    }

    /// The settings of the named server.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn settings(&self) -> Result<ConnectSettings, Error> {
        Ok(ConnectSettings::resolve(self.dsn.as_deref(), &environment)?)
    }
}

impl InputArgs {
    fn options(&self) -> Result<ReadOptions, Error> {
        let options = ReadOptions {
            format: match self.format {
                FormatArg::Auto => None,
                FormatArg::Csv => Some(Format::Csv),
                FormatArg::Tsv => Some(Format::Tsv),
                FormatArg::Ndjson => Some(Format::Ndjson),
            },
            delimiter: self.delimiter,
            quote: self.quote.0,
            escape: self.escape,
            null: self.null.clone(),
            header: !self.no_header,
            columns: self.columns.clone().map(|list| list.0),
            compression: match self.compression {
                CompressionArg::Auto => None,
                CompressionArg::None => Some(Compression::None),
                CompressionArg::Gzip => Some(Compression::Gzip),
                CompressionArg::Zstd => Some(Compression::Zstd),
                CompressionArg::Lz4 => Some(Compression::Lz4),
                CompressionArg::Bzip2 => Some(Compression::Bzip2),
                CompressionArg::Xz => Some(Compression::Xz),
            },
            max_record_bytes: self.max_record_bytes,
            limit: self.limit,
        };
        if options.delimiter.is_some() && options.delimiter == options.quote {
            return Err(Error::Usage(
                "--delimiter and --quote are the same byte".to_string(),
            ));
        }
        if options.max_record_bytes > 1 << 30 {
            return Err(Error::Usage(
                "--max-record-bytes: PostgreSQL takes no row above 1GiB".to_string(),
            ));
        }
        Ok(options)
    }
}

impl LoadArgs {
    /// The plan as meant.
    ///
    /// # Errors
    /// When the flags contradict each other or a glob matches nothing.
    pub fn plan(&self, settings: ConnectSettings) -> Result<LoadPlan, Error> {
        let usage = |text: &str| Err(Error::Usage(text.to_string()));
        let profile = self.profile.map_or(Settings::DEFAULT, Profile::settings);
        let commit = self.commit.unwrap_or(profile.commit);
        if commit == Commit::Row && self.strategy != StrategyKind::Insert {
            return usage(
                "--commit row needs --strategy insert: the other strategies send many rows at once",
            );
        }
        if commit == Commit::Load && self.workers.is_some_and(|workers| workers > 1) {
            return usage("--commit load is one transaction and takes one worker");
        }
        let workers = match self.workers {
            Some(workers) => usize::from(workers),
            None if commit == Commit::Load => 1,
            None => machine::cores().min(4),
        };
        if self.queue > MOST_QUEUE {
            return usage("--queue: at most 10000 batches may wait");
        }
        if self
            .batch_bytes
            .is_some_and(|bytes| bytes > MOST_BATCH_BYTES)
        {
            return usage(
                "--batch-bytes: at most 1GiB, the most that PostgreSQL takes in one value",
            );
        }
        if self.output.report_every < LEAST_REPORT_EVERY {
            return usage("--report-every: at least 10ms");
        }
        let files = inputs(&self.inputs)?;
        self.refuse_to_overwrite(&files)?;
        let rows = self.batch_rows.or(profile.batch_rows);
        let overflow = self.overflow.unwrap_or(profile.overflow);
        let spill = match (overflow, &self.spill_dir) {
            (Overflow::Spill, None) => return usage("--overflow spill needs --spill-dir DIR"),
            (Overflow::Spill, Some(_)) if self.no_ledger => {
                return usage(
                    "--overflow spill needs the ledger: it alone tells which batches on disk were committed",
                );
            }
            (Overflow::Spill, Some(_)) if commit != Commit::Batch => {
                return usage("--overflow spill needs --commit batch");
            }
            (Overflow::Spill, Some(dir)) => Some((dir.clone(), self.spill_limit as u64)),
            _ => None,
        };
        Ok(LoadPlan {
            inputs: files,
            read: self.input.options()?,
            settings,
            table: self.table.clone(),
            strategy: self.strategy,
            copy_format: self.copy_format,
            workers,
            window: Window {
                rows: match (commit, self.no_ledger) {
                    // A commit covers one row and its place in the ledger.
                    (Commit::Row, false) => 1,
                    _ => rows.unwrap_or(self.strategy.default_batch_rows()),
                },
                bytes: self.batch_bytes.unwrap_or(profile.batch_bytes),
                wait: Some(self.max_wait.unwrap_or(profile.max_wait)),
            },
            queue: self.queue,
            overflow,
            spill,
            metrics: self.output.metrics,
            metrics_file: self.output.metrics_file.clone(),
            grace: self.grace,
            commit,
            durability: self.durability.unwrap_or(profile.durability),
            patience: Patience {
                answer_timeout: self.answer_timeout,
                delivery_timeout: self.delivery_timeout,
                max_retries: self.max_retries,
            },
            ledger: if self.no_ledger {
                LedgerUse::Off
            } else {
                LedgerUse::On {
                    import_id: self.import_id.clone(),
                    restart: self.restart,
                }
            },
            on_error: match self.on_error {
                OnErrorArg::Reject => OnError::Reject(self.reject_limit),
                OnErrorArg::Stop => OnError::Stop,
            },
            rejects: self.rejects.clone(),
            progress: if self.output.quiet {
                ProgressMode::None
            } else {
                self.output.progress
            },
            report_every: self.output.report_every,
        })
    }
}

impl LoadArgs {
    /// Refuses to write a report into a file that is to be read, under whatever name, and to find
    /// only at the end that a report has no place.
    fn refuse_to_overwrite(&self, inputs: &[Input]) -> Result<(), Error> {
        let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
        let read: Vec<(u64, u64)> = inputs
            .iter()
            .filter_map(|input| match input {
                Input::File(path) => identity(path),
                Input::Stdin => None,
            })
            .collect();
        let reasons = self.rejects.as_deref().map(reasons_path);
        let written = [
            ("--rejects", self.rejects.as_deref()),
            ("--rejects", reasons.as_deref()),
            ("--summary", self.output.summary.as_deref()),
            ("--metrics-file", self.output.metrics_file.as_deref()),
        ];
        for (flag, path) in written {
            let Some(path) = path else { continue };
            if identity(path).is_some_and(|file| read.contains(&file)) {
                return Err(Error::Usage(format!(
                    "{flag} {}: this file is read as well; name another one",
                    path.display()
                )));
            }
            let place = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            if place.is_some_and(|parent| !parent.is_dir()) {
                return Err(Error::Usage(format!(
                    "{flag} {}: there is no such directory",
                    path.display()
                )));
            }
        }
        Ok(())
    }
}

/// Files as typed: stdin, names, or globs that the shell left alone.
fn inputs(typed: &[String]) -> Result<Vec<Input>, Error> {
    if typed.is_empty() {
        return Ok(vec![Input::Stdin]);
    }
    let mut inputs = Vec::new();
    for text in typed {
        if text == "-" {
            if inputs.contains(&Input::Stdin) {
                return Err(Error::Usage("stdin (\"-\") is named twice".to_string()));
            }
            inputs.push(Input::Stdin);
        } else if !text.contains(['*', '?', '[']) || PathBuf::from(text).exists() {
            inputs.push(Input::File(PathBuf::from(text)));
        } else {
            let paths = glob::glob(text)
                .map_err(|error| Error::Usage(format!("\"{text}\" is not a glob: {error}")))?;
            let before = inputs.len();
            // Unreadable directories on the way are passed over, as in a shell.
            inputs.extend(
                paths
                    .flatten()
                    .filter(|path| !path.is_dir())
                    .map(Input::File),
            );
            if inputs.len() == before {
                return Err(Error::Usage(format!("\"{text}\" matches no file")));
            }
        }
    }
    Ok(inputs)
}

impl BenchArgs {
    /// The plan as meant.
    ///
    /// # Errors
    /// When the flags contradict each other.
    pub fn plan(&self, settings: ConnectSettings) -> Result<BenchPlan, Error> {
        Ok(BenchPlan {
            settings,
            rows: self.rows,
            own: self.inputs.clone().zip(self.table.clone()),
            read: self.input.options()?,
            strategies: if self.strategies.is_empty() {
                StrategyKind::ALL.to_vec()
            } else {
                self.strategies.clone()
            },
            rounds: self.rounds,
            max_time: self.max_seconds,
            batch_rows: self.batch_rows,
            workers: usize::from(self.workers),
            // Without a delay it is the comparison that is made anyway.
            round_trips: self
                .round_trips
                .iter()
                .copied()
                .filter(|time| !time.is_zero())
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_explains_itself() {
        for command in Cli::command().get_subcommands() {
            for argument in command.get_arguments() {
                let help = argument
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let takes_default = argument.get_default_values().is_empty()
                    && !argument.is_required_set()
                    && !argument.is_positional()
                    && !["help", "version"].contains(&argument.get_id().as_str());
                assert!(!help.is_empty(), "{argument}");
                assert!(
                    !takes_default || help.contains("[default: "),
                    "{argument}: {help}"
                );
            }
        }
    }

    #[test]
    fn a_column_list_is_one_csv_record() {
        assert_eq!(column_list("a,\"b,c\", D").unwrap().0, ["a", "b,c", "D"]);
    }
}
