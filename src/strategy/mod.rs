//! Strategies: how a batch becomes statements. One trait, one file a rung.

mod binary;
mod copy;
mod discard;
mod insert;
mod multi_insert;
mod parameters;
mod pipeline;
mod rows;
mod unnest;

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_postgres::Client;

pub use copy::CopyFormat;
pub use rows::{Refusal, Refused, RowSlice};

use crate::table::Target;

/// Writes the rows of a slice. The caller owns the transaction, so ledger, retry and rejects are
/// written once for all strategies.
pub trait Strategy: Send + Sync {
    /// The word used on the command line and in reports.
    fn name(&self) -> &'static str;

    /// Writes all rows of the slice or none, inside the caller's transaction. Records that are no
    /// rows are noted as refused in the slice and passed over. Returns the server's own row count.
    /// Never retries, never commits, never logs values.
    ///
    /// # Errors
    /// What the server or the connection says, with the record at fault where it is known. The
    /// transaction is then good for a rollback only.
    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>>;

    /// Something worth knowing about the latest write, once.
    fn take_note(&mut self) -> Option<String> {
        None
    }
}

/// Why a strategy could not write its rows.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct WriteError {
    /// What the server or the connection said.
    #[source]
    pub error: tokio_postgres::Error,
    /// The record that the server named (0-based, within the batch). A hint: the record is bad
    /// only if it fails alone.
    pub record: Option<usize>,
}

impl From<tokio_postgres::Error> for WriteError {
    fn from(error: tokio_postgres::Error) -> Self {
        WriteError {
            error,
            record: None,
        }
    }
}

/// The rungs of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StrategyKind {
    /// One prepared INSERT a row.
    Insert,
    /// One prepared INSERT a row, sent without waiting for each answer.
    Pipeline,
    /// One INSERT of up to 1,000 rows a statement.
    MultiInsert,
    /// One INSERT a batch, from one array a column.
    Unnest,
    /// COPY FROM STDIN.
    Copy,
    /// Reads, parses and encodes; sends nothing.
    Discard,
}

impl StrategyKind {
    /// All strategies, from the bottom of the ladder to its top, then the floor.
    pub const ALL: [StrategyKind; 6] = [
        Self::Insert,
        Self::Pipeline,
        Self::MultiInsert,
        Self::Unnest,
        Self::Copy,
        Self::Discard,
    ];

    /// The word used on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Pipeline => "pipeline",
            Self::MultiInsert => "multi-insert",
            Self::Unnest => "unnest",
            Self::Copy => "copy",
            Self::Discard => "discard",
        }
    }

    /// Rows of a batch where the user names none: 1,000 where statements count, as many as fit
    /// into the bytes where they stream.
    pub fn default_batch_rows(self) -> usize {
        match self {
            Self::Insert | Self::Pipeline | Self::MultiInsert | Self::Unnest => 1_000,
            Self::Copy | Self::Discard => usize::MAX,
        }
    }

    /// A strategy for one connection; it keeps that connection's prepared statements. `format` is
    /// what `copy` and `discard` write.
    pub fn build(self, target: Arc<Target>, format: CopyFormat) -> Box<dyn Strategy> {
        match self {
            Self::Insert => Box::new(insert::Insert::new(target)),
            Self::Pipeline => Box::new(pipeline::Pipeline::new(target)),
            Self::MultiInsert => Box::new(multi_insert::MultiInsert::new(target)),
            Self::Unnest => Box::new(unnest::Unnest::new(target)),
            Self::Copy => Box::new(copy::Copy::new(target, format)),
            Self::Discard => Box::new(discard::Discard::new(&target, format)),
        }
    }
}
