//! Merges by INSERT ... ON CONFLICT, for strategies whose rows come in statements.

use super::part::Part;
use super::sql::Sql;
use super::{Merge, Mode};
use crate::outcome::Outcome;
use crate::target::{Stamp, Upsert};

/// Stands for the rows.
const ROWS: &str = "\u{1}rows\u{1}";

impl Merge {
    /// The statements; `None` where they could not do what a merge does: the table has no index that
    /// they could use, its rows may have no key, something but types, NOT NULLs and checks may refuse
    /// a row (`stamp`), or what is newer wins.
    pub fn upsert(&self, stamp: Stamp) -> Option<Upsert> {
        let key = self.key.as_ref()?;
        if !key.arbiter || !key.not_null || stamp != Stamp::Order || self.newer.is_some() {
            return None;
        }
        let rows = Merge {
            staging: ROWS.to_string(),
            full: false,
            ..self.clone()
        };
        let sql = Sql::new(&rows, Part::default());
        let new = "RETURNING (xmax = 0) AS new";
        let around = |sql: String| {
            let (before, behind) = sql.split_once(ROWS)?;
            Some([before.to_string(), behind.to_string()])
        };
        let from_rows = sql
            .insert_changed(false)?
            .replace(&format!("{ROWS} s"), ROWS);
        let from_best = sql.insert_changed(true)?.replace(ROWS, "best");
        let (key, best_first) = (sql.key("s"), sql.best_first());
        Some(Upsert {
            one: around(format!("{from_rows} {new}"))?,
            many: around(format!(
                "WITH best AS MATERIALIZED (SELECT DISTINCT ON ({key}) * FROM {ROWS} ORDER BY {key}, {best_first}),
                      landed AS ({from_best} {new})
                 SELECT count(*) FILTER (WHERE new) AS new, count(*) FILTER (WHERE NOT new) AS updated,
                        (SELECT count(*) FROM best) AS best
                 FROM landed"
            ))?,
            rest: match self.mode {
                Mode::Ignore => Outcome::Ignored,
                _ => Outcome::Unchanged,
            },
        })
    }
}
