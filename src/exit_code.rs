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

    /// How bad an end is beside others: rows that wait for somebody, what another night mends, what
    /// does not work, what is not set up, what went wrong, who wants an end at once.
    fn badness(self) -> u8 {
        match self {
            Exit::Loaded => 0,
            Exit::Rejected => 1,
            Exit::Overtaken => 2,
            Exit::Guard => 3,
            Exit::Input => 4,
            Exit::Connect => 5,
            Exit::Usage => 6,
            Exit::Failed => 7,
            Exit::Signal(_) => 8,
        }
    }

    /// The worse of two ends, by which a run of several loads is told.
    #[must_use]
    pub fn worse(self, other: Exit) -> Exit {
        match other.badness() > self.badness() {
            true => other,
            false => self,
        }
    }

    /// Whether not all was done: rows put aside are no failure.
    pub fn is_failure(self) -> bool {
        self.badness() > Exit::Rejected.badness()
    }

    /// What the exit code of several loads is, as a part of a help text.
    pub fn help_of_several() -> String {
        let mut codes = Self::TABLE.map(|(exit, _)| exit);
        codes.sort_by_key(|exit| exit.badness());
        let codes = codes.map(|exit| exit.code().to_string());
        format!(
            "The exit code is that of the load that ended worst, from the best: {}",
            codes.join(", ")
        )
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

    #[test]
    fn of_several_ends_the_worst_is_told() {
        assert_eq!(Exit::Loaded.worse(Exit::Rejected), Exit::Rejected);
        assert_eq!(Exit::Failed.worse(Exit::Usage), Exit::Failed);
        assert_eq!(Exit::Signal(2).worse(Exit::Signal(15)), Exit::Signal(2));
        assert!(!Exit::Rejected.is_failure() && Exit::Overtaken.is_failure());
        assert!(Exit::help_of_several().ends_with("0, 3, 7, 4, 6, 5, 2, 1, 130, 143"));
    }
}
