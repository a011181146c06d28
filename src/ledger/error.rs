//! What can be wrong with the ledger, or with what it is asked to do.

use std::time::Duration;

use crate::connect::ConnectError;
use crate::retry::{self, Pace};
use crate::server_error;

/// Why the ledger cannot be used, or refuses.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The server refused a statement.
    #[error("{doing}: {}", server_error::describe(.error))]
    Server {
        /// What was being done.
        doing: &'static str,
        /// The server's words.
        error: tokio_postgres::Error,
    },
    /// It does not answer.
    #[error("no answer from the server within {0:?} while reading the ledger")]
    NoAnswer(Duration),
    /// A second connection could not be made.
    #[error(transparent)]
    Connect(ConnectError),
    /// It is not there, of another version, or not for this role.
    #[error("{0}")]
    Unusable(String),
    /// No such import.
    #[error("there is no import {0}; `pgrung status` lists them")]
    UnknownImport(String),
    /// Input, table or options differ from what the ledger knows.
    #[error("{0}")]
    Changed(String),
    /// A newer run of the same import has taken over.
    #[error(
        "another run of import {0} has taken over; this one has stopped and commits nothing more"
    )]
    TakenOver(String),
    /// SQL of the user's, that runs before or after.
    #[error("{flag}: {}", server_error::describe(.error))]
    Sql {
        /// Where it was given.
        flag: &'static str,
        /// The server's words.
        error: tokio_postgres::Error,
    },
    /// Others hold locks that the import needs, for longer than it waits.
    #[error(
        "others hold locks that the import needs, for longer than {limit:?} (--answer-timeout): {holders}; \
         let them end their transactions, then run the same command again"
    )]
    Held {
        /// Who.
        holders: String,
        /// How long the import waits.
        limit: Duration,
    },
    /// The table's name means another one in the middle of a load.
    #[error(
        "table {0} was dropped and made anew, or renamed, while it was loaded; the batch under way is rolled back, rows committed before are in no table of that name"
    )]
    Elsewhere(String),
    /// Commits that the server had answered are gone.
    #[error(
        "the server has lost {lost} of {read} records after it had committed them: it crashed, and did not wait for the disk \
         (--durability, an unlogged table) or for its standby; run the same command again, it loads what is missing"
    )]
    Lost {
        /// Records that are gone.
        lost: u64,
        /// Records read.
        read: u64,
    },
}

impl LedgerError {
    /// How soon and how often the same thing is worth another try; `None`: never.
    pub(crate) fn pace(&self) -> Option<Pace> {
        match self {
            LedgerError::Server { error, .. } | LedgerError::Sql { error, .. } => {
                retry::pace(error)
            }
            LedgerError::Connect(error) => retry::connecting_pace(error),
            LedgerError::NoAnswer(_) => Some(Pace::Backoff),
            _ => None,
        }
    }
}

/// Says what was being done when the server refused.
pub(super) fn refused(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> LedgerError + Copy {
    move |error| LedgerError::Server { doing, error }
}

/// Where nothing else is being done, an import is being opened.
impl From<tokio_postgres::Error> for LedgerError {
    fn from(error: tokio_postgres::Error) -> Self {
        refused("opening the import in the ledger")(error)
    }
}
