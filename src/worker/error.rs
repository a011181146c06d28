//! What ends a worker, and with it the load.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::Batch;
use crate::ledger::LedgerError;
use crate::retry::{Failure, advice};
use crate::span::Position;
use crate::strategy::Refusal;
use crate::target::Target;

/// Why batches are no longer delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A batch could not be delivered.
    #[error("{failure} ({what}){}", Advice(.failure))]
    GaveUp {
        /// The last failure.
        failure: Failure,
        /// Why there is no further try.
        what: String,
    },
    /// The ledger forbids it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A bad row, where the first one stops the load.
    #[error(transparent)]
    Row(Box<RowError>),
    /// More bad rows than allowed.
    #[error(
        "more than {limit} rows are bad (--reject-limit); the first of the batch that passed the limit: {first}"
    )]
    RejectLimit {
        /// How many are allowed.
        limit: u64,
        /// A bad row of the batch that was too much.
        first: Box<RowError>,
    },
    /// Nothing but bad rows from the start.
    #[error(
        "the first {rows} rows are all refused with the same SQLSTATE, so the fault lies with the table or the mapping, not with the rows, and no row is loaded: {example}; mend the table, --columns or how the input is read, or say with --reject-limit how many bad rows to put aside wherever they stand"
    )]
    NothingButRejects {
        /// How many.
        rows: u64,
        /// One of them.
        example: Box<RowError>,
    },
    /// Bad rows cannot be put aside.
    #[error("cannot write {}: {source}", .path.display())]
    RejectFile {
        /// Where to.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl DeliveryError {
    pub(crate) fn gave_up(failure: Failure, what: impl Into<String>) -> Self {
        DeliveryError::GaveUp {
            failure,
            what: what.into(),
        }
    }
}

struct Advice<'a>(&'a Failure);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.sqlstate().and_then(advice) {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// A bad row, with all that helps to find it.
#[derive(Debug)]
pub struct RowError {
    source: Arc<str>,
    position: Position,
    column: Option<String>,
    sqlstate: String,
    message: String,
}

impl RowError {
    /// Record `index` (0-based) of `batch`, refused for `refusal`.
    pub(super) fn new(
        source: &Arc<str>,
        target: &Target,
        batch: &Batch,
        index: usize,
        refusal: &Refusal,
    ) -> Box<Self> {
        Box::new(RowError {
            source: source.clone(),
            position: batch.position(index),
            column: refusal.column_name(target).map(str::to_string),
            sqlstate: refusal.sqlstate.clone(),
            message: refusal.message.clone(),
        })
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.position)?;
        if let Some(column) = &self.column {
            write!(f, ", column \"{column}\"")?;
        }
        write!(f, ": {}: {}", self.sqlstate, self.message)
    }
}

impl StdError for RowError {}
