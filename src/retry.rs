//! Decides from SQLSTATE and the state of the connection what to do about a failed transaction:
//! repeat it, look for a bad row, or stop.

use std::ops::Range;
use std::time::Duration;

use crate::connect::ConnectError;
use crate::server_error::{self, one_line};
use crate::strategy::{Refusal, WriteError};

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server refused something.
    #[error("{}", server_error::describe(.error))]
    Server {
        /// Its words.
        error: tokio_postgres::Error,
        /// The record it named (0-based, within the batch).
        record: Option<usize>,
        /// Whether the statement was refused before any row was sent.
        before_rows: bool,
    },
    /// No connection could be made.
    #[error("{0}")]
    Connect(Box<ConnectError>),
    /// The server did not answer in time.
    #[error("no answer from the server within {0:?}")]
    Timeout(Duration),
    /// The transaction was no longer alive at its end.
    #[error("the transaction was aborted before its end without an error")]
    Vanished,
    /// The server stored another number of rows than it was sent, without an error.
    #[error(
        "the server stored {stored} of {sent} rows without an error, and the table has no trigger that could explain it"
    )]
    Count {
        /// Rows sent.
        sent: u64,
        /// Rows the server says it stored.
        stored: u64,
    },
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Failure::Server {
            error: error.error,
            record: error.record,
            before_rows: error.before_rows,
        }
    }
}

/// Foreign keys.
pub const FOREIGN_KEY: &str = "23503";

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Repeat the transaction: the fault passes.
    Retry(Pace),
    /// Repeat it with fewer rows a statement, this often at most.
    RetrySmaller(u32),
    /// One of the rows is bad: find it.
    FindRow,
    /// Nothing will mend itself.
    Stop,
}

impl Action {
    /// How soon and how often to repeat what failed.
    pub(crate) fn pace(self) -> Option<Pace> {
        match self {
            Action::Retry(pace) => Some(pace),
            Action::RetrySmaller(_) | Action::FindRow | Action::Stop => None,
        }
    }
}

/// How soon and how often to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once, with jitter.
    AtOnce,
    /// After an exponentially growing pause.
    Backoff,
    /// After a long pause, until the delivery timeout.
    Long,
    /// As `Backoff`, this often at most.
    Few(u32),
}

impl Failure {
    /// The record of `range` that the server's words hint at.
    pub fn record_in(&self, range: &Range<usize>) -> Option<usize> {
        match self {
            Failure::Server { record, .. } => record.filter(|record| range.contains(record)),
            _ => None,
        }
    }

    /// The SQLSTATE, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Failure::Server { error, .. } => error.code().map(|code| code.code()),
            Failure::Connect(error) => error.sqlstate().map(|code| code.code()),
            _ => None,
        }
    }

    /// What to do about it.
    pub(crate) fn action(&self) -> Action {
        match self {
            Failure::Timeout(_) | Failure::Vanished => Action::Retry(Pace::Backoff),
            Failure::Connect(error) => connecting(error),
            Failure::Count { .. } => Action::Stop,
            Failure::Server {
                error, before_rows, ..
            } => match error.as_db_error() {
                None => Action::Retry(Pace::Backoff),
                Some(server) => match action(server.code().code()) {
                    Action::FindRow if *before_rows => Action::Stop,
                    action => action,
                },
            },
        }
    }

    /// Whether the server may have crashed: the connection ended without a word, or with that one.
    pub(crate) fn may_be_a_crash(&self) -> bool {
        match self {
            Failure::Server { error, .. } => error
                .as_db_error()
                .is_none_or(|server| server.code().code() == "57P02"),
            Failure::Connect(_) => true,
            Failure::Timeout(_) | Failure::Vanished | Failure::Count { .. } => false,
        }
    }

    /// Whether one of the rows may be at fault. `in_vain`: also where the code names a fault that
    /// passes, because it did not.
    pub(crate) fn may_be_a_row(&self, in_vain: bool) -> bool {
        match self {
            Failure::Server {
                error,
                before_rows: false,
                ..
            } => error
                .as_db_error()
                .is_some_and(|server| match action(server.code().code()) {
                    Action::FindRow => true,
                    // No row is to blame for the server's disk, which has room for some.
                    Action::Retry(_) | Action::RetrySmaller(_) => {
                        in_vain && !["53100", "58030"].contains(&server.code().code())
                    }
                    Action::Stop => false,
                }),
            _ => false,
        }
    }

    /// Whether the code alone says that a value is at fault. Of any other only the statement
    /// without rows tells whether it is a row that fails alone, or the statement with every row.
    pub(crate) fn names_a_value(&self) -> bool {
        self.sqlstate().is_some_and(|code| {
            code.get(..2)
                .is_some_and(|class| ["22", "23", "44", "P0", "38", "39"].contains(&class))
        })
    }

    /// What a row is put aside with that has failed alone.
    pub(crate) fn refusal(&self) -> Refusal {
        let mut refusal = Refusal {
            sqlstate: self.sqlstate().unwrap_or("XX000").to_string(),
            field: None,
            column: None,
            constraint: None,
            message: one_line(&self.to_string()),
        };
        if let Failure::Server { error, .. } = self
            && let Some(server) = error.as_db_error()
        {
            refusal.message = one_line(server.message());
            refusal.column = server.column().map(str::to_string);
            refusal.constraint = server.constraint().map(str::to_string);
        }
        refusal
    }

    /// Whether a foreign key refuses a row, perhaps only because the row it points to comes later.
    pub(crate) fn waits_for_a_row(&self) -> bool {
        self.sqlstate() == Some(FOREIGN_KEY)
    }

    /// Whether the connection is good for a rollback and more; all else is thrown away.
    pub(crate) fn keeps_connection(&self) -> bool {
        matches!(self.action(), Action::FindRow)
    }
}

/// The table: exact codes before classes. A code that it does not know may be anybody's, a
/// trigger's or an input function's: whether a row is to blame is found out, not looked up.
pub fn action(sqlstate: &str) -> Action {
    use Action::{FindRow, Retry, RetrySmaller, Stop};
    use Pace::{AtOnce, Backoff, Few, Long};
    let class = sqlstate.get(..2).unwrap_or("");
    match sqlstate {
        "08000" | "08001" | "08003" | "08006" | "08007" | "40003" => Retry(Backoff),
        "08004" | "08P01" => Retry(Few(3)),
        "25006" | "25P03" | "25P04" | "57P05" => Retry(Backoff),
        "40001" | "40P01" | "40000" => Retry(AtOnce),
        "53100" => Retry(Long),
        "53200" => RetrySmaller(5),
        "53300" | "55P03" | "55006" | "57P01" | "57P02" | "57P03" => Retry(Backoff),
        "57014" => RetrySmaller(3),
        "XX000" => Retry(Few(2)),
        // Our own encoder wrote something that is not COPY's format.
        "22P04" => Stop,
        // Behind a pooler: somebody has left a statement of that name, or the client library looks
        // for one of its own that is gone. On a new connection the names are others.
        "26000" | "42P05" => Retry(Few(5)),
        "53400" | "55P02" | "55P04" | "57P04" | "XX001" | "XX002" => Stop,
        _ => match class {
            // Resources of the server, and what its system says.
            "53" | "58" => Retry(Few(3)),
            "" | "24" | "25" | "28" | "2D" | "3B" | "3D" | "F0" => Stop,
            _ => FindRow,
        },
    }
}

/// How soon and how often to ask again what the server refused; `None`: never.
pub fn pace(error: &tokio_postgres::Error) -> Option<Pace> {
    match error.as_db_error() {
        None => Some(Pace::Backoff),
        Some(server) => action(server.code().code()).pace(),
    }
}

/// How soon and how often to try again to connect; `None`: never.
pub fn connecting_pace(error: &ConnectError) -> Option<Pace> {
    connecting(error).pace()
}

fn connecting(error: &ConnectError) -> Action {
    match (error.last(), error.sqlstate()) {
        (_, Some(code)) => action(code.code()),
        (
            ConnectError::Unreachable { .. }
            | ConnectError::Timeout { .. }
            | ConnectError::SessionAttributes { .. }
            | ConnectError::Pool(_),
            None,
        ) => Action::Retry(Pace::Backoff),
        _ => Action::Stop,
    }
}

/// What else to say about a code that stops the load.
pub fn advice(sqlstate: &str) -> Option<&'static str> {
    match sqlstate {
        "42501" => Some("grant INSERT on the table to this role"),
        "25006" => Some("the server is read-only: a standby? connect to the primary"),
        code => pooler_advice(code),
    }
}

/// What to say about a code that PostgreSQL itself does not answer to what is sent to it.
pub fn pooler_advice(sqlstate: &str) -> Option<&'static str> {
    matches!(sqlstate, "08P01" | "26000" | "42P05").then_some(
        "is a pooler in statement mode between? connect to the server itself, or to a pooler in transaction or session mode",
    )
}

/// Pause before try number `attempt` (1-based): grows from 50 ms to 5 s, half of it by chance so
/// that many loaders do not come back all at once.
pub fn pause(pace: Pace, attempt: u32) -> Duration {
    let most = match pace {
        Pace::AtOnce => 20,
        Pace::Backoff | Pace::Few(_) => 50u64
            .saturating_mul(1 << attempt.min(10).saturating_sub(1))
            .min(5_000),
        Pace::Long => 1_000u64
            .saturating_mul(1 << attempt.min(6).saturating_sub(1))
            .min(30_000),
    };
    Duration::from_millis(most / 2 + fastrand::u64(0..=most / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_table_has_its_action() {
        use Action::{FindRow, Retry, RetrySmaller, Stop};
        use Pace::{AtOnce, Backoff, Few, Long};
        let table: &[(&str, Action)] = &[
            ("28P01", Stop),
            ("28000", Stop),
            ("3D000", Stop),
            ("3F000", FindRow),
            ("08000", Retry(Backoff)),
            ("08001", Retry(Backoff)),
            ("08003", Retry(Backoff)),
            ("08006", Retry(Backoff)),
            ("08004", Retry(Few(3))),
            ("08007", Retry(Backoff)),
            ("40003", Retry(Backoff)),
            ("08P01", Retry(Few(3))),
            ("25006", Retry(Backoff)),
            ("25P03", Retry(Backoff)),
            ("25P04", Retry(Backoff)),
            ("57P05", Retry(Backoff)),
            ("25P02", Stop),
            ("25001", Stop),
            ("24000", Stop),
            ("2D000", Stop),
            ("3B001", Stop),
            ("26000", Retry(Few(5))),
            ("42P05", Retry(Few(5))),
            ("40001", Retry(AtOnce)),
            ("40P01", Retry(AtOnce)),
            ("40000", Retry(AtOnce)),
            ("53100", Retry(Long)),
            ("53200", RetrySmaller(5)),
            ("53300", Retry(Backoff)),
            ("55P03", Retry(Backoff)),
            ("55006", Retry(Backoff)),
            ("57P01", Retry(Backoff)),
            ("57P02", Retry(Backoff)),
            ("57P03", Retry(Backoff)),
            ("53400", Stop),
            ("55000", FindRow),
            ("55P02", Stop),
            ("55P04", Stop),
            ("57P04", Stop),
            ("57014", RetrySmaller(3)),
            ("58030", Retry(Few(3))),
            ("58P01", Retry(Few(3))),
            ("XX000", Retry(Few(2))),
            ("XX001", Stop),
            ("XX002", Stop),
            ("F0000", Stop),
            ("21000", FindRow),
            ("22P02", FindRow),
            ("22003", FindRow),
            ("22021", FindRow),
            ("22P04", Stop),
            ("23502", FindRow),
            ("23505", FindRow),
            ("23503", FindRow),
            ("44000", FindRow),
            ("54000", FindRow),
            ("54001", FindRow),
            ("54011", FindRow),
            ("54023", FindRow),
            ("P0001", FindRow),
            ("27000", FindRow),
            ("38000", FindRow),
            ("39000", FindRow),
            ("42501", FindRow),
            ("42P01", FindRow),
            ("0A000", FindRow),
            ("42601", FindRow),
            ("ZZ001", FindRow),
            ("", Stop),
        ];
        for (sqlstate, expected) in table {
            assert_eq!(action(sqlstate), *expected, "{sqlstate}");
        }
    }

    #[test]
    fn a_pause_grows_and_stays_below_its_limit() {
        for attempt in 1..40 {
            assert!(pause(Pace::Backoff, attempt) <= Duration::from_secs(5));
            assert!(pause(Pace::Long, attempt) <= Duration::from_secs(30));
        }
        assert!(pause(Pace::Backoff, 8) >= Duration::from_secs(2));
    }
}
