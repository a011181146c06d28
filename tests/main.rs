//! The command and the library on real servers.
//!
//! One binary, so that all tests share one private server; what needs a server of its own (TLS,
//! crashes, a full disk) starts one. What a machine may lack is named where a test is ignored;
//! `make test` runs those tests too where it is there. Random tests print their seed;
//! `PGRUNG_SEED=...` repeats it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod bench;
mod encode;
mod faults;
mod house;
mod jobs;
mod loads;
mod poolers;
mod streams;
