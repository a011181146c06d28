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

    /// What each mode holds and locks, as the end of a help text.
    pub const HELP: &'static str = "\
Modes (--mode):
  append   The table holds what it held, and the input. Readers see batch after batch; others may
           write. A crash leaves the batches that were committed; the same command goes on.
  ignore   What it held, and the rows whose key was not there.
  upsert   What it held; of two rows with one key the later one of the input wins, or by --newer.
           Both: rows are staged, then merged, a part of the keys in each of -j transactions, or all
           in one with --commit load, --before, --after, --on-error stop or --reject-limit; with
           --merge batch each batch is merged in its own transaction. Others may write (ROW
           EXCLUSIVE). A crash leaves what was merged; the same command goes on.
  replace  Exactly the input.
  sync     Exactly the input, by key: rows that are the same are not touched, missing ones deleted.
           Both: rows are staged, then merged in one transaction. Until its end readers see what was
           there, and never wait; other writers wait (SHARE ROW EXCLUSIVE, --lock-wait; ACCESS
           EXCLUSIVE, and TRUNCATE, where deletes are published that have no replica identity). A
           crash leaves the table as it was; the same command goes on.
  All but append need the ledger, unless with --merge batch. Records without a key are rejects.";

    /// Whether it cannot do without a key.
    pub fn needs_key(self) -> bool {
        matches!(self, Mode::Ignore | Mode::Upsert | Mode::Sync)
    }
}

/// When rows are merged into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MergeAt {
    /// Staged like those of any load, and merged when all are there.
    End,
    /// Each batch in its own transaction, in the order of the input.
    Batch,
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
