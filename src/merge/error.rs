//! Why a merge ends.

use std::time::Duration;

use super::guard::Guard;
use crate::retry::Failure;

/// Why a merge failed. The transaction is good for a rollback only.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The server refused something, or is away.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Rows of the table cannot be deleted.
    #[error("the rows of {table} that the input does not have cannot be deleted: {failure}")]
    Delete {
        /// The table.
        table: String,
        /// What the server says.
        failure: Failure,
    },
    /// Others write the table for too long.
    #[error(
        "others write {table}, or hold a lock on it, for longer than {limit:?} (--lock-wait); the rows stay staged: run the same command again when they have ended"
    )]
    Locked {
        /// The table.
        table: String,
        /// How long was waited.
        limit: Duration,
    },
    /// A guard holds.
    #[error(transparent)]
    Guard(#[from] Guard),
    /// The table would not be what the mode promises.
    #[error(
        "{table} would have {found} rows and not the {wanted} of the input: a trigger of it keeps rows in it or puts others into it, or a policy hides some; nothing is changed"
    )]
    NotExact {
        /// The table.
        table: String,
        /// Rows that it would have.
        found: u64,
        /// Rows that it should have.
        wanted: u64,
    },
    /// The server's own counts make no sense.
    #[error(
        "{table}: of {staged} staged rows {done} were merged without an error, and no trigger could explain it"
    )]
    Count {
        /// The table.
        table: String,
        /// Rows to be merged.
        staged: u64,
        /// Rows that were.
        done: u64,
    },
}

impl From<tokio_postgres::Error> for MergeError {
    fn from(error: tokio_postgres::Error) -> Self {
        MergeError::Failed(Failure::Server {
            error,
            record: None,
            before_rows: false,
        })
    }
}
