//! The command line as typed: every setting may be absent. What it means is decided in `job` and
//! `commands`.

mod output;
mod run;
mod server;
mod short;

use std::path::PathBuf;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::exit_code::Exit;
use crate::job::{
    self, ConnectionArgs, Durability, Number, PartialReading, PartialSettings, Size, Time,
};
use crate::merge::Mode;
use crate::strategy::StrategyKind;

pub use output::OutputArgs;
pub use run::RunArgs;
pub use server::ServerArgs;

/// Loads rows from files or stdin into PostgreSQL, and compares the ways to do it.
#[derive(Debug, Parser)]
#[command(name = "pgrung", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load rows from files or stdin into a table
    Load(Box<LoadArgs>),
    /// Do what load would do, roll it back, and tell what and how long
    Check(Box<LoadArgs>),
    /// Run the loads of a job file, one after the other
    Run(RunArgs),
    /// Compute which window, strategy and durability fit a stream
    Plan(Box<PlanArgs>),
    /// Show what the ledger knows: imports, progress, gaps, rejects
    Status(Box<StatusArgs>),
    /// Tell why rows of an import were rejected, and export them
    Rejects(Box<RejectsArgs>),
    /// Load the rejects of an import again, once their cause is mended
    Replay(Box<ReplayArgs>),
    /// Remove from the ledger what is old and no later load needs
    Prune(Box<PruneArgs>),
    /// Create or update the ledger's tables, for roles that may not
    Migrate(Box<MigrateArgs>),
    /// Put the same rows through every strategy and compare them
    Bench(Box<BenchArgs>),
    /// Print what a shell needs to complete commands, flags and values
    Completions(CompletionsArgs),
    /// Print the man page of pgrung, or write those of all commands
    Man(ManArgs),
}

/// Arguments of `pgrung load` and `pgrung check`.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    pub settings: PartialSettings,
    #[command(flatten)]
    pub connection: ConnectionArgs,
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
    #[arg(long, value_name = "TIME")]
    pub latency: Option<Time>,
    /// Time from a message to its answer [default: measured where a server is named, else 0.1ms]
    #[arg(long, value_name = "TIME")]
    pub round_trip: Option<Time>,
    /// Time that the server needs for COMMIT [default: measured where a server is named, else 2ms]
    #[arg(long, value_name = "TIME")]
    pub commit_time: Option<Time>,
    /// How batches become statements
    #[arg(long, short, value_enum)]
    pub strategy: Option<StrategyKind>,
    /// Connections that write at the same time [default: as load]
    #[arg(long, short = 'j', value_name = "N")]
    pub workers: Option<Number>,
    /// Rows that close a batch [default: 1000; copy: no limit]
    #[arg(long, value_name = "N")]
    pub batch_rows: Option<Number>,
    /// Bytes that close a batch
    #[arg(long, value_name = "SIZE")]
    pub batch_bytes: Option<Size>,
    /// Longest time the first row of a batch waits for more
    #[arg(long, value_name = "TIME")]
    pub max_wait: Option<Time>,
    /// Batches that may wait for a worker
    #[arg(long, value_name = "N")]
    pub queue: Option<Number>,
    /// As of load: two round trips a batch fewer [default: off]
    #[arg(long)]
    pub no_ledger: bool,
    /// Print JSON [default: off]
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `pgrung status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Only this import
    pub import_id: Option<String>,
    /// Only imports of this job [default: all]
    #[arg(long, value_name = "NAME")]
    pub job: Option<String>,
    /// Only imports into this table [default: all]
    #[arg(long, short, value_name = "TABLE")]
    pub table: Option<String>,
    /// Only imports that ran in this time, as 7d [default: all]
    #[arg(long, value_name = "TIME")]
    pub since: Option<Time>,
    /// Print JSON [default: off]
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `pgrung prune`.
#[derive(Debug, Clone, Args)]
pub struct PruneArgs {
    /// Remove what is older, such as 90d
    #[arg(long, value_name = "TIME")]
    pub older_than: Time,
    /// Only tell what would be removed [default: off]
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `pgrung rejects`.
#[derive(Debug, Clone, Args)]
pub struct RejectsArgs {
    /// The import whose rejects are told
    pub import_id: String,
    /// Write the records to this file, in the format of the source, with the reasons beside it [default: none]
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// Print JSON [default: off]
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `pgrung replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// The import whose rejects are loaded
    pub import_id: String,
    /// How batches become statements
    #[arg(long, short, value_enum)]
    pub strategy: Option<StrategyKind>,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `pgrung migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Arguments of `pgrung bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Rows of TPC-H lineitem to make
    #[arg(long, value_name = "N", conflicts_with = "inputs")]
    pub rows: Option<Number>,
    /// Your own rows instead: a file; needs --table [default: TPC-H lineitem]
    #[arg(long = "input", value_name = "FILE", requires = "table")]
    pub inputs: Option<PathBuf>,
    /// Your own table: copies of it are loaded, never the table itself [default: lineitem]
    #[arg(long, short, value_name = "TABLE", requires = "inputs")]
    pub table: Option<String>,
    #[command(flatten)]
    pub reading: PartialReading,
    /// Strategies to compare, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub strategies: Vec<StrategyKind>,
    /// Table of each run: append: empty; ignore, upsert: has half of the keys; replace and sync are refused
    #[arg(long, value_enum, value_name = "MODE")]
    pub mode: Option<Mode>,
    /// Rounds; every strategy runs once in each
    #[arg(long, value_name = "N")]
    pub rounds: Option<Number>,
    /// Longest time of one run; a slower rung stops there and says how many rows it did
    #[arg(long, value_name = "TIME")]
    pub max_seconds: Option<Time>,
    /// Rows that close a batch [default: 1000; copy and discard: no limit]
    #[arg(long, value_name = "N")]
    pub batch_rows: Option<Number>,
    /// Connections that write at the same time
    #[arg(long, short = 'j', value_name = "N")]
    pub workers: Option<Number>,
    /// What the server waits for at a commit, in every rung [default: as the server is set]
    #[arg(long, value_enum, value_name = "KIND")]
    pub durability: Option<Durability>,
    /// Round trips to put between client and server as well, separated by commas [default: none]
    #[arg(long = "rtt", value_name = "LIST", value_delimiter = ',')]
    pub round_trips: Vec<Time>,
    /// Print the results as JSON [default: off]
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print the table as Markdown [default: off]
    #[arg(long)]
    pub markdown: bool,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// Arguments of `pgrung completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Arguments of `pgrung man`.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Write a page for each command into this directory, which is made if need be; none: print that of pgrung
    pub dir: Option<PathBuf>,
}

impl Cli {
    /// Parses the arguments of the process.
    ///
    /// # Errors
    /// What is wrong with them, or the help that was asked for.
    pub fn try_parse() -> Result<Self, clap::Error> {
        let command = if short::is_asked(std::env::args_os()) {
            short::short(command())
        } else {
            command()
        };
        Self::of(&command.try_get_matches()?)
    }

    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches(matches).map_err(|error| error.format(&mut command()))
    }
}

/// The command line with what is written elsewhere once: defaults and exit codes.
pub fn command() -> clap::Command {
    let mut command = Cli::command().after_help(Exit::help());
    let names: Vec<String> = command
        .get_subcommands()
        .map(|subcommand| subcommand.get_name().to_string())
        .collect();
    for name in names {
        let defaults = match name.as_str() {
            "bench" => crate::bench::defaults(),
            _ => job::defaults(),
        };
        command = command.mut_subcommand(&name, |subcommand| {
            subcommand
                .mut_args(|argument| job::with_default(argument, &defaults))
                .after_help(match name.as_str() {
                    "load" | "check" => format!("{}\n\n{}", Mode::HELP, Exit::help()),
                    "run" => {
                        [job::JobFile::HELP, &Exit::help(), &Exit::help_of_several()].join("\n\n")
                    }
                    _ => Exit::help(),
                })
        });
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_explains_itself_and_its_default() {
        for subcommand in command().get_subcommands() {
            for argument in subcommand.get_arguments() {
                let help = argument
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let has_default = !argument.is_required_set()
                    && !argument.is_positional()
                    && !["help", "version"].contains(&argument.get_id().as_str());
                assert!(!help.is_empty(), "{argument}");
                assert_eq!(
                    help.matches("[default: ").count(),
                    usize::from(has_default),
                    "{}: {argument}: {help}",
                    subcommand.get_name()
                );
            }
        }
    }

    #[test]
    fn every_default_belongs_to_a_flag() {
        let command = command();
        let ids = |name: &str| -> Vec<String> {
            let subcommand = command.find_subcommand(name);
            let arguments = subcommand
                .into_iter()
                .flat_map(clap::Command::get_arguments);
            arguments
                .map(|argument| argument.get_id().to_string())
                .collect()
        };
        for (name, defaults) in [
            ("load", job::defaults()),
            ("bench", crate::bench::defaults()),
        ] {
            for (id, _) in defaults {
                assert!(ids(name).iter().any(|known| known == id), "{name} {id}");
            }
        }
    }
}
