//! The text of a job file, and where in it something is wrong.

use std::fmt::Display;
use std::path::Path;

use crate::job::SettingsError;

/// A job file as it was read.
pub struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Text<'a> {
    pub fn new(path: &'a Path, text: &'a str) -> Self {
        Text { path, text }
    }

    /// `FILE:LINE:COLUMN` of a byte (0-based); lines and columns start at 1, columns are characters.
    pub fn place(&self, at: usize) -> String {
        let before = self.text.get(..at).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[start..].chars().count() + 1;
        format!("{}:{line}:{column}", self.path.display())
    }

    /// What is wrong at a byte.
    pub fn error(&self, at: usize, what: impl Display) -> SettingsError {
        SettingsError(format!("{}: {what}", self.place(at)))
    }

    /// What stands there, in one line.
    pub fn typed(&self, span: std::ops::Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_start_at_1_and_columns_are_characters() {
        let text = Text::new(Path::new("a.toml"), "a = 1\nä = \"é\"\r\nb");
        for (at, place) in [
            (0, "1:1"),
            (6, "2:1"),
            (12, "2:6"),
            (17, "3:1"),
            (99, "3:2"),
        ] {
            assert_eq!(text.place(at), format!("a.toml:{place}"), "{at}");
        }
    }
}
