//! Finds the records of delimited text and cuts a record into fields.
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

/// Finds record ends without looking at fields; remembers where it stopped, so that a record may
/// arrive in pieces.
#[derive(Debug, Clone)]
pub struct Splitter {
    dialect: Dialect,
    /// Bytes of the open record already looked at.
    scanned: usize,
    /// Blank lines at the start of the open record.
    blank: usize,
    quoted: bool,
}

impl Splitter {
    /// A splitter at the start of a record.
    pub fn new(dialect: Dialect) -> Self {
        Splitter {
            dialect,
            scanned: 0,
            blank: 0,
            quoted: false,
        }
    }

    /// Length of the record at the start of `bytes`, its line end and any blank lines before it
    /// included; `None` if it goes on beyond. Call again with the same bytes and more behind them.
    #[inline]
    pub fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.dialect.skip_blank && self.scanned == self.blank && !self.skip_blank(bytes) {
            return None;
        }
        let Some(quote) = self.dialect.quote else {
            return self.unquoted_end(bytes);
        };
        let Dialect {
            delimiter,
            escape,
            line_end,
            ..
        } = self.dialect;
        let last = line_end.last();
        let mut places = Places::new(bytes, [quote, last, escape]);
        places.go_to(self.scanned);
        while let Some(found) = places.next() {
            let byte = bytes[found];
            if self.quoted {
                if byte == escape {
                    match bytes.get(found + 1) {
                        None => {
                            self.scanned = found;
                            return None;
                        }
                        Some(&next) if next == quote || next == escape => {
                            places.go_to(found + 2);
                            continue;
                        }
                        Some(_) => {}
                    }
                }
                self.quoted = byte != quote;
            } else if byte == last {
                match line_end.is_at(bytes, found) {
                    Some(true) => return Some(self.finish(found + 1)),
                    Some(false) => {}
                    None => {
                        self.scanned = found;
                        return None;
                    }
                }
            } else if byte == quote {
                self.quoted = found == self.blank || bytes[found - 1] == delimiter;
            }
        }
        self.scanned = bytes.len();
        None
    }

    /// Length of the last record of a source, which has no line end; `None` if only blank lines
    /// are left.
    pub fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let content = bytes.len() > self.blank && !matches!(&bytes[self.blank..], b"\r");
        let end =
            (content || (!self.dialect.skip_blank && !bytes.is_empty())).then_some(bytes.len());
        self.finish(0);
        end
    }

    fn finish(&mut self, end: usize) -> usize {
        self.scanned = 0;
        self.blank = 0;
        self.quoted = false;
        end
    }

    fn unquoted_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let line_end = self.dialect.line_end;
        while let Some(found) = memchr(line_end.last(), &bytes[self.scanned..]) {
            let found = self.scanned + found;
            match line_end.is_at(bytes, found) {
                Some(true) => return Some(self.finish(found + 1)),
                Some(false) => self.scanned = found + 1,
                None => {
                    self.scanned = found;
                    return None;
                }
            }
        }
        self.scanned = bytes.len();
        None
    }

    /// Passes blank lines; false if only the rest of the bytes can tell whether there are more.
    fn skip_blank(&mut self, bytes: &[u8]) -> bool {
        loop {
            match bytes.get(self.blank) {
                Some(b'\n') if self.dialect.line_end == LineEnd::Lf => self.blank += 1,
                Some(b'\r') if self.dialect.line_end == LineEnd::Cr => self.blank += 1,
                Some(b'\r') => match bytes.get(self.blank + 1) {
                    Some(b'\n') => self.blank += 2,
                    Some(_) => break,
                    None => {
                        self.scanned = self.blank;
                        return false;
                    }
                },
                Some(_) => break,
                None => {
                    self.scanned = self.blank;
                    return false;
                }
            }
        }
        self.scanned = self.blank;
        true
    }

    /// Whether the last record of a source, which `bytes` holds whole, has an open quote.
    pub fn ends_quoted(&self, bytes: &[u8]) -> bool {
        // A quote as the very last byte was left unread, to see whether a second one follows.
        self.quoted
            && !(self.scanned + 1 == bytes.len() && Some(bytes[self.scanned]) == self.dialect.quote)
    }
}

/// Cuts one record into `fields`. `record` may carry blank lines in front and a line end.
///
/// # Errors
/// The first thing in the record that has no agreed meaning.
#[inline]
pub fn parse(dialect: &Dialect, record: &[u8], fields: &mut Fields) -> Result<(), FieldError> {
    fields.clear();
    let Range { mut start, end } = content(dialect, record);
    let text = &record[..end];
    let delimiter = dialect.delimiter;
    let quote = dialect.quote.unwrap_or(delimiter);
    let mut places = Places::new(text, [delimiter, quote, b'\r', b'\n']);
    places.go_to(start);
    loop {
        let Some(place) = places.next() else {
            push_unquoted(dialect, text, start, end, fields);
            return Ok(());
        };
        let stop = if text[place] == delimiter {
            push_unquoted(dialect, text, start, place, fields);
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
fn push_unquoted(dialect: &Dialect, record: &[u8], start: usize, end: usize, fields: &mut Fields) {
    if end - start == dialect.null.len() && record[start..end] == dialect.null[..] {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Records of `text`, fed to the splitter in pieces of `step` bytes.
    fn split(dialect: &Dialect, text: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::new(dialect.clone());
        let mut records = Vec::new();
        let (mut start, mut known) = (0, 0);
        while known < text.len() {
            known = (known + step).min(text.len());
            while let Some(end) = splitter.next_end(&text[start..known]) {
                records.push(text[start..start + end].to_vec());
                start += end;
            }
        }
        if let Some(end) = splitter.last_end(&text[start..]) {
            records.push(text[start..start + end].to_vec());
        }
        records
    }

    type Cells = Vec<Option<Vec<u8>>>;

    fn cells(dialect: &Dialect, record: &[u8]) -> Result<Cells, FieldError> {
        let mut fields = Fields::default();
        parse(dialect, record, &mut fields)?;
        Ok((0..fields.len())
            .map(|index| fields.get(record, index).map(<[u8]>::to_vec))
            .collect())
    }

    fn texts(line: &str) -> Vec<Option<String>> {
        cells(&Dialect::default(), line.as_bytes())
            .unwrap()
            .into_iter()
            .map(|cell| cell.map(|bytes| String::from_utf8(bytes).unwrap()))
            .collect()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_string())
    }

    #[test]
    fn unquoted_empty_is_null_and_quoted_empty_is_an_empty_string() {
        assert_eq!(texts("a,,\"\"\r\n"), [some("a"), None, some("")]);
        assert_eq!(texts(",\n"), [None, None]);
    }

    #[test]
    fn doubled_quotes_delimiters_and_line_breaks_inside_quotes_are_text() {
        assert_eq!(
            texts("\"a\"\"b\",\"c,d\",\"e\r\nf\"\n"),
            [some("a\"b"), some("c,d"), some("e\r\nf")]
        );
        assert_eq!(texts("\"\"\"\"\n"), [some("\"")]);
        assert_eq!(texts("\"a\"b,c"), [some("ab"), some("c")]);
    }

    #[test]
    fn what_readers_disagree_about_is_refused() {
        let kind = |line: &str| cells(&Dialect::default(), line.as_bytes()).unwrap_err();
        assert_eq!(
            kind("a,5\" pipe,c\n"),
            FieldError::at(1, FieldErrorKind::StrayQuote)
        );
        assert_eq!(
            kind("a\rb,c\n"),
            FieldError::at(0, FieldErrorKind::CarriageReturn)
        );
        assert_eq!(
            kind("a,\"b\n"),
            FieldError::at(1, FieldErrorKind::UnclosedQuote)
        );
        assert_eq!(
            kind("\"a\"b\"c\"\n"),
            FieldError::at(0, FieldErrorKind::StrayQuote)
        );
    }

    #[test]
    fn an_escape_other_than_the_quote_works_as_in_copy() {
        let dialect = Dialect {
            escape: b'\\',
            ..Dialect::default()
        };
        let cells = cells(
            &dialect,
            br#""a\"b\\c\n","\\"
"#,
        )
        .unwrap();
        assert_eq!(cells, [Some(br#"a"b\c\n"#.to_vec()), Some(b"\\".to_vec())]);
        assert_eq!(split(&dialect, b"\"a\\\"\n\"\nb\n", 1).len(), 2);
    }

    #[test]
    fn blank_lines_are_records_only_for_one_column() {
        let many = Dialect::default();
        assert_eq!(
            split(&many, b"\n\r\na,b\n\n\n", 1),
            [b"\n\r\na,b\n".to_vec()]
        );
        let one = Dialect {
            skip_blank: false,
            ..Dialect::default()
        };
        assert_eq!(split(&one, b"a\n\nb\n", 2).len(), 3);
    }

    #[test]
    fn a_lone_carriage_return_ends_lines_where_the_dialect_says_so() {
        let old = Dialect {
            line_end: LineEnd::Cr,
            ..Dialect::default()
        };
        assert_eq!(
            split(&old, b"a,b\rc,d\r", 1),
            [b"a,b\r".to_vec(), b"c,d\r".to_vec()]
        );
    }

    #[test]
    fn a_line_break_of_another_kind_ends_no_record_and_refuses_the_one_it_stands_in() {
        let dialect = |line_end| Dialect {
            line_end,
            ..Dialect::default()
        };
        for (line_end, text, expected) in [
            (LineEnd::CrLf, &b"a,b\nc\r\n"[..], FieldErrorKind::LineFeed),
            (LineEnd::CrLf, b"a,\"b\"\nc\r\n", FieldErrorKind::LineFeed),
            (LineEnd::CrLf, b"a,b\rc\r\n", FieldErrorKind::CarriageReturn),
            (LineEnd::CrLf, b"a,b\r\r\n", FieldErrorKind::CarriageReturn),
            (LineEnd::Cr, b"a,b\nc\r", FieldErrorKind::LineFeed),
            (LineEnd::Cr, b"\na,b\r", FieldErrorKind::LineFeed),
            (LineEnd::Cr, b"a,b\r\nc\r", FieldErrorKind::CarriageReturn),
            (LineEnd::Cr, b"\r\r\na,b\r", FieldErrorKind::LineFeed),
            (LineEnd::Cr, b"a,b\n", FieldErrorKind::LineFeed),
            (LineEnd::Lf, b"a,b\rc\n", FieldErrorKind::CarriageReturn),
            (LineEnd::Lf, b"a,b\r\r\n", FieldErrorKind::CarriageReturn),
            (LineEnd::Lf, b"a,b\r", FieldErrorKind::CarriageReturn),
        ] {
            let dialect = dialect(line_end);
            for step in 1..4 {
                assert_eq!(split(&dialect, text, step), [text.to_vec()]);
            }
            let error = cells(&dialect, text).unwrap_err();
            assert_eq!(error.kind, expected, "{}", text.escape_ascii());
        }
        let unquoted = Dialect {
            quote: None,
            ..dialect(LineEnd::CrLf)
        };
        assert_eq!(split(&unquoted, b"a\nb\r\nc", 1).len(), 2);
    }

    #[test]
    fn an_open_quote_at_the_end_is_seen_and_a_closing_one_is_not_mistaken_for_it() {
        for (text, open) in [
            (&b"a,\"b"[..], true),
            (b"a,\"b\"", false),
            (b"a,\"b\"\"", true),
            (b"a,b", false),
        ] {
            let mut splitter = Splitter::new(Dialect::default());
            assert_eq!(splitter.next_end(text), None);
            assert_eq!(splitter.ends_quoted(text), open, "{}", text.escape_ascii());
        }
    }

    /// Pieces of text that meet each other in every way a splitter can get wrong.
    const PARTS: &[&str] = &[
        "a", "b", ",", ",", "\n", "\n", "\r\n", "\"", "\"", "\"\"", ",\"", "\",",
    ];

    fn oracle(text: &[u8]) -> Vec<Vec<Vec<u8>>> {
        csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text)
            .byte_records()
            .map(|record| record.unwrap().iter().map(<[u8]>::to_vec).collect())
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn records_and_fields_equal_those_of_the_csv_crate(
            text in prop::collection::vec(prop::sample::select(PARTS), 0..60)
                .prop_map(|parts| parts.concat().into_bytes()),
            step in 1usize..9,
        ) {
            let dialect = Dialect::default();
            let records = split(&dialect, &text, step);
            let ours: Result<Vec<Cells>, _> =
                records.iter().map(|record| cells(&dialect, record)).collect();
            // The boundaries never depend on how the bytes arrive.
            prop_assert_eq!(&records, &split(&dialect, &text, text.len().max(1)));
            if let Ok(ours) = ours {
                let ours: Vec<Vec<Vec<u8>>> = ours
                    .into_iter()
                    .map(|row| row.into_iter().map(Option::unwrap_or_default).collect())
                    .collect();
                prop_assert_eq!(ours, oracle(&text));
            }
        }

        #[test]
        fn whatever_the_csv_crate_writes_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[a-c,\"\n\r é]{0,6}", 2..5), 1..8),
            step in 1usize..9,
        ) {
            let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
            for row in &rows {
                writer.write_record(row).unwrap();
            }
            let text = writer.into_inner().unwrap();
            let dialect = Dialect::default();
            let ours: Vec<Vec<String>> = split(&dialect, &text, step)
                .iter()
                .map(|record| {
                    cells(&dialect, record)
                        .unwrap()
                        .into_iter()
                        .map(|cell| String::from_utf8(cell.unwrap_or_default()).unwrap())
                        .collect()
                })
                .collect();
            prop_assert_eq!(ours, rows);
        }
    }
}
