//! How the lines of delimited text end.

use serde::{Deserialize, Serialize};

/// How lines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineEnd {
    /// `\n`, with or without `\r` before it.
    Lf,
    /// `\r\n` and nothing else.
    CrLf,
    /// A lone `\r`, the line end of old.
    Cr,
}

impl LineEnd {
    /// Its bytes.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            LineEnd::Lf => b"\n",
            LineEnd::CrLf => b"\r\n",
            LineEnd::Cr => b"\r",
        }
    }

    /// Its last byte.
    pub fn last(self) -> u8 {
        match self {
            LineEnd::Lf | LineEnd::CrLf => b'\n',
            LineEnd::Cr => b'\r',
        }
    }

    /// Whether its last byte, at `found`, ends a line; `None` if only the next byte can tell.
    #[inline]
    pub(super) fn is_at(self, bytes: &[u8], found: usize) -> Option<bool> {
        match self {
            LineEnd::Lf => Some(true),
            LineEnd::CrLf => Some(found > 0 && bytes[found - 1] == b'\r'),
            LineEnd::Cr => bytes.get(found + 1).map(|next| *next != b'\n'),
        }
    }
}
