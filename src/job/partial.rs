//! Partial settings: what one profile, load of a job file or command line says, each setting or not.
//! The same names serve as flags and as keys; filled up from the profile with
//! [`PartialSettings::or`], and completed with the defaults once.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::inputs::inputs;
use super::units::{Number, Size, Time};
use super::values::{
    Byte, CompressionChoice, FormatChoice, ImportId, Names, NullIn, OnErrorChoice, Quote,
};
use super::{Durability, LedgerUse, LoadSettings, Overlap, Profile, SettingsError};
use crate::merge::{Guards, MergeAt, Mode, Share, Superseded};
use crate::queue::Overflow;
use crate::report::ProgressMode;
use crate::source::{Encoding, Input, ReadOptions};
use crate::strategy::{CopyFormat, StrategyKind};
use crate::target::Map;
use crate::worker::{Commit, OnError};

/// A struct whose settings can be filled up from a weaker one.
macro_rules! layered {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// These settings, and where they say nothing those of `weaker`.
            #[must_use]
            pub fn or(self, weaker: Self) -> Self {
                $name { $($field: self.$field.or(weaker.$field),)* }
            }
        }
    };
}

/// Fills up what [`Option::or`] does for options.
trait Layer {
    fn or(self, weaker: Self) -> Self;
}

/// A switch that is off says nothing.
impl Layer for bool {
    fn or(self, weaker: bool) -> bool {
        self || weaker
    }
}

/// An empty list says nothing.
impl<T> Layer for Vec<T> {
    fn or(self, weaker: Self) -> Self {
        if self.is_empty() { weaker } else { self }
    }
}

layered! {
/// How sources are read.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Input")]
pub struct PartialReading {
    /// How records are written [default: by the file's name, else its first byte]
    #[arg(long, value_enum)]
    pub format: Option<FormatChoice>,
    /// Byte between two fields, "tab" for a tab [default: comma, tab for TSV]
    #[arg(long, value_name = "BYTE")]
    pub delimiter: Option<Byte>,
    /// Byte around fields, "none" for no quotes
    #[arg(long, value_name = "BYTE")]
    pub quote: Option<Quote>,
    /// Byte before a quote within quotes [default: the quote]
    #[arg(long, value_name = "BYTE")]
    pub escape: Option<Byte>,
    /// Unquoted field that means NULL
    #[arg(long, value_name = "TEXT")]
    pub null: Option<String>,
    /// Unquoted field that means NULL in one column, where --null does not count then; repeat it for more texts or columns [default: none]
    #[arg(long, value_name = "COLUMN=TEXT")]
    pub null_in: Vec<NullIn>,
    /// The first record is data, not column names [default: off]
    #[arg(long)]
    pub no_header: bool,
    /// Columns of the fields in their order, as a CSV list [default: the header, else all columns]
    #[arg(long, value_name = "LIST")]
    pub columns: Option<Names>,
    /// Fields that go to no column, by their names in the header, in --columns or as JSON keys, as a CSV list [default: none]
    #[arg(long, value_name = "LIST")]
    pub skip: Option<Names>,
    /// What text is written in, by a label of the WHATWG Encoding Standard: windows-1252 (which it also calls iso-8859-1), shift_jis, gb18030, ...; not UTF-16
    #[arg(long, value_name = "NAME")]
    pub encoding: Option<Encoding>,
    /// How the input is packed [default: by its first bytes]
    #[arg(long, value_enum)]
    pub compression: Option<CompressionChoice>,
    /// Longest record; a longer one is an error
    #[arg(long, value_name = "SIZE")]
    pub max_record_bytes: Option<Size>,
    /// Read at most this many records [default: all]
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}
}

layered! {
/// What one source of settings says of a load.
#[derive(Debug, Clone, Default, Args)]
pub struct PartialSettings {
    /// Files or quoted globs; "-" or none: stdin
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// Target table, as in SQL: [schema.]table, '"Mixed"' to keep upper case
    #[arg(long, short, value_name = "TABLE", required = true)]
    pub table: Option<String>,
    #[command(flatten)]
    pub reading: PartialReading,
    /// Fill a column with an SQL expression: "column = expression", in which :value is the field of that name as text, :field("Name") another one, :source, :record and :line where the record came from [default: fields as they are]
    #[arg(long, value_name = "MAP", help_heading = "Target")]
    pub map: Vec<Map>,
    /// What the table holds afterwards: see "Modes" below
    #[arg(long, value_enum, help_heading = "Target")]
    pub mode: Option<Mode>,
    /// When the rows of --mode ignore and upsert are merged: at the end, or each batch on its own, in order, by one worker [default: end; batch where an input is stdin]
    #[arg(long, value_enum, value_name = "WHEN", help_heading = "Target")]
    pub merge: Option<MergeAt>,
    /// Columns by which rows are the same, as a CSV list [default: the primary key]
    #[arg(long, value_name = "LIST", help_heading = "Target")]
    pub key: Option<Names>,
    /// A record wins only over a smaller value of this column, in the input and in the table [default: the later record wins]
    #[arg(long, value_name = "COLUMN", help_heading = "Target")]
    pub newer: Option<String>,
    /// What happens to records that lose to another of their key; counted they are either way
    #[arg(long, value_enum, help_heading = "Target")]
    pub superseded: Option<Superseded>,
    /// SQL to run before the rows are in, @FILE for that of a file; in their transaction, or with append or --merge batch as the import opens [default: none]
    #[arg(long, value_name = "SQL", help_heading = "Target")]
    pub before: Vec<String>,
    /// SQL to run when the rows are in, in the transaction that makes them seen, or with append or --merge batch as the import closes [default: none]
    #[arg(long, value_name = "SQL", help_heading = "Target")]
    pub after: Vec<String>,
    /// Longest wait for other writers of the table to end their transactions
    #[arg(long, value_name = "TIME", help_heading = "Target")]
    pub lock_wait: Option<Time>,
    /// Stop (exit 4) if the input has fewer good rows [default: 1 with replace and sync, else 0]
    #[arg(long, value_name = "N", help_heading = "Guards")]
    pub min_rows: Option<u64>,
    /// Stop (exit 4) if the table would have so many percent fewer rows [default: none]
    #[arg(long, value_name = "P%", help_heading = "Guards")]
    pub max_shrink: Option<Share>,
    /// Stop (exit 4) if more rows would be deleted, a number or a share of them [default: none]
    #[arg(long, value_name = "N|P%", help_heading = "Guards")]
    pub max_delete: Option<Share>,
    /// Name of the job, of which one run at a time is at it [default: the table, with --mode append none]
    #[arg(long, value_name = "NAME", help_heading = "Safety")]
    pub job: Option<String>,
    /// What a run does that finds another one of its job: wait, wait=TIME, fail (exit 7) or take-over
    #[arg(long, value_name = "POLICY", help_heading = "Safety")]
    pub overlap_policy: Option<Overlap>,
    /// What kind of load this is; sets the flags marked * [default: none]
    #[arg(long, value_enum, help_heading = "Strategy")]
    pub profile: Option<Profile>,
    /// How batches become statements
    #[arg(long, short, value_enum, help_heading = "Strategy")]
    pub strategy: Option<StrategyKind>,
    /// What copy sends: binary where every column has a binary form, or text
    #[arg(long, value_enum, help_heading = "Strategy")]
    pub copy_format: Option<CopyFormat>,
    /// Connections that write at the same time [default: one a core, at most 4; 1 with --commit load]
    #[arg(long, short = 'j', value_name = "N", help_heading = "Strategy")]
    pub workers: Option<Number>,
    /// Rows that close a batch * [default: 1000; copy and discard: no limit]
    #[arg(long, value_name = "N", help_heading = "Strategy")]
    pub batch_rows: Option<Number>,
    /// Bytes that close a batch
    #[arg(long, value_name = "SIZE", help_heading = "Strategy")]
    pub batch_bytes: Option<Size>,
    /// Longest time the first row of a batch waits for more *
    #[arg(long, value_name = "TIME", help_heading = "Strategy")]
    pub max_wait: Option<Time>,
    /// Batches that may wait for a worker; memory grows by --batch-bytes for each
    #[arg(long, value_name = "N", help_heading = "Strategy")]
    pub queue: Option<Number>,
    /// What happens when the server is slower than the source *
    #[arg(long, value_enum, help_heading = "Stream")]
    pub overflow: Option<Overflow>,
    /// Directory for batches on disk with --overflow spill [default: none]
    #[arg(long, value_name = "DIR", help_heading = "Stream")]
    pub spill_dir: Option<PathBuf>,
    /// Most bytes of the files in --spill-dir; then the source waits
    #[arg(long, value_name = "SIZE", help_heading = "Stream")]
    pub spill_limit: Option<Size>,
    /// Time that batches under way have to finish after Ctrl-C or SIGTERM
    #[arg(long, value_name = "TIME", help_heading = "Stream")]
    pub grace: Option<Time>,
    /// What a commit covers; "row" needs --strategy insert
    #[arg(long, value_enum, help_heading = "Strategy")]
    pub commit: Option<Commit>,
    /// Name of this load in the ledger, by which stdin is known when it comes again [default: none; files are known by their content]
    #[arg(long, value_name = "ID", help_heading = "Safety")]
    pub import_id: Option<ImportId>,
    /// Forget what the ledger knows of the input and load it again; of several inputs, of those that have changed [default: off]
    #[arg(long, help_heading = "Safety")]
    pub restart: bool,
    /// Note nothing in the server: no resume, no rights needed beyond INSERT [default: off]
    #[arg(long, help_heading = "Safety")]
    pub no_ledger: bool,
    /// What the server waits for at a commit (its synchronous_commit) * [default: as the server is set]
    #[arg(long, value_enum, help_heading = "Safety")]
    pub durability: Option<Durability>,
    /// Most repetitions of one transaction or question; a server that never answered is looked for 5 s
    #[arg(long, value_name = "N", help_heading = "Safety")]
    pub max_retries: Option<u32>,
    /// Longest wait for one answer of the server; then the connection is given up
    #[arg(long, value_name = "TIME", help_heading = "Safety")]
    pub answer_timeout: Option<Time>,
    /// Longest time to deliver one batch, retries included
    #[arg(long, value_name = "TIME", help_heading = "Safety")]
    pub delivery_timeout: Option<Time>,
    /// What happens to bad rows: put aside, or stop at the first
    #[arg(long, value_enum, help_heading = "Rejects")]
    pub on_error: Option<OnErrorChoice>,
    /// Export bad rows to this file, in the format of the source [default: in the ledger only]
    #[arg(long, value_name = "FILE", help_heading = "Rejects")]
    pub rejects: Option<PathBuf>,
    /// Stop (exit 4) past so many bad rows, or at the end past such a share of them [default: any number, unless the first 100 are all refused with one SQLSTATE: exit 1, nothing loaded]
    #[arg(long, value_name = "N|P%", help_heading = "Rejects")]
    pub reject_limit: Option<Share>,
    /// How progress is shown on stderr
    #[arg(long, value_enum, help_heading = "Output")]
    pub progress: Option<ProgressMode>,
    /// Time between two plain lines of progress
    #[arg(long, value_name = "TIME", help_heading = "Output")]
    pub report_every: Option<Time>,
    /// Serve the figures to Prometheus at this address; a port alone means loopback [default: off]
    #[arg(long, value_name = "ADDR", help_heading = "Output", value_parser = crate::metrics::address)]
    pub metrics: Option<SocketAddr>,
    /// Write the figures to this file for node_exporter's textfile collector [default: off]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub metrics_file: Option<PathBuf>,
}
}

impl PartialReading {
    /// Completed with the defaults.
    pub fn options(self) -> ReadOptions {
        let default = ReadOptions::default();
        ReadOptions {
            format: self.format.map_or(default.format, FormatChoice::format),
            delimiter: self.delimiter.map(|Byte(byte)| byte).or(default.delimiter),
            quote: self.quote.map_or(default.quote, |Quote(quote)| quote),
            escape: self.escape.map(|Byte(byte)| byte).or(default.escape),
            null: self.null.unwrap_or(default.null),
            null_in: (self.null_in.into_iter())
                .map(|NullIn { column, text }| (column, text))
                .collect(),
            header: !self.no_header && default.header,
            columns: self.columns.map(|Names(names)| names).or(default.columns),
            skip: self.skip.map_or(default.skip, |Names(names)| names),
            encoding: self.encoding.unwrap_or(default.encoding),
            compression: self
                .compression
                .map_or(default.compression, CompressionChoice::compression),
            max_record_bytes: self
                .max_record_bytes
                .map_or(default.max_record_bytes, |Size(bytes)| bytes),
            limit: self.limit.or(default.limit),
        }
    }
}

impl PartialSettings {
    /// Completed with the profile that is named, and then with the defaults.
    ///
    /// # Errors
    /// When settings contradict each other, or an input is no input.
    pub fn complete(self) -> Result<LoadSettings, SettingsError> {
        let given = match self.profile {
            Some(profile) => self.or(profile.settings()),
            None => self,
        };
        let default = LoadSettings::default();
        let mode = given.mode.unwrap_or(default.mode);
        let mut retries = default.retries;
        set(&mut retries.answer_timeout, given.answer_timeout.map(time));
        set(
            &mut retries.delivery_timeout,
            given.delivery_timeout.map(time),
        );
        set(&mut retries.max_retries, given.max_retries);
        if given.no_ledger && (given.restart || given.import_id.is_some()) {
            return Err(SettingsError(
                "--no-ledger keeps no imports: leave out --import-id and --restart".to_string(),
            ));
        }
        let inputs = inputs(&given.inputs)?;
        let merge = merge_at(given.merge, mode, &inputs)?;
        Ok(LoadSettings {
            inputs,
            merge,
            rehearses: default.rehearses,
            table: given.table.unwrap_or(default.table),
            read: given.reading.options(),
            maps: given.map,
            mode,
            key: given.key.map_or(default.key, |Names(names)| names),
            newer: given.newer.or(default.newer),
            superseded: given.superseded.unwrap_or(default.superseded),
            guards: Guards {
                min_rows: given.min_rows.unwrap_or(match mode {
                    // An empty file is hardly ever what was meant.
                    Mode::Replace | Mode::Sync => 1,
                    Mode::Append | Mode::Ignore | Mode::Upsert => 0,
                }),
                max_shrink: given.max_shrink.map(percent).transpose()?,
                max_delete: given.max_delete,
            },
            before: sql("--before", given.before)?,
            after: sql("--after", given.after)?,
            lock_wait: given.lock_wait.map_or(default.lock_wait, time),
            job: given.job.or(default.job),
            overlap: given.overlap_policy.unwrap_or(default.overlap),
            strategy: given.strategy.unwrap_or(default.strategy),
            copy_format: given.copy_format.unwrap_or(default.copy_format),
            own_strategy: None,
            workers: given.workers.map(number).or(default.workers),
            batch_rows: given.batch_rows.map(number).or(default.batch_rows),
            batch_bytes: given.batch_bytes.map_or(default.batch_bytes, size),
            max_wait: given.max_wait.map(time).or(default.max_wait),
            queue: given.queue.map_or(default.queue, number),
            commit: given.commit.unwrap_or(default.commit),
            durability: given.durability.or(default.durability),
            retries,
            ledger: if given.no_ledger {
                LedgerUse::Off
            } else {
                LedgerUse::On {
                    import_id: given.import_id.map(|ImportId(id)| id),
                    restart: given.restart,
                }
            },
            on_error: match given.on_error {
                Some(OnErrorChoice::Stop) => OnError::Stop,
                Some(OnErrorChoice::Reject) | None => OnError::Reject(given.reject_limit),
            },
            rejects: given.rejects.or(default.rejects),
            overflow: given.overflow.unwrap_or(default.overflow),
            spill_dir: given.spill_dir.or(default.spill_dir),
            spill_limit: given.spill_limit.map_or(default.spill_limit, size),
            grace: given.grace.map_or(default.grace, time),
            progress: given.progress.unwrap_or(default.progress),
            report_every: given.report_every.map_or(default.report_every, time),
            metrics: given.metrics.or(default.metrics),
            metrics_file: given.metrics_file.or(default.metrics_file),
        })
    }
}

/// A limit that is a share of something.
fn percent(share: Share) -> Result<f64, SettingsError> {
    match share {
        Share::Percent(percent) => Ok(percent),
        Share::Rows(rows) => Err(SettingsError(format!(
            "--max-shrink {rows}: a share is needed, such as {rows}%"
        ))),
    }
}

/// When rows are merged: a stream is to be seen as it flows.
fn merge_at(
    given: Option<MergeAt>,
    mode: Mode,
    inputs: &[Input],
) -> Result<MergeAt, SettingsError> {
    let streams = inputs.iter().any(|input| matches!(input, Input::Stdin));
    match (given, mode) {
        (Some(_), Mode::Append) => Err(SettingsError(
            "--merge says when rows are merged: it needs --mode ignore or upsert".to_string(),
        )),
        (Some(merge), _) => Ok(merge),
        (None, Mode::Ignore | Mode::Upsert) if streams => Ok(MergeAt::Batch),
        (None, _) => Ok(MergeAt::End),
    }
}

/// SQL as given, or that of the files it names.
fn sql(flag: &str, given: Vec<String>) -> Result<Vec<String>, SettingsError> {
    let read = |text: String| match text.strip_prefix('@') {
        None => Ok(text),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| SettingsError(format!("{flag} {text}: {error}"))),
    };
    given.into_iter().map(read).collect()
}

fn set<T>(slot: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *slot = given;
    }
}

fn size(Size(bytes): Size) -> usize {
    bytes
}

fn time(Time(time): Time) -> std::time::Duration {
    time
}

fn number(Number(number): Number) -> usize {
    number
}

/// The defaults that are plain values, by the names of their flags, as the help tells them.
pub fn defaults() -> Vec<(&'static str, String)> {
    let load = LoadSettings::default();
    let read = load.read;
    let text = |byte: Option<u8>| byte.map_or("none".to_string(), |byte| char::from(byte).into());
    let word = |value: clap::builder::PossibleValue| value.get_name().to_string();
    let name = |value: Option<clap::builder::PossibleValue>| value.map_or(String::new(), word);
    use clap::ValueEnum;
    vec![
        ("quote", text(read.quote)),
        ("null", format!("\"{}\"", read.null)),
        ("encoding", read.encoding.name().to_string()),
        ("max_record_bytes", Size(read.max_record_bytes).to_string()),
        ("mode", name(load.mode.to_possible_value())),
        ("superseded", name(load.superseded.to_possible_value())),
        ("lock_wait", Time(load.lock_wait).to_string()),
        ("overlap_policy", "wait".to_string()),
        ("strategy", name(load.strategy.to_possible_value())),
        ("copy_format", name(load.copy_format.to_possible_value())),
        ("batch_bytes", Size(load.batch_bytes).to_string()),
        (
            "max_wait",
            Time(load.max_wait.unwrap_or_default()).to_string(),
        ),
        ("queue", load.queue.to_string()),
        ("overflow", name(load.overflow.to_possible_value())),
        ("spill_limit", Size(load.spill_limit).to_string()),
        ("grace", Time(load.grace).to_string()),
        ("commit", name(load.commit.to_possible_value())),
        ("max_retries", load.retries.max_retries.to_string()),
        (
            "answer_timeout",
            Time(load.retries.answer_timeout).to_string(),
        ),
        (
            "delivery_timeout",
            Time(load.retries.delivery_timeout).to_string(),
        ),
        (
            "on_error",
            match load.on_error {
                OnError::Reject(_) => "reject".to_string(),
                OnError::Stop => "stop".to_string(),
            },
        ),
        ("progress", name(load.progress.to_possible_value())),
        ("report_every", Time(load.report_every).to_string()),
    ]
}

/// The argument with its default in its help, if it is one of `defaults`.
pub fn with_default(argument: clap::Arg, defaults: &[(&'static str, String)]) -> clap::Arg {
    let id = argument.get_id().as_str();
    match defaults.iter().find(|(name, _)| *name == id) {
        Some((_, default)) => {
            let help = argument.get_help().map(ToString::to_string);
            argument.help(format!("{} [default: {default}]", help.unwrap_or_default()))
        }
        None => argument,
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    /// The settings that these flags make.
    fn from_flags(flags: &str) -> LoadSettings {
        let command = PartialSettings::augment_args(clap::Command::new("load"));
        let words = ["load", "--table=t"].into_iter().chain(flags.split(' '));
        let matches = command.try_get_matches_from(words).unwrap();
        let partial = PartialSettings::from_arg_matches(&matches).unwrap();
        partial.complete().unwrap()
    }

    fn told(settings: &LoadSettings) -> String {
        let window = settings.window();
        format!(
            "{} rows {:?} {:?} {:?} {:?}",
            window.rows,
            window.wait.unwrap_or_default(),
            settings.durability,
            settings.overflow,
            settings.commit
        )
    }

    #[test]
    fn nothing_given_is_the_default() {
        let settings = PartialSettings::default().complete().unwrap();
        assert_eq!(
            format!("{settings:?}"),
            format!("{:?}", LoadSettings::default())
        );
    }

    #[test]
    fn each_profile_sets_what_its_table_says() {
        let unlimited = usize::MAX;
        for (profile, expected) in [
            ("bulk", format!("{unlimited} rows 1s Some(End) Block Batch")),
            ("etl", format!("{unlimited} rows 1s None Block Batch")),
            ("events", "20000 rows 500ms Some(Off) Drop Batch".into()),
            ("metrics", "50000 rows 5s Some(Off) Drop Batch".into()),
            ("audit", "1000 rows 20ms Some(On) Block Batch".into()),
        ] {
            let settings = from_flags(&format!("--profile {profile}"));
            assert_eq!(told(&settings), expected, "{profile}");
        }
    }

    #[test]
    fn what_is_given_wins_over_the_profile() {
        let settings = from_flags(
            "--profile events --batch-rows 7 --max-wait 4s --overflow block --commit load --no-header --delimiter tab --reject-limit 5 -",
        );
        assert_eq!(told(&settings), "7 rows 4s Some(Off) Block Load");
        assert!(!settings.read.header);
        assert_eq!(settings.read.delimiter, Some(b'\t'));
        assert_eq!(settings.on_error, OnError::Reject(Some(Share::Rows(5))));
    }
}
