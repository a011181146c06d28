//! Finds the records of one source: bytes from its feed, boundaries by its format, and the place of
//! the next record.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::checksum::Checksum;
use super::compression::Compression;
use super::csv::{self, Dialect};
use super::encoding::Encoding;
use super::feed::{CHUNK_BYTES, Feed, Step};
use super::fields::{FieldError, FieldErrorKind, Fields};
use super::first_line::{FirstLineEnd, TwoReturns};
use super::foreign::{Foreign, HEAD_BYTES, other_delimiter, wide_encoding};
use super::line_end::LineEnd;
use super::ndjson;
use super::reading::{FieldRules, Reading};
use super::splitter::Splitter;
use super::{Change, Format, Input, InputError, ReadOptions};
use crate::span::{Position, Span};

/// U+FEFF, which some programs write before text in UTF-8.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The records of an opened source.
pub struct Records {
    name: Arc<str>,
    pub(super) feed: Feed,
    format: Format,
    encoding: Encoding,
    dialect: Dialect,
    splitter: Splitter,
    /// Bytes of an open JSON line that are known to hold no line break.
    scanned: usize,
    /// Bytes read and not taken yet: `buf[start..end]`.
    buf: Vec<u8>,
    pub(super) start: usize,
    end: usize,
    /// Where the next record that is not in a batch stands in the source.
    pub(super) at: Position,
    pub(super) ended: bool,
    pub(super) max_record_bytes: usize,
    /// Fields of a record, once that is said.
    field_count: usize,
}

impl Records {
    /// Opens a source and reads its first bytes.
    ///
    /// # Errors
    /// When it cannot be opened, read or unpacked, or is plainly something else than text.
    pub fn open(
        input: &Input,
        options: &ReadOptions,
        taken: Arc<AtomicU64>,
    ) -> Result<Self, InputError> {
        let name = input.name();
        let feed = Feed::open(input, options.compression, taken)?;
        let mut records = Records {
            name,
            feed,
            format: Format::Csv,
            encoding: options.encoding,
            dialect: Dialect::default(),
            splitter: Splitter::new(Dialect::default()),
            scanned: 0,
            buf: vec![0; 2 * CHUNK_BYTES],
            start: 0,
            end: 0,
            at: Position::START,
            ended: false,
            max_record_bytes: options.max_record_bytes,
            field_count: 0,
        };
        // A byte order mark begins above ASCII and takes three bytes.
        while records.end < 3
            && !records.ended
            && !records.pending().first().is_some_and(u8::is_ascii)
        {
            records.refill(None)?;
        }
        records.check_kind()?;
        records.skip_byte_order_mark();
        while records.pending().trim_ascii_start().is_empty() && !records.ended {
            records.refill(None)?;
        }
        records.format = options
            .format
            .unwrap_or_else(|| Format::detect(input, records.pending()));
        records.settle_dialect(options)?;
        Ok(records)
    }

    /// How delimited text is written; the first line tells how lines end.
    fn settle_dialect(&mut self, options: &ReadOptions) -> Result<(), InputError> {
        let delimiter = match self.format {
            Format::Tsv => b'\t',
            _ => b',',
        };
        let mut dialect = Dialect {
            delimiter: options.delimiter.unwrap_or(delimiter),
            quote: options.quote,
            escape: options.escape.or(options.quote).unwrap_or(b'"'),
            null: options.encoding.encode(&options.null).into_owned(),
            line_end: LineEnd::Lf,
            skip_blank: true,
        };
        self.check_dialect(options, &dialect)?;
        let mut first = FirstLineEnd::default();
        while self.format != Format::Ndjson {
            let found = first.find(&dialect, self.pending(), self.ended);
            let found = found.map_err(|TwoReturns| InputError::TwoReturns {
                name: self.name.clone(),
            })?;
            if let Some(line_end) = found {
                dialect.line_end = line_end;
                break;
            }
            self.refill(None)?;
        }
        self.splitter = Splitter::new(dialect.clone());
        self.dialect = dialect;
        Ok(())
    }

    /// The name used in messages.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How the records are written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// How the source is packed.
    pub fn compression(&self) -> Compression {
        self.feed.compression
    }

    /// Stored bytes of the input, where known.
    pub fn size(&self) -> Option<u64> {
        self.feed.size
    }

    /// Takes the header record of delimited text; the names in it, in their order.
    ///
    /// # Errors
    /// When there is none or it cannot be cut into fields.
    pub fn take_header(&mut self) -> Result<Vec<String>, InputError> {
        let length = loop {
            if let Some(length) = self.next_length().map_err(|()| self.torn())? {
                break length;
            }
            if self.ended {
                return Err(InputError::NoHeader {
                    name: self.name.clone(),
                });
            }
            self.refill(None)?;
        };
        let record = &self.buf[self.start..self.start + length];
        let names = self.names_in(record);
        let names = names.map_err(|source| InputError::Header {
            name: self.name.clone(),
            line: self.at.line,
            source,
            delimiter: other_delimiter(record, self.dialect.delimiter),
        })?;
        let lines = count(self.dialect.line_end.last(), record);
        self.start += length;
        self.at.byte += length as u64;
        self.at.line += lines;
        Ok(names)
    }

    fn names_in(&self, header: &[u8]) -> Result<Vec<String>, FieldError> {
        let mut fields = Fields::default();
        // A column may be named as NULL is written.
        csv::cut(&self.dialect, header, &mut fields, |_, _| false)?;
        let name = |index| {
            let name = fields.get(header, index).unwrap_or_default();
            let kind = FieldErrorKind::Encoding(self.encoding);
            let name = self.encoding.decode(name);
            let name = name.ok_or_else(|| FieldError::at(index, kind))?;
            Ok(name.into_owned())
        };
        (0..fields.len()).map(name).collect()
    }

    /// Keys in the lines of JSON that are at hand, each once, in their order: the whole of a small
    /// source, the beginning of a large one.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn sample_keys(&mut self) -> Result<Vec<String>, InputError> {
        while memchr::memchr(b'\n', self.pending()).is_none() && !self.ended {
            self.refill(None)?;
        }
        let mut names: Vec<String> = Vec::new();
        for line in self.pending().split(|&byte| byte == b'\n') {
            let line = self.encoding.guess(line);
            for name in ndjson::keys_of(line.as_bytes()).unwrap_or_default() {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    /// Says how many fields a record has: blank lines are records only where it is one.
    pub fn expect_fields(&mut self, count: usize) {
        self.field_count = count;
        self.dialect.skip_blank = count != 1;
        self.splitter = Splitter::new(self.dialect.clone());
    }

    /// How the records are read, as the ledger keeps it.
    pub fn reading(&self, header: bool, rules: FieldRules) -> Reading {
        match self.format {
            Format::Ndjson => Reading::ndjson(self.encoding, rules),
            Format::Csv | Format::Tsv => {
                Reading::delimited(&self.dialect, self.encoding, header, rules)
            }
        }
    }

    /// The byte between two fields of delimited text.
    pub fn delimiter(&self) -> Option<u8> {
        (self.format != Format::Ndjson).then_some(self.dialect.delimiter)
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Bytes at hand from `start` on that were taken already.
    pub(super) fn taken_from(&self, start: usize) -> &[u8] {
        &self.buf[start..self.start]
    }

    /// Passes over the committed span that begins here, and proves that it is the same: all its
    /// bytes, and that its last record ends with it.
    pub(super) fn pass(&mut self, span: &Span) -> Result<(), InputError> {
        let changed = |records: &Self, change| InputError::Changed {
            name: records.name.clone(),
            place: span.place(),
            change,
        };
        if span.start != self.at.byte {
            return Err(changed(self, Change::Bytes));
        }
        let mut passed = Checksum::new();
        let last = self.pass_bytes(span.end - span.start, &mut passed)?;
        match span.checksum {
            None => return Err(changed(self, Change::Unknown)),
            Some(known) if last.is_none() || known != passed.value() => {
                return Err(changed(self, Change::Bytes));
            }
            Some(_) => {}
        }
        self.advance(0, span.records, span.lines);
        // A span that ends in the middle of a line was the end of its source. If more than the
        // line's end follows now, its last record was only a part of what stands here.
        let line_end = self.line_end();
        if last == Some(line_end) {
            return Ok(());
        }
        let end = match self.peek(2)? {
            [] => return Ok(()),
            [b'\r', b'\n'] => 2,
            [byte, ..] if *byte == line_end => 1,
            _ => return Err(changed(self, Change::GoesOn)),
        };
        // No blank line, which can be a record.
        self.start += end;
        self.advance(end as u64, 0, 1);
        Ok(())
    }

    /// Passes over `bytes` bytes; the last one of them, `None` if the source has fewer.
    pub(super) fn pass_bytes(
        &mut self,
        bytes: u64,
        passed: &mut Checksum,
    ) -> Result<Option<u8>, InputError> {
        let (mut left, mut last) = (bytes, None);
        while left > 0 {
            if self.next_byte()?.is_none() {
                return Ok(None);
            }
            let start = self.start;
            let length = self.pending().len();
            self.start += length.min(usize::try_from(left).unwrap_or(usize::MAX));
            let taken = self.taken_from(start);
            last = taken.last().copied();
            passed.update(taken);
            let taken = taken.len() as u64;
            left -= taken;
            self.at.byte += taken;
        }
        Ok(last)
    }

    /// The next byte, without taking it; waits for it. `None` at the end.
    pub(super) fn next_byte(&mut self) -> Result<Option<u8>, InputError> {
        while self.pending().is_empty() && !self.ended {
            self.refill(None)?;
        }
        Ok(self.pending().first().copied())
    }

    /// The next bytes, at most `most`, without taking them.
    pub(super) fn peek(&mut self, most: usize) -> Result<&[u8], InputError> {
        while self.pending().len() < most && !self.ended {
            self.refill(None)?;
        }
        let pending = self.pending();
        Ok(&pending[..pending.len().min(most)])
    }

    /// Counts `bytes` and what is in them as taken, up to the place before the next record.
    pub(super) fn advance(&mut self, bytes: u64, records: u64, lines: u64) {
        self.at.byte += bytes;
        self.at.record += records;
        self.at.line += lines;
    }

    /// Last byte of a line of this source.
    pub(super) fn line_end(&self) -> u8 {
        match self.format {
            Format::Ndjson => b'\n',
            Format::Csv | Format::Tsv => self.dialect.line_end.last(),
        }
    }

    /// Length of the next record, if it is at hand as a whole; an error, which [`Records::torn`]
    /// describes, if the source ends within it.
    #[inline]
    pub(super) fn next_length(&mut self) -> Result<Option<usize>, ()> {
        let bytes = &self.buf[self.start..self.end];
        let delimited = self.format != Format::Ndjson;
        let length = if delimited {
            self.splitter.next_end(bytes)
        } else {
            ndjson::next_end(bytes, &mut self.scanned)
        };
        if length.is_some() || !self.ended {
            return Ok(length);
        }
        if delimited && self.splitter.ends_quoted(bytes) {
            return Err(());
        }
        let last = if delimited {
            self.splitter.last_end(bytes)
        } else {
            self.scanned = 0;
            (!bytes.trim_ascii().is_empty()).then_some(bytes.len())
        };
        match last {
            Some(length) if self.is_cut_off(&bytes[..length]) => Err(()),
            last => Ok(last),
        }
    }

    /// Whether `last`, the last record, is only the beginning of one, by all that can be seen.
    fn is_cut_off(&self, last: &[u8]) -> bool {
        if last.ends_with(&[self.line_end()]) {
            return false;
        }
        if self.dialect.line_end == LineEnd::CrLf && last.ends_with(b"\r") {
            return true;
        }
        if self.format == Format::Ndjson {
            let last = self.encoding.guess(last);
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&last);
            return parsed.is_err_and(|error| error.is_eof());
        }
        let mut fields = Fields::default();
        let parsed = csv::parse(&self.dialect, last, &mut fields);
        parsed.is_ok() && fields.len() < self.field_count
    }

    /// Brings more bytes behind those at hand; false if none came until the deadline.
    pub(super) fn refill(&mut self, deadline: Option<Instant>) -> Result<bool, InputError> {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end > self.max_record_bytes {
            return Err(self.too_long());
        }
        if self.buf.len() - self.end < CHUNK_BYTES {
            // A record longer than the buffer: double it, so that the copying stays linear.
            let length = self.buf.len() * 2;
            self.buf.resize(length, 0);
        } else if self.buf.len() > 2 * CHUNK_BYTES && self.end < CHUNK_BYTES {
            self.buf.truncate(2 * CHUNK_BYTES);
            self.buf.shrink_to_fit();
        }
        let into = &mut self.buf[self.end..][..CHUNK_BYTES];
        match self.feed.step(into, deadline) {
            Ok(Step::Bytes(count)) => self.end += count,
            Ok(Step::Idle) => return Ok(false),
            Ok(Step::End) if self.feed.has_changed() => {
                return Err(InputError::Moving {
                    name: self.name.clone(),
                });
            }
            Ok(Step::End) => self.ended = true,
            Err(error) => {
                return Err(InputError::unpack(&self.name, self.feed.compression, error));
            }
        }
        Ok(true)
    }

    fn skip_byte_order_mark(&mut self) {
        if self.pending().starts_with(&BYTE_ORDER_MARK) {
            self.start += 3;
            self.at.byte += 3;
        }
    }

    /// Refuses what is neither delimited text nor JSON lines.
    fn check_kind(&self) -> Result<(), InputError> {
        let name = self.name.clone();
        let head = &self.pending()[..self.pending().len().min(HEAD_BYTES)];
        let is_utf8 = self.encoding == Encoding::UTF_8;
        // Its mark is text in others; the zeros in it are nowhere.
        if let Some(encoding) = wide_encoding(head)
            && (is_utf8 || head.contains(&0))
        {
            return Err(InputError::Encoding { name, encoding });
        }
        if head.starts_with(&BYTE_ORDER_MARK) && !is_utf8 {
            return Err(InputError::Foreign {
                name,
                kind: "UTF-8 by its byte order mark",
                advice: "leave --encoding out",
            });
        }
        match Foreign::of(head) {
            Some(Foreign { kind, advice }) => Err(InputError::Foreign { name, kind, advice }),
            None => Ok(()),
        }
    }

    /// Refuses a dialect that contradicts itself; here, because the format decides a part of it.
    fn check_dialect(&self, options: &ReadOptions, dialect: &Dialect) -> Result<(), InputError> {
        let clash = match self.format {
            Format::Ndjson => None,
            Format::Csv | Format::Tsv => dialect.clash(options),
        };
        match clash {
            Some(clash) => Err(InputError::Dialect {
                name: self.name.clone(),
                clash,
            }),
            None => Ok(()),
        }
    }

    pub(super) fn too_long(&self) -> InputError {
        InputError::TooLong {
            name: self.name.clone(),
            position: self.at,
            limit: self.max_record_bytes,
        }
    }

    /// How the source ends within its last record.
    pub(super) fn torn(&self) -> InputError {
        let (name, position) = (self.name.clone(), self.at);
        let delimited = self.format != Format::Ndjson;
        if delimited && self.splitter.ends_quoted(self.pending()) {
            InputError::UnclosedQuote { name, position }
        } else {
            InputError::CutOff { name, position }
        }
    }
}

pub(super) fn count(line_end: u8, bytes: &[u8]) -> u64 {
    memchr::memchr_iter(line_end, bytes).count() as u64
}
