//! A batch holds whole consecutive records of one source as raw bytes, and splits without
//! parsing them again.

use std::ops::Range;
use std::time::Instant;

use crate::span::{Position, Span};
use crate::window::FlushReason;

/// A run of whole consecutive records of one source; one batch becomes one commit.
///
/// The raw bytes stay until the commit is known, so that a retry or a split never reads the
/// source again.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Index of the source in the order of the command line (0-based).
    pub source: usize,
    /// Offset of the first byte in the uncompressed source (0-based).
    pub start_byte: u64,
    /// Number of the first record in its source (1-based, the header not counted).
    pub first_record: u64,
    /// Number of the line on which the first byte stands (1-based).
    pub first_line: u64,
    /// Line breaks within `bytes`, so that the next batch knows its first line.
    pub lines: u64,
    /// When the first record came in; the window's wait is counted from here.
    pub opened: Instant,
    /// Why the batch was closed.
    pub reason: FlushReason,
    /// Last byte of a line of the source.
    line_end: u8,
    bytes: Vec<u8>,
    /// Exclusive end of every record in `bytes`. `u32` halves the memory; a batch is far smaller
    /// than 4 GiB because one record is capped below that.
    ends: Vec<u32>,
}

impl Batch {
    /// An empty batch whose buffer holds `bytes` without growing.
    pub fn with_capacity(bytes: usize) -> Self {
        Batch {
            source: 0,
            start_byte: 0,
            first_record: 1,
            first_line: 1,
            lines: 0,
            opened: Instant::now(),
            reason: FlushReason::End,
            line_end: b'\n',
            bytes: Vec::with_capacity(bytes),
            ends: Vec::new(),
        }
    }

    /// Forgets the records and begins anew at `position`, with room for `keep` bytes. Of a buffer
    /// that a giant record has grown past twice that, the rest goes back to the system.
    pub fn restart(&mut self, source: usize, position: &Position, line_end: u8, keep: usize) {
        self.bytes.clear();
        self.ends.clear();
        if self.bytes.capacity() > keep.saturating_mul(2) {
            self.bytes.shrink_to(keep);
        }
        // Untouched pages cost nothing; growing step by step would copy.
        self.bytes.reserve(keep);
        self.source = source;
        self.line_end = line_end;
        self.start_byte = position.byte;
        self.first_record = position.record;
        self.first_line = position.line;
        self.lines = 0;
    }

    /// Appends `run`, the bytes of one or more whole records whose ends, relative to the start of
    /// the run, are `ends`.
    pub fn push_run(&mut self, run: &[u8], ends: &[u32]) {
        let base = self.bytes.len() as u32;
        self.ends.extend(ends.iter().map(|end| base + end));
        self.bytes.extend_from_slice(run);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the batch holds no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All raw bytes, line ends and skipped blank lines included.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Raw bytes of record `index` (0-based), its line end included.
    pub fn record(&self, index: usize) -> &[u8] {
        &self.bytes[self.range(index)]
    }

    /// Where record `index` (0-based) stands in [`Batch::bytes`].
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        };
        start..self.ends[index] as usize
    }

    /// Exclusive end of every record in [`Batch::bytes`].
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Last byte of a line of the source.
    pub fn line_end(&self) -> u8 {
        self.line_end
    }

    /// Range of the uncompressed source that the batch covers.
    pub fn span(&self) -> Range<u64> {
        self.start_byte..self.start_byte + self.bytes.len() as u64
    }

    /// The bytes of this span of the source; `None` if the batch does not cover all of it.
    pub fn within(&self, span: Range<u64>) -> Option<&[u8]> {
        let place = |at: u64| usize::try_from(at.checked_sub(self.start_byte)?).ok();
        self.bytes.get(place(span.start)?..place(span.end)?)
    }

    /// Records (0-based, exclusive ends) that lie in none of the spans `known`, which are in the
    /// order of their bytes; `None` if a record lies in one of them in part.
    pub fn outside(&self, known: &[Span]) -> Option<Vec<Range<usize>>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for index in 0..self.len() {
            let range = self.range(index);
            let [start, end] = [range.start, range.end].map(|at| self.start_byte + at as u64);
            let next = known.partition_point(|span| span.end <= start);
            match known.get(next).filter(|span| span.start < end) {
                Some(span) if span.start <= start && end <= span.end => {}
                Some(_) => return None,
                None => match parts.last_mut().filter(|part| part.end == index) {
                    Some(part) => part.end += 1,
                    None => parts.push(index..index + 1),
                },
            }
        }
        Some(parts)
    }

    /// Makes `into` hold the records of `part` (0-based).
    pub fn copy(&self, part: Range<usize>, into: &mut Batch) {
        let start = match part.start {
            0 => 0,
            _ => self.ends[part.start - 1] as usize,
        };
        let end = match part.end {
            0 => 0,
            _ => self.ends[part.end - 1] as usize,
        };
        let lines = |bytes| memchr::memchr_iter(self.line_end, bytes).count() as u64;
        let position = Position {
            byte: self.start_byte + start as u64,
            record: self.first_record + part.start as u64,
            line: self.first_line + lines(&self.bytes[..start]),
        };
        let bytes = &self.bytes[start..end];
        let ends: Vec<u32> = self.ends[part]
            .iter()
            .map(|end| end - start as u32)
            .collect();
        into.restart(self.source, &position, self.line_end, 0);
        into.push_run(bytes, &ends);
        into.lines = lines(bytes);
        into.opened = self.opened;
        into.reason = self.reason;
    }

    /// Position of record `index` (0-based) in its source. Counts line breaks from the start of
    /// the batch, so it is for messages, not for loops.
    pub fn position(&self, index: usize) -> Position {
        self.position_behind(index, &mut (0, self.first_line))
    }

    /// As [`Batch::position`], counting from a place in the bytes and its line, at or before the
    /// record; they are moved there.
    pub fn position_behind(&self, index: usize, counted: &mut (usize, u64)) -> Position {
        let range = self.range(index);
        let blank = self.bytes[range.clone()]
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        let start = if range.start + blank < range.end {
            range.start + blank
        } else {
            range.start
        };
        let (from, line) = *counted;
        let lines = memchr::memchr_iter(self.line_end, &self.bytes[from.min(start)..start]).count();
        *counted = (start, line + lines as u64);
        Position {
            byte: self.start_byte + start as u64,
            record: self.first_record + index as u64,
            line: counted.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        let mut batch = Batch::with_capacity(0);
        let position = Position {
            byte: 100,
            record: 11,
            line: 21,
        };
        batch.restart(0, &position, b'\n', 0);
        batch.push_run(b"a\n\"b\nb\"\n", &[2, 8]);
        batch.push_run(b"\n\nc\n", &[4]);
        batch
    }

    #[test]
    fn a_record_keeps_its_raw_bytes() {
        let batch = batch();
        assert_eq!(batch.len(), 3);
        assert_eq!(batch.record(0), b"a\n");
        assert_eq!(batch.record(1), b"\"b\nb\"\n");
        assert_eq!(batch.record(2), b"\n\nc\n");
        assert_eq!(batch.span(), 100..112);
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn what_is_committed_of_a_batch_is_cut_out_of_it() {
        let batch = batch();
        let known = |spans: &[(u64, u64)]| {
            let span = |&(start, end): &(u64, u64)| Span {
                start,
                end,
                ..Span::default()
            };
            batch.outside(&spans.iter().map(span).collect::<Vec<_>>())
        };
        assert_eq!(known(&[(0, 100), (112, 200)]), Some(vec![0..3]));
        assert_eq!(known(&[(90, 102)]), Some(vec![1..3]));
        assert_eq!(known(&[(102, 108)]), Some(vec![0..1, 2..3]));
        assert_eq!(known(&[(90, 102), (102, 108), (108, 200)]), Some(vec![]));
        assert_eq!(known(&[(90, 101)]), None);
        assert_eq!(known(&[(104, 200)]), None);

        let mut part = Batch::with_capacity(0);
        batch.copy(1..3, &mut part);
        assert_eq!(part.span(), 102..112);
        assert_eq!(
            (part.first_record, part.first_line, part.lines),
            (12, 22, 5)
        );
        assert_eq!(part.record(0), b"\"b\nb\"\n");
        assert_eq!(part.record(1), b"\n\nc\n");
    }

    #[test]
    fn a_position_counts_the_lines_inside_quotes_and_skips_blank_ones() {
        let batch = batch();
        let at = |index| {
            let position = batch.position(index);
            (position.byte, position.record, position.line)
        };
        assert_eq!(at(0), (100, 11, 21));
        assert_eq!(at(1), (102, 12, 22));
        assert_eq!(at(2), (110, 13, 26));
    }
}
