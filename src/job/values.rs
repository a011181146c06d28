//! Values of settings that are neither numbers nor words of a list.

use std::str::FromStr;

use clap::ValueEnum;

use crate::source::{Compression, Format};

/// One ASCII character, or `tab`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Byte(pub u8);

/// `--quote`: one ASCII character, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote(pub Option<u8>);

/// Names written as one CSV record, so that a name may hold a comma.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

/// `--null-in`: COLUMN=TEXT; a name that holds an equals sign stands in double quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NullIn {
    pub column: String,
    pub text: String,
}

/// `--import-id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportId(pub String);

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatChoice {
    Auto,
    Csv,
    Tsv,
    Ndjson,
}

/// `--compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompressionChoice {
    Auto,
    None,
    Gzip,
    Zstd,
    Lz4,
    Bzip2,
    Xz,
}

/// `--on-error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnErrorChoice {
    Reject,
    Stop,
}

impl FormatChoice {
    /// `None`: as the file looks.
    pub fn format(self) -> Option<Format> {
        match self {
            FormatChoice::Auto => None,
            FormatChoice::Csv => Some(Format::Csv),
            FormatChoice::Tsv => Some(Format::Tsv),
            FormatChoice::Ndjson => Some(Format::Ndjson),
        }
    }
}

impl CompressionChoice {
    /// `None`: as the file looks.
    pub fn compression(self) -> Option<Compression> {
        match self {
            CompressionChoice::Auto => None,
            CompressionChoice::None => Some(Compression::None),
            CompressionChoice::Gzip => Some(Compression::Gzip),
            CompressionChoice::Zstd => Some(Compression::Zstd),
            CompressionChoice::Lz4 => Some(Compression::Lz4),
            CompressionChoice::Bzip2 => Some(Compression::Bzip2),
            CompressionChoice::Xz => Some(Compression::Xz),
        }
    }
}

impl FromStr for Byte {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            _ if matches!(text, "tab" | "\\t") => Ok(Byte(b'\t')),
            [byte] if *byte != b'\n' && *byte != b'\r' && byte.is_ascii() => Ok(Byte(*byte)),
            _ => Err("one ASCII character is needed, or \"tab\"".to_string()),
        }
    }
}

impl FromStr for Quote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" | "" => Ok(Quote(None)),
            _ => text.parse().map(|Byte(byte)| Quote(Some(byte))),
        }
    }
}

impl FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut records = reader.records();
        match (records.next(), records.next()) {
            (Some(Ok(record)), None) => Ok(Names(record.iter().map(str::to_string).collect())),
            _ => Err("a list of column names separated by commas is needed".to_string()),
        }
    }
}

impl FromStr for NullIn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let quoted = text
            .strip_prefix('"')
            .and_then(|rest| rest.split_once("\"="));
        match quoted.or_else(|| text.split_once('=')) {
            Some((column, text)) => Ok(NullIn {
                column: column.to_string(),
                text: text.to_string(),
            }),
            None => Err("a column, an equals sign and a text are needed".to_string()),
        }
    }
}

impl FromStr for ImportId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("an id is needed".to_string()),
            _ if text.chars().any(char::is_control) => {
                Err("an id takes no control characters".to_string())
            }
            _ => Ok(ImportId(text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_names_is_one_csv_record() {
        let names: Names = "a,\"b,c\", D".parse().unwrap();
        assert_eq!(names.0, ["a", "b,c", "D"]);
        assert!("a\nb".parse::<Names>().is_err());
    }

    #[test]
    fn what_is_null_in_a_column_stands_behind_the_first_equals_sign_outside_quotes() {
        for (typed, column, text) in [
            ("a=NA", "a", "NA"),
            ("a=", "a", ""),
            ("a=b=c", "a", "b=c"),
            ("a b= \\N", "a b", " \\N"),
            ("\"a=b\"=c", "a=b", "c"),
        ] {
            let [column, text] = [column, text].map(str::to_string);
            assert_eq!(typed.parse(), Ok(NullIn { column, text }));
        }
        assert!("a".parse::<NullIn>().is_err());
    }

    #[test]
    fn a_byte_is_one_ascii_character_or_tab() {
        assert_eq!("tab".parse(), Ok(Byte(b'\t')));
        assert_eq!(";".parse(), Ok(Byte(b';')));
        assert!("::".parse::<Byte>().is_err() && "é".parse::<Byte>().is_err());
        assert_eq!("none".parse(), Ok(Quote(None)));
    }
}
