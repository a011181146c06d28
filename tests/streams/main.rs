//! Streams: rows that arrive on stdin without an end, on a real server.
//!
//! Whatever the source, the server, the disk or a signal does, the conservation law holds: what was
//! written into the pipe is in the table, among the rejects, or counted as dropped; and a row waits
//! at most `--max-wait` plus the time of a commit as long as the server keeps up.
//!
//! Rows carry their number and the time at which they were written into the pipe; the server keeps
//! the time of each commit (`track_commit_timestamp`), so waits are measured row by row, without
//! asking the loader. `PGRUNG_TORTURE=1` pauses longer and tries more. Random tests print their
//! seed; `PGRUNG_SEED=...` repeats it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod closing;
mod crash;
mod delay;
mod disk;
mod log;
mod long;
mod metrics;
mod pause;
mod planning;
mod profiles;
mod sharing;
mod window;
