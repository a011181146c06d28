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

/// A range of bytes of a source that is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    /// Byte behind the last one.
    pub end: u64,
    /// Number of its first record (1-based).
    pub first_record: u64,
    pub records: u64,
    /// Line breaks in it.
    pub lines: u64,
    /// What became of the records.
    pub tally: Tally,
    /// Of its bytes; `None` for those of a pgrung that could not keep it.
    pub checksum: Option<u64>,
}

impl Span {
    /// Where it is, for messages.
    pub fn place(&self) -> Extent {
        Extent {
            first_record: self.first_record,
            last_record: (self.first_record + self.records).saturating_sub(1),
            start: self.start,
            end: self.end,
        }
    }
}

/// Where a span is, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Number of its first record (1-based).
    pub first_record: u64,
    /// Number of its last record (1-based).
    pub last_record: u64,
    /// Its first byte in the uncompressed source (0-based).
    pub start: u64,
    /// Byte behind the last one.
    pub end: u64,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "records {} to {} (bytes {} to {})",
            self.first_record, self.last_record, self.start, self.end
        )
    }
}

/// What is committed of one source, in the order of its bytes.
pub type Known = Vec<Span>;
