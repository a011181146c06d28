//! Guards: what stops a load before anything of it is to be seen.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A number of rows, or a share of them.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "NumberOrText")]
pub enum Share {
    /// So many.
    Rows(u64),
    /// So many of a hundred.
    Percent(f64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl TryFrom<NumberOrText> for Share {
    type Error = String;

    fn try_from(given: NumberOrText) -> Result<Self, String> {
        match given {
            NumberOrText::Number(rows) => Ok(Share::Rows(rows)),
            NumberOrText::Text(text) => text.parse(),
        }
    }
}

impl Share {
    /// Whether `part` rows of `whole` are more.
    pub fn is_passed(self, part: u64, whole: u64) -> bool {
        match self {
            Share::Rows(rows) => part > rows,
            Share::Percent(percent) => part as f64 > whole as f64 * percent / 100.0,
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "a number of rows is needed, such as 1000, or a share of them, such as 5%".to_string()
        };
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
                match (0.0..=100.0).contains(&percent) {
                    true => Ok(Share::Percent(percent)),
                    false => Err(wrong()),
                }
            }
            None => text.parse().map(Share::Rows).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Share::Rows(rows) => write!(f, "{rows}"),
            Share::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// What the result of a merge must keep to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Guards {
    /// Least rows of the input.
    pub min_rows: u64,
    /// Most rows that the table may lose, in percent of those that it has.
    pub max_shrink: Option<f64>,
    /// Most rows that may be deleted.
    pub max_delete: Option<Share>,
}

/// A guard that held.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Guard {
    /// Too few rows in the input.
    #[error("the input has {rows} good rows, --min-rows wants {least}")]
    FewRows {
        /// How many there are.
        rows: u64,
        /// How many there should be.
        least: u64,
    },
    /// The table would become too small.
    #[error(
        "the table has {before} rows and would have {after}, {:.1} % fewer; --max-shrink allows {limit} %",
        100.0 * (*.before - *.after) as f64 / *.before as f64
    )]
    Shrink {
        /// Rows of the table.
        before: u64,
        /// Rows it would have.
        after: u64,
        /// The limit in percent.
        limit: f64,
    },
    /// Too many rows would be deleted.
    #[error(
        "{deleted} of the {before} rows of the table would be deleted; --max-delete allows {limit}"
    )]
    Delete {
        /// Rows that would be.
        deleted: u64,
        /// Rows of the table.
        before: u64,
        /// The limit.
        limit: Share,
    },
    /// Too many bad rows.
    #[error("{rejected} of {read} rows are bad; --reject-limit allows {limit}")]
    Rejects {
        /// How many there are.
        rejected: u64,
        /// Rows of the input.
        read: u64,
        /// The limit.
        limit: Share,
    },
}

impl Guards {
    /// Whether the input has enough rows.
    ///
    /// # Errors
    /// The guard that holds.
    pub fn rows(&self, rows: u64) -> Result<(), Guard> {
        match rows < self.min_rows {
            true => Err(Guard::FewRows {
                rows,
                least: self.min_rows,
            }),
            false => Ok(()),
        }
    }

    /// Whether the table may shrink so.
    ///
    /// # Errors
    /// The guard that holds.
    pub fn shrink(&self, before: u64, after: u64) -> Result<(), Guard> {
        match self.max_shrink {
            Some(limit)
                if Share::Percent(limit).is_passed(before.saturating_sub(after), before) =>
            {
                Err(Guard::Shrink {
                    before,
                    after,
                    limit,
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether so many rows of `before` may be deleted.
    ///
    /// # Errors
    /// The guard that holds.
    pub fn delete(&self, deleted: u64, before: u64) -> Result<(), Guard> {
        match self.max_delete {
            Some(limit) if limit.is_passed(deleted, before) => Err(Guard::Delete {
                deleted,
                before,
                limit,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rows_or_percent() {
        assert_eq!("0".parse(), Ok(Share::Rows(0)));
        assert_eq!("2.5%".parse(), Ok(Share::Percent(2.5)));
        for text in ["", "%", "-1", "101%", "NaN%", "1 row"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        let percent = Share::Percent(10.0);
        assert!(!percent.is_passed(10, 100) && percent.is_passed(11, 100));
        assert!(percent.is_passed(1, 0) && !percent.is_passed(0, 0));
    }

    #[test]
    fn the_guards_hold_past_their_limits() {
        let guards = Guards {
            min_rows: 2,
            max_shrink: Some(50.0),
            max_delete: Some(Share::Rows(3)),
        };
        assert!(guards.rows(2).is_ok() && guards.rows(1).is_err());
        assert!(guards.shrink(10, 5).is_ok() && guards.shrink(10, 4).is_err());
        assert!(guards.shrink(10, 20).is_ok() && guards.shrink(0, 0).is_ok());
        assert!(guards.delete(3, 9).is_ok() && guards.delete(4, 9).is_err());
        let none = Guards::default();
        assert!(none.rows(0).is_ok() && none.shrink(9, 0).is_ok() && none.delete(9, 9).is_ok());
    }
}
