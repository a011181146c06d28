//! What the exit code says.

use std::process::ExitCode;

/// How a run ended, as its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every row read is loaded, now or by an earlier run.
    Loaded,
    /// Stopped by an error.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// Finished, some rows rejected or dropped.
    Rejected,
    /// The reject limit was reached.
    RejectLimit,
    /// Cannot connect or log in.
    Connect,
    /// Input unreadable, truncated, or changed since the ledger knew it.
    Input,
    /// Stopped by this signal.
    Signal(i32),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Loaded => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Rejected => 3,
            Exit::RejectLimit => 4,
            Exit::Connect => 5,
            Exit::Input => 6,
            Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}
