//! Merges: what a mode makes of the table, in one step, once all rows are staged.

mod careful;
mod guard;
mod mode;
mod sql;
mod step;

use std::sync::Arc;

use crate::target::{Key, Target};

pub use guard::{Guard, Guards, Share};
pub use mode::{Mode, Superseded};
pub use step::{MergeError, Merged, Part, Step};

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
    /// Whether each staged row has with it all that a reject is made of.
    pub full: bool,
    pub guards: Guards,
}

impl Merge {
    /// Whether the table is made exactly the input, which other writers have to wait for.
    pub fn is_exact(&self) -> bool {
        matches!(self.mode, Mode::Replace | Mode::Sync)
    }

    /// Whether rows of the table that the input has too stay where they are.
    fn is_by_key(&self) -> bool {
        match self.mode {
            Mode::Replace => self.is_pointed_to && self.key.is_some(),
            _ => self.key.is_some(),
        }
    }
}
