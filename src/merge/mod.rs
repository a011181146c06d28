//! Merges: what a mode makes of the table, in one step, once all rows are staged.

mod batchwise;
mod blame;
mod careful;
mod error;
mod guard;
mod mode;
mod part;
mod sql;
mod step;
mod upsert;
mod writer;

use std::sync::Arc;

use crate::target::{Key, Target, quote_name};

pub use error::MergeError;
pub use guard::{Guard, Guards, Share};
pub use mode::{MergeAt, Mode, Superseded};
pub use part::{Merged, Part};
pub use step::Step;

/// Memory that the server may take for one sort or hash of a merge, in kB.
const WORK_MEM: u32 = 128 * 1024;

/// How staged rows are merged into their table.
#[derive(Debug, Clone)]
pub struct Merge {
    pub mode: Mode,
    /// The table, and what of it the input has.
    pub target: Arc<Target>,
    /// Its staging table, quoted.
    pub staging: String,
    pub key: Option<Key>,
    /// The column by which a record is newer than another, unquoted.
    pub newer: Option<String>,
    /// Whether triggers may keep rows out of the table.
    pub suppresses: bool,
    /// Whether constraints may wait for COMMIT.
    pub deferrable: bool,
    /// Whether rows go by TRUNCATE: what is deleted must have an identity to be published.
    pub truncates: bool,
    /// Whether other tables point to rows of this one: those that come again must stay.
    pub is_pointed_to: bool,
    /// Whether a row may be refused because another one of the input is in the table, or not yet.
    pub rows_meet: bool,
    /// Whether each staged row has with it all that a reject is made of.
    pub full: bool,
    pub guards: Guards,
}

impl Merge {
    /// Whether the table is made exactly the input, which other writers have to wait for.
    pub fn is_exact(&self) -> bool {
        matches!(self.mode, Mode::Replace | Mode::Sync)
    }

    /// SQL that tells the server how many rows are staged and how their keys are spread.
    pub fn analyze(&self) -> String {
        let key = self.key.iter().flat_map(|key| &key.columns);
        let key: Vec<String> = key.map(|column| quote_name(&column.name)).collect();
        let columns = match key.is_empty() {
            true => String::new(),
            false => format!(" ({})", key.join(", ")),
        };
        format!(
            "SET LOCAL default_statistics_target = 10; ANALYZE {}{columns}; SET LOCAL default_statistics_target TO DEFAULT",
            self.staging
        )
    }

    /// SQL that lets the statements of a transaction hash in memory what fits there. Columns of a key
    /// are taken for independent, and a join by several of them for far smaller than it is: by merge
    /// it would sort both sides, which takes three times as long.
    pub fn plan() -> String {
        format!(
            "SET LOCAL enable_mergejoin = off;
             SELECT set_config('work_mem', '{WORK_MEM}kB', true)
             WHERE (SELECT setting::bigint < {WORK_MEM} FROM pg_settings WHERE name = 'work_mem')"
        )
    }

    /// Whether the rows may be merged in parts, each in a transaction of its own.
    pub fn is_divisible(&self) -> bool {
        matches!(self.mode, Mode::Ignore | Mode::Upsert) && !self.rows_meet
    }

    /// Whether rows of the table that the input has too stay where they are.
    fn is_by_key(&self) -> bool {
        match self.mode {
            Mode::Replace => self.is_pointed_to && self.key.is_some(),
            _ => self.key.is_some(),
        }
    }
}
