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

pub use address::address;
pub use exposition::{CONTENT_TYPE, render};
pub use server::{Listener, listen};
pub use textfile::write_textfile;

/// All figures of a load at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub info: Info,
    pub rows_read: u64,
    /// Rows so far, by the name of what became of them.
    pub rows: Vec<(&'static str, u64)>,
    /// Batches committed, by the name of why they were closed.
    pub batches: Vec<(&'static str, u64)>,
    /// Bytes taken from the sources, as stored.
    pub bytes_read: u64,
    /// Uncompressed bytes of committed batches.
    pub bytes_committed: u64,
    /// Uncompressed bytes of batches thrown away because the server was too slow.
    pub bytes_dropped: u64,
    /// Compressed bytes ever written to the spill.
    pub bytes_spilled: u64,
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
    pub version: String,
    /// The import in the ledger; `None` without a ledger.
    pub import_id: Option<String>,
    /// Schema and table, quoted.
    pub table: String,
    pub strategy: String,
}

/// Times of many events. While `count` is 0 the quantiles mean nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    pub count: u64,
    /// Their times added up, in seconds.
    pub sum_seconds: f64,
    pub p50_seconds: f64,
    /// 99 of 100 stayed below it, in seconds.
    pub p99_seconds: f64,
}

/// Why metrics cannot be given out.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address is taken, or not of this machine.
    #[error("--metrics {address}: cannot listen: {source}; name a free port of this machine")]
    Listen {
        /// `--metrics`.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be written or replaced.
    #[error("--metrics-file {}: {source}; the directory must exist and be writable", .path.display())]
    Write {
        /// `--metrics-file`.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
