//! Streams: rows that arrive on stdin without an end, on a real server.
//!
//! Whatever the source, the server, the disk or a signal does, the conservation law holds: what was
//! written into the pipe is in the table, among the rejects, or counted as dropped. No test asserts
//! how long anything took: two cores run all tests. `PGRUNG_TORTURE=1` pauses longer and tries more.

mod closing;
mod crash;
mod delay;
mod disk;
mod log;
mod long;

mod metrics;
mod overflow;
mod pause;
mod planning;
mod profiles;
mod sharing;
mod window;
