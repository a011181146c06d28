//! The fault bench: whatever dies, every row is in the table exactly once, or explained.
//!
//! Each test makes an input with a unique id, a payload and a planned fate for each row, and loads
//! it into a table without a unique key, so that a row stored twice shows. After every fault and
//! resume the checker (`support::case`) compares: table plus rejects with the input, the rejects
//! with the planted ones, the sums of the ledger, the report and the exit code, and looks for
//! sessions left over on the server. `sabotage` takes one safeguard after the other away and proves
//! that the bench notices.
//!
//! `PGRUNG_TORTURE=1` (`make torture`) tries far more of each fault. Random tests print their seed;
//! `PGRUNG_SEED=...` repeats it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod commits;
mod compaction;
mod cuts;
mod ends;
mod head;
mod holders;
mod kills;
mod poison;
mod replay;
mod resources;
mod resume;
mod sabotage;
mod standing;
mod starts;
