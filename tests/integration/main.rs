//! The command and the library on real servers.
//!
//! One binary, so that all tests share one private server. What needs another server (TLS, a stop
//! in the middle of a load) starts its own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod bench;
mod connect;
mod embedded;
mod errors;
mod fixtures;
mod help;
mod interrupts;
mod ledger;
mod loads;
mod memory;
mod once;
mod streams;
