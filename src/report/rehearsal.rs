//! What a check found out beside the counts: columns with an example each, locks, times.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::server_error::one_line;

/// What a load that is rolled back tells beside its counts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Rehearsal {
    /// The columns that the input fills.
    pub columns: Vec<Filled>,
    /// Whether there was a record to take the examples from.
    #[serde(skip)]
    pub has_examples: bool,
    /// The others, with what they get.
    pub left_out: Vec<LeftOut>,
    /// The locks that the merge held at its end.
    pub locks: Vec<Lock>,
    /// Wall-clock time to read the input and bring it to the server.
    pub staging_seconds: f64,
    /// Wall-clock time to bring it into the table.
    pub merging_seconds: f64,
}

impl Rehearsal {
    /// The same, with the times that it took.
    #[must_use]
    pub(crate) fn within(self, staging: Duration, merging: Duration) -> Self {
        Rehearsal {
            staging_seconds: staging.as_secs_f64(),
            merging_seconds: merging.as_secs_f64(),
            ..self
        }
    }
}

/// A column that the input fills.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Filled {
    /// Its name.
    pub column: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// The field, or the expression.
    pub from: String,
    /// Its value in the first good record, as text; `null` is NULL, or that there is no
    /// good record.
    pub example: Option<String>,
}

/// A column that the input does not fill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub column: String,
    /// What a new row gets there.
    pub gets: &'static str,
}

/// A lock on a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lock {
    /// The table, as SQL names it.
    pub table: String,
    /// As LOCK TABLE names it.
    pub mode: String,
}

/// Characters of an example that are shown.
const SHOWN: usize = 40;

impl fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (
            place,
            Filled {
                column,
                ty,
                from,
                example,
            },
        ) in self.columns.iter().enumerate()
        {
            let head = if place == 0 { "columns " } else { "        " };
            let example = example.as_ref().map(|text| {
                let text = one_line(text);
                match text.char_indices().nth(SHOWN) {
                    Some((end, _)) => format!("{}...", &text[..end]),
                    None => text,
                }
            });
            let example = match (&example, self.has_examples) {
                (Some(example), _) => format!(": {example}"),
                (None, true) => ": NULL".to_string(),
                (None, false) => String::new(),
            };
            let (column, from) = (one_line(column), one_line(from));
            writeln!(f, "  {head} {column} {ty} <- {from}{example}")?;
        }
        if !self.left_out.is_empty() {
            let left_out = self.left_out.iter();
            let left_out = left_out.map(|it| format!("{} ({})", one_line(&it.column), it.gets));
            let left_out: Vec<String> = left_out.collect();
            writeln!(f, "  left out {}", left_out.join(", "))?;
        }
        for locks in self.locks.chunk_by(|one, other| one.table == other.table) {
            let modes: Vec<&str> = locks.iter().map(|lock| lock.mode.as_str()).collect();
            let table = one_line(&locks[0].table);
            writeln!(f, "  locks    {} on {table}", modes.join(" and "))?;
        }
        let time = Duration::from_secs_f64;
        write!(
            f,
            "  time     {:.2?} to read and send, {:.2?} to bring in",
            time(self.staging_seconds),
            time(self.merging_seconds)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_lines() {
        let rehearsal = Rehearsal {
            columns: vec![
                Filled {
                    column: "id".to_string(),
                    ty: "integer".to_string(),
                    from: "id".to_string(),
                    example: Some("1".to_string()),
                },
                Filled {
                    column: "note".to_string(),
                    ty: "text".to_string(),
                    from: "upper(:value)".to_string(),
                    example: Some(
                        "a line\nand one that is longer than a terrminal likes it".to_string(),
                    ),
                },
            ],
            has_examples: true,
            left_out: vec![LeftOut {
                column: "at".to_string(),
                gets: "its default",
            }],
            locks: vec![Lock {
                table: "t".to_string(),
                mode: "ROW EXCLUSIVE".to_string(),
            }],
            staging_seconds: 1.5,
            merging_seconds: 0.25,
        };
        insta::assert_snapshot!(rehearsal, @r"
          columns  id integer <- id: 1
                   note text <- upper(:value): a line\nand one that is longer than a te...
          left out at (its default)
          locks    ROW EXCLUSIVE on t
          time     1.50s to read and send, 250.00ms to bring in
        ");
    }
}
