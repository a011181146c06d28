//! The readers of a load: each takes one source after the other.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use async_channel::Sender;

use super::engine::ReadTask;
use crate::batch::Batch;
use crate::queue::Entrance;
use crate::source::{Downstream, Format, Input, InputError, ReadOptions, Reader, Records};
use crate::span::{Known, Span};
use crate::window::Window;
use crate::worker::HEAD_ROWS;

/// The sources of a load, and what its readers share.
pub struct Sources {
    /// Those that no reader has taken yet, behind the first.
    pub waiting: Mutex<VecDeque<Waiting>>,
    /// What each of them must agree with.
    pub first: First,
    /// How they are read.
    pub options: ReadOptions,
    /// When a batch closes.
    pub window: Window,
    /// Stored bytes taken from the sources.
    pub taken: Arc<AtomicU64>,
    pub entrance: Entrance,
    /// Whether nothing may be committed if a source cannot be read to its end.
    pub all_or_nothing: bool,
}

/// A source that no reader has taken yet.
pub struct Waiting {
    pub index: usize,
    pub input: Input,
    /// What of it is committed already.
    pub known: Known,
}

/// What every further source must agree with.
pub struct First {
    /// Name of the first source.
    pub name: Arc<str>,
    pub format: Format,
    /// The names in its header.
    pub header: Option<Vec<String>>,
    /// Fields of a record.
    pub field_count: usize,
}

/// `count` readers; the first one begins with the source that is open, if that is to be read.
pub fn readers(count: usize, first: Option<(Records, Known)>, sources: Sources) -> Vec<ReadTask> {
    let limit = sources.options.limit;
    // Rows of other sources come behind the head of the first: whoever reads them waits until this
    // channel is closed.
    let (head, begun) = async_channel::bounded(1);
    let mut first = first.map(|(first, known)| {
        let reader = Reader::new(0, first, sources.window, limit, known);
        (reader, head)
    });
    let sources = Arc::new(sources);
    let reading = |_| -> ReadTask {
        let (sources, first, begun) = (sources.clone(), first.take(), begun.clone());
        Box::new(move || {
            let read = AssertUnwindSafe(|| {
                if first.is_none() {
                    let _ = begun.recv_blocking();
                }
                read_all(first, &sources)
            });
            let result = catch_unwind(read).unwrap_or(Err(InputError::Reader));
            if result.is_err() && sources.all_or_nothing {
                sources.entrance.stops.halt();
            }
            result
        })
    };
    (0..count).map(reading).collect()
}

/// Reads one source after the other until none waits.
fn read_all(first: Option<(Reader, Sender<()>)>, sources: &Sources) -> Result<(), InputError> {
    let mut limit = sources.options.limit;
    if let Some((first, head)) = first {
        let read = first.run(&Head(&sources.entrance, head))?;
        limit = limit.map(|limit| limit.saturating_sub(read));
    }
    while limit != Some(0) && !sources.entrance.stops.halt.is_set() {
        let next = sources.waiting.lock().ok();
        let Some(next) = next.and_then(|mut waiting| waiting.pop_front()) else {
            break;
        };
        let mut records = Records::open(&next.input, &sources.options, sources.taken.clone())?;
        sources.first.check(&mut records)?;
        let reader = Reader::new(next.index, records, sources.window, limit, next.known);
        let read = reader.run(&sources.entrance)?;
        limit = limit.map(|limit| limit.saturating_sub(read));
    }
    Ok(())
}

/// What stands behind the first source: says when its first rows are on their way.
struct Head<'a>(&'a Entrance, Sender<()>);

impl Downstream for Head<'_> {
    fn empty(&self) -> Option<Batch> {
        self.0.empty()
    }

    fn hand_over(&self, batch: Batch) -> bool {
        let over = batch.first_record + batch.len() as u64 > HEAD_ROWS;
        let handed_over = self.0.hand_over(batch);
        if over {
            self.1.close();
        }
        handed_over
    }

    fn known(&self, span: &Span) {
        self.0.known(span);
    }

    fn cut(&self, bytes: u64) {
        self.0.cut(bytes);
    }

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }

    fn is_closing(&self) -> bool {
        self.0.is_closing()
    }
}

impl First {
    /// # Errors
    /// When `records` is written otherwise, or has another header.
    pub(super) fn check(&self, records: &mut Records) -> Result<(), InputError> {
        if records.format() != self.format {
            return Err(InputError::OtherFormat {
                name: records.name().clone(),
                format: records.format(),
                first: self.format,
            });
        }
        if let Some(header) = &self.header
            && records.take_header()? != *header
        {
            return Err(InputError::OtherHeader {
                name: records.name().clone(),
                first: self.name.clone(),
            });
        }
        records.expect_fields(self.field_count);
        Ok(())
    }
}
