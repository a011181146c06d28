//! Why rows were rejected, in groups: a count and one example each.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use indicatif::HumanCount;
use serde::Serialize;

use crate::server_error::one_line;

/// Groups that are kept apart; what comes after them is counted together.
const MOST_GROUPS: usize = 100;

/// One reason with all rows that it kept out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectReason {
    /// The server's code, or the one it would have given.
    pub sqlstate: String,
    /// The column at fault, where it is known.
    pub column: Option<String>,
    /// The message without the values that it quotes.
    pub message: String,
    /// Rows rejected for it.
    pub count: u64,
    /// The first of them: its source, its place and the whole message.
    pub example: String,
}

type Key = (String, Option<String>, String);

/// The reasons of a load so far.
#[derive(Debug, Default)]
pub struct Reasons(Mutex<BTreeMap<Key, RejectReason>>);

impl Reasons {
    /// Counts one row that was refused with these words; its place is asked for if it is the first
    /// of its group.
    pub fn count(
        &self,
        sqlstate: &str,
        column: Option<&str>,
        message: &str,
        place: impl FnOnce() -> String,
    ) {
        let general = without_value(sqlstate, message);
        self.group(sqlstate, column, &general, 1, || {
            format!("{}: {message}", place())
        });
    }

    /// Adds what was counted elsewhere; returns those that are new here.
    pub fn add<'a>(&self, reasons: &'a [RejectReason]) -> Vec<&'a RejectReason> {
        let is_new = |reason: &&RejectReason| {
            let (column, count) = (reason.column.as_deref(), reason.count);
            self.group(&reason.sqlstate, column, &reason.message, count, || {
                reason.example.clone()
            })
        };
        reasons.iter().filter(is_new).collect()
    }

    /// Forgets them all.
    pub fn clear(&self) {
        if let Ok(mut groups) = self.0.lock() {
            groups.clear();
        }
    }

    /// Counts rows of one group; whether they are its first.
    fn group(
        &self,
        sqlstate: &str,
        column: Option<&str>,
        message: &str,
        count: u64,
        example: impl FnOnce() -> String,
    ) -> bool {
        let Ok(mut groups) = self.0.lock() else {
            return false;
        };
        let mut key: Key = (sqlstate.into(), column.map(Into::into), message.into());
        if groups.len() >= MOST_GROUPS && !groups.contains_key(&key) {
            key = (String::new(), None, "other reasons".to_string());
        }
        let group = groups
            .entry(key)
            .or_insert_with_key(|(sqlstate, column, message)| RejectReason {
                sqlstate: sqlstate.clone(),
                column: column.clone(),
                message: message.clone(),
                count: 0,
                example: example(),
            });
        let is_new = group.count == 0;
        group.count += count;
        is_new
    }

    /// The reasons, the commonest first.
    pub fn all(&self) -> Vec<RejectReason> {
        let groups = self.0.lock();
        let mut all: Vec<_> =
            groups.map_or(Vec::new(), |groups| groups.values().cloned().collect());
        all.sort_by_key(|reason| std::cmp::Reverse(reason.count));
        all
    }
}

/// The message without the values that it quotes, in whatever language it is. Where a constraint is
/// violated, or the record is no record, names are quoted and no values.
fn without_value<'a>(sqlstate: &str, message: &'a str) -> Cow<'a, str> {
    let is_quote = |character| "\"«»„“”".contains(character);
    let parts: Vec<&str> = message.split(is_quote).collect();
    match parts.as_slice() {
        [before, _, .., after] if !sqlstate.starts_with("23") && sqlstate != "22P04" => {
            format!("{before}...{after}").into()
        }
        _ => message.into(),
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x ", HumanCount(self.count))?;
        match (self.sqlstate.as_str(), &self.column) {
            ("", _) => f.write_str(&one_line(&self.message))?,
            (sqlstate, None) => f.write_str(sqlstate)?,
            (sqlstate, Some(column)) => write!(f, "{sqlstate} in \"{}\"", one_line(column))?,
        }
        write!(f, ", the first in {}", one_line(&self.example))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_differ_in_the_value_only_are_one_reason() {
        let reasons = Reasons::default();
        reasons.count("23505", None, "duplicate key", || "record 1".to_string());
        for (value, place) in [("x", "record 2"), ("y", "record 9")] {
            let message = format!("invalid input syntax for type integer: \"{value}\"");
            reasons.count("22P02", Some("id"), &message, || place.to_string());
        }
        let total = Reasons::default();
        total.add(&reasons.all());
        total.add(&reasons.all());
        let all = total.all();
        assert_eq!(
            all[0].to_string(),
            "4 x 22P02 in \"id\", the first in record 2: invalid input syntax for type integer: \"x\""
        );
        assert_eq!((all.len(), all[1].count), (2, 2));
    }

    #[test]
    fn a_value_is_known_by_its_quotes_in_any_language_and_place() {
        for (sqlstate, messages, groups) in [
            ("22P02", ["»x«: ungültig", "»1\"2«: ungültig"], 1),
            ("22P02", ["\"integer\"型: \"x\"", "\"integer\"型: \"\""], 1),
            (
                "22003",
                ["value \"9\" is out of range", "value \"8\" is out of range"],
                1,
            ),
            ("P0001", ["no: \"", "no: \"x"], 2),
            ("23514", ["violates \"a\"", "violates \"b\""], 2),
        ] {
            let reasons = Reasons::default();
            for message in messages {
                reasons.count(sqlstate, None, message, String::new);
            }
            assert_eq!(reasons.all().len(), groups, "{messages:?}");
        }
    }

    #[test]
    fn more_reasons_than_anybody_reads_are_counted_together() {
        let reasons = Reasons::default();
        for number in 0..MOST_GROUPS + 50 {
            reasons.count("P0001", None, &format!("reason {number}"), String::new);
        }
        let all = reasons.all();
        assert_eq!(all.len(), MOST_GROUPS + 1);
        assert_eq!(
            (all[0].message.as_str(), all[0].count),
            ("other reasons", 50)
        );
        let total: u64 = all.iter().map(|reason| reason.count).sum();
        assert_eq!(total, MOST_GROUPS as u64 + 50);
    }
}
