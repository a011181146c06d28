//! Which server is used, as partial as the settings of a load.

use std::path::PathBuf;

use clap::Args;

/// Where the server is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Connection URI or key=value string [default: DATABASE_URL, then PGSERVICE, PGHOST ...]
    #[arg(long, value_name = "DSN")]
    pub dsn: Option<String>,
    /// File that holds the connection string; mode 0600 if with a password [default: none]
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "dsn",
        hide_short_help = true
    )]
    pub dsn_file: Option<PathBuf>,
    /// Start a private server from installed programs; with DIR its data is kept there [default: off]
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with_all = ["dsn", "dsn_file"])]
    pub embedded: Option<Option<PathBuf>>,
}
