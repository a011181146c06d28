//! How delimited text is written, and the fields of its records.
//!
//! Records follow RFC 4180 with the delimiter, quote, escape and null string of the dialect.
//! Where the RFC is silent:
//!
//! * A quote opens a quoted section only at the start of a field. A quote inside an unquoted field
//!   is refused: COPY and most other readers disagree about what it means.
//! * Text between a closing quote and the delimiter is kept, as COPY and the csv crate do.
//! * The first line tells how lines end: `\n`, `\r\n` or a lone `\r`. A line break of another kind
//!   outside quotes ends no record and refuses the one it stands in, as COPY refuses the file; only
//!   where lines end in `\n`, a `\r\n` ends one too, because no value can be meant by it.
//! * Blank lines are skipped, except in input of one column, where they are an empty field.
//! * An escape other than the quote works as in COPY: inside quotes, before a quote or an escape.

use std::ops::Range;

use memchr::{memchr, memchr2};

use super::fields::{FieldError, FieldErrorKind, Fields};
use super::line_end::LineEnd;
use super::scan::Places;

/// How delimited text is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// Between two fields; one byte.
    pub delimiter: u8,
    /// Around a field; `None`: quotes are ordinary text.
    pub quote: Option<u8>,
    /// Before a quote within a quoted field; the quote itself by default.
    pub escape: u8,
    /// The unquoted field that means NULL.
    pub null: Vec<u8>,
    /// How lines end.
    pub line_end: LineEnd,
    /// Whether blank lines are no records; set when more than one column is expected.
    pub skip_blank: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Dialect {
            delimiter: b',',
            quote: Some(b'"'),
            escape: b'"',
            null: Vec::new(),
            line_end: LineEnd::Lf,
            skip_blank: true,
        }
    }
}

/// Cuts one record into `fields`. `record` may carry blank lines in front and a line end.
///
/// # Errors
/// The first thing in the record that has no agreed meaning.
#[inline]
pub fn parse(dialect: &Dialect, record: &[u8], fields: &mut Fields) -> Result<(), FieldError> {
    let null = &dialect.null[..];
    cut(dialect, record, fields, |_, text| {
        text.len() == null.len() && text == null
    })
}

/// The same, where `is_null` says of an unquoted field, by its place (0-based), whether it is NULL.
#[inline]
pub fn cut(
    dialect: &Dialect,
    record: &[u8],
    fields: &mut Fields,
    is_null: impl Fn(usize, &[u8]) -> bool,
) -> Result<(), FieldError> {
    fields.clear();
    let Range { mut start, end } = content(dialect, record);
    let text = &record[..end];
    let delimiter = dialect.delimiter;
    let quote = dialect.quote.unwrap_or(delimiter);
    let mut places = Places::new(text, [delimiter, quote, b'\r', b'\n']);
    places.go_to(start);
    loop {
        let Some(place) = places.next() else {
            push_unquoted(&is_null, text, start, end, fields);
            return Ok(());
        };
        let stop = if text[place] == delimiter {
            push_unquoted(&is_null, text, start, place, fields);
            place
        } else if let Some(kind) = line_break(text[place]) {
            return Err(FieldError::at(fields.len(), kind));
        } else if place == start {
            // The next quote ends the field, unless it is one of a pair or text follows it.
            let close = places.find(|&place| text[place] == quote).unwrap_or(end);
            let behind = close + 1;
            if dialect.escape == quote && behind <= end {
                if behind == end {
                    fields.push_raw(start + 1, close);
                    return Ok(());
                }
                if text[behind] == delimiter {
                    fields.push_raw(start + 1, close);
                    // The delimiter is a place of its own.
                    places.next();
                    start = behind + 1;
                    continue;
                }
            }
            let stop = unquote(dialect, text, start + 1, end, fields)?;
            if stop == end {
                return Ok(());
            }
            places.go_to(stop + 1);
            stop
        } else {
            return Err(FieldError::at(fields.len(), FieldErrorKind::StrayQuote));
        };
        start = stop + 1;
    }
}

#[inline]
fn push_unquoted(
    is_null: &impl Fn(usize, &[u8]) -> bool,
    record: &[u8],
    start: usize,
    end: usize,
    fields: &mut Fields,
) {
    if is_null(fields.len(), &record[start..end]) {
        fields.push_null();
    } else {
        fields.push_raw(start, end);
    }
}

/// The record without blank lines in front and its line end.
#[inline]
fn content(dialect: &Dialect, record: &[u8]) -> Range<usize> {
    let mut start = 0;
    if dialect.skip_blank {
        while let Some(blank) = blank_line(dialect, &record[start..]) {
            start += blank;
        }
    }
    let text = &record[start..];
    let text = match dialect.line_end {
        LineEnd::Cr => text.strip_suffix(b"\r"),
        LineEnd::Lf | LineEnd::CrLf => text
            .strip_suffix(b"\n")
            .map(|text| text.strip_suffix(b"\r").unwrap_or(text)),
    };
    let end = text.map_or(record.len(), |text| start + text.len());
    start..end
}

/// Length of the line end at the start of `record` that is not its own.
#[inline]
fn blank_line(dialect: &Dialect, record: &[u8]) -> Option<usize> {
    match record {
        [b'\r', _, ..] if dialect.line_end == LineEnd::Cr => Some(1),
        _ if dialect.line_end == LineEnd::Cr => None,
        [b'\n', _, ..] => Some(1),
        [b'\r', b'\n', _, ..] => Some(2),
        _ => None,
    }
}

/// What an unquoted line break within a record is; none ends the record here.
#[inline]
fn line_break(byte: u8) -> Option<FieldErrorKind> {
    match byte {
        b'\r' => Some(FieldErrorKind::CarriageReturn),
        b'\n' => Some(FieldErrorKind::LineFeed),
        _ => None,
    }
}

/// Takes the quoted field whose text begins at `start`; returns the place of the delimiter behind
/// it or the end of the record.
fn unquote(
    dialect: &Dialect,
    record: &[u8],
    start: usize,
    end: usize,
    fields: &mut Fields,
) -> Result<usize, FieldError> {
    let quote = dialect.quote.unwrap_or(b'"');
    let mut from = start;
    let mut at = start;
    let mut copied = false;
    let close = loop {
        let Some(found) = memchr2(quote, dialect.escape, &record[at..end]) else {
            return Err(FieldError::at(fields.len(), FieldErrorKind::UnclosedQuote));
        };
        let found = at + found;
        if record[found] == dialect.escape {
            let next = (found + 1 < end).then(|| record[found + 1]);
            if next == Some(quote) || next == Some(dialect.escape) {
                // Keep the second byte of the pair: it begins the next piece.
                if !copied {
                    fields.begin_owned();
                    copied = true;
                }
                fields.extend_owned(&record[from..found]);
                from = found + 1;
                at = found + 2;
                continue;
            }
            if dialect.escape != quote {
                at = found + 1;
                continue;
            }
        }
        break found;
    };
    let behind = close + 1;
    let at_delimiter = behind < end && record[behind] == dialect.delimiter;
    let stop = match at_delimiter {
        true => behind,
        false => {
            memchr(dialect.delimiter, &record[behind..end]).map_or(end, |found| behind + found)
        }
    };
    if stop == behind && !copied {
        fields.push_raw(start, close);
        return Ok(stop);
    }
    check_unquoted(dialect, &record[behind..stop], fields.len())?;
    if !copied {
        fields.begin_owned();
    }
    fields.extend_owned(&record[from..close]);
    fields.extend_owned(&record[behind..stop]);
    fields.end_owned();
    Ok(stop)
}

fn check_unquoted(dialect: &Dialect, text: &[u8], column: usize) -> Result<(), FieldError> {
    let stray = text
        .iter()
        .find(|&&byte| line_break(byte).is_some() || Some(byte) == dialect.quote);
    match stray {
        None => Ok(()),
        Some(&byte) => {
            let kind = line_break(byte).unwrap_or(FieldErrorKind::StrayQuote);
            Err(FieldError::at(column, kind))
        }
    }
}
