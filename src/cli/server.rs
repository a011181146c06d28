//! Which server a command asks.

use clap::Args;

use crate::job::{ConnectionArgs, Time};

/// Where the server is, for a command that asks it something and no more.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Longest wait for one answer of the server
    #[arg(
        long,
        value_name = "TIME",
        help_heading = "Connection",
        hide_short_help = true
    )]
    pub answer_timeout: Option<Time>,
}
