//! What can become of a row, how many rows became what, and the law that none is forgotten.

use std::ops::{AddAssign, Index};

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Makes [`Outcome`] and its properties from one line an outcome.
macro_rules! outcomes {
    ($($(#[$doc:meta])* $outcome:ident $properties:tt)*) => {
        /// What became of a row that was read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Outcome {
            $($(#[$doc])* $outcome,)*
        }

        impl Outcome {
            /// Every outcome, in the order of the report.
            pub const ALL: &'static [Outcome] = &[$(Outcome::$outcome),*];

            const fn properties(self) -> Properties {
                match self {
                    $(Outcome::$outcome => Properties $properties,)*
                }
            }
        }
    };
}

struct Properties {
    /// In JSON and in metrics.
    name: &'static str,
    /// In the summary for people.
    words: &'static str,
    /// Its column in the ledger's spans; `None`: it is not kept there.
    column: Option<&'static str>,
    /// Whether the input's row is not in the table, which is exit code 3.
    missing: bool,
}

outcomes! {
    /// Stored by this run as a new row.
    Inserted { name: "inserted", words: "inserted", column: Some("loaded"), missing: false }
    /// The row of its key was there and is as the input says now.
    Updated { name: "updated", words: "updated", column: Some("updated"), missing: false }
    /// The row of its key was there and was as the input says; it was not touched.
    Unchanged { name: "unchanged", words: "unchanged", column: Some("unchanged"), missing: false }
    /// A row of its key was there, which the mode leaves alone.
    Ignored { name: "ignored", words: "ignored", column: Some("ignored"), missing: false }
    /// Another record of its key has won, or a newer row of the table.
    Superseded {
        name: "superseded",
        words: "superseded",
        column: Some("superseded"),
        missing: false
    }
    /// Stored by an earlier run.
    AlreadyLoaded { name: "already_loaded", words: "already loaded", column: None, missing: false }
    /// Waits in a staging table to be merged into the table.
    Staged { name: "staged", words: "staged, not merged yet", column: None, missing: false }
    /// Read, parsed and encoded by a strategy that sends nothing.
    Discarded { name: "discarded", words: "read only", column: None, missing: false }
    /// Put aside, by this run or an earlier one.
    Rejected { name: "rejected", words: "rejected", column: Some("rejected"), missing: true }
    /// Thrown away because the server was too slow.
    Dropped { name: "dropped", words: "dropped", column: None, missing: true }
    /// Kept out by a trigger of the table.
    Suppressed {
        name: "suppressed",
        words: "kept out by a trigger",
        column: Some("suppressed"),
        missing: true
    }
}

impl Outcome {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name in JSON and in metrics.
    pub const fn name(self) -> &'static str {
        self.properties().name
    }

    /// The words of the summary.
    pub const fn words(self) -> &'static str {
        self.properties().words
    }

    /// The outcomes that the ledger's spans keep, with their columns.
    pub fn in_ledger() -> impl Iterator<Item = (Outcome, &'static str)> {
        let kept = |outcome: &Outcome| Some((*outcome, outcome.properties().column?));
        Self::ALL.iter().filter_map(kept)
    }
}

/// How many rows became what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally([u64; Outcome::COUNT]);

impl Tally {
    /// So many rows of one outcome.
    pub fn of(outcome: Outcome, rows: u64) -> Self {
        Tally::default().and(outcome, rows)
    }

    /// So many rows of `outcome` besides.
    #[must_use]
    pub fn and(mut self, outcome: Outcome, rows: u64) -> Self {
        self.0[outcome as usize] += rows;
        self
    }

    /// The same rows but those of `outcome`.
    #[must_use]
    pub fn without(mut self, outcome: Outcome) -> Self {
        self.0[outcome as usize] = 0;
        self
    }

    /// Rows of all outcomes.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Rows that this run put into the table.
    pub fn loaded(&self) -> u64 {
        self[Outcome::Inserted] + self[Outcome::Updated]
    }

    /// Rows that this run put through to the end of the way: into the table or its staging table, or,
    /// with a strategy that sends nothing, to where they would be sent.
    pub fn passed(&self) -> u64 {
        self.loaded() + self[Outcome::Staged] + self[Outcome::Discarded]
    }

    /// The same rows as a later run sees them.
    #[must_use]
    pub fn of_earlier_run(mut self) -> Self {
        let in_table = [Outcome::Inserted, Outcome::Updated, Outcome::Unchanged];
        let loaded = in_table.map(|outcome| std::mem::take(&mut self.0[outcome as usize]));
        self.and(Outcome::AlreadyLoaded, loaded.iter().sum())
    }

    /// The same rows of a strategy that sends nothing: what it takes for stored is not.
    #[must_use]
    pub fn of_discard(mut self) -> Self {
        let encoded = std::mem::take(&mut self.0[Outcome::Inserted as usize]);
        self.and(Outcome::Discarded, encoded)
    }

    /// The same rows where what is stored, by this run or an earlier one, is staged.
    #[must_use]
    pub fn of_staging(mut self) -> Self {
        let stored = [Outcome::Inserted, Outcome::AlreadyLoaded];
        let staged = stored.map(|outcome| std::mem::take(&mut self.0[outcome as usize]));
        self.and(Outcome::Staged, staged.iter().sum())
    }

    /// Every outcome with its rows.
    pub fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL
            .iter()
            .map(|outcome| (*outcome, self[*outcome]))
    }
}

impl Index<Outcome> for Tally {
    type Output = u64;

    fn index(&self, outcome: Outcome) -> &u64 {
        &self.0[outcome as usize]
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

/// Where every row that was read went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// Rows read.
    pub read: u64,
    /// What became of them.
    pub tally: Tally,
    /// Rows of the table that were deleted, because the input does not have them.
    pub deleted: u64,
}

impl Rows {
    /// Whether every row read is accounted for: the law of conservation.
    pub fn balanced(&self) -> bool {
        self.read == self.tally.total()
    }

    /// Whether rows of the input are not in the table.
    pub fn incomplete(&self) -> bool {
        let missing = |(outcome, rows): (Outcome, u64)| outcome.properties().missing && rows > 0;
        self.tally.iter().any(missing)
    }
}

impl Serialize for Rows {
    /// `{"read": 3, "inserted": 2, ..., "loaded": 2}`
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Outcome::COUNT + 3))?;
        map.serialize_entry("read", &self.read)?;
        for (outcome, rows) in self.tally.iter() {
            map.serialize_entry(outcome.name(), &rows)?;
        }
        map.serialize_entry("loaded", &self.tally.loaded())?;
        map.serialize_entry("deleted", &self.deleted)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_balance_when_every_one_of_them_became_something() {
        let mut tally = Tally::of(Outcome::Inserted, 2).and(Outcome::Rejected, 1);
        tally += Tally::of(Outcome::Inserted, 4);
        let rows = Rows {
            read: 7,
            tally,
            ..Rows::default()
        };
        assert!(rows.balanced() && rows.incomplete());
        assert_eq!(tally.loaded(), 6);
        assert!(!Rows { read: 8, ..rows }.balanced());
    }

    #[test]
    fn only_rows_that_are_not_in_the_table_make_a_load_incomplete() {
        for (outcome, missing) in [
            (Outcome::Inserted, false),
            (Outcome::Updated, false),
            (Outcome::Unchanged, false),
            (Outcome::Ignored, false),
            (Outcome::Superseded, false),
            (Outcome::AlreadyLoaded, false),
            (Outcome::Staged, false),
            (Outcome::Discarded, false),
            (Outcome::Rejected, true),
            (Outcome::Dropped, true),
            (Outcome::Suppressed, true),
        ] {
            let rows = Rows {
                read: 1,
                tally: Tally::of(outcome, 1),
                deleted: 0,
            };
            assert_eq!(rows.incomplete(), missing, "{}", outcome.name());
        }
    }

    #[test]
    fn the_json_names_every_outcome() {
        let tally = Tally::of(Outcome::Inserted, 2).and(Outcome::Dropped, 1);
        let json = serde_json::json!(Rows {
            read: 3,
            tally,
            deleted: 4
        });
        assert_eq!(
            json,
            serde_json::json!({
                "read": 3, "inserted": 2, "updated": 0, "unchanged": 0, "ignored": 0,
                "superseded": 0, "already_loaded": 0, "staged": 0, "discarded": 0, "rejected": 0,
                "dropped": 1, "suppressed": 0, "loaded": 2, "deleted": 4
            })
        );
    }
}
