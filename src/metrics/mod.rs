//! Tells machines what a running load has counted: the figures of the summary as Prometheus
//! metrics, over HTTP or in a file.
//!
//! Names begin with `pgrung_`, counters end in `_total`, times are in seconds and sizes in bytes,
//! as the Prometheus naming conventions ask. [`Snapshot`] is one look at all figures;
//! [`render`] writes it in the text exposition format 0.0.4.

mod address;
mod exposition;
mod server;
mod textfile;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::report::Rows;

pub use address::address;
pub use exposition::{CONTENT_TYPE, render};
pub use server::serve;
pub use textfile::write_textfile;

/// All figures of a load at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the load is.
    pub info: Info,
    /// Where the rows went so far.
    pub rows: Rows,
    /// Batches committed, by why they were closed, in the order of
    /// [`FlushReason::ALL`](crate::window::FlushReason::ALL).
    pub batches: [u64; 4],
    /// Bytes taken from the sources, as stored.
    pub bytes_read: u64,
    /// Uncompressed bytes of committed batches.
    pub bytes_committed: u64,
    /// Uncompressed bytes of batches thrown away because the server was too slow.
    pub bytes_dropped: u64,
    /// Compressed bytes ever written to the spill.
    pub bytes_spilled: u64,
    /// Transactions repeated.
    pub retries: u64,
    /// Batches that wait for a worker now.
    pub queue_depth: u64,
    /// Batches that may wait for a worker.
    pub queue_capacity: u64,
    /// Batches in the spill now.
    pub spill_batches: u64,
    /// Bytes that the files of the spill take now.
    pub spill_bytes: u64,
    /// How full the batches were on average, 0 to 1 of the nearest limit.
    pub fill_mean: f64,
    /// From BEGIN to the answer to COMMIT.
    pub commit: Timing,
    /// From the first row of a batch to its commit.
    pub wait: Timing,
}

/// What a load is; it does not change while it runs.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// Version of pgrung.
    pub version: String,
    /// The import in the ledger; `None` without a ledger.
    pub import_id: Option<String>,
    /// Schema and table, quoted.
    pub table: String,
    /// The strategy.
    pub strategy: String,
}

/// Times of many events. While `count` is 0 the quantiles mean nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Events.
    pub count: u64,
    /// Their times added up, in seconds.
    pub sum_seconds: f64,
    /// Median in seconds.
    pub p50_seconds: f64,
    /// 99 of 100 stayed below it, in seconds.
    pub p99_seconds: f64,
}

/// Why metrics cannot be given out.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address cannot be listened at.
    #[error("--metrics {address}: cannot listen: {source}; name a free port of this machine")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("--metrics-file {}: {source}; the directory must exist and be writable", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
