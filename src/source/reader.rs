//! Reads one source from start to end: bytes to record boundaries to batches, with a bounded
//! number of batches under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::compression::Compression;
use super::csv::{Dialect, Splitter};
use super::feed::{CHUNK_BYTES, Feed, Step};
use super::fields::Fields;
use super::ndjson::{self, Keys};
use super::{Format, Input, InputError, Position, ReadOptions, RowParser, csv, hash_all};
use crate::batch::Batch;
use crate::ledger::Span;
use crate::overflow::{HandOver, Outlet};
use crate::report::Counters;
use crate::stop::Stop;
use crate::window::{Fill, FlushReason, Window};

/// How often a reader that waits for a slow source looks whether the load was stopped.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// What the readers of one load share.
pub struct Shared {
    /// When a batch closes.
    pub window: Window,
    /// Where empty batches come from; a reader waits here when all are under way.
    pub empty: async_channel::Receiver<Batch>,
    /// Where full batches go.
    pub outlet: Outlet,
    /// What the load counts.
    pub counters: Arc<Counters>,
    /// Whether to give up all that is under way.
    pub stop: Arc<Stop>,
    /// Whether to take nothing more from the sources. What was taken from a pipe is still handed
    /// over: nobody could read it again.
    pub close: Arc<Stop>,
}

/// A fixed number of batch buffers that go round between readers and workers.
pub struct Pool {
    /// For the readers.
    pub empty: async_channel::Receiver<Batch>,
    /// For the workers, which give every buffer back.
    pub give_back: async_channel::Sender<Batch>,
}

impl Pool {
    /// A pool of `buffers` empty batches. Their memory is taken when they are first filled.
    pub fn new(buffers: usize) -> Self {
        let (give_back, empty) = async_channel::bounded(buffers.max(1));
        for _ in 0..buffers.max(1) {
            // The channel has room for exactly this many.
            let _ = give_back.try_send(Batch::with_capacity(0));
        }
        Pool { empty, give_back }
    }
}

/// Reads one source.
pub struct Reader {
    index: usize,
    name: Arc<str>,
    feed: Feed,
    format: Format,
    dialect: Dialect,
    splitter: Splitter,
    /// Bytes of an open JSON line that are known to hold no line break.
    scanned: usize,
    /// Bytes read and not yet in a batch: `buf[start..end]`.
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// Where `buf[start]` stands in the source.
    at: Position,
    ended: bool,
    max_record_bytes: usize,
    limit: u64,
    /// Stretches that an earlier run has committed, in their order.
    known: VecDeque<Span>,
}

impl Reader {
    /// Opens source number `index` (0-based) and reads its first bytes.
    ///
    /// # Errors
    /// When it cannot be opened, read or unpacked, or is not UTF-8 by its byte order mark.
    pub fn open(
        index: usize,
        input: &Input,
        options: &ReadOptions,
        taken: Arc<AtomicU64>,
    ) -> Result<Self, InputError> {
        let name = input.name();
        let feed = Feed::open(input, options.compression, taken)?;
        let mut reader = Reader {
            index,
            name,
            feed,
            format: Format::Csv,
            dialect: Dialect::default(),
            splitter: Splitter::new(Dialect::default()),
            scanned: 0,
            buf: vec![0; 2 * CHUNK_BYTES],
            start: 0,
            end: 0,
            at: Position {
                byte: 0,
                record: 1,
                line: 1,
            },
            ended: false,
            max_record_bytes: options.max_record_bytes,
            limit: options.limit.unwrap_or(u64::MAX),
            known: VecDeque::new(),
        };
        // The first line tells how lines end; a quoted field may hide it for a while.
        while reader.end < CHUNK_BYTES && !reader.ended {
            let [lf, cr] = [b'\n', b'\r'].map(|end| memchr::memchr(end, reader.pending()));
            // A byte order mark begins above ASCII and takes three bytes.
            let enough =
                reader.end >= 3 || reader.buf[..reader.end].first().is_some_and(u8::is_ascii);
            if enough && (lf.is_some() || cr.is_some_and(|at| at + 1 < reader.end)) {
                break;
            }
            reader.refill(None)?;
        }
        reader.skip_byte_order_mark()?;
        reader.format = options
            .format
            .unwrap_or_else(|| detect_format(input, reader.pending()));
        let delimiter = match reader.format {
            Format::Tsv => b'\t',
            _ => b',',
        };
        reader.dialect = Dialect {
            delimiter: options.delimiter.unwrap_or(delimiter),
            quote: options.quote,
            escape: options.escape.or(options.quote).unwrap_or(b'"'),
            null: options.null.clone().into_bytes(),
            line_end: b'\n',
            skip_blank: true,
        };
        reader.dialect.line_end = reader.dialect.detect_line_end(reader.pending());
        reader.splitter = Splitter::new(reader.dialect.clone());
        Ok(reader)
    }

    /// Stored bytes of an input that is not open yet, where known.
    ///
    /// # Errors
    /// When it is missing or a directory.
    pub fn size_of(input: &Input) -> Result<Option<u64>, InputError> {
        Feed::size_of(input)
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

    /// `names` as a header line of this source's dialect.
    pub fn header_line(&self, names: &[String]) -> Vec<u8> {
        let mut line = Vec::new();
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                line.push(self.dialect.delimiter);
            }
            match self.dialect.quote {
                None => line.extend_from_slice(name.as_bytes()),
                Some(quote) => {
                    line.push(quote);
                    for &byte in name.as_bytes() {
                        if byte == quote || byte == self.dialect.escape {
                            line.push(self.dialect.escape);
                        }
                        line.push(byte);
                    }
                    line.push(quote);
                }
            }
        }
        line.push(self.dialect.line_end);
        line
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

    /// A parser of this source's records into the given columns: names, and whether the type is
    /// json or jsonb.
    pub fn parser(&mut self, columns: &[(String, bool)]) -> RowParser {
        self.expect_columns(columns.len());
        match self.format {
            Format::Ndjson => RowParser::ndjson(Keys::new(columns.iter().cloned()), columns.len()),
            _ => RowParser::delimited(self.dialect.clone(), columns.len()),
        }
    }

    /// Says how many fields a record has: blank lines are records only where it is one.
    pub fn expect_columns(&mut self, columns: usize) {
        self.dialect.skip_blank = columns != 1;
        self.splitter = Splitter::new(self.dialect.clone());
    }

    /// Passes over stretches that are committed already, given in their order.
    pub fn skip(&mut self, known: Vec<Span>) {
        self.known = known.into();
    }

    /// The reading options that shape rows, as the ledger keeps them.
    pub fn reading(&self, header: bool) -> serde_json::Value {
        if self.format == Format::Ndjson {
            return serde_json::json!({ "format": self.format.name() });
        }
        let text = |byte: u8| char::from(byte).to_string();
        serde_json::json!({
            "format": "csv",
            "delimiter": text(self.dialect.delimiter),
            "quote": self.dialect.quote.map(text),
            "escape": text(self.dialect.escape),
            "null": String::from_utf8_lossy(&self.dialect.null),
            "header": header,
            "line_end": if self.dialect.line_end == b'\r' { "cr" } else { "lf" },
        })
    }

    /// Reads to the end of the source, or until the load is stopped. Complete records before a
    /// failure are handed over before it is returned. Returns the number of records.
    ///
    /// # Errors
    /// When the source cannot be read on.
    pub fn run(mut self, shared: &Shared) -> Result<u64, InputError> {
        let limit = self.limit;
        let mut assembly = Assembly::new(self.index);
        let result = self.assemble(shared, &mut assembly);
        // What is read of a source that turns out to be another one is not what was asked for.
        let foreign = matches!(&result, Err(Halt::Failed(InputError::Changed { .. })));
        if !shared.stop.is_set() && !foreign {
            assembly.close(shared, FlushReason::End);
        }
        match result {
            Ok(()) | Err(Halt::Stopped) => Ok(limit - self.limit),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn assemble(&mut self, shared: &Shared, assembly: &mut Assembly) -> Result<(), Halt> {
        loop {
            self.skip_known(shared, assembly)?;
            self.take_records(shared, assembly)?;
            if self.is_at_known() {
                continue;
            }
            let closing = shared.close.is_set();
            if shared.stop.is_set() || (closing && !self.feed.is_pipe()) {
                return Err(Halt::Stopped);
            }
            if self.ended || self.limit == 0 {
                return self.check_all_known_seen().map_err(Halt::Failed);
            }
            let stop_check = Instant::now() + STOP_CHECK;
            let deadline = if closing {
                // What is taken from the pipe is nowhere else, so all of it has to come.
                self.feed.close();
                None
            } else {
                let due = shared.window.deadline(&assembly.fill);
                Some(due.map_or(stop_check, |due| due.min(stop_check)))
            };
            let more = self.refill(deadline)?;
            if closing && !more {
                let cut = (self.end - self.start) as u64;
                shared.counters.cut_bytes.fetch_add(cut, Ordering::Relaxed);
                return Ok(());
            }
            if shared.window.is_due(&assembly.fill, Instant::now())
                && !assembly.close(shared, FlushReason::Wait)
            {
                return Err(Halt::Stopped);
            }
        }
    }

    /// Moves every whole record at hand into batches.
    fn take_records(&mut self, shared: &Shared, assembly: &mut Assembly) -> Result<(), Halt> {
        let mut run = Run {
            start: self.start,
            ends: std::mem::take(&mut assembly.ends),
        };
        // Where in `buf` the next committed stretch begins, if it does within reach.
        let stretch = self.known.front().map_or(usize::MAX, |span| {
            usize::try_from(span.start.saturating_sub(self.at.byte))
                .map_or(usize::MAX, |ahead| self.start.saturating_add(ahead))
        });
        let result = loop {
            if self.limit == 0 || self.start >= stretch {
                break Ok(());
            }
            let length = match self.next_length() {
                Ok(Some(length)) if length > self.max_record_bytes => {
                    self.hand_over(&mut run, assembly);
                    break Err(Halt::Failed(self.too_long()));
                }
                Ok(Some(length)) => length,
                Ok(None) => break Ok(()),
                Err(()) => {
                    self.hand_over(&mut run, assembly);
                    break Err(Halt::Failed(self.unclosed()));
                }
            };
            if let Some(reason) = shared.window.closes_before(&assembly.fill, length) {
                self.hand_over(&mut run, assembly);
                if !assembly.close(shared, reason) {
                    break Err(Halt::Stopped);
                }
            }
            if assembly.fill.rows == 0 && !assembly.begin(shared, &self.at, self.dialect.line_end) {
                break Err(Halt::Stopped);
            }
            self.start += length;
            self.limit -= 1;
            run.ends.push((self.start - run.start) as u32);
            assembly.fill.rows += 1;
            assembly.fill.bytes += length;
            if let Some(reason) = shared.window.closes_after(&assembly.fill) {
                self.hand_over(&mut run, assembly);
                if !assembly.close(shared, reason) {
                    break Err(Halt::Stopped);
                }
            }
        };
        self.hand_over(&mut run, assembly);
        assembly.ends = run.ends;
        result
    }

    /// Whether the next byte is the first of a committed stretch.
    fn is_at_known(&self) -> bool {
        let next = self.known.front();
        next.is_some_and(|span| span.start <= self.at.byte)
    }

    /// Passes over the committed stretches that begin here.
    fn skip_known(&mut self, shared: &Shared, assembly: &mut Assembly) -> Result<(), Halt> {
        while self.is_at_known() {
            let Some(span) = self.known.pop_front() else {
                break;
            };
            if span.start != self.at.byte {
                return Err(Halt::Failed(self.changed()));
            }
            if !assembly.close(shared, FlushReason::End) {
                return Err(Halt::Stopped);
            }
            let last = self.pass(&span)?;
            self.check_record_ended(last)?;
            self.at = Position {
                byte: span.end,
                record: self.at.record + span.records,
                line: self.at.line + span.lines,
            };
            self.splitter = Splitter::new(self.dialect.clone());
            self.scanned = 0;
            self.limit = self.limit.saturating_sub(span.records);
            shared.counters.known(&span);
        }
        Ok(())
    }

    /// Moves on to the end of `span`: by seeking where the input can, else by reading its bytes,
    /// which are then compared with the checksum. Returns the last byte of it.
    fn pass(&mut self, span: &Span) -> Result<u8, InputError> {
        let mut left = span.end - span.start;
        let mut hash = Some(hash_all());
        let mut last = 0;
        loop {
            let at_hand = (self.end - self.start).min(usize::try_from(left).unwrap_or(usize::MAX));
            let passed = &self.buf[self.start..self.start + at_hand];
            last = passed.last().copied().unwrap_or(last);
            if let Some(hash) = &mut hash {
                hash.write(passed);
            }
            self.start += at_hand;
            left -= at_hand as u64;
            if left == 0 {
                break;
            }
            if left > 1 {
                let seeks = self.feed.seek(left - 1);
                if seeks
                    .map_err(|error| InputError::unpack(&self.name, self.feed.compression, error))?
                {
                    hash = None;
                    left = 1;
                }
            }
            if self.ended {
                return Err(self.changed());
            }
            self.refill(None)?;
        }
        match (&span.checksum, hash) {
            (Some(checksum), Some(hash)) if *checksum != format!("{:032x}", hash.finish_128()) => {
                Err(self.changed())
            }
            _ => Ok(last),
        }
    }

    /// A committed stretch that ends in the middle of a line was the end of its source. If more
    /// follows now, its last record was only a part of what stands here.
    fn check_record_ended(&mut self, last: u8) -> Result<(), InputError> {
        let line_end = match self.format {
            Format::Ndjson => b'\n',
            _ => self.dialect.line_end,
        };
        if last == line_end {
            return Ok(());
        }
        while self.start == self.end && !self.ended {
            self.refill(None)?;
        }
        if self.start == self.end {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    fn check_all_known_seen(&self) -> Result<(), InputError> {
        if self.known.is_empty() || self.limit == 0 {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    fn too_long(&self) -> InputError {
        InputError::TooLong {
            name: self.name.clone(),
            position: self.at,
            limit: self.max_record_bytes,
        }
    }

    fn unclosed(&self) -> InputError {
        InputError::UnclosedQuote {
            name: self.name.clone(),
            position: self.at,
        }
    }

    fn changed(&self) -> InputError {
        InputError::Changed {
            name: self.name.clone(),
            byte: self.at.byte,
        }
    }

    /// Copies the records of `run` into the open batch.
    fn hand_over(&mut self, run: &mut Run, assembly: &mut Assembly) {
        let bytes = &self.buf[run.start..self.start];
        if let Some(batch) = &mut assembly.batch {
            let lines = count(self.dialect.line_end, bytes);
            batch.push_run(bytes, &run.ends);
            batch.lines += lines;
            self.at.byte += bytes.len() as u64;
            self.at.record += run.ends.len() as u64;
            self.at.line += lines;
        }
        run.start = self.start;
        run.ends.clear();
    }

    /// Length of the record at `start`, if it is at hand as a whole; an error if the source ends
    /// inside quotes.
    #[inline]
    fn next_length(&mut self) -> Result<Option<usize>, ()> {
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

    fn pending(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Brings more bytes behind those at hand; false if none came until the deadline.
    fn refill(&mut self, deadline: Option<Instant>) -> Result<bool, InputError> {
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

    fn skip_byte_order_mark(&mut self) -> Result<(), InputError> {
        let encoding = match self.pending() {
            [0xef, 0xbb, 0xbf, ..] => {
                self.start += 3;
                self.at.byte += 3;
                return Ok(());
            }
            [0xff, 0xfe, ..] => "UTF-16LE",
            [0xfe, 0xff, ..] => "UTF-16BE",
            _ => return Ok(()),
        };
        Err(InputError::Encoding {
            name: self.name.clone(),
            encoding,
        })
    }
}

/// Records found and not yet copied: one copy for many of them.
struct Run {
    start: usize,
    ends: Vec<u32>,
}

/// The batch being filled.
struct Assembly {
    source: usize,
    batch: Option<Batch>,
    /// An empty buffer that need not be waited for.
    spare: Option<Batch>,
    fill: Fill,
    ends: Vec<u32>,
}

impl Assembly {
    fn new(source: usize) -> Self {
        Assembly {
            source,
            batch: None,
            spare: None,
            fill: Fill::default(),
            ends: Vec::new(),
        }
    }

    /// Takes an empty batch, waiting for one; false if nobody gives any back any more.
    fn begin(&mut self, shared: &Shared, at: &Position, line_end: u8) -> bool {
        let waiting = Instant::now();
        let free = self
            .spare
            .take()
            .or_else(|| shared.empty.recv_blocking().ok());
        shared.counters.reader_waited(waiting.elapsed());
        let Some(mut batch) = free else {
            return false;
        };
        batch.restart(self.source, at, line_end, shared.window.bytes);
        let now = Instant::now();
        batch.opened = now;
        self.fill.opened = Some(now);
        self.batch = Some(batch);
        true
    }

    /// Hands the batch to the workers; false if none listens any more.
    fn close(&mut self, shared: &Shared, reason: FlushReason) -> bool {
        self.fill = Fill::default();
        let Some(mut batch) = self.batch.take().filter(|batch| !batch.is_empty()) else {
            return true;
        };
        batch.reason = reason;
        let waiting = Instant::now();
        let handed_over = shared.outlet.hand_over(batch);
        shared.counters.reader_waited(waiting.elapsed());
        match handed_over {
            HandOver::Taken => true,
            HandOver::Free(batch) => {
                self.spare = Some(batch);
                true
            }
            HandOver::Gone => false,
        }
    }
}

enum Halt {
    Stopped,
    Failed(InputError),
}

impl From<InputError> for Halt {
    fn from(error: InputError) -> Self {
        Halt::Failed(error)
    }
}

fn count(line_end: u8, bytes: &[u8]) -> u64 {
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
