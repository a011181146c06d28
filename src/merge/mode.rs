//! What the table holds after a load.

use serde::{Deserialize, Serialize};

/// What the table holds after a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// What it held, and the input.
    #[default]
    Append,
    /// What it held, and the rows of the input whose key was not there.
    Ignore,
    /// What it held; by key, the input wins.
    Upsert,
    /// Exactly the input.
    Replace,
    /// Exactly the input, by key: unchanged rows are not touched, missing ones deleted.
    Sync,
}

impl Mode {
    /// The word used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Append => "append",
            Mode::Ignore => "ignore",
            Mode::Upsert => "upsert",
            Mode::Replace => "replace",
            Mode::Sync => "sync",
        }
    }

    /// Whether it cannot do without a key.
    pub fn needs_key(self) -> bool {
        matches!(self, Mode::Ignore | Mode::Upsert | Mode::Sync)
    }
}

/// What happens to records that lose to another one of their key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Superseded {
    /// They are counted.
    #[default]
    Count,
    /// They are counted, and kept with the rejects.
    Reject,
}
