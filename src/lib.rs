//! pgrung loads rows from files or stdin into PostgreSQL through interchangeable strategies, and
//! compares those strategies on the same rows.
//!
//! # The way of a row
//!
//! One direction, two hand-overs:
//!
//! ```text
//! bytes -> record boundaries -> batch -> bounded channel -> worker: transaction { strategy } -> counters -> report
//! ```
//!
//! * `source` reads, decompresses and finds record boundaries; it never parses fields. `window`
//!   says when a `batch` closes.
//! * `worker` takes a batch, parses its rows one by one and lets a `strategy` write them in one
//!   transaction. `retry` says what a failure means.
//! * Batches never flow back; only empty buffers do. A fixed number of them is under way, so
//!   memory does not depend on the size of the input and a slow server stalls the reader.
//! * `load` puts the pieces together; `bench` runs the same rows through every strategy.
#![deny(missing_docs)]

mod batch;
mod bench;
mod cli;
mod connect;
mod embedded;
mod encode;
mod error;
mod exit_code;
mod faults;
mod ledger;
mod load;
mod machine;
mod metrics;
mod overflow;
mod plan;
mod rejects;
mod report;
mod retry;
mod run;
mod server_error;
mod source;
mod spill;
mod stop;
mod strategy;
mod table;
mod window;
mod worker;

pub use batch::Batch;
pub use bench::{BenchPlan, LINEITEM, write_lineitem};
pub use cli::{Cli, Command};
pub use connect::{ConnectError, ConnectSettings, connect, pool};
pub use embedded::{Embedded, EmbeddedError, EmbeddedOptions, Places, find_programs};
pub use encode::Encoder;
pub use error::Error;
pub use exit_code::Exit;
pub use load::{Durability, LedgerUse, LoadPlan, Outcome, load};
pub use overflow::Overflow;
pub use report::{Console, ProgressMode, Rows, Summary};
pub use run::run;
pub use source::{
    Dialect, Format, Input, InputError, Keys, Position, ReadOptions, RowParser, Splitter,
    next_json_end,
};
pub use stop::Stop;
pub use strategy::{CopyFormat, StrategyKind};
pub use window::{Fill, FlushReason, Window};
pub use worker::{Commit, OnError, Patience};
