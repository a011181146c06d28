//! Everything that can end a run, with its exit code.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::batch::Batch;
use crate::connect::ConnectError;
use crate::embedded::EmbeddedError;
use crate::exit_code::Exit;
use crate::metrics::MetricsError;
use crate::retry::{self, Action, Failure};
use crate::server_error;
use crate::source::{InputError, Position};
use crate::spill::SpillError;
use crate::strategy::Refusal;
use crate::table::{TableError, Target};

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or the environment makes no sense.
    #[error("{0}")]
    Usage(String),
    /// No session on the server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The private server.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// A source.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The target.
    #[error("{}", describe_table(.0))]
    Table(TableError),
    /// A row that is bad.
    #[error(transparent)]
    Row(Box<RowError>),
    /// The server refused something that is not about a row.
    #[error("{doing}: {}", server_error::describe(.error))]
    Server {
        /// What was being done.
        doing: &'static str,
        /// The server's words.
        error: tokio_postgres::Error,
    },
    /// A batch could not be delivered.
    #[error("{failure} ({what}){}", Advice(.advice))]
    Delivery {
        /// The last failure.
        failure: Failure,
        /// Why there is no further try.
        what: String,
        /// What to do about it.
        advice: Option<&'static str>,
    },
    /// The ledger cannot be used.
    #[error("{0}")]
    Ledger(String),
    /// Input, table or options differ from what the ledger knows.
    #[error("{0}")]
    Changed(String),
    /// A newer run of the same import has taken over.
    #[error(
        "another run of import {0} has taken over; this one has stopped and commits nothing more"
    )]
    TakenOver(String),
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
    /// More bad rows than allowed.
    #[error(
        "more than {limit} rows are bad (--reject-limit); the first of the batch that passed the limit: {last}"
    )]
    RejectLimit {
        /// How many are allowed.
        limit: u64,
        /// A bad row of the batch that was too much.
        last: Box<Error>,
    },
    /// Nothing but bad rows from the start.
    #[error(
        "the first {records} rows are all refused for the same reason, so the fault lies with the table or the options, not with the rows: {first}"
    )]
    Rail {
        /// How many.
        records: usize,
        /// The first of them.
        first: Box<Error>,
    },
    /// Batches that should be on disk.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// Figures for machines.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted(i32),
    /// A result of the bench that cannot be.
    #[error("{0}")]
    Mismatch(String),
    /// A file or stream that pgrung writes.
    #[error("cannot write {name}: {source}")]
    Output {
        /// Where to.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        Error::Table(error)
    }
}

impl Error {
    /// The exit code that tells this error.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Usage(_) => Exit::Usage,
            Error::Connect(error) if error.is_usage() => Exit::Usage,
            Error::Connect(_) => Exit::Connect,
            Error::Table(TableError::Server(_)) => Exit::Failed,
            Error::Table(_) => Exit::Usage,
            Error::Input(InputError::OtherHeader { .. } | InputError::OtherFormat { .. }) => {
                Exit::Usage
            }
            Error::Input(_) | Error::Changed(_) => Exit::Input,
            Error::RejectLimit { .. } => Exit::RejectLimit,
            Error::Delivery {
                failure: Failure::Connect(error),
                ..
            } if error.is_usage() => Exit::Usage,
            Error::Delivery {
                failure: Failure::Connect(_),
                ..
            } => Exit::Connect,
            Error::Interrupted(signal) => Exit::Signal(*signal),
            Error::Embedded(_)
            | Error::Row(_)
            | Error::Server { .. }
            | Error::Delivery { .. }
            | Error::Ledger(_)
            | Error::TakenOver(_)
            | Error::Lost { .. }
            | Error::Rail { .. }
            | Error::Spill(_)
            | Error::Metrics(_)
            | Error::Mismatch(_)
            | Error::Output { .. } => Exit::Failed,
        }
    }

    /// Whether the same thing may succeed a little later: the connection or the server was lost.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Server { error, .. } => error.as_db_error().is_none_or(|server| {
                matches!(retry::action(server.code().code(), false), Action::Retry(_))
            }),
            Error::Connect(error) => {
                matches!(
                    error.last(),
                    ConnectError::Unreachable { .. }
                        | ConnectError::Timeout { .. }
                        | ConnectError::SessionAttributes { .. }
                ) || error.sqlstate().is_some_and(|code| {
                    matches!(retry::action(code.code(), false), Action::Retry(_))
                })
            }
            _ => false,
        }
    }

    /// The message with all its causes, in one line.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = inner.source();
        }
        server_error::one_line(&line)
    }
}

fn describe_table(error: &TableError) -> String {
    match error {
        TableError::Server(error) => {
            format!("reading the catalog: {}", server_error::describe(error))
        }
        other => other.to_string(),
    }
}

struct Advice<'a>(&'a Option<&'static str>);

impl fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
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
    pub fn new(
        source: &Arc<str>,
        target: &Target,
        batch: &Batch,
        index: usize,
        refusal: &Refusal,
    ) -> Self {
        RowError {
            source: source.clone(),
            position: batch.position(index),
            column: refusal.column_name(target).map(str::to_string),
            sqlstate: refusal.sqlstate.clone(),
            message: refusal.message.clone(),
        }
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
