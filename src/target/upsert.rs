//! INSERT ... ON CONFLICT: rows are merged by the very statement that brings them.

use super::{Order, Target, quote_name};
use crate::outcome::{Outcome, Tally};

/// SQL around rows that are a relation `s` with the columns of the target, and with [`Order::COLUMN`]
/// where they are many.
#[derive(Debug, Clone)]
pub struct Upsert {
    /// Around one row; returns whether it is new, nothing if the table's stays.
    pub one: [String; 2],
    /// Around many rows, of which some may have one key; returns how many are `new`, are `updated`, and
    /// are `best` of their key.
    pub many: [String; 2],
    /// What a row is that leaves the table's as it is.
    pub rest: Outcome,
}

impl Upsert {
    /// What became of one row.
    pub fn tally_of_one(&self, is_new: Option<bool>) -> Tally {
        Tally::of(
            match is_new {
                Some(true) => Outcome::Inserted,
                Some(false) => Outcome::Updated,
                None => self.rest,
            },
            1,
        )
    }

    /// What became of `rows` rows.
    pub fn tally_of_many(&self, rows: u64, new: u64, updated: u64, best: u64) -> Tally {
        Tally::of(Outcome::Inserted, new)
            .and(Outcome::Updated, updated)
            .and(self.rest, best.saturating_sub(new + updated))
            .and(Outcome::Superseded, rows.saturating_sub(best))
    }

    /// `(...) AS s (columns)` of rows given as a relation without names.
    pub fn relation(rows: &str, target: &Target, ordered: bool) -> String {
        let order = ordered.then(|| format!(", {}", quote_name(Order::COLUMN)));
        let columns = target.column_list();
        format!("({rows}) AS s ({columns}{})", order.unwrap_or_default())
    }
}
