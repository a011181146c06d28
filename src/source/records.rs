//! Finds the records of one source: bytes from its feed, boundaries by its format, and the place of
//! the next record.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::compression::Compression;
use super::csv::{self, Dialect, Splitter};
use super::feed::{CHUNK_BYTES, Feed, Step};
use super::fields::Fields;
use super::foreign::{Foreign, HEAD_BYTES, other_delimiter, wide_encoding};
use super::ndjson;
use super::reading::Reading;
use super::{Format, Input, InputError, ReadOptions};
use crate::span::Position;

/// The records of an opened source.
pub struct Records {
    name: Arc<str>,
    pub(super) feed: Feed,
    format: Format,
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
}

impl Records {
    /// Opens a source and reads its first bytes.
    ///
    /// # Errors
    /// When it cannot be opened, read or unpacked, or is plainly something else than text in UTF-8.
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
            dialect: Dialect::default(),
            splitter: Splitter::new(Dialect::default()),
            scanned: 0,
            buf: vec![0; 2 * CHUNK_BYTES],
            start: 0,
            end: 0,
            at: Position::START,
            ended: false,
            max_record_bytes: options.max_record_bytes,
        };
        // The first line tells how lines end; a quoted field may hide it for a while.
        while records.end < CHUNK_BYTES && !records.ended {
            let [lf, cr] = [b'\n', b'\r'].map(|end| memchr::memchr(end, records.pending()));
            // A byte order mark begins above ASCII and takes three bytes.
            let enough =
                records.end >= 3 || records.buf[..records.end].first().is_some_and(u8::is_ascii);
            if enough && (lf.is_some() || cr.is_some_and(|at| at + 1 < records.end)) {
                break;
            }
            records.refill(None)?;
        }
        records.check_kind()?;
        records.skip_byte_order_mark();
        records.format = options
            .format
            .unwrap_or_else(|| detect_format(input, records.pending()));
        let delimiter = match records.format {
            Format::Tsv => b'\t',
            _ => b',',
        };
        records.dialect = Dialect {
            delimiter: options.delimiter.unwrap_or(delimiter),
            quote: options.quote,
            escape: options.escape.or(options.quote).unwrap_or(b'"'),
            null: options.null.clone().into_bytes(),
            line_end: b'\n',
            skip_blank: true,
        };
        records.check_dialect(options)?;
        records.dialect.line_end = records.dialect.detect_line_end(records.pending());
        records.splitter = Splitter::new(records.dialect.clone());
        Ok(records)
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
            if let Some(length) = self.next_length().map_err(|()| self.unclosed())? {
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
        let mut fields = Fields::default();
        csv::parse(&self.dialect, record, &mut fields).map_err(|source| InputError::Header {
            name: self.name.clone(),
            line: self.at.line,
            source,
            delimiter: other_delimiter(record, self.dialect.delimiter),
        })?;
        let names = (0..fields.len())
            .map(|index| {
                let text = fields.get(record, index).unwrap_or_default();
                String::from_utf8_lossy(text).into_owned()
            })
            .collect();
        let lines = count(self.dialect.line_end, record);
        self.start += length;
        self.at.byte += length as u64;
        self.at.line += lines;
        Ok(names)
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
            for name in ndjson::keys_of(line).unwrap_or_default() {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    /// Says how many fields a record has: blank lines are records only where it is one.
    pub fn expect_columns(&mut self, columns: usize) {
        self.dialect.skip_blank = columns != 1;
        self.splitter = Splitter::new(self.dialect.clone());
    }

    /// How the records are read, as the ledger keeps it.
    pub fn reading(&self, header: bool) -> Reading {
        match self.format {
            Format::Ndjson => Reading::Ndjson,
            Format::Csv | Format::Tsv => Reading::delimited(&self.dialect, header),
        }
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Bytes at hand from `start` on that were taken already.
    pub(super) fn taken_from(&self, start: usize) -> &[u8] {
        &self.buf[start..self.start]
    }

    /// Moves on by `bytes` that are not at hand, without bringing them; false if the input cannot.
    pub(super) fn seek(&mut self, bytes: u64) -> Result<bool, InputError> {
        let sought = self.feed.seek(bytes);
        sought.map_err(|error| InputError::unpack(&self.name, self.feed.compression, error))
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
            Format::Csv | Format::Tsv => self.dialect.line_end,
        }
    }

    /// Length of the next record, if it is at hand as a whole; an error if the source ends inside
    /// quotes.
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
        Ok(if delimited {
            self.splitter.last_end(bytes)
        } else {
            self.scanned = 0;
            (!bytes.trim_ascii().is_empty()).then_some(bytes.len())
        })
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
            Ok(Step::End) => self.ended = true,
            Err(error) => {
                return Err(InputError::unpack(&self.name, self.feed.compression, error));
            }
        }
        Ok(true)
    }

    fn skip_byte_order_mark(&mut self) {
        if self.pending().starts_with(&[0xef, 0xbb, 0xbf]) {
            self.start += 3;
            self.at.byte += 3;
        }
    }

    /// Refuses what is neither delimited text nor JSON lines in UTF-8.
    fn check_kind(&self) -> Result<(), InputError> {
        let name = self.name.clone();
        let head = &self.pending()[..self.pending().len().min(HEAD_BYTES)];
        if let Some(encoding) = wide_encoding(head) {
            return Err(InputError::Encoding { name, encoding });
        }
        match Foreign::of(head) {
            Some(Foreign { kind, advice }) => Err(InputError::Foreign { name, kind, advice }),
            None => Ok(()),
        }
    }

    /// Refuses a dialect that contradicts itself; here, because the format decides a part of it.
    fn check_dialect(&self, options: &ReadOptions) -> Result<(), InputError> {
        let clash = match self.format {
            Format::Ndjson => None,
            Format::Csv | Format::Tsv => self.dialect.clash(options.escape.is_some()),
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

    pub(super) fn unclosed(&self) -> InputError {
        InputError::UnclosedQuote {
            name: self.name.clone(),
            position: self.at,
        }
    }

    pub(super) fn changed(&self) -> InputError {
        InputError::Changed {
            name: self.name.clone(),
            byte: self.at.byte,
        }
    }
}

pub(super) fn count(line_end: u8, bytes: &[u8]) -> u64 {
    memchr::memchr_iter(line_end, bytes).count() as u64
}

fn detect_format(input: &Input, head: &[u8]) -> Format {
    let name = input.name().to_ascii_lowercase();
    let packed = [".gz", ".zst", ".lz4", ".bz2", ".xz"];
    let stem = packed
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(&name);
    if [".ndjson", ".jsonl", ".json"]
        .iter()
        .any(|suffix| stem.ends_with(suffix))
    {
        Format::Ndjson
    } else if [".tsv", ".tab"].iter().any(|suffix| stem.ends_with(suffix)) {
        Format::Tsv
    } else if !stem.ends_with(".csv") && head.trim_ascii_start().first() == Some(&b'{') {
        Format::Ndjson
    } else {
        Format::Csv
    }
}
