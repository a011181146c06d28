//! Where bytes and records lie in the uncompressed bytes of a source.

use std::fmt;

use crate::outcome::Tally;

/// A place in a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it (0-based).
    pub byte: u64,
    /// Number of the record (1-based, the header not counted).
    pub record: u64,
    /// Number of the line (1-based, the header counted).
    pub line: u64,
}

impl Position {
    /// Where every source begins.
    pub const START: Position = Position {
        byte: 0,
        record: 1,
        line: 1,
    };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}, line {}", self.record, self.line)
    }
}

/// A stretch of a source that is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    /// Byte behind the last one.
    pub end: u64,
    pub records: u64,
    /// Line breaks in it.
    pub lines: u64,
    /// What became of the records.
    pub tally: Tally,
    /// XXH3-128 of the bytes; unknown for merged spans.
    pub checksum: Option<String>,
}

/// What is committed of one source, in the order of its bytes.
pub type Known = Vec<Span>;
