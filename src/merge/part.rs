//! A part of the staged rows, and what a merge of it did.

use std::time::Duration;

use crate::outcome::Tally;

/// A part of the staged rows, by the first column of their key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Its number (0-based).
    pub number: i32,
    /// Its least value; `None`: of all.
    pub from: Option<String>,
    /// The value behind its greatest; `None`: of all.
    pub to: Option<String>,
}

impl Part {
    /// The parts between these bounds.
    pub fn between(bounds: &[String]) -> Vec<Self> {
        let from = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let to = bounds.iter().cloned().map(Some).chain([None]);
        let parts = (0..).zip(from.zip(to));
        parts
            .map(|(number, (from, to))| Part { number, from, to })
            .collect()
    }
}

/// What a merge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// What became of the staged records.
    pub tally: Tally,
    /// Rows of the table that they are.
    pub present: u64,
    /// Rows of the table that were deleted.
    pub deleted: u64,
    /// How long other writers had to wait, until the caller commits.
    pub locked: Duration,
}

impl std::ops::AddAssign for Merged {
    fn add_assign(&mut self, other: Self) {
        self.tally += other.tally;
        self.present += other.present;
        self.deleted += other.deleted;
        self.locked = self.locked.max(other.locked);
    }
}
