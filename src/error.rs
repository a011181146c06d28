//! Everything that can end a load, with its exit code.

use std::io;
use std::time::Duration;

use crate::connect::ConnectError;
use crate::embedded::EmbeddedError;
use crate::exit_code::Exit;
use crate::job::SettingsError;
use crate::ledger::LedgerError;
use crate::merge::{Guard, MergeError};
use crate::metrics::MetricsError;
use crate::queue::SpillError;
use crate::retry::{self, Failure, Pace};
use crate::server_error;
use crate::source::InputError;
use crate::stop::Stop;
use crate::target::{KeyError, MapError, TableError};
use crate::worker::DeliveryError;

/// Why a load ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings make no sense, or not for this table.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No session on the server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A source.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The target.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The expressions of columns.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Batches are not delivered.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// Batches that should be on disk.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// Batches that an earlier run left on disk are not what was written.
    #[error("{0}")]
    Leftover(String),
    /// Figures for machines.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The server refused something that is not about a row.
    #[error("{doing}: {}{}", server_error::describe(.error), advice(.error))]
    Server {
        /// What was being done.
        doing: &'static str,
        /// The server's words.
        error: tokio_postgres::Error,
    },
    /// The server did not answer in time.
    #[error("{doing}: no answer from the server within {limit:?} (--answer-timeout)")]
    NoAnswer {
        /// What was being done.
        doing: &'static str,
        /// How long was waited.
        limit: Duration,
    },
    /// The key by which rows are the same.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Staged rows cannot be merged.
    #[error("merging the staged rows: {0}")]
    Merge(MergeError),
    /// A guard held.
    #[error("{guard}; {consequence}")]
    Guard {
        /// Which.
        guard: Guard,
        /// What that means for the table.
        consequence: &'static str,
    },
    /// Another run of the job is at it.
    #[error("job {job}: another run is at it: {holder}")]
    Overlap {
        /// The job.
        job: String,
        /// Who.
        holder: String,
    },
    /// A private server.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// A run of the bench whose result cannot be.
    #[error("{0}")]
    BenchMismatch(String),
    /// The rows read are not those accounted for: a defect of pgrung.
    #[error("the rows do not balance: {0}; please report this")]
    Unbalanced(String),
    /// A thread or task of pgrung has panicked.
    #[error("{what} ended unexpectedly: {panic}; please report this")]
    Panic {
        /// Which.
        what: &'static str,
        /// What it said.
        panic: String,
    },
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted(i32),
    /// A program that is told how a run was.
    #[error("{0}")]
    Hook(String),
    /// A file or stream that pgrung writes.
    #[error("cannot write {name}: {source}")]
    Output {
        /// Where to.
        name: String,
        /// What the system says.
        source: io::Error,
    },
}

impl Error {
    /// A stop that was asked for; without a signal it counts as SIGTERM.
    pub(crate) fn interrupted(stop: &Stop) -> Error {
        Error::Interrupted(stop.signal().unwrap_or(15))
    }

    pub(crate) fn panic(what: &'static str) -> impl Fn(tokio::task::JoinError) -> Error {
        move |panic| Error::Panic {
            what,
            panic: panic.to_string(),
        }
    }

    pub(crate) fn server(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Error {
        move |error| Error::Server { doing, error }
    }

    /// The exit code that tells this error.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Settings(_) => Exit::Usage,
            Error::Connect(error) => connecting(error),
            Error::Table(TableError::Server(_) | TableError::Gone(_)) => Exit::Failed,
            Error::Table(_) => Exit::Usage,
            Error::Input(
                InputError::OtherHeader { .. }
                | InputError::OtherFormat { .. }
                | InputError::Dialect { .. },
            ) => Exit::Usage,
            Error::Input(_) => Exit::Input,
            Error::Ledger(error) | Error::Delivery(DeliveryError::Ledger(error)) => ledger(error),
            Error::Delivery(DeliveryError::RejectLimit { .. }) | Error::Guard { .. } => Exit::Guard,
            Error::Key(KeyError::Server(_))
            | Error::Map(
                MapError::Server(_) | MapError::Table(TableError::Server(_) | TableError::Gone(_)),
            ) => Exit::Failed,
            Error::Key(_) | Error::Map(_) => Exit::Usage,
            Error::Overlap { .. } => Exit::Overtaken,
            Error::Delivery(DeliveryError::GaveUp {
                failure: Failure::Connect(error),
                ..
            }) => connecting(error),
            Error::Interrupted(signal) => Exit::Signal(*signal),
            Error::Delivery(_)
            | Error::Spill(_)
            | Error::Leftover(_)
            | Error::Metrics(_)
            | Error::Server { .. }
            | Error::Merge(_)
            | Error::NoAnswer { .. }
            | Error::Embedded(_)
            | Error::BenchMismatch(_)
            | Error::Unbalanced(_)
            | Error::Panic { .. }
            | Error::Hook(_)
            | Error::Output { .. } => Exit::Failed,
        }
    }

    /// How soon and how often the same thing is worth another try: the connection or the server was
    /// lost, or is busy. `None`: never.
    pub(crate) fn pace(&self) -> Option<Pace> {
        match self {
            Error::Server { error, .. }
            | Error::Table(TableError::Server(error))
            | Error::Map(MapError::Server(error) | MapError::Table(TableError::Server(error)))
            | Error::Key(KeyError::Server(error)) => retry::pace(error),
            Error::Merge(MergeError::Failed(failure)) => failure.action().pace(),
            Error::NoAnswer { .. } => Some(Pace::Backoff),
            Error::Connect(error) => retry::connecting_pace(error),
            Error::Ledger(error) => error.pace(),
            Error::Delivery(DeliveryError::GaveUp { failure, .. }) => failure.action().pace(),
            _ => None,
        }
    }

    /// Whether the same thing may succeed a little later: the connection or the server was lost.
    pub fn may_pass(&self) -> bool {
        self.pace().is_some()
    }

    /// The message with all its causes, in one line.
    pub fn chain(&self) -> String {
        server_error::chain(self)
    }
}

fn advice(error: &tokio_postgres::Error) -> String {
    let advice = error
        .code()
        .and_then(|code| retry::pooler_advice(code.code()));
    advice.map_or_else(String::new, |advice| format!("; {advice}"))
}

fn connecting(error: &ConnectError) -> Exit {
    if error.is_usage() {
        Exit::Usage
    } else {
        Exit::Connect
    }
}

fn ledger(error: &LedgerError) -> Exit {
    match error {
        LedgerError::Changed(_) => Exit::Input,
        LedgerError::UnknownImport(_) => Exit::Usage,
        LedgerError::TakenOver(_) => Exit::Overtaken,
        LedgerError::Connect(error) => connecting(error),
        LedgerError::Server { .. }
        | LedgerError::Sql { .. }
        | LedgerError::NoAnswer(_)
        | LedgerError::Unusable(_)
        | LedgerError::Held { .. }
        | LedgerError::Elsewhere(_)
        | LedgerError::Lost { .. } => Exit::Failed,
    }
}
