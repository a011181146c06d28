//! Loads of files, what they leave, and what they say.

mod completions;
mod connect;
mod copy_format;
mod dsn_files;
mod embedded;
mod errors;
mod fields;
mod fixtures;
pub mod help;
mod interrupts;
mod keys;
mod known;
mod ledger;
mod line_ends;
mod man;
mod memory;
mod mistakes;
mod once;
mod progress;
mod rejects;
mod rungs;
mod services;
mod sessions;
mod successes;
