//! What every command shows and writes.

use std::path::PathBuf;

use clap::Args;

use crate::report::LogFormat;

/// What a command shows, and where it leaves its account.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Write the account of the run as JSON to this file as well [default: none]
    #[arg(long, value_name = "FILE", global = true)]
    pub summary: Option<PathBuf>,
    /// Say what was decided and why [default: off]
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// How notices on stderr and the account on stdout are written [default: text]
    #[arg(long, value_enum, global = true)]
    pub log_format: Option<LogFormat>,
    /// Errors only: no progress, no notices, nothing on stdout [default: off]
    #[arg(long, short, global = true)]
    pub quiet: bool,
}
