//! What the exit codes say: the one table that the help, the README and the process take theirs
//! from.

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
    /// Finished, and rows of the input are not in the table.
    Rejected,
    /// A guard held.
    Guard,
    /// Cannot connect or log in.
    Connect,
    /// Input unreadable, truncated, or changed since the ledger knew it.
    Input,
    /// Another run has taken over.
    Overtaken,
    /// Stopped by this signal.
    Signal(i32),
}

impl Exit {
    /// Every way to end, as its code and what it means.
    pub const TABLE: [(Exit, &'static str); 10] = [
        (
            Exit::Loaded,
            "every row read is in the table as the mode says, now or by an earlier run",
        ),
        (Exit::Failed, "stopped by an error"),
        (Exit::Usage, "wrong usage or configuration"),
        (
            Exit::Rejected,
            "finished, some rows rejected, dropped, or kept out by a trigger",
        ),
        (
            Exit::Guard,
            "a guard held: too many bad rows, too few rows, too many to delete",
        ),
        (Exit::Connect, "cannot connect or log in"),
        (
            Exit::Input,
            "input unreadable, truncated, or changed since the ledger knew it",
        ),
        (Exit::Overtaken, "another run is at it"),
        (Exit::Signal(2), "interrupted; the printed command goes on"),
        (Exit::Signal(15), "terminated; the printed command goes on"),
    ];

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Loaded => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Rejected => 3,
            Exit::Guard => 4,
            Exit::Connect => 5,
            Exit::Input => 6,
            Exit::Overtaken => 7,
            Exit::Signal(signal) => u8::try_from(128 + signal).unwrap_or(1),
        }
    }

    /// The table as the end of a help text.
    pub fn help() -> String {
        let lines = Self::TABLE.map(|(exit, meaning)| format!("\n  {:<3}  {meaning}", exit.code()));
        format!("Exit codes:{}", lines.concat())
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_same_table() {
        let readme = include_str!("../README.md");
        let rows = Exit::TABLE.map(|(exit, meaning)| format!("| {} | {meaning} |\n", exit.code()));
        assert!(readme.contains(&rows.concat()), "{}", rows.concat());
    }
}
