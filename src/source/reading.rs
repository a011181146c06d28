//! How the records of an import are read, as the ledger and the spill keep it: all that decides
//! which rows come out of the same bytes.

use serde::{Deserialize, Serialize};

use crate::reject_file::RejectLayout;

use super::csv::Dialect;
use super::encoding::Encoding;
use super::line_end::LineEnd;

/// How records are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "format",
    rename_all = "snake_case",
    rename_all_fields = "snake_case",
    deny_unknown_fields
)]
pub enum Reading {
    /// Delimited text, whatever its delimiter.
    Csv {
        delimiter: char,
        quote: Option<char>,
        /// Before a quote within quotes.
        escape: char,
        /// The unquoted field that means NULL.
        null: String,
        /// Whether the first record names the columns.
        header: bool,
        /// `\r` or not: between `\n` and `\r\n` each file may differ, so a record tells itself.
        line_end: LineEnd,
        /// Columns, each with an unquoted field that means NULL in it, and `null` no more.
        #[serde(default)]
        null_in: Vec<(String, String)>,
        /// Fields that go to no column, in their order.
        #[serde(default)]
        skip: Vec<Skipped>,
        #[serde(default)]
        encoding: Encoding,
    },
    /// One JSON object a line.
    Ndjson {
        /// Keys that mean no column.
        #[serde(default)]
        skip: Vec<String>,
        #[serde(default)]
        encoding: Encoding,
    },
}

/// A field that goes to no column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name in the input.
    pub name: String,
    /// Its place in the record (0-based).
    pub field: usize,
}

/// What becomes of the fields of a record beside that they go to columns.
#[derive(Debug, Clone, Default)]
pub struct FieldRules {
    /// Fields that go to no column, in their order; of JSON lines only the names count.
    pub skip: Vec<Skipped>,
    /// Columns, each with an unquoted field that means NULL in it.
    pub null_in: Vec<(String, String)>,
}

impl Reading {
    pub(super) fn delimited(
        dialect: &Dialect,
        encoding: Encoding,
        header: bool,
        rules: FieldRules,
    ) -> Self {
        Reading::Csv {
            delimiter: char::from(dialect.delimiter),
            quote: dialect.quote.map(char::from),
            escape: char::from(dialect.escape),
            null: encoding.guess(&dialect.null).into_owned(),
            header,
            line_end: match dialect.line_end {
                LineEnd::Cr => LineEnd::Cr,
                LineEnd::Lf | LineEnd::CrLf => LineEnd::Lf,
            },
            null_in: rules.null_in,
            skip: rules.skip,
            encoding,
        }
    }

    pub(super) fn ndjson(encoding: Encoding, rules: FieldRules) -> Self {
        let skip = rules.skip.into_iter().map(|skipped| skipped.name);
        Reading::Ndjson {
            skip: skip.collect(),
            encoding,
        }
    }

    /// What text is written in.
    pub(super) fn encoding(&self) -> Encoding {
        match self {
            Reading::Csv { encoding, .. } | Reading::Ndjson { encoding, .. } => *encoding,
        }
    }

    /// Fields of a record of which `columns` go to columns.
    pub fn field_count(&self, columns: usize) -> usize {
        match self {
            Reading::Csv { skip, .. } => columns + skip.len(),
            Reading::Ndjson { .. } => columns,
        }
    }

    /// The names of all fields in their order; `columns` are those that go to columns.
    pub fn field_names(&self, columns: &[String]) -> Vec<String> {
        let mut names = columns.to_vec();
        if let Reading::Csv { skip, .. } = self {
            for Skipped { name, field } in skip {
                names.insert(names.len().min(*field), name.clone());
            }
        }
        names
    }

    /// Keys of JSON lines that mean no column.
    pub(super) fn skipped_keys(&self) -> &[String] {
        match self {
            Reading::Csv { .. } => &[],
            Reading::Ndjson { skip, .. } => skip,
        }
    }

    /// Of each field of a record with `fields` of them, whether it goes to a column; empty if all do.
    pub(super) fn kept(&self, fields: usize) -> Vec<bool> {
        match self {
            Reading::Csv { skip, .. } if !skip.is_empty() => {
                let is_skipped = |place| skip.iter().any(|skipped| skipped.field == place);
                (0..fields).map(|place| !is_skipped(place)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What is NULL in each field of a record of which `columns` go to columns; empty if that is the
    /// same in all of them.
    pub(super) fn nulls(&self, columns: &[String]) -> Vec<Vec<Vec<u8>>> {
        let Reading::Csv { null, null_in, .. } = self else {
            return Vec::new();
        };
        if null_in.is_empty() {
            return Vec::new();
        }
        let bytes = |text: &str| self.encoding().encode(text).into_owned();
        let of = |name: &String| {
            let own = null_in.iter().filter(|(column, _)| column == name);
            let own: Vec<Vec<u8>> = own.map(|(_, text)| bytes(text)).collect();
            match own.is_empty() {
                true => vec![bytes(null)],
                false => own,
            }
        };
        self.field_names(columns).iter().map(of).collect()
    }

    /// The dialect of delimited text whose records have `fields` fields; `None` for JSON lines.
    pub(super) fn dialect(&self, fields: usize) -> Option<Dialect> {
        let Reading::Csv {
            delimiter,
            quote,
            escape,
            null,
            line_end,
            ..
        } = self
        else {
            return None;
        };
        // The command line takes single ASCII characters only.
        let byte = |character: char| u8::try_from(character).unwrap_or(b',');
        Some(Dialect {
            delimiter: byte(*delimiter),
            quote: quote.map(byte),
            escape: byte(*escape),
            null: self.encoding().encode(null).into_owned(),
            line_end: *line_end,
            skip_blank: fields != 1,
        })
    }

    /// Whether the first record names the columns.
    pub fn has_header(&self) -> bool {
        matches!(self, Reading::Csv { header: true, .. })
    }

    /// How a file of its records is written; `names` are those of its header, none for none.
    pub fn reject_layout(&self, names: &[String]) -> RejectLayout {
        let line_end = match self {
            Reading::Csv { line_end, .. } => *line_end,
            Reading::Ndjson { .. } => LineEnd::Lf,
        };
        RejectLayout {
            header: self.header_line(names),
            line_end: line_end.bytes(),
        }
    }

    /// The header line that makes a file of records out of records, without its end; empty where
    /// there is none.
    fn header_line(&self, names: &[String]) -> Vec<u8> {
        let Some(dialect) = self.dialect(names.len()).filter(|_| !names.is_empty()) else {
            return Vec::new();
        };
        let mut line = Vec::new();
        for name in names {
            if !line.is_empty() {
                line.push(dialect.delimiter);
            }
            line.extend(dialect.quote);
            for &byte in self.encoding().encode(name).iter() {
                if dialect.quote.is_some()
                    && (Some(byte) == dialect.quote || byte == dialect.escape)
                {
                    line.push(dialect.escape);
                }
                line.push(byte);
            }
            line.extend(dialect.quote);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect() -> Dialect {
        Dialect {
            delimiter: b';',
            escape: b'\\',
            line_end: LineEnd::Cr,
            null: b"NA".to_vec(),
            ..Dialect::default()
        }
    }

    #[test]
    fn a_dialect_comes_back_from_what_the_ledger_keeps() {
        let skipped = Skipped {
            name: "x".to_string(),
            field: 1,
        };
        let rules = FieldRules {
            skip: vec![skipped],
            null_in: vec![("b".to_string(), "-".to_string())],
        };
        let reading = Reading::delimited(&dialect(), Encoding::UTF_8, true, rules);
        let json = serde_json::json!(reading);
        assert_eq!(
            json,
            serde_json::json!({
                "format": "csv", "delimiter": ";", "quote": "\"", "escape": "\\", "null": "NA",
                "header": true, "line_end": "cr", "null_in": [["b", "-"]],
                "skip": [{"name": "x", "field": 1}],
                "encoding": "UTF-8"
            })
        );
        let back: Reading = serde_json::from_value(json).unwrap();
        assert_eq!(back, reading);
        assert_eq!(back.dialect(2), Some(dialect()));
        let names = ["a", "b"].map(str::to_string);
        assert_eq!(back.field_names(&names), ["a", "x", "b"]);
        assert_eq!(back.kept(3), [true, false, true]);
        let nulls = [b"NA".to_vec(), b"NA".to_vec(), b"-".to_vec()];
        assert_eq!(back.nulls(&names), nulls.map(|null| vec![null]));
    }

    #[test]
    fn what_an_older_pgrung_kept_skips_nothing_and_is_utf8() {
        let now = Reading::ndjson(Encoding::UTF_8, FieldRules::default());
        let then: Reading = serde_json::from_str(r#"{"format": "ndjson"}"#).unwrap();
        assert_eq!(then, now);
    }

    #[test]
    fn what_is_missing_or_unknown_is_no_default() {
        for json in [
            r#"{"format": "csv", "delimiter": ","}"#,
            r#"{"format": "parquet"}"#,
            r#"{"delimiter": ","}"#,
        ] {
            assert!(serde_json::from_str::<Reading>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_header_line_is_quoted_as_its_dialect_quotes() {
        let names = ["a".to_string(), "b\"c".to_string()];
        let rules = FieldRules::default();
        let utf8 = Encoding::UTF_8;
        let line = Reading::delimited(&dialect(), utf8, true, rules.clone()).header_line(&names);
        assert_eq!(line, b"\"a\";\"b\\\"c\"");
        assert!(Reading::ndjson(utf8, rules).header_line(&names).is_empty());
    }
}
