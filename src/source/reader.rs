//! Reads one source from start to end: records to batches, past what is committed already.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::records::{Records, count};
use super::{Change, InputError};
use crate::batch::Batch;
use crate::span::{Known, Position, Span};
use crate::window::{Fill, FlushReason, Window};

/// How often a reader that waits for a slow source looks whether the load was stopped.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// What stands behind a reader: takes its batches and says when to stop.
pub trait Downstream: Sync {
    /// An empty batch, waiting for one; `None` if nobody gives any back any more.
    fn empty(&self) -> Option<Batch>;

    /// Takes a closed batch; false if nobody takes batches any more.
    fn hand_over(&self, batch: Batch) -> bool;

    /// A span that an earlier run has committed is passed over.
    fn known(&self, span: &Span);

    /// So many bytes of an unfinished record were taken from a pipe and go no further.
    fn cut(&self, bytes: u64);

    /// Whether to give up all that is under way.
    fn is_stopped(&self) -> bool;

    /// Whether to take nothing more from the source. What was taken from a pipe is still handed
    /// over: nobody could read it again.
    fn is_closing(&self) -> bool;
}

pub struct Reader {
    /// Number of the source (0-based).
    index: usize,
    records: Records,
    window: Window,
    /// Records that may still be read.
    limit: u64,
    known: VecDeque<Span>,
}

impl Reader {
    /// A reader of source number `index` (0-based) that passes over the spans `known` and
    /// reads `limit` records at most, those passed over included.
    pub fn new(
        index: usize,
        records: Records,
        window: Window,
        limit: Option<u64>,
        known: Known,
    ) -> Self {
        Reader {
            index,
            records,
            window,
            limit: limit.unwrap_or(u64::MAX),
            known: known.into(),
        }
    }

    /// Reads to the end of the source, or until the load is stopped. Complete records before a
    /// failure are handed over before it is returned. Returns the number of records.
    ///
    /// # Errors
    /// When the source cannot be read on.
    pub fn run(mut self, downstream: &dyn Downstream) -> Result<u64, InputError> {
        let limit = self.limit;
        let mut open = OpenBatch::new(self.index, self.window, downstream);
        let result = self.read(&mut open);
        // What is read of a source that turns out to be another one is not what was asked for.
        let foreign = matches!(
            &result,
            Err(Halt::Failed(
                InputError::Changed { .. } | InputError::Moving { .. }
            ))
        );
        if !downstream.is_stopped() && !foreign {
            open.close(FlushReason::End);
        }
        match result {
            Ok(()) | Err(Halt::Stopped) => Ok(limit - self.limit),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn read(&mut self, open: &mut OpenBatch<'_>) -> Result<(), Halt> {
        loop {
            self.skip_known(open)?;
            self.take_records(open)?;
            if self.is_at_known() {
                continue;
            }
            let closing = open.downstream.is_closing();
            if open.downstream.is_stopped() || (closing && !self.records.feed.is_pipe()) {
                return Err(Halt::Stopped);
            }
            if self.records.ended || self.limit == 0 {
                return self.check_all_known_seen().map_err(Halt::Failed);
            }
            let stop_check = Instant::now() + STOP_CHECK;
            let deadline = if closing {
                // What is taken from the pipe is nowhere else, so all of it has to come.
                self.records.feed.close();
                None
            } else {
                let due = self.window.deadline(&open.fill);
                Some(due.map_or(stop_check, |due| due.min(stop_check)))
            };
            let more = self.records.refill(deadline)?;
            if closing && !more {
                open.downstream.cut(self.records.pending().len() as u64);
                return Ok(());
            }
            if self.window.is_due(&open.fill, Instant::now()) && !open.close(FlushReason::Wait) {
                return Err(Halt::Stopped);
            }
        }
    }

    /// Moves every whole record at hand into batches.
    fn take_records(&mut self, open: &mut OpenBatch<'_>) -> Result<(), Halt> {
        let records = &mut self.records;
        let mut run = Run {
            start: records.start,
            ends: std::mem::take(&mut open.ends),
        };
        // Where in the buffer the next committed span begins, if it does within reach.
        let next_known = self.known.front().map_or(usize::MAX, |span| {
            usize::try_from(span.start.saturating_sub(records.at.byte))
                .map_or(usize::MAX, |ahead| records.start.saturating_add(ahead))
        });
        let result = loop {
            if self.limit == 0 || records.start >= next_known {
                break Ok(());
            }
            let length = match records.next_length() {
                Ok(Some(length)) if length > records.max_record_bytes => {
                    open.take(records, &mut run);
                    break Err(Halt::Failed(records.too_long()));
                }
                Ok(Some(length)) => length,
                Ok(None) => break Ok(()),
                Err(()) => {
                    open.take(records, &mut run);
                    break Err(Halt::Failed(records.torn()));
                }
            };
            if let Some(reason) = self.window.closes_before(&open.fill, length) {
                open.take(records, &mut run);
                if !open.close(reason) {
                    break Err(Halt::Stopped);
                }
            }
            if open.fill.rows == 0 && !open.begin(&records.at, records.line_end()) {
                break Err(Halt::Stopped);
            }
            records.start += length;
            self.limit -= 1;
            run.ends.push((records.start - run.start) as u32);
            open.fill.rows += 1;
            open.fill.bytes += length;
            if let Some(reason) = self.window.closes_after(&open.fill) {
                open.take(records, &mut run);
                if !open.close(reason) {
                    break Err(Halt::Stopped);
                }
            }
        };
        open.take(records, &mut run);
        open.ends = run.ends;
        result
    }

    /// Whether the next byte is the first of a committed span.
    fn is_at_known(&self) -> bool {
        let next = self.known.front();
        next.is_some_and(|span| span.start <= self.records.at.byte)
    }

    /// Passes over the committed spans that begin here.
    fn skip_known(&mut self, open: &mut OpenBatch<'_>) -> Result<(), Halt> {
        while self.is_at_known() {
            let Some(span) = self.known.pop_front() else {
                break;
            };
            if !open.close(FlushReason::End) {
                return Err(Halt::Stopped);
            }
            self.records.pass(&span)?;
            self.limit = self.limit.saturating_sub(span.records);
            open.downstream.known(&span);
        }
        Ok(())
    }

    fn check_all_known_seen(&self) -> Result<(), InputError> {
        match self.known.front() {
            Some(span) if self.limit > 0 => Err(InputError::Changed {
                name: self.records.name().clone(),
                place: span.place(),
                change: Change::Bytes,
            }),
            _ => Ok(()),
        }
    }
}

/// Records found and not yet copied: one copy for many of them.
struct Run {
    start: usize,
    ends: Vec<u32>,
}

/// The batch being filled.
struct OpenBatch<'a> {
    source: usize,
    window: Window,
    downstream: &'a dyn Downstream,
    batch: Option<Batch>,
    fill: Fill,
    /// Room for the ends of a run.
    ends: Vec<u32>,
}

impl<'a> OpenBatch<'a> {
    fn new(source: usize, window: Window, downstream: &'a dyn Downstream) -> Self {
        OpenBatch {
            source,
            window,
            downstream,
            batch: None,
            fill: Fill::default(),
            ends: Vec::new(),
        }
    }

    /// Takes an empty batch, waiting for one; false if nobody gives any back any more.
    fn begin(&mut self, at: &Position, line_end: u8) -> bool {
        let Some(mut batch) = self.downstream.empty() else {
            return false;
        };
        batch.restart(self.source, at, line_end, self.window.bytes);
        let now = Instant::now();
        batch.opened = now;
        self.fill.opened = Some(now);
        self.batch = Some(batch);
        true
    }

    /// Copies the records of `run` into the batch.
    fn take(&mut self, records: &mut Records, run: &mut Run) {
        let bytes = records.taken_from(run.start);
        if let Some(batch) = &mut self.batch {
            let lines = count(records.line_end(), bytes);
            batch.push_run(bytes, &run.ends);
            batch.lines += lines;
            records.advance(bytes.len() as u64, run.ends.len() as u64, lines);
        }
        run.start = records.start;
        run.ends.clear();
    }

    /// Hands the batch over; false if nobody listens any more.
    fn close(&mut self, reason: FlushReason) -> bool {
        self.fill = Fill::default();
        let Some(mut batch) = self.batch.take().filter(|batch| !batch.is_empty()) else {
            return true;
        };
        batch.reason = reason;
        self.downstream.hand_over(batch)
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
