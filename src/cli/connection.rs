//! Which server a command uses.

use std::path::PathBuf;

use clap::Args;

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
