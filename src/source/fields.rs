//! The fields of one record: NULL or text, pointing into the record where its bytes can be used as
//! they stand.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use super::encoding::Encoding;

/// Longest text of a record or field in UTF-8, in bytes: PostgreSQL takes no row above.
const LONGEST_TEXT: usize = 1 << 30;

/// The fields of one record; reused from record to record.
#[derive(Debug, Default)]
pub struct Fields {
    places: Vec<Place>,
    /// Text that differs from the bytes of the record: unescaped fields.
    owned: Vec<u8>,
    owned_start: usize,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Nothing was said: NULL.
    Absent,
    Null,
    Raw(u32, u32),
    Owned(u32, u32),
}

impl Fields {
    #[inline]
    pub fn clear(&mut self) {
        self.places.clear();
        self.owned.clear();
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Field `index` (0-based) of `record`, the bytes that were parsed; `None` is NULL.
    #[inline]
    pub fn get<'a>(&'a self, record: &'a [u8], index: usize) -> Option<&'a [u8]> {
        match self.places[index] {
            Place::Absent | Place::Null => None,
            Place::Raw(start, end) => Some(&record[start as usize..end as usize]),
            Place::Owned(start, end) => Some(&self.owned[start as usize..end as usize]),
        }
    }

    /// Keeps the fields only for which `kept` has true, in their order.
    pub(super) fn keep(&mut self, kept: &[bool]) {
        let mut kept = kept.iter();
        self.places.retain(|_| kept.next() == Some(&true));
    }

    #[inline]
    pub(super) fn push_null(&mut self) {
        self.places.push(Place::Null);
    }

    #[inline]
    pub(super) fn push_raw(&mut self, start: usize, end: usize) {
        self.places.push(Place::Raw(start as u32, end as u32));
    }

    /// Makes `count` fields, all absent, for input that names its fields.
    pub(super) fn reset(&mut self, count: usize) {
        self.clear();
        self.places.resize(count, Place::Absent);
    }

    /// Whether field `index` (0-based) has its value, which may be NULL.
    pub(super) fn is_given(&self, index: usize) -> bool {
        !matches!(self.places[index], Place::Absent)
    }

    pub(super) fn set_raw(&mut self, index: usize, start: usize, end: usize) {
        self.places[index] = Place::Raw(start as u32, end as u32);
    }

    pub(super) fn set_null(&mut self, index: usize) {
        self.places[index] = Place::Null;
    }

    pub(super) fn set_owned(&mut self, index: usize, text: &[u8]) {
        let start = self.owned.len();
        self.owned.extend_from_slice(text);
        self.places[index] = Place::Owned(start as u32, self.owned.len() as u32);
    }

    /// Decodes the fields of `record` that are not plain text as they stand.
    ///
    /// # Errors
    /// The first that is no text.
    pub(super) fn decode(&mut self, encoding: Encoding, record: &[u8]) -> Result<(), FieldError> {
        for index in 0..self.len() {
            let bytes = self.get(record, index).unwrap_or_default();
            if encoding.is_plain(bytes) {
                continue;
            }
            let text = text(encoding, bytes).map_err(|kind| FieldError::at(index, kind))?;
            let text = text.into_owned();
            self.set_owned(index, text.as_bytes());
        }
        Ok(())
    }

    /// Takes over `text`, in which the fields lie, for one that is dropped.
    pub(super) fn own(&mut self, text: &[u8]) {
        let base = self.owned.len() as u32;
        self.owned.extend_from_slice(text);
        for place in &mut self.places {
            if let Place::Raw(start, end) = *place {
                *place = Place::Owned(base + start, base + end);
            }
        }
    }

    /// One more field, behind all others.
    pub fn push_text(&mut self, text: fmt::Arguments<'_>) {
        self.begin_owned();
        // Writing to memory does not fail.
        let _ = self.owned.write_fmt(text);
        self.end_owned();
    }

    /// One more field, behind all others: the text of these bytes as a bytea.
    pub fn push_hex(&mut self, bytes: &[u8]) {
        self.begin_owned();
        self.owned.extend_from_slice(b"\\x");
        let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
        let digits = bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
        self.owned.extend(digits);
        self.end_owned();
    }

    pub(super) fn begin_owned(&mut self) {
        self.owned_start = self.owned.len();
    }

    pub(super) fn extend_owned(&mut self, text: &[u8]) {
        self.owned.extend_from_slice(text);
    }

    pub(super) fn end_owned(&mut self) {
        self.places.push(Place::Owned(
            self.owned_start as u32,
            self.owned.len() as u32,
        ));
    }
}

/// The text of a field or record.
///
/// # Errors
/// What keeps it from being one that the server stores.
pub(super) fn text(encoding: Encoding, bytes: &[u8]) -> Result<Cow<'_, str>, FieldErrorKind> {
    match encoding.decode(bytes) {
        None => Err(FieldErrorKind::Encoding(encoding)),
        Some(text) if text.contains('\0') => Err(FieldErrorKind::Nul),
        Some(text) if text.len() > LONGEST_TEXT => Err(FieldErrorKind::TooLong),
        Some(text) => Ok(text),
    }
}

/// Why a record cannot be cut into the fields of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field at fault (0-based), where one can be named.
    pub field: Option<usize>,
    /// What is wrong.
    pub kind: FieldErrorKind,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// Fewer fields than are due.
    TooFew {
        /// Fields in the record.
        found: usize,
        /// Fields of a record of this load.
        expected: usize,
    },
    /// More fields than are due.
    TooMany {
        /// Fields in the record.
        found: usize,
        /// Fields of a record of this load.
        expected: usize,
    },
    /// A quote inside an unquoted field.
    StrayQuote,
    /// A carriage return outside quotes that ends no line.
    CarriageReturn,
    /// A line feed outside quotes where lines end in `\r` or `\r\n`.
    LineFeed,
    /// The record ends inside quotes.
    UnclosedQuote,
    /// Bytes that are no text in the encoding of the source.
    Encoding(Encoding),
    /// More text than PostgreSQL takes in a row, once it is decoded.
    TooLong,
    /// A zero byte, which no PostgreSQL text can hold.
    Nul,
    /// The line is not one JSON object.
    Json(String),
    /// A key that no column of the load answers to.
    UnknownKey(String),
    /// Two keys of one object that mean this column.
    ColumnTwice(String),
}

impl FieldError {
    /// An error of field `field` (0-based).
    pub fn at(field: usize, kind: FieldErrorKind) -> Self {
        FieldError {
            field: Some(field),
            kind,
        }
    }

    /// An error of the whole record.
    pub fn record(kind: FieldErrorKind) -> Self {
        FieldError { field: None, kind }
    }

    /// The same error with its field counted among those only for which `kept` has true; empty: all.
    pub(super) fn among(self, kept: &[bool]) -> Self {
        if kept.is_empty() {
            return self;
        }
        let before = |field| kept.iter().take(field).filter(|kept| **kept).count();
        let is_kept = |field: &usize| kept.get(*field) == Some(&true);
        FieldError {
            field: self.field.filter(is_kept).map(before),
            ..self
        }
    }

    /// The SQLSTATE with which the server's COPY refuses the same thing.
    pub fn sqlstate(&self) -> &'static str {
        match self.kind {
            FieldErrorKind::Encoding(_) | FieldErrorKind::Nul => "22021",
            FieldErrorKind::TooLong => "54000",
            FieldErrorKind::Json(_) => "22P02",
            _ => "22P04",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            FieldErrorKind::TooFew { found, expected } => {
                write!(f, "too few fields: {found}, expected {expected}")
            }
            FieldErrorKind::TooMany { found, expected } => {
                write!(f, "too many fields: {found}, expected {expected}")
            }
            FieldErrorKind::StrayQuote => f.write_str(
                "a quote inside an unquoted field: quote the field and double the quote, or use --quote none",
            ),
            FieldErrorKind::CarriageReturn => f.write_str(
                "a carriage return outside quotes that ends no line: quote the field or convert the line ends",
            ),
            FieldErrorKind::LineFeed => f.write_str(
                "a line feed outside quotes, while the first line of the source ends in \\r or \\r\\n: quote the field or convert the line ends",
            ),
            FieldErrorKind::UnclosedQuote => f.write_str("a quoted field is not closed"),
            FieldErrorKind::Encoding(encoding) => write!(
                f,
                "invalid {}: --encoding says what the source is written in",
                encoding.name()
            ),
            FieldErrorKind::TooLong => {
                f.write_str("more than 1 GiB of text, which PostgreSQL takes in no row")
            }
            FieldErrorKind::Nul => f.write_str("a zero byte, which PostgreSQL cannot store in text"),
            FieldErrorKind::Json(what) => write!(f, "not a JSON object: {what}"),
            FieldErrorKind::UnknownKey(key) => {
                write!(f, "key \"{}\" is no column of this load; --columns names them, --skip passes over a key", key.escape_debug())
            }
            FieldErrorKind::ColumnTwice(key) => {
                write!(f, "key \"{}\" gives its column a second value", key.escape_debug())
            }
        }
    }
}

impl std::error::Error for FieldError {}
