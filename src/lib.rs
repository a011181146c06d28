//! pgrung loads rows from files or stdin into PostgreSQL through interchangeable strategies, and
//! compares those strategies on the same rows.
//!
//! The command `pgrung` is what most want; the library loads what a program has in hand:
//!
//! ```
//! use pgrung::{Control, Input, LoadSettings, load};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A server of its own for the example; `ConnectSettings::resolve` takes a connection string.
//! let private = tokio::task::spawn_blocking(|| pgrung::Embedded::start(Default::default())).await??;
//! let server = pgrung::ConnectSettings::from_config(private.config());
//! let client = pgrung::connect(&server).await?;
//! client.batch_execute("CREATE TABLE people (id int, name text)").await?;
//!
//! let rows = b"id,name\n1,Ann\n2,Bob\nthree,Cy\n";
//! let settings = LoadSettings {
//!     inputs: vec![Input::reader("people", &rows[..])],
//!     table: "people".to_string(),
//!     ..LoadSettings::default()
//! };
//! let outcome = load(&server, &settings, &Control::default()).await;
//! assert!(outcome.error.is_none());
//! let rows = outcome.summary.ok_or("nothing was loaded")?.rows;
//! assert_eq!((rows.read, rows.tally.loaded()), (3, 2));
//! # Ok(())
//! # }
//! ```
//!
//! # The way of a row
//!
//! One direction. Between the stages stand three hand-overs: chunks of a feed to its reader (where
//! a read may wait), a batch to a worker, and a piece of a batch to the connection. Only the second
//! holds more than a few hundred KiB.
//!
//! ```text
//! bytes -> record boundaries -> batch -> bounded queue -> worker: transaction { ledger, strategy } -> counters -> report
//! ```
//!
//! * `source` reads, unpacks and finds record boundaries; it never parses fields. `window` says
//!   when a `batch` closes.
//! * `queue` stands between readers and workers, and says what happens when it is full; with
//!   `--overflow spill` the batch goes through files on its way.
//! * `worker` takes a batch, parses its rows one by one and lets a `strategy` write them in one
//!   transaction with the `ledger`. `retry` says what a failure means.
//! * With `--map` the strategy writes a temporary table, from which one statement takes the rows on
//!   (`target::Landing`).
//! * With a mode other than append rows land in a staging table, and when all are there, `merge`
//!   brings them into their own; with `--merge batch` each batch is merged in its own transaction,
//!   from a temporary table or by INSERT ... ON CONFLICT (`target::Upsert`). With `pgrung check` all
//!   is staged, merged and rolled back.
//! * Of two runs of one job `ledger::Lease` lets one be at it; each transaction looks whether it
//!   still is.
//! * Batches never flow back; only empty buffers do. A fixed number of them is under way, so
//!   memory does not depend on the size of the input and a slow server stalls the reader.
//! * `load` puts the pieces together; `bench` runs the same rows through every strategy. `job`
//!   has the settings, of flags and of job files, `cli` the flags, `commands` what each command does with them.
//!
//! # A strategy of your own
//!
//! [`Strategy`] is the trait that the tool is built around: it writes the rows of a batch inside
//! the caller's transaction, so that ledger, retry and rejects are the same for all. This one
//! inserts each row with a statement of its own, as text:
//!
//! ```
//! use futures::future::{BoxFuture, FutureExt};
//! use pgrung::{Client, OwnStrategy, RowSlice, Strategy, Target, WriteError};
//! use std::sync::Arc;
//!
//! struct OneByOne(Arc<Target>);
//!
//! impl Strategy for OneByOne {
//!     fn write<'a>(
//!         &'a mut self,
//!         client: &'a Client,
//!         mut rows: RowSlice<'a>,
//!     ) -> BoxFuture<'a, Result<u64, WriteError>> {
//!         async move {
//!             let mut count = 0;
//!             while let Some(row) = rows.next_row() {
//!                 let values: Vec<String> = row
//!                     .fields()
//!                     .map(|field| match field {
//!                         None => "NULL".to_string(),
//!                         Some(text) => {
//!                             format!("'{}'", String::from_utf8_lossy(text).replace('\'', "''"))
//!                         }
//!                     })
//!                     .collect();
//!                 let sql = format!("{} VALUES ({})", self.0.insert_into(), values.join(", "));
//!                 count += client.execute(&sql, &[]).await?;
//!             }
//!             Ok(count)
//!         }
//!         .boxed()
//!     }
//! }
//!
//! # use pgrung::{Control, Input, LoadSettings, load};
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let private = tokio::task::spawn_blocking(|| pgrung::Embedded::start(Default::default())).await??;
//! # let server = pgrung::ConnectSettings::from_config(private.config());
//! # let client = pgrung::connect(&server).await?;
//! # client.batch_execute("CREATE TABLE people (id int, name text)").await?;
//! let settings = LoadSettings {
//!     inputs: vec![Input::reader("people", &b"id,name\n1,O'Hara\n2,\n"[..])],
//!     table: "people".to_string(),
//!     own_strategy: Some(OwnStrategy::new("one by one", OneByOne)),
//!     ..LoadSettings::default()
//! };
//! let outcome = load(&server, &settings, &Control::default()).await;
//! # if let Some(error) = outcome.error { return Err(error.into()); }
//! let row = client.query_one("SELECT string_agg(name, ', ') AS names FROM people", &[]).await?;
//! assert_eq!(row.get::<_, &str>("names"), "O'Hara");
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod batch;
mod bench;
mod cli;
mod commands;
mod connect;
mod embedded;
mod encode;
mod error;
mod exit_code;
mod faults;
mod job;
mod ledger;
mod load;
mod machine;
mod merge;
mod metrics;
mod outcome;
mod plan;
mod queue;
mod reject_file;
mod report;
mod retry;
mod server_error;
mod source;
mod span;
mod stop;
mod strategy;
mod target;
mod window;
mod worker;

pub use connect::{ConnectSettings, connect};
pub use embedded::{Embedded, EmbeddedOptions};
pub use exit_code::Exit;
pub use job::{Durability, LedgerUse, LoadSettings, Overlap};
pub use load::{Control, LoadEnd, load};
pub use merge::{Guards, MergeAt, Mode, Share, Superseded};
pub use outcome::{Outcome, Rows, Tally};
pub use queue::Overflow;
pub use report::{
    Batches, Bottleneck, Bound, Console, Filled, LatencyMillis, LeftOut, Lock, LogFormat,
    ProgressMode, Rehearsal, RejectReason, Summary,
};
pub use source::{Compression, Encoding, Format, Input, ReadOptions, Stream};
pub use stop::Stop;
pub use strategy::{
    CopyFormat, OwnStrategy, Pulse, Row, RowSlice, Strategy, StrategyKind, WriteError,
};
pub use target::{Column, Map, Target};
pub use tokio_postgres::Client;
pub use window::FlushReason;
pub use worker::{Commit, OnError, RetryLimits};

/// Why a load, or what it needs, ended early: one kind a stage of the way.
pub mod errors {
    pub use crate::connect::ConnectError;
    pub use crate::embedded::EmbeddedError;
    pub use crate::error::Error;
    pub use crate::job::SettingsError;
    pub use crate::ledger::LedgerError;
    pub use crate::merge::{Guard, MergeError};
    pub use crate::metrics::MetricsError;
    pub use crate::queue::SpillError;
    pub use crate::retry::Failure;
    pub use crate::source::{Change, FieldError, FieldErrorKind, InputError};
    pub use crate::span::{Extent, Position};
    pub use crate::target::{KeyError, MapError, TableError};
    pub use crate::worker::{DeliveryError, RowError};
}

/// What the program, the benches and the tests of this project use besides. It changes without
/// notice.
#[doc(hidden)]
pub mod internal {
    pub use crate::bench::{LINEITEM, write_lineitem};
    pub use crate::commands::main;
    pub use crate::connect::{Lent, Opener, Pool, pool};
    pub use crate::embedded::{Places, find_programs};
    pub use crate::encode::Encoder;
    pub use crate::source::{
        Dialect, KeyColumn, Keys, LineEnd, RowParser, Splitter, next_json_end,
    };
}
