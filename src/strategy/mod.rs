//! Strategies: how a batch becomes statements. One trait, one file a rung.

mod binary;
mod bring;
mod copy;
mod discard;
mod insert;
mod landed;
mod multi_insert;
mod parameters;
mod prepared;
mod rows;
mod unnest;

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use self::discard::Discard;
use self::insert::Insert;
use self::landed::Landed;
use self::multi_insert::MultiInsert;
use self::unnest::Unnest;

pub use copy::CopyFormat;
pub use rows::{Pulse, Refusal, Refused, Row, RowSlice};

use crate::outcome::Tally;
use crate::target::Target;

/// Writes the rows of a slice. The caller owns the transaction, so ledger, retry and rejects are
/// written once for all strategies.
pub trait Strategy: Send + Sync {
    /// Writes all rows of the slice or none, inside the caller's transaction. Records that are no
    /// rows are noted as refused in the slice and passed over. Returns the server's own row count.
    /// Never retries, never commits, never logs values. Beats the slice's pulse where it waits more
    /// than once.
    ///
    /// # Errors
    /// What the server or the connection says, with the record at fault where it is known. The
    /// transaction is then good for a rollback only.
    fn write<'a>(
        &'a mut self,
        client: &'a Client,
        rows: RowSlice<'a>,
    ) -> BoxFuture<'a, Result<u64, WriteError>>;

    /// What became of the rows of the latest write, where the target merges them.
    fn take_merged(&mut self) -> Tally {
        Tally::default()
    }

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
    /// Whether the statement was refused before any row was sent. The connection is then good for
    /// nothing more.
    pub before_rows: bool,
}

impl From<tokio_postgres::Error> for WriteError {
    fn from(error: tokio_postgres::Error) -> Self {
        WriteError {
            error,
            record: None,
            before_rows: false,
        }
    }
}

/// The rungs of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
}

/// Makes the strategy of each connection of a load, which keeps that connection's prepared
/// statements.
#[derive(Debug, Clone)]
pub struct StrategyFactory {
    /// The rung of the ladder.
    pub kind: StrategyKind,
    /// What `copy` and `discard` write.
    pub format: CopyFormat,
    /// A strategy that stands in for the rung.
    pub own: Option<OwnStrategy>,
}

/// Makes a strategy that is not on the ladder.
#[derive(Clone)]
pub struct OwnStrategy {
    name: &'static str,
    make: Arc<dyn Fn(Arc<Target>) -> Box<dyn Strategy> + Send + Sync>,
}

impl OwnStrategy {
    /// `name` is for reports; `make` is called once for each connection; behind a pooler,
    /// where no statement may outlive its transaction, at the bounds of each.
    pub fn new<S: Strategy + 'static>(
        name: &'static str,
        make: impl Fn(Arc<Target>) -> S + Send + Sync + 'static,
    ) -> Self {
        OwnStrategy {
            name,
            make: Arc::new(move |target| Box::new(make(target))),
        }
    }
}

impl fmt::Debug for OwnStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnStrategy").field(&self.name).finish()
    }
}

impl StrategyFactory {
    /// A strategy for one connection.
    pub fn build(&self, target: &Arc<Target>) -> Box<dyn Strategy> {
        let rung = self.rung(target);
        match target.clear() {
            Some(clear) if !self.sends_nothing() => {
                Box::new(Landed::new(rung, clear, target.landing.clone()))
            }
            _ => rung,
        }
    }

    fn rung(&self, target: &Arc<Target>) -> Box<dyn Strategy> {
        let (target, format) = (target.clone(), self.format);
        if let Some(own) = &self.own {
            return (own.make)(target);
        }
        match self.kind {
            StrategyKind::Insert => Box::new(Insert::new(target, 1)),
            StrategyKind::Pipeline => Box::new(Insert::new(target, insert::PIPELINE_DEPTH)),
            StrategyKind::MultiInsert => Box::new(MultiInsert::new(target)),
            StrategyKind::Unnest => Box::new(Unnest::new(target)),
            StrategyKind::Copy => Box::new(copy::Copy::new(target, format)),
            StrategyKind::Discard => Box::new(Discard::new(&target, format)),
        }
    }

    /// COPY in text, whose errors name the column at fault.
    pub fn text_copy(target: &Arc<Target>) -> Box<dyn Strategy> {
        Box::new(copy::Copy::new(target.clone(), CopyFormat::Text))
    }

    /// The word used in reports.
    pub fn name(&self) -> &'static str {
        self.own.as_ref().map_or(self.kind.name(), |own| own.name)
    }

    /// Whether nothing goes to the server.
    pub fn sends_nothing(&self) -> bool {
        self.own.is_none() && self.kind == StrategyKind::Discard
    }
}
